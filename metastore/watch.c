// SPDX-License-Identifier: Apache-2.0
//
//     watch_hub_moved ─▶ topic.moved ─▶ [hub's thread] items dirty, watchers to wake ─▶ http_request_wake
//                                                                                        │
//                 watch_stream.c, source(): takes dirty items, reads their topics' heads ◀─┘
//
// Invariants:
//   1. An item whose topic's head is above known_lsn is dirty, or its topic is in the list of moved ones.
//   2. A topic exists exactly as long as it has items.
#include "metastore/watch_internal.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/clock.h"

#define WAKE_BATCH 64u

// ---- topics

struct topic *topic_ref_locked(struct watch_hub *hub, const struct gid *vid, struct item *item)
{
    mutex_assert_held(&hub->lock);
    struct topic *topic = NULL;
    mutex_lock(&hub->topics_lock);
    HASH_FIND(hash, hub->topics, vid, sizeof *vid, topic);
    if (!topic) {
        topic = calloc(1, sizeof *topic);
        CHECK(topic);
        topic->vid = *vid;
        HASH_ADD(hash, hub->topics, vid, sizeof topic->vid, topic);
    }
    mutex_unlock(&hub->topics_lock);
    LIST_INSERT_HEAD(&topic->items, item, topic_link);
    return topic;
}

void topic_unref_locked(struct watch_hub *hub, struct item *item)
{
    mutex_assert_held(&hub->lock);
    struct topic *topic = item->topic;
    LIST_REMOVE(item, topic_link);
    if (!LIST_EMPTY(&topic->items))
        return;
    mutex_lock(&hub->topics_lock);
    if (topic->moved)
        TAILQ_REMOVE(&hub->moved, topic, moved_link);
    HASH_DELETE(hash, hub->topics, topic);
    mutex_unlock(&hub->topics_lock);
    free(topic);
}

// Tells the thread that there is something to do. Under `lock`.
static void nudge_locked(struct watch_hub *hub)
{
    hub->work = true;
    cond_signal(&hub->changed);
}

void watch_hub_moved(struct watch_hub *hub, const struct snapshot *head)
{
    struct topic *topic = NULL;
    bool first = false;
    mutex_lock(&hub->topics_lock);
    HASH_FIND(hash, hub->topics, &head->vid, sizeof head->vid, topic);
    bool unknown = topic && topic->head.page_size == 0; // of a topic just made: LSN 0 is news, too
    if (topic && (unknown || head->lsn > topic->head.lsn)) {
        topic->head = *head;
        if (!topic->moved) {
            first = TAILQ_EMPTY(&hub->moved);
            topic->moved = true;
            TAILQ_INSERT_TAIL(&hub->moved, topic, moved_link);
        }
    }
    mutex_unlock(&hub->topics_lock);
    if (first) {
        LOCK_GUARD(&hub->lock);
        nudge_locked(hub);
    }
}

struct vid_list {
    struct gid *vids;
    size_t count;
};

void watch_hub_visit(struct watch_hub *hub, void (*visit)(void *context, const struct gid *vid),
                     void *context)
{
    struct vid_list list = {0};
    mutex_lock(&hub->topics_lock);
    list.vids = calloc(HASH_CNT(hash, hub->topics) + 1, sizeof *list.vids);
    CHECK(list.vids);
    for (struct topic *topic = hub->topics; topic; topic = topic->hash.next)
        list.vids[list.count++] = topic->vid;
    mutex_unlock(&hub->topics_lock);
    for (size_t i = 0; i < list.count; i++)
        visit(context, &list.vids[i]);
    free(list.vids);
}

// ---- the thread

void watch_wake_locked(struct watch_hub *hub, struct watcher *watcher)
{
    mutex_assert_held(&hub->lock);
    if (!watcher->streaming || watcher->to_wake)
        return;
    watcher->to_wake = true;
    TAILQ_INSERT_TAIL(&hub->to_wake, watcher, wake_link);
}

static void mark_moved_locked(struct watch_hub *hub)
{
    for (;;) {
        mutex_lock(&hub->topics_lock);
        struct topic *topic = TAILQ_FIRST(&hub->moved);
        uint64_t head_lsn = 0;
        if (topic) {
            TAILQ_REMOVE(&hub->moved, topic, moved_link);
            topic->moved = false;
            head_lsn = topic->head.lsn;
        }
        mutex_unlock(&hub->topics_lock);
        if (!topic)
            return;
        struct item *item;
        LIST_FOREACH(item, &topic->items, topic_link)
        {
            if (item->dirty || item->known_lsn >= head_lsn)
                continue;
            item->dirty = true;
            TAILQ_INSERT_TAIL(&item->watcher->dirty, item, dirty_link);
            watch_wake_locked(hub, item->watcher);
        }
    }
}

// Watchers whose heartbeat is due. Each has the same interval, so the list stays in order.
static void mark_beats_locked(struct watch_hub *hub, uint64_t now_us)
{
    struct watcher *watcher;
    while ((watcher = TAILQ_FIRST(&hub->by_beat)) && watcher->beat_due_us <= now_us) {
        TAILQ_REMOVE(&hub->by_beat, watcher, beat_link);
        watcher->beat_due_us = now_us + hub->settings.heartbeat_ms * 1000ull;
        TAILQ_INSERT_TAIL(&hub->by_beat, watcher, beat_link);
        if (!watcher->beating) {
            watcher->beating = true;
            watcher->beat_next = 0;
        }
        watch_wake_locked(hub, watcher);
    }
}

// Wakes a few streams at a time, without the lock. A stream that closes meanwhile leaves a reference that
// is harmless.
static void wake_some(struct watch_hub *hub)
{
    struct http_request *requests[WAKE_BATCH];
    unsigned count;
    do {
        count = 0;
        mutex_lock(&hub->lock);
        struct watcher *watcher;
        while (count < WAKE_BATCH && (watcher = TAILQ_FIRST(&hub->to_wake))) {
            TAILQ_REMOVE(&hub->to_wake, watcher, wake_link);
            watcher->to_wake = false;
            requests[count++] = http_request_ref(watcher->request);
        }
        mutex_unlock(&hub->lock);
        for (unsigned i = 0; i < count; i++) {
            http_request_wake(requests[i]);
            http_request_unref(requests[i]);
        }
    } while (count > 0);
}

static void run(struct worker *worker, void *context)
{
    (void)worker;
    struct watch_hub *hub = context;
    bool quitting = false;
    while (!quitting) {
        mutex_lock(&hub->lock);
        struct watcher *next = TAILQ_FIRST(&hub->by_beat);
        while (!hub->work && !hub->quitting) {
            next = TAILQ_FIRST(&hub->by_beat);
            if (!next)
                cond_wait(&hub->changed, &hub->lock);
            else if (!cond_wait_until(&hub->changed, &hub->lock, next->beat_due_us))
                break;
        }
        hub->work = false;
        quitting = hub->quitting;
        mark_moved_locked(hub);
        mark_beats_locked(hub, clock_monotonic_us(clock_system()));
        mutex_unlock(&hub->lock);
        wake_some(hub);
    }
}

// ---- life

enum graft_status watch_hub_new(const struct watch_hub_settings *settings, struct watch_hub **ret_hub,
                                struct graft_error *err)
{
    _cleanup_(watch_hub_free_p) struct watch_hub *hub = calloc(1, sizeof *hub);
    CHECK(hub);
    hub->settings = *settings;
    hub->watchers =
        metrics_gauge(settings->metrics, "graft_metastore_watchers", NULL, "Open streams of the call watch.");
    hub->frames = metrics_counter(settings->metrics, "graft_metastore_watch_frames_total", NULL,
                                  "Frames sent to watchers.");
    mutex_init(&hub->lock, RANK_META_WATCH);
    mutex_init(&hub->topics_lock, RANK_META_TOPICS);
    cond_init(&hub->changed);
    TAILQ_INIT(&hub->by_beat);
    TAILQ_INIT(&hub->to_wake);
    TAILQ_INIT(&hub->moved);
    enum graft_status status = worker_start(&hub->worker, "meta-watch", run, hub, err);
    if (status != GRAFT_OK)
        return status;
    *ret_hub = TAKE(hub);
    return GRAFT_OK;
}

void watch_hub_stop(struct watch_hub *hub)
{
    LOCK_GUARD(&hub->lock);
    struct watcher *watcher;
    hub->stopping = true;
    TAILQ_FOREACH (watcher, &hub->by_beat, beat_link)
        watch_wake_locked(hub, watcher);
    nudge_locked(hub);
}

void watch_hub_free(struct watch_hub *hub)
{
    if (!hub)
        return;
    mutex_lock(&hub->lock);
    CHECK(hub->item_count == 0);
    hub->quitting = true;
    cond_signal(&hub->changed);
    mutex_unlock(&hub->lock);
    worker_join(&hub->worker);
    cond_release(&hub->changed);
    mutex_release(&hub->topics_lock);
    mutex_release(&hub->lock);
    free(hub);
}
