// SPDX-License-Identifier: Apache-2.0
//
// Steps that need the servers, or miss them.
#include <string.h>

#include "common/base/check.h"
#include "tests/sweep/replicas.h"

// An operation on a replica: its name in the history, and the call.
struct call {
    const char *op;
    enum graft_status (*run)(struct graft_volume *volume, struct graft_error *err);
};

static enum graft_status call_push(struct graft_volume *volume, struct graft_error *err)
{
    return graft_push(volume, NULL, err);
}

static enum graft_status call_pull(struct graft_volume *volume, struct graft_error *err)
{
    return graft_pull(volume, NULL, err);
}

static enum graft_status call_reattach(struct graft_volume *volume, struct graft_error *err)
{
    return graft_discard(volume, GRAFT_DISCARD_REATTACH, NULL, err);
}

static const struct call PUSH = {"push", call_push}, PULL = {"pull", call_pull},
                         RESET = {"reset", graft_reset}, REATTACH = {"reset", call_reattach};

static enum graft_status call_once(unsigned client, unsigned volume, struct graft_volume *opened,
                                   const struct call *call, struct graft_error *err)
{
    uint64_t id = journal_invoke(client, call->op, volume_of(volume)->vid);
    *err = (struct graft_error){.status = GRAFT_OK};
    enum graft_status status = call->run(opened, err);
    journal_complete(call->op, id, opened, status, err);
    return status;
}

// Until it answers `expected`.
static void call_until(unsigned client, unsigned volume, const struct call *call, enum graft_status expected)
{
    struct graft_volume *opened = replica_open(client, volume);
    struct attempts attempts = attempts_begin();
    struct graft_error err;
    enum graft_status status;
    while ((status = call_once(client, volume, opened, call, &err)) != expected) {
        if (status == GRAFT_OK)
            ledger_fail(LEDGER_EXIT_FAILED, "%s: OK, where %s was due", call->op,
                        graft_status_text(expected));
        attempts_again(&attempts, call->op, &err);
    }
    if (expected == GRAFT_OK) {
        struct graft_volume_info info = replica_info(opened);
        if (info.pending_commits != 0 || info.status != GRAFT_VOLUME_OK)
            ledger_fail(LEDGER_EXIT_FAILED, "after a %s volume %u is %s with %llu commits pending", call->op,
                        volume, graft_volume_status_text(info.status),
                        (unsigned long long)info.pending_commits);
    }
    graft_volume_close(opened);
}

static void step_call(unsigned client, unsigned volume, const struct call *call, enum graft_status expected)
{
    replicas_before_step(client, volume);
    struct step *step = ledger_begin(0);
    if (step->done)
        return;
    call_until(client, volume, call, expected);
    ledger_done(step, "-");
}

void step_push(unsigned client, unsigned volume)
{
    step_call(client, volume, &PUSH, GRAFT_OK);
}

void step_push_rejected(unsigned client, unsigned volume)
{
    step_call(client, volume, &PUSH, GRAFT_CONFLICT);
}

void step_pull(unsigned client, unsigned volume)
{
    step_call(client, volume, &PULL, GRAFT_OK);
}

void step_reset(unsigned client, unsigned volume)
{
    step_call(client, volume, &RESET, GRAFT_OK);
}

void step_reattach(unsigned client, unsigned volume)
{
    step_call(client, volume, &REATTACH, GRAFT_OK);
}

// ---- without servers

void step_push_offline(unsigned client, unsigned volume)
{
    replicas_before_step(client, volume);
    struct step *step = ledger_begin(0);
    if (step->done)
        return;
    client_close(client);
    client_open(client, REACH_NOBODY);
    struct graft_volume *opened = replica_open(client, volume);
    struct graft_error err;
    enum graft_status status = call_once(client, volume, opened, &PUSH, &err);
    if (status != GRAFT_UNAVAILABLE)
        ledger_fail(status == GRAFT_OK ? LEDGER_EXIT_FAILED : LEDGER_EXIT_AGAIN, "pushing to nobody: %s",
                    status == GRAFT_OK ? "OK" : err.message);
    graft_volume_close(opened);
    client_close(client);
    ledger_done(step, "-");
}

// Until it fails for want of the metastore.
static void call_without_metastore(unsigned client, unsigned volume, const struct call *call)
{
    replicas_before_step(client, volume);
    struct step *step = ledger_begin(0);
    if (step->done)
        return;
    client_close(client);
    client_open(client, REACH_PAGESTORE);
    struct graft_volume *opened = replica_open(client, volume);
    struct attempts attempts = attempts_begin();
    struct graft_error err;
    do {
        if (call_once(client, volume, opened, call, &err) == GRAFT_OK)
            ledger_fail(LEDGER_EXIT_FAILED, "%s without a metastore: OK", call->op);
    } while (!strstr(err.message, DEAD_METASTORE) && attempts_again(&attempts, call->op, &err));
    graft_volume_close(opened);
    client_close(client);
    ledger_done(step, "-");
}

void step_push_unanswered(unsigned client, unsigned volume)
{
    call_without_metastore(client, volume, &PUSH);
}

void step_push_late(unsigned client, unsigned volume)
{
    steps_let_pagestore_lag(true);
    step_push_unanswered(client, volume);
    steps_let_pagestore_lag(false);
}

void step_reattach_unanswered(unsigned client, unsigned volume)
{
    call_without_metastore(client, volume, &REATTACH);
}

// ---- volumes of the servers

void step_clone(unsigned client, unsigned volume)
{
    struct volume *of = volume_of(volume);
    replicas_before_step(client, volume);
    struct step *step = ledger_begin(0);
    if (!step->done) {
        struct graft *in = client_of(client);
        struct graft_volume *cloned = NULL;
        struct attempts attempts = attempts_begin();
        struct graft_error err;
        enum graft_status status;
        do {
            uint64_t id = journal_invoke(client, "open", of->vid);
            status = graft_volume_clone(in, of->vid, &cloned, &err);
            journal_complete("open", id, cloned, status, &err);
        } while (status != GRAFT_OK && attempts_again(&attempts, "cloning", &err));
        graft_volume_close(cloned);
        ledger_done(step, "-");
    }
    of->here[client] = true;
}

void step_delete_remote(unsigned client, unsigned volume)
{
    struct volume *of = volume_of(volume);
    replicas_before_step(client, volume);
    struct step *step = ledger_begin(0);
    if (!step->done) {
        struct graft *in = client_of(client);
        struct attempts attempts = attempts_begin();
        struct graft_error err;
        enum graft_status status;
        do {
            uint64_t id = journal_invoke(client, "delete", of->vid);
            status = graft_remote_delete(in, of->vid, &err);
            // Asked again after an answer was lost, the first call may have done it.
            if (status == GRAFT_GONE)
                status = GRAFT_OK;
            journal_complete_of("delete", id, of->vid, status, &err);
        } while (status != GRAFT_OK && attempts_again(&attempts, "deleting", &err));
        ledger_done(step, "-");
    }
    of->deleted = true;
}

static void fork_volume(unsigned client, unsigned volume, struct graft_volume *opened,
                        char ret_vid[GRAFT_VID_SIZE])
{
    struct graft_volume *made = NULL;
    struct attempts attempts = attempts_begin();
    struct graft_error err;
    enum graft_status status;
    do {
        uint64_t id = journal_invoke(client, "fork", volume_of(volume)->vid);
        status = graft_fork(opened, &made, &err);
        if (status == GRAFT_OK)
            memcpy(ret_vid, replica_info(made).vid, GRAFT_VID_SIZE);
        journal_complete_fork(id, opened, ret_vid, status, &err);
    } while (status != GRAFT_OK && attempts_again(&attempts, "forking", &err));
    graft_volume_close(made);
}

void step_fork(unsigned client, unsigned volume, unsigned fork)
{
    struct volume *to = volume_of(fork);
    replicas_before_step(client, volume);
    struct step *step = ledger_begin(0);
    bool fresh = !step->done;
    if (fresh) {
        char vid[GRAFT_VID_SIZE];
        struct graft_volume *opened = replica_open(client, volume);
        if (!step->doubtful || !volume_find_stranger(client, vid))
            fork_volume(client, volume, opened, vid);
        graft_volume_close(opened);
        ledger_done(step, vid);
    }
    memcpy(to->vid, step->text, sizeof to->vid);
    to->page_size = volume_of(volume)->page_size;
    to->here[client] = true;
    if (fresh)
        graft_volume_close(replica_open(client, fork));
}

// ---- watching

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
        call_until(watching->pusher, watching->volume, &PUSH, GRAFT_OK);
        watching->pushed = true;
    }
    return head->lsn < watching->awaited;
}

void step_watch_push(unsigned client, unsigned pusher, unsigned volume)
{
    replicas_before_step(pusher, volume);
    if (ledger_peek()->done) {
        ledger_begin(0);
        return;
    }
    struct graft_volume *opened = replica_open(pusher, volume);
    // Kept from before the push was begun.
    struct step *step = ledger_begin(replica_info(opened).remote_lsn);
    graft_volume_close(opened);
    struct watching watching = {.pusher = pusher, .volume = volume, .awaited = step->fact + 1};
    const char *vid = volume_of(volume)->vid;
    struct graft_error err;
    struct attempts attempts = attempts_begin();
    while (graft_remote_watch(client_of(client), &vid, 1, see_head, &watching, &err) != GRAFT_OK &&
           attempts_again(&attempts, "watching", &err))
        continue;
    // Where the servers had the commit already, this replica may not know yet that they have.
    call_until(pusher, volume, &PUSH, GRAFT_OK);
    ledger_done(step, "-");
}
