// SPDX-License-Identifier: Apache-2.0
//
// Tokens, digests and what became of them are seen where they cross between the client's modules: the linker sends
// those calls through the functions at the end of this file (`--wrap`), and the library itself knows nothing of it.
#include "tests/sim/recorder.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/net/message.h"

static struct {
    int fd;
    uint64_t run; // names this process: when it began
    char client[32];
    pthread_mutex_t lock;
    struct landed landed; // lock
} recorder = {.fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "sim-client: %s: %m\n", what);
    exit(1);
}

void recorder_open(const char *path, const char *client)
{
    recorder.fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (recorder.fd < 0)
        give_up(path);
    recorder.run = now_ns();
    recorder_speak_for(client);
}

void recorder_speak_for(const char *client)
{
    snprintf(recorder.client, sizeof recorder.client, "%s", client);
}

void line_begin(struct line *line, const char *event, const char *op, uint64_t id)
{
    buffer_init(&line->text, LINE_SIZE_MAX);
    line_add(line, "{\"t\":%llu,\"c\":\"%s\",\"r\":%llu,\"i\":%llu,\"e\":\"%s\",\"op\":\"%s\"",
             (unsigned long long)now_ns(), recorder.client, (unsigned long long)recorder.run,
             (unsigned long long)id, event, op);
}

void line_add(struct line *line, const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    CHECK(size >= 0 && (size_t)size < sizeof text);
    if (buffer_append(&line->text, text, (size_t)size, NULL) != GRAFT_OK)
        give_up("a line of the history is too long");
}

void line_add_vid(struct line *line, const struct gid *vid)
{
    line_add(line, ",\"vid\":\"%s\"", gid_format(vid).text);
}

void line_add_hex(struct line *line, const char *key, const void *bytes, size_t size)
{
    line_add(line, ",\"%s\":\"", key);
    for (size_t i = 0; i < size; i++)
        line_add(line, "%02x", ((const uint8_t *)bytes)[i]);
    line_add(line, "\"");
}

struct hex32 hex32(const void *bytes)
{
    static const char digits[] = "0123456789abcdef";
    struct hex32 hex = {.text = ""};

    for (size_t i = 0; i < 16; i++) {
        hex.text[2 * i] = digits[((const uint8_t *)bytes)[i] >> 4];
        hex.text[2 * i + 1] = digits[((const uint8_t *)bytes)[i] & 15];
    }
    return hex;
}

void line_add_state(struct line *line, struct graft_volume *volume)
{
    struct store_state state;

    store_volume_state(volume->store, &state);
    line_add_vid(line, &state.vid);
    line_add_hex(line, "chain", state.remote.chain.bytes, HASH_SIZE);
    line_add(line, ",\"local\":%llu,\"mapped\":%llu,\"remote\":%llu,\"count\":%u,\"status\":\"%s\"",
             (unsigned long long)state.local_lsn, (unsigned long long)state.mapped_lsn,
             (unsigned long long)state.remote.lsn, state.page_count, graft_volume_status_text(state.status));
    if (state.push.phase != STORE_PUSH_IDLE) {
        line_add_hex(line, "token", state.push.token.bytes, TOKEN_SIZE);
        line_add(line, ",\"base\":%llu,\"from\":%llu,\"to\":%llu,\"cut\":%u,\"pushes\":%u",
                 (unsigned long long)state.push.base.lsn, (unsigned long long)state.push.from_lsn,
                 (unsigned long long)state.push.to_lsn, state.push.cut, state.push.page_count);
    }
}

void line_add_error(struct line *line, const struct graft_error *err)
{
    char message[sizeof err->message];
    size_t size = 0;

    for (const char *at = err->message; *at; at++)
        message[size++] = *at == '"' || *at == '\\' || (unsigned char)*at < ' ' ? '\'' : *at;
    message[size] = 0;
    line_add(line, ",\"error\":\"%s\",\"detail\":\"%s\",\"message\":\"%s\"", graft_status_text(err->status),
             graft_detail_text(err->detail), message);
}

void line_write(struct line *line)
{
    line_add(line, "}\n");
    struct bytes text = buffer_bytes(&line->text);
    if (write(recorder.fd, text.data, text.size) != (ssize_t)text.size)
        give_up("writing the history");
    buffer_release(&line->text);
}

const char *line_event_of(enum graft_status status)
{
    switch (status) {
    case GRAFT_OK:
        return "ok";
    case GRAFT_UNAVAILABLE:
    case GRAFT_UNKNOWN:
    case GRAFT_CANCELLED:
    case GRAFT_INTERNAL:
        return "info";
    default:
        return "fail";
    }
}

struct landed recorder_landed(void)
{
    pthread_mutex_lock(&recorder.lock);
    struct landed landed = recorder.landed;
    pthread_mutex_unlock(&recorder.lock);
    return landed;
}

// ---- what the linker sends through here ---------------------------------------------------------

#define WRAPPED(name) typeof(name) __real_##name, __wrap_##name

WRAPPED(store_push_begin);
WRAPPED(store_push_settle);
WRAPPED(store_push_reject);
WRAPPED(store_push_give_up);
WRAPPED(store_push_abandon);
WRAPPED(store_apply_pull);
WRAPPED(store_apply_reset);
WRAPPED(remote_commit);
WRAPPED(store_fork_begin);

// A token is logged once it is durable: before that no message has it, and a process that dies in between logs it when
// it opens the volume again.
enum graft_status __wrap_store_push_begin(struct store_volume *volume, const struct token *token,
                                          struct store_push *ret_push, struct graft_error *err)
{
    enum graft_status status = __real_store_push_begin(volume, token, ret_push, err);
    struct store_state state;
    struct line line;

    if (status != GRAFT_OK)
        return status;
    store_volume_state(volume, &state);
    line_begin(&line, "note", "begin", 0);
    line_add_vid(&line, &state.vid);
    line_add_hex(&line, "token", ret_push->token.bytes, TOKEN_SIZE);
    line_add(&line, ",\"base\":%llu,\"from\":%llu,\"to\":%llu,\"cut\":%u,\"pushes\":%u",
             (unsigned long long)ret_push->base.lsn, (unsigned long long)ret_push->from_lsn,
             (unsigned long long)ret_push->to_lsn, ret_push->cut, ret_push->page_count);
    line_write(&line);
    return status;
}

// Every CommitRequest that leaves, whatever it is for.
enum graft_status __wrap_remote_commit(const struct remote *remote, struct bytes request,
                                       struct remote_commit *ret_commit, struct rpc_failure *ret_failure,
                                       struct graft_error *err)
{
    ProtobufCMessage *message = NULL;
    struct line line;

    if (message_decode(&graft__commit_request__descriptor, request, 64 * MIB, &message, NULL) == GRAFT_OK) {
        const Graft__CommitRequest *commit = (const Graft__CommitRequest *)message;
        line_begin(&line, "note", "send", 0);
        line_add_vid(&line, (const struct gid *)commit->vid.data);
        line_add_hex(&line, "token", commit->token.data, commit->token.len);
        line_add_hex(&line, "digest", commit->digest.data, commit->digest.len);
        line_add(&line, ",\"base\":%llu,\"pushes\":%u,\"cut\":%u,\"segments\":%zu",
                 (unsigned long long)commit->base_lsn, commit->page_count, commit->cut, commit->n_segments);
        line_write(&line);
        message_free(message);
    }
    return __real_remote_commit(remote, request, ret_commit, ret_failure, err);
}

enum graft_status __wrap_store_push_settle(struct store_volume *volume, const struct store_remote *remote,
                                           struct graft_error *err)
{
    struct store_state before;
    struct line line;

    store_volume_state(volume, &before);
    enum graft_status status = __real_store_push_settle(volume, remote, err);
    if (status != GRAFT_OK)
        return status;
    line_begin(&line, "note", "settle", 0);
    line_add_vid(&line, &before.vid);
    line_add_hex(&line, "token", before.push.token.bytes, TOKEN_SIZE);
    line_add_hex(&line, "digest", before.push.digest.bytes, HASH_SIZE);
    line_add_hex(&line, "chain", remote->chain.bytes, HASH_SIZE);
    line_add(&line, ",\"lsn\":%llu", (unsigned long long)remote->lsn);
    line_write(&line);
    pthread_mutex_lock(&recorder.lock);
    recorder.landed = (struct landed){recorder.landed.count + 1, remote->lsn, before.push.token};
    pthread_mutex_unlock(&recorder.lock);
    return status;
}

static void note_end(const char *op, const struct store_state *before, const struct graft_error *why)
{
    struct line line;

    line_begin(&line, "note", op, 0);
    line_add_vid(&line, &before->vid);
    line_add_hex(&line, "token", before->push.token.bytes, TOKEN_SIZE);
    if (why)
        line_add_error(&line, why);
    line_write(&line);
}

enum graft_status __wrap_store_push_reject(struct store_volume *volume, const struct graft_error *why,
                                           struct graft_error *err)
{
    struct store_state before;

    store_volume_state(volume, &before);
    enum graft_status status = __real_store_push_reject(volume, why, err);
    if (status == GRAFT_OK)
        note_end("reject", &before, why);
    return status;
}

enum graft_status __wrap_store_push_give_up(struct store_volume *volume, enum graft_volume_status as,
                                            const struct graft_error *why, struct graft_error *err)
{
    struct store_state before;

    store_volume_state(volume, &before);
    enum graft_status status = __real_store_push_give_up(volume, as, why, err);
    // With another status it may have landed before.
    if (status == GRAFT_OK)
        note_end(as == GRAFT_VOLUME_REJECTED ? "reject" : "abandon", &before, why);
    return status;
}

enum graft_status __wrap_store_push_abandon(struct store_volume *volume, struct graft_error *err)
{
    struct store_state before;

    store_volume_state(volume, &before);
    enum graft_status status = __real_store_push_abandon(volume, err);
    if (status == GRAFT_OK)
        note_end("abandon", &before, NULL);
    return status;
}

// Says which local LSN a pull or a reset made, if any.
static void note_taken_over(const char *op, struct store_volume *volume, uint64_t local_before)
{
    struct store_state after;
    struct line line;

    store_volume_state(volume, &after);
    if (after.local_lsn == local_before)
        return;
    line_begin(&line, "note", op, 0);
    line_add_vid(&line, &after.vid);
    line_add_hex(&line, "chain", after.remote.chain.bytes, HASH_SIZE);
    line_add(&line, ",\"local\":%llu,\"remote\":%llu", (unsigned long long)after.mapped_lsn,
             (unsigned long long)after.remote.lsn);
    line_write(&line);
}

enum graft_status __wrap_store_apply_pull(struct store_volume *volume, const struct store_pull *pull,
                                          struct graft_error *err)
{
    struct store_state before;

    store_volume_state(volume, &before);
    enum graft_status status = __real_store_apply_pull(volume, pull, err);
    if (status == GRAFT_OK)
        note_taken_over("pulled", volume, before.local_lsn);
    return status;
}

enum graft_status __wrap_store_apply_reset(struct store_volume *volume, const struct store_pull *pull,
                                           struct graft_error *err)
{
    struct store_state before;

    store_volume_state(volume, &before);
    enum graft_status status = __real_store_apply_reset(volume, pull, err);
    if (status == GRAFT_OK)
        note_taken_over("dropped", volume, before.local_lsn);
    return status;
}

// The servers are asked to fork after this; what the fork takes along does not change before it is there.
enum graft_status __wrap_store_fork_begin(struct store_volume *volume, const struct gid *fresh,
                                          struct gid *ret_new_vid, struct graft_error *err)
{
    enum graft_status status = __real_store_fork_begin(volume, fresh, ret_new_vid, err);
    struct store_state state;
    struct line line;

    if (status != GRAFT_OK)
        return status;
    store_volume_state(volume, &state);
    line_begin(&line, "note", "forking", 0);
    line_add_vid(&line, &state.vid);
    line_add(&line, ",\"fork\":\"%s\",\"local\":%llu,\"mapped\":%llu,\"remote\":%llu",
             gid_format(ret_new_vid).text, (unsigned long long)state.local_lsn,
             (unsigned long long)state.mapped_lsn, (unsigned long long)state.remote.lsn);
    line_write(&line);
    return status;
}
