// SPDX-License-Identifier: Apache-2.0
//
// States of a volume: LOADING ─load done─▶ READY, or failed: then its waiters get the error and it is
// forgotten, so that the next request tries again.
#include "metastore/volume.h"

#include <stdlib.h>
#include <uthash.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/mutex.h"

struct volume {
    struct volume_table *table;
    struct gid vid;

    // under the table's lock
    UT_hash_handle hash;
    unsigned refs;
    bool ready;
    bool idle; // in the table's list of volumes that nobody uses
    TAILQ_ENTRY(volume) idle_link;
    STAILQ_HEAD(, volume_wait) loading; // until it is ready

    struct mutex lock; // for what follows
    struct volume_state state;
    TAILQ_HEAD(, volume_turn) queue;
    unsigned queued;
    bool turn_taken;
    bool dispatching; // a thread is in dispatch(); it will see what others queue
};

struct volume_table {
    struct volume_table_settings settings;
    struct metric *loads, *load_failures, *active;
    struct mutex lock; // for what follows, and the fields of volumes named above
    struct cond quiet;
    struct volume *volumes;
    unsigned count, loading, idle_count;
    bool closing;
    TAILQ_HEAD(, volume) idle; // least recently used first
};

struct volume_table *volume_table_new(const struct volume_table_settings *settings)
{
    struct volume_table *table = calloc(1, sizeof *table);
    CHECK(table && settings->volumes_max > 0);
    table->settings = *settings;
    table->loads = metrics_counter(settings->metrics, "graft_metastore_volume_loads_total", NULL,
                                   "Volumes whose head was read from the store.");
    table->load_failures =
        metrics_counter(settings->metrics, "graft_metastore_volume_load_failures_total", NULL,
                        "Volumes whose head could not be read, unknown volumes included.");
    table->active = metrics_gauge(settings->metrics, "graft_metastore_volumes_active", NULL,
                                  "Volumes whose heads are in memory.");
    mutex_init(&table->lock, RANK_META_TABLE);
    cond_init(&table->quiet);
    TAILQ_INIT(&table->idle);
    return table;
}

static struct volume *volume_new(struct volume_table *table, const struct gid *vid)
{
    struct volume *volume = calloc(1, sizeof *volume);
    CHECK(volume);
    volume->table = table;
    volume->vid = *vid;
    mutex_init(&volume->lock, RANK_META_VOLUME);
    TAILQ_INIT(&volume->queue);
    STAILQ_INIT(&volume->loading);
    HASH_ADD(hash, table->volumes, vid, sizeof volume->vid, volume);
    metric_set(table->active, ++table->count);
    return volume;
}

static void forget_locked(struct volume_table *table, struct volume *volume)
{
    mutex_assert_held(&table->lock);
    CHECK(volume->refs == 0 && volume->queued == 0 && !volume->turn_taken);
    if (volume->idle) {
        TAILQ_REMOVE(&table->idle, volume, idle_link);
        table->idle_count--;
    }
    HASH_DELETE(hash, table->volumes, volume);
    metric_set(table->active, --table->count);
    mutex_release(&volume->lock);
    free(volume);
}

void volume_table_free(struct volume_table *table)
{
    if (!table)
        return;
    mutex_lock(&table->lock);
    table->closing = true;
    while (table->loading > 0 || table->idle_count < table->count)
        cond_wait(&table->quiet, &table->lock);
    for (struct volume *volume = table->volumes, *next; volume; volume = next) {
        next = volume->hash.next;
        forget_locked(table, volume);
    }
    mutex_unlock(&table->lock);
    cond_release(&table->quiet);
    mutex_release(&table->lock);
    free(table);
}

// ---- references

static void take_ref_locked(struct volume *volume)
{
    mutex_assert_held(&volume->table->lock);
    if (volume->idle) {
        TAILQ_REMOVE(&volume->table->idle, volume, idle_link);
        volume->table->idle_count--;
        volume->idle = false;
    }
    volume->refs++;
}

struct volume *volume_ref(struct volume *volume)
{
    LOCK_GUARD(&volume->table->lock);
    CHECK(volume->refs > 0);
    volume->refs++;
    return volume;
}

void volume_unref(struct volume *volume)
{
    if (!volume)
        return;
    struct volume_table *table = volume->table;
    LOCK_GUARD(&table->lock);
    CHECK(volume->refs > 0);
    if (--volume->refs > 0)
        return;
    TAILQ_INSERT_TAIL(&table->idle, volume, idle_link);
    table->idle_count++;
    volume->idle = true;
    if (table->closing)
        cond_broadcast(&table->quiet);
}

// ---- loading

static void deliver(struct volume *volume, struct volume_wait *wait);

static void load_done(void *context, const struct volume_state *state, const struct graft_error *error)
{
    struct volume *volume = context;
    struct volume_table *table = volume->table;
    metric_add(state ? table->loads : table->load_failures, 1);
    if (state) {
        volume->state = *state; // nobody else reads it before it is ready
        struct snapshot head = volume_head(volume);
        table->settings.on_head(table->settings.context, &head, true);
    }

    STAILQ_HEAD(, volume_wait) waiting;
    STAILQ_INIT(&waiting);
    mutex_lock(&table->lock);
    volume->ready = state != NULL;
    STAILQ_CONCAT(&waiting, &volume->loading);
    struct volume_wait *wait;
    volume->refs = 0; // the load's own goes; each of those who wait gets one
    STAILQ_FOREACH (wait, &waiting, link)
        volume->refs += volume->ready;
    if (!volume->ready)
        forget_locked(table, volume); // the next request for it starts afresh
    mutex_unlock(&table->lock);

    while ((wait = STAILQ_FIRST(&waiting))) {
        STAILQ_REMOVE_HEAD(&waiting, link);
        if (state)
            deliver(volume, wait);
        else
            wait->ready(wait, NULL, error);
    }
    mutex_lock(&table->lock);
    table->loading--;
    cond_broadcast(&table->quiet);
    mutex_unlock(&table->lock);
}

// Makes room for one more. False if every volume is in use.
static bool make_room_locked(struct volume_table *table)
{
    if (table->count < table->settings.volumes_max)
        return true;
    struct volume *oldest = TAILQ_FIRST(&table->idle);
    if (!oldest)
        return false;
    forget_locked(table, oldest);
    return true;
}

void volume_table_get(struct volume_table *table, const struct gid *vid, struct volume_wait *wait)
{
    struct volume *volume = NULL;
    mutex_lock(&table->lock);
    HASH_FIND(hash, table->volumes, vid, sizeof *vid, volume);
    if (volume && volume->ready) {
        take_ref_locked(volume);
        mutex_unlock(&table->lock);
        deliver(volume, wait);
        return;
    }
    if (volume) {
        STAILQ_INSERT_TAIL(&volume->loading, wait, link);
        mutex_unlock(&table->lock);
        return;
    }
    if (!make_room_locked(table)) {
        mutex_unlock(&table->lock);
        struct graft_error error;
        error_set(&error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED,
                  "all of the %u volumes kept in memory are in use; try again", table->settings.volumes_max);
        wait->ready(wait, NULL, &error);
        return;
    }
    volume = volume_new(table, vid);
    volume->refs = 1; // the load's
    table->loading++;
    STAILQ_INSERT_TAIL(&volume->loading, wait, link);
    mutex_unlock(&table->lock);
    volume_load(table->settings.store, vid, load_done, volume);
}

// ---- reading on, for those who need the newest head of a shared store

struct freshen {
    struct volume_turn turn;
    struct volume *volume;
    struct volume_wait *wait;
};

static void read_on_done(void *context, const struct volume_state *state, const struct graft_error *error)
{
    struct freshen *freshen = context;
    struct volume *volume = freshen->volume;
    struct volume_wait *wait = freshen->wait;
    free(freshen);
    if (state)
        volume_update(volume, state);
    volume_turn_end(volume);
    if (state) {
        wait->ready(wait, volume, NULL);
    } else {
        wait->ready(wait, NULL, error);
        volume_unref(volume);
    }
}

static void freshen_run(struct volume_turn *turn)
{
    struct freshen *freshen = CONTAINER_OF(turn, struct freshen, turn);
    struct volume_state state;
    volume_get_state(freshen->volume, &state);
    volume_read_on(freshen->volume->table->settings.store, &state, read_on_done, freshen);
}

static void deliver(struct volume *volume, struct volume_wait *wait)
{
    if (!wait->fresh || !volume->table->settings.shared) {
        wait->ready(wait, volume, NULL);
        return;
    }
    struct graft_error error;
    struct freshen *freshen = calloc(1, sizeof *freshen);
    CHECK(freshen);
    *freshen = (struct freshen){.turn.run = freshen_run, .volume = volume, .wait = wait};
    if (volume_turn_begin(volume, &freshen->turn, &error) == GRAFT_OK)
        return;
    free(freshen);
    wait->ready(wait, NULL, &error);
    volume_unref(volume);
}

// ---- state

struct snapshot snapshot_of(const struct volume_record *record, const struct commit_facts *commit)
{
    return (struct snapshot){.vid = record->vid,
                             .lsn = commit->lsn,
                             .page_count = commit->page_count,
                             .chain = commit->chain,
                             .page_size = record->page_size,
                             .variable = record->variable,
                             .deleted = commit->deleted,
                             .time_ms = commit->lsn ? commit->time_ms : record->created_ms};
}

void volume_get_state(struct volume *volume, struct volume_state *ret_state)
{
    LOCK_GUARD(&volume->lock);
    *ret_state = volume->state;
}

struct snapshot volume_head(struct volume *volume)
{
    LOCK_GUARD(&volume->lock);
    return snapshot_of(&volume->state.record, &volume->state.head);
}

static void announce(struct volume *volume)
{
    struct snapshot head = volume_head(volume);
    volume->table->settings.on_head(volume->table->settings.context, &head, false);
}

void volume_advance(struct volume *volume, const struct commit_facts *commit)
{
    mutex_lock(&volume->lock);
    CHECK(volume->turn_taken && commit->lsn == volume->state.head.lsn + 1);
    CHECK(hash_equal(&commit->base_chain, &volume->state.head.chain));
    volume->state.head = *commit;
    mutex_unlock(&volume->lock);
    announce(volume);
}

void volume_update(struct volume *volume, const struct volume_state *state)
{
    mutex_lock(&volume->lock);
    CHECK(volume->turn_taken && state->head.lsn >= volume->state.head.lsn);
    bool moved = state->head.lsn > volume->state.head.lsn;
    volume->state = *state;
    mutex_unlock(&volume->lock);
    if (moved)
        announce(volume);
}

// ---- turns

// Gives the turn to whoever waits, as long as there is a turn to give. Only one thread at a time is in here
// for a volume, so turns that end at once are given on in this loop and not by recursion.
static void dispatch(struct volume *volume)
{
    mutex_assert_held(&volume->lock);
    if (volume->dispatching)
        return;
    volume->dispatching = true;
    struct volume_turn *turn;
    while (!volume->turn_taken && (turn = TAILQ_FIRST(&volume->queue))) {
        TAILQ_REMOVE(&volume->queue, turn, link);
        volume->queued--;
        volume->turn_taken = true;
        mutex_unlock(&volume->lock);
        turn->run(turn);
        mutex_lock(&volume->lock);
    }
    volume->dispatching = false;
}

enum graft_status volume_turn_begin(struct volume *volume, struct volume_turn *turn, struct graft_error *err)
{
    volume_ref(volume); // whoever runs in dispatch() may give the last other reference back
    mutex_lock(&volume->lock);
    bool full = volume->queued >= VOLUME_QUEUE_MAX;
    if (!full) {
        TAILQ_INSERT_TAIL(&volume->queue, turn, link);
        volume->queued++;
        dispatch(volume);
    }
    mutex_unlock(&volume->lock);
    volume_unref(volume);
    if (full)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED,
                         "%u requests wait for volume %s already; try again", VOLUME_QUEUE_MAX,
                         gid_format(&volume->vid).text);
    return GRAFT_OK;
}

void volume_turn_end(struct volume *volume)
{
    volume_ref(volume);
    mutex_lock(&volume->lock);
    CHECK(volume->turn_taken);
    volume->turn_taken = false;
    dispatch(volume);
    mutex_unlock(&volume->lock);
    volume_unref(volume);
}
