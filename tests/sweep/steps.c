// SPDX-License-Identifier: Apache-2.0
#include "tests/sweep/steps.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/random.h"
#include "graft.h"
#include "tests/sweep/ledger.h"

#define PAGE_SIZE_MAX 65536u
#define PATIENCE_MS 20000u
#define RETRY_MS 10
#define DEADLINE_MS 5000u
#define DEAD_METASTORE "http://127.0.0.1:1"
#define DEAD_DEADLINE_MS 300u

// What a replica, or the servers, must show.
struct content {
    bool here;
    uint32_t page_count;
    uint32_t *tags;     // of PAGES_MAX; 0: never written
    uint64_t local_lsn; // the newest that was acknowledged
    bool unpushed;
};

struct volume {
    char vid[GRAFT_VID_SIZE];
    uint32_t page_size;
    struct content remote;
    struct content local[CLIENTS_MAX];
    uint64_t commits; // that landed
    bool deleted;
};

static struct steps_settings settings;
static struct volume volumes[VOLUMES_MAX];
static struct graft *clients[CLIENTS_MAX];

// ---- contents

static void content_init(struct content *content)
{
    if (!content->tags)
        content->tags = calloc(PAGES_MAX, sizeof *content->tags);
    CHECK(content->tags);
    memset(content->tags, 0, PAGES_MAX * sizeof *content->tags);
    content->page_count = 0;
    content->unpushed = false;
    content->here = true;
}

static void content_copy(struct content *to, const struct content *from)
{
    content_init(to);
    memcpy(to->tags, from->tags, PAGES_MAX * sizeof *to->tags);
    to->page_count = from->page_count;
}

static void content_cut(struct content *content, uint32_t keep)
{
    for (uint32_t i = keep; i < content->page_count; i++)
        content->tags[i] = 0;
    content->page_count = keep;
}

static void fill_page(const struct volume *volume, uint32_t pageidx, uint32_t tag, uint8_t *to)
{
    struct rng rng;
    memset(to, 0, volume->page_size);
    if (tag == 0)
        return;
    rng_seed(&rng, settings.seed ^ (uint64_t)tag << 32 ^ pageidx);
    for (uint32_t at = 0; at < volume->page_size; at += 8) {
        uint64_t word = rng_next(&rng);
        memcpy(to + at, &word, sizeof word);
    }
}

// ---- calls

enum reach {
    REACH_ALL,
    REACH_NOBODY,
    REACH_PAGESTORE,
};

static struct graft *open_client(unsigned client, enum reach reach)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/client-%u", settings.folder, client);
    struct graft_settings graft = {.data = path, .deadline_ms = DEADLINE_MS};
    struct graft *opened;
    struct graft_error err;
    if (reach != REACH_NOBODY) {
        graft.metastore = reach == REACH_ALL ? settings.metastore : DEAD_METASTORE;
        graft.pagestore = settings.pagestore;
        graft.deadline_ms = reach == REACH_ALL ? DEADLINE_MS : DEAD_DEADLINE_MS;
    }
    if (graft_open(&graft, &opened, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "opening %s: %s", path, err.message);
    return opened;
}

static struct graft *client_of(unsigned client)
{
    CHECK(client < CLIENTS_MAX);
    if (!clients[client])
        clients[client] = open_client(client, REACH_ALL);
    return clients[client];
}

static void close_client(unsigned client)
{
    graft_close(clients[client]);
    clients[client] = NULL;
}

static struct graft_volume *open_volume(unsigned client, unsigned volume)
{
    struct graft_volume *opened;
    struct graft_error err;
    if (graft_volume_open(client_of(client), volumes[volume].vid, &opened, &err) != GRAFT_OK)
        ledger_fail(err.status == GRAFT_NOT_FOUND ? LEDGER_EXIT_FAILED : LEDGER_EXIT_AGAIN,
                    "opening volume %u: %s", volume, err.message);
    return opened;
}

// The local head, which holds at least what was acknowledged.
static uint64_t local_lsn(unsigned client, unsigned volume)
{
    struct graft_volume *opened = open_volume(client, volume);
    struct graft_volume_info info;
    struct graft_error err;
    if (graft_volume_info(opened, &info, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "asking about volume %u: %s", volume, err.message);
    graft_volume_close(opened);
    if (info.local_lsn < volumes[volume].local[client].local_lsn)
        ledger_fail(LEDGER_EXIT_FAILED,
                    "volume %u of client %u is at local LSN %llu, and %llu was acknowledged", volume, client,
                    (unsigned long long)info.local_lsn,
                    (unsigned long long)volumes[volume].local[client].local_lsn);
    return info.local_lsn;
}

static void note_local_lsn(unsigned client, unsigned volume)
{
    uint64_t lsn = local_lsn(client, volume);
    volumes[volume].local[client].local_lsn = lsn;
}

// A call is made again while a daemon is away.
struct attempts {
    uint64_t deadline_ms;
};

static struct attempts attempts_begin(void)
{
    return (struct attempts){clock_monotonic_ms(clock_system()) + PATIENCE_MS};
}

static bool is_passing(const struct graft_error *err)
{
    return err->status == GRAFT_UNAVAILABLE || err->status == GRAFT_UNKNOWN ||
           err->status == GRAFT_CANCELLED ||
           (err->status == GRAFT_BUSY && err->detail == GRAFT_DETAIL_PUSH_PENDING);
}

// False: the call is over. Ends the process where it can have no good end.
static bool again(const struct attempts *attempts, const char *what, const struct graft_error *err)
{
    if (is_passing(err) && clock_monotonic_ms(clock_system()) < attempts->deadline_ms) {
        poll(NULL, 0, RETRY_MS);
        return true;
    }
    ledger_fail(LEDGER_EXIT_AGAIN, "%s: %s / %s: %s", what, graft_status_text(err->status),
                graft_detail_text(err->detail), err->message);
}

// ---- reading

static void compare_page(unsigned client, unsigned volume, const struct content *content, uint32_t pageidx,
                         const uint8_t *page)
{
    uint8_t expected[PAGE_SIZE_MAX];
    const struct volume *of = &volumes[volume];
    fill_page(of, pageidx, content->tags[pageidx - 1], expected);
    if (memcmp(page, expected, of->page_size) != 0)
        ledger_fail(LEDGER_EXIT_FAILED, "page %u of volume %u, client %u, is not what step %u wrote", pageidx,
                    volume, client, content->tags[pageidx - 1]);
}

static void read_and_compare(unsigned client, unsigned volume)
{
    static uint8_t page[PAGE_SIZE_MAX];
    struct graft_volume *opened = open_volume(client, volume);
    const struct content *content = &volumes[volume].local[client];
    struct graft_snapshot *snapshot;
    struct graft_error err;
    if (graft_snapshot_open(opened, &snapshot, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "opening a snapshot: %s", err.message);
    if (graft_snapshot_page_count(snapshot) != content->page_count)
        ledger_fail(LEDGER_EXIT_FAILED, "volume %u of client %u has %u pages and must have %u", volume,
                    client, graft_snapshot_page_count(snapshot), content->page_count);
    struct graft_page_range all = {1, content->page_count};
    struct attempts attempts = attempts_begin();
    while (graft_hydrate(snapshot, &all, 1, &err) != GRAFT_OK && again(&attempts, "hydrating", &err))
        continue;
    for (uint32_t pageidx = 1; pageidx <= content->page_count; pageidx++) {
        size_t size;
        while (graft_snapshot_read(snapshot, pageidx, page, sizeof page, &size, &err) != GRAFT_OK &&
               again(&attempts, "reading", &err))
            continue;
        compare_page(client, volume, content, pageidx, page);
    }
    graft_snapshot_release(snapshot);
    graft_volume_close(opened);
}

// What was acknowledged before the process ended is looked at before the step that was under way is touched. The step's
// own replica is read after it: there either outcome is good.
static void read_all_but(unsigned client, unsigned volume)
{
    if (!ledger_resuming())
        return;
    for (unsigned v = 0; v < VOLUMES_MAX; v++)
        for (unsigned c = 0; c < CLIENTS_MAX; c++)
            if (volumes[v].local[c].here && !volumes[v].deleted && (c != client || v != volume))
                read_and_compare(c, v);
}

void step_read(unsigned client, unsigned volume)
{
    // What comes next happened before, or may have: the replica is ahead of the model.
    if (!ledger_peek()->begun)
        read_and_compare(client, volume);
}

// ---- volumes

struct stranger {
    char vid[GRAFT_VID_SIZE];
    unsigned count;
};

static bool note_stranger(void *context, const char *vid)
{
    struct stranger *stranger = context;
    for (unsigned v = 0; v < VOLUMES_MAX; v++)
        if (strcmp(volumes[v].vid, vid) == 0)
            return true;
    snprintf(stranger->vid, sizeof stranger->vid, "%s", vid);
    stranger->count++;
    return true;
}

// A volume whose making was never acknowledged may be here all the same.
static bool find_stranger(unsigned client, char ret_vid[GRAFT_VID_SIZE])
{
    struct stranger stranger = {.count = 0};
    struct graft_error err;
    if (graft_volume_list(client_of(client), note_stranger, &stranger, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "listing volumes: %s", err.message);
    if (stranger.count > 1)
        ledger_fail(LEDGER_EXIT_FAILED, "client %u has %u volumes that nobody made", client, stranger.count);
    memcpy(ret_vid, stranger.vid, GRAFT_VID_SIZE);
    return stranger.count == 1;
}

void step_create(unsigned client, unsigned volume, uint32_t page_size)
{
    struct volume *of = &volumes[volume];
    read_all_but(client, volume);
    struct step *step = ledger_begin(0);
    if (!step->done) {
        char vid[GRAFT_VID_SIZE];
        if (!step->doubtful || !find_stranger(client, vid)) {
            struct graft_volume *made;
            struct graft_volume_info info;
            struct graft_error err;
            if (graft_volume_create(client_of(client), page_size, GRAFT_FIXED, &made, &err) != GRAFT_OK ||
                graft_volume_info(made, &info, &err) != GRAFT_OK)
                ledger_fail(LEDGER_EXIT_AGAIN, "making volume %u: %s", volume, err.message);
            graft_volume_close(made);
            memcpy(vid, info.vid, sizeof vid);
        }
        ledger_done(step, vid);
    }
    memcpy(of->vid, step->text, sizeof of->vid);
    of->page_size = page_size;
    of->commits = 0;
    of->deleted = false;
    content_init(&of->remote);
    content_init(&of->local[client]);
}

void step_clone(unsigned client, unsigned volume)
{
    struct volume *of = &volumes[volume];
    read_all_but(client, volume);
    struct step *step = ledger_begin(0);
    if (!step->done) {
        struct graft_volume *cloned;
        struct graft_error err;
        struct attempts attempts = attempts_begin();
        while (graft_volume_clone(client_of(client), of->vid, &cloned, &err) != GRAFT_OK &&
               again(&attempts, "cloning", &err))
            continue;
        graft_volume_close(cloned);
        ledger_done(step, "-");
    }
    content_copy(&of->local[client], &of->remote);
}

void step_forget(unsigned client, unsigned volume)
{
    struct volume *of = &volumes[volume];
    read_all_but(client, volume);
    struct step *step = ledger_begin(0);
    if (!step->done) {
        struct graft_error err;
        enum graft_status status = graft_volume_delete(client_of(client), of->vid, &err);
        if (status != GRAFT_OK && !(step->doubtful && status == GRAFT_NOT_FOUND))
            ledger_fail(LEDGER_EXIT_AGAIN, "forgetting volume %u: %s", volume, err.message);
        ledger_done(step, "-");
    }
    of->local[client].here = false;
}

void step_delete_remote(unsigned client, unsigned volume)
{
    struct volume *of = &volumes[volume];
    read_all_but(client, volume);
    struct step *step = ledger_begin(0);
    if (!step->done) {
        struct graft_error err;
        struct attempts attempts = attempts_begin();
        // Asked again after an answer was lost, the first call may have done it.
        while (graft_remote_delete(client_of(client), of->vid, &err) != GRAFT_OK &&
               err.status != GRAFT_GONE && again(&attempts, "deleting", &err))
            continue;
        ledger_done(step, "-");
    }
    of->deleted = true;
    of->commits++;
}

// ---- committing

static void fill_writer(struct graft_writer *writer, const struct volume *of, uint32_t first, uint32_t count,
                        uint32_t tag)
{
    static uint8_t page[PAGE_SIZE_MAX];
    struct graft_error err;
    for (uint32_t pageidx = first; pageidx < first + count; pageidx++) {
        fill_page(of, pageidx, tag, page);
        if (graft_writer_write(writer, pageidx, page, of->page_size, &err) != GRAFT_OK)
            ledger_fail(LEDGER_EXIT_AGAIN, "writing page %u: %s", pageidx, err.message);
    }
}

static struct graft_writer *begin_writer(struct graft_volume *volume)
{
    struct graft_writer *writer;
    struct graft_error err;
    if (graft_writer_begin(volume, &writer, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "beginning to write: %s", err.message);
    return writer;
}

void step_commit(unsigned client, unsigned volume, uint32_t keep, uint32_t first, uint32_t count)
{
    struct volume *of = &volumes[volume];
    struct content *content = &of->local[client];
    CHECK(first + count - 1 <= PAGES_MAX);
    read_all_but(client, volume);
    uint64_t before = ledger_peek()->done ? 0 : local_lsn(client, volume);
    struct step *step = ledger_begin(before);
    uint32_t tag = step->number + 1;
    if (!step->done) {
        if (before > step->fact + 1)
            ledger_fail(LEDGER_EXIT_FAILED, "volume %u has commits that nobody made", volume);
        if (before == step->fact) {
            struct graft_volume *opened = open_volume(client, volume);
            struct graft_writer *writer = begin_writer(opened);
            struct graft_error err;
            if (keep != UINT32_MAX && graft_writer_truncate(writer, keep, &err) != GRAFT_OK)
                ledger_fail(LEDGER_EXIT_AGAIN, "cutting: %s", err.message);
            fill_writer(writer, of, first, count, tag);
            if (graft_writer_commit(writer, NULL, &err) != GRAFT_OK)
                ledger_fail(LEDGER_EXIT_AGAIN, "committing: %s", err.message);
            graft_volume_close(opened);
        }
        ledger_done(step, "-");
    }
    if (keep != UINT32_MAX)
        content_cut(content, keep);
    for (uint32_t pageidx = first; pageidx < first + count; pageidx++)
        content->tags[pageidx - 1] = tag;
    content->page_count = first + count - 1 > content->page_count ? first + count - 1 : content->page_count;
    content->unpushed = true;
    content->local_lsn = step->fact + 1;
}

void step_give_up(unsigned client, unsigned volume, uint32_t pages)
{
    read_all_but(client, volume);
    struct step *step = ledger_begin(0);
    if (step->done)
        return;
    struct graft_volume *opened = open_volume(client, volume);
    struct graft_writer *writer = begin_writer(opened);
    struct graft_error err;
    fill_writer(writer, &volumes[volume], 1, pages, 1);
    if (graft_writer_truncate(writer, pages / 2, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "cutting: %s", err.message);
    graft_writer_abort(writer);
    graft_volume_close(opened);
    ledger_done(step, "-");
}

// ---- synchronising

typedef enum graft_status volume_call(struct graft_volume *volume, struct graft_error *err);

static enum graft_status call_push(struct graft_volume *volume, struct graft_error *err)
{
    return graft_push(volume, NULL, err);
}

static enum graft_status call_pull(struct graft_volume *volume, struct graft_error *err)
{
    return graft_pull(volume, NULL, err);
}

// Until it answers `expected`.
static void call_volume(unsigned client, unsigned volume, const char *what, volume_call *call,
                        enum graft_status expected)
{
    struct graft_volume *opened = open_volume(client, volume);
    struct attempts attempts = attempts_begin();
    for (;;) {
        struct graft_error err = {.status = GRAFT_OK};
        enum graft_status status = call(opened, &err);
        if (status == expected)
            break;
        if (status == GRAFT_OK)
            ledger_fail(LEDGER_EXIT_FAILED, "%s: OK, where %s was due", what, graft_status_text(expected));
        again(&attempts, what, &err);
    }
    graft_volume_close(opened);
}

static void expect_pushed(unsigned client, unsigned volume)
{
    struct graft_volume *opened = open_volume(client, volume);
    struct graft_volume_info info;
    struct graft_error err;
    if (graft_volume_info(opened, &info, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "asking about volume %u: %s", volume, err.message);
    graft_volume_close(opened);
    if (info.pending_commits != 0 || info.remote_lsn != volumes[volume].commits ||
        info.status != GRAFT_VOLUME_OK)
        ledger_fail(LEDGER_EXIT_FAILED,
                    "after a push volume %u is %s at remote LSN %llu with %llu commits pending; %llu landed",
                    volume, graft_volume_status_text(info.status), (unsigned long long)info.remote_lsn,
                    (unsigned long long)info.pending_commits, (unsigned long long)volumes[volume].commits);
}

void step_push(unsigned client, unsigned volume)
{
    struct volume *of = &volumes[volume];
    struct content *content = &of->local[client];
    read_all_but(client, volume);
    struct step *step = ledger_begin(0);
    bool fresh = !step->done;
    if (fresh) {
        call_volume(client, volume, "pushing", call_push, GRAFT_OK);
        ledger_done(step, "-");
    }
    if (content->unpushed) {
        content_copy(&of->remote, content);
        content->unpushed = false;
        of->commits++;
    }
    if (fresh)
        expect_pushed(client, volume);
}

void step_push_rejected(unsigned client, unsigned volume)
{
    read_all_but(client, volume);
    struct step *step = ledger_begin(0);
    if (step->done)
        return;
    call_volume(client, volume, "pushing late", call_push, GRAFT_CONFLICT);
    ledger_done(step, "-");
}

void step_push_offline(unsigned client, unsigned volume)
{
    read_all_but(client, volume);
    struct step *step = ledger_begin(0);
    if (step->done)
        return;
    close_client(client);
    clients[client] = open_client(client, REACH_NOBODY);
    struct graft_volume *opened = open_volume(client, volume);
    struct graft_error err;
    enum graft_status status = graft_push(opened, NULL, &err);
    if (status != GRAFT_UNAVAILABLE)
        ledger_fail(status == GRAFT_OK ? LEDGER_EXIT_FAILED : LEDGER_EXIT_AGAIN, "pushing to nobody: %s",
                    status == GRAFT_OK ? "OK" : err.message);
    graft_volume_close(opened);
    close_client(client);
    ledger_done(step, "-");
}

static void follow(unsigned client, unsigned volume, const char *what, volume_call *call)
{
    struct volume *of = &volumes[volume];
    read_all_but(client, volume);
    struct step *step = ledger_begin(0);
    bool fresh = !step->done;
    if (fresh) {
        call_volume(client, volume, what, call, GRAFT_OK);
        ledger_done(step, "-");
    }
    content_copy(&of->local[client], &of->remote);
    if (fresh)
        note_local_lsn(client, volume);
}

static enum graft_status call_reattach(struct graft_volume *volume, struct graft_error *err)
{
    return graft_discard(volume, GRAFT_DISCARD_REATTACH, NULL, err);
}

// Until it fails for want of the metastore.
static void call_without_metastore(unsigned client, unsigned volume, const char *what, volume_call *call)
{
    read_all_but(client, volume);
    struct step *step = ledger_begin(0);
    if (step->done)
        return;
    close_client(client);
    clients[client] = open_client(client, REACH_PAGESTORE);
    struct graft_volume *opened = open_volume(client, volume);
    struct attempts attempts = attempts_begin();
    struct graft_error err = {.status = GRAFT_OK};
    do {
        if (call(opened, &err) == GRAFT_OK)
            ledger_fail(LEDGER_EXIT_FAILED, "%s without a metastore: OK", what);
    } while (!strstr(err.message, DEAD_METASTORE) && again(&attempts, what, &err));
    graft_volume_close(opened);
    close_client(client);
    ledger_done(step, "-");
}

void step_push_unanswered(unsigned client, unsigned volume)
{
    CHECK(volumes[volume].commits > 0); // the first would be spent on making the volume known
    call_without_metastore(client, volume, "pushing", call_push);
}

void step_reattach_unanswered(unsigned client, unsigned volume)
{
    call_without_metastore(client, volume, "reattaching", call_reattach);
}

void step_reattach(unsigned client, unsigned volume)
{
    follow(client, volume, "reattaching", call_reattach);
    volumes[volume].local[client].unpushed = false;
    volumes[volume].commits++;
}

void step_fork(unsigned client, unsigned volume, unsigned fork)
{
    const struct volume *from = &volumes[volume];
    struct volume *to = &volumes[fork];
    read_all_but(client, volume);
    struct step *step = ledger_begin(0);
    bool fresh = !step->done;
    if (fresh) {
        char vid[GRAFT_VID_SIZE];
        if (!step->doubtful || !find_stranger(client, vid)) {
            struct graft_volume *opened = open_volume(client, volume), *made;
            struct graft_volume_info info;
            struct graft_error err;
            struct attempts attempts = attempts_begin();
            while (graft_fork(opened, &made, &err) != GRAFT_OK && again(&attempts, "forking", &err))
                continue;
            if (graft_volume_info(made, &info, &err) != GRAFT_OK)
                ledger_fail(LEDGER_EXIT_AGAIN, "asking about a fork: %s", err.message);
            graft_volume_close(made);
            graft_volume_close(opened);
            memcpy(vid, info.vid, sizeof vid);
        }
        ledger_done(step, vid);
    }
    memcpy(to->vid, step->text, sizeof to->vid);
    to->page_size = from->page_size;
    to->commits = 1;
    to->deleted = false;
    content_copy(&to->remote, &from->remote);
    content_copy(&to->local[client], &from->local[client]);
    to->local[client].unpushed = from->local[client].unpushed;
    if (fresh)
        note_local_lsn(client, fork);
}

void step_pull(unsigned client, unsigned volume)
{
    follow(client, volume, "pulling", call_pull);
}

void step_reset(unsigned client, unsigned volume)
{
    follow(client, volume, "resetting", graft_reset);
}

struct watching {
    unsigned pusher, volume;
    uint64_t awaited;
    bool pushed;
};

// The push is made when the watch has begun, so that its commit comes along the stream.
static bool see_head(void *context, const struct graft_remote_head *head)
{
    struct watching *watching = context;
    if (!head)
        return true;
    if (head->lsn > watching->awaited)
        ledger_fail(LEDGER_EXIT_FAILED, "the watched head of volume %u is LSN %llu, and %llu was awaited",
                    watching->volume, (unsigned long long)head->lsn, (unsigned long long)watching->awaited);
    if (head->lsn < watching->awaited && !watching->pushed) {
        call_volume(watching->pusher, watching->volume, "pushing while watched", call_push, GRAFT_OK);
        watching->pushed = true;
    }
    return head->lsn < watching->awaited;
}

void step_watch_push(unsigned client, unsigned pusher, unsigned volume)
{
    struct volume *of = &volumes[volume];
    struct content *content = &of->local[pusher];
    CHECK(content->unpushed);
    read_all_but(pusher, volume);
    struct step *step = ledger_begin(0);
    bool fresh = !step->done;
    if (fresh) {
        struct watching watching = {.pusher = pusher, .volume = volume, .awaited = of->commits + 1};
        const char *vid = of->vid;
        struct graft_error err;
        struct attempts attempts = attempts_begin();
        while (graft_remote_watch(client_of(client), &vid, 1, see_head, &watching, &err) != GRAFT_OK &&
               again(&attempts, "watching", &err))
            continue;
        // Where the servers had the commit already, this replica may not know yet that they have.
        call_volume(pusher, volume, "pushing", call_push, GRAFT_OK);
        ledger_done(step, "-");
    }
    content_copy(&of->remote, content);
    content->unpushed = false;
    of->commits++;
    if (fresh)
        expect_pushed(pusher, volume);
}

// ---- the whole

void steps_begin(const struct steps_settings *given)
{
    settings = *given;
}

void steps_close(void)
{
    for (unsigned c = 0; c < CLIENTS_MAX; c++)
        close_client(c);
}

void steps_expect(void)
{
    for (unsigned v = 0; v < VOLUMES_MAX; v++)
        if (volumes[v].commits > 0)
            ledger_note("expect %s %llu %u %d\n", volumes[v].vid, (unsigned long long)volumes[v].commits,
                        volumes[v].remote.page_count, volumes[v].deleted);
}
