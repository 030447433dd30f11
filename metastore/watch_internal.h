// SPDX-License-Identifier: Apache-2.0
//
// What the two halves of `watch` share: watch.c (the hub and its thread) and watch_stream.c (one
// connection).
//
// Locks: `lock` (RANK_META_WATCH) for items, watchers and their lists; `topics_lock` (RANK_META_TOPICS) for
// the table of topics, their heads and the list of those that moved. Who commits takes only the second, and
// holds it for a look-up.
#ifndef METASTORE_WATCH_INTERNAL_H
#define METASTORE_WATCH_INTERNAL_H

#include <uthash.h>

#include "common/base/mutex.h"
#include "common/base/worker.h"
#include "metastore/watch.h"

struct watcher;

// One volume, watched by somebody.
struct topic {
    struct gid vid;
    LIST_HEAD(, item) items; // under `lock`
    // under topics_lock
    struct snapshot head; // page_size 0 until it is known
    bool moved;
    TAILQ_ENTRY(topic) moved_link;
    UT_hash_handle hash;
};

// One volume of one watcher. Under `lock`.
struct item {
    struct watcher *watcher;
    struct topic *topic;
    uint64_t known_lsn; // what the peer was told or said it knows
    bool dirty;         // in the watcher's list
    // Why the head could not be read, to be told as long as the topic has none. Status GRAFT_OK: it could.
    enum graft_status trouble;
    enum graft_detail trouble_detail;
    LIST_ENTRY(item) topic_link;
    TAILQ_ENTRY(item) dirty_link;
};

struct watcher {
    struct watch_hub *hub;
    struct http_request *request;
    unsigned item_count;

    // under `lock`
    TAILQ_HEAD(, item) dirty; // volumes that moved and were not told yet
    bool streaming;           // answered; in the hub's list of watchers
    bool beating;             // a heartbeat is due, from items[beat_next] on
    unsigned beat_next;
    bool to_wake; // in the hub's list
    bool ended;   // the closing frame was made
    uint64_t beat_due_us;
    TAILQ_ENTRY(watcher) beat_link, wake_link;
    struct buffer out; // the frame being sent, from `sent` on
    size_t sent;

    // while the heads are read
    struct volume_table *volumes;
    unsigned load_next, loads_out;
    bool pumping;
    struct graft_error load_error;

    struct item items[];
};

struct watch_hub {
    struct watch_hub_settings settings;
    struct worker worker;
    struct metric *watchers, *frames;

    struct mutex lock; // for what follows
    struct cond changed;
    TAILQ_HEAD(watcher_list, watcher) by_beat; // streams, the next to beat first
    struct watcher_list to_wake;
    unsigned item_count;
    bool stopping; // every stream is to end
    bool work;     // the thread has something to do at once
    bool quitting;

    struct mutex topics_lock; // for what follows
    struct topic *topics;
    TAILQ_HEAD(, topic) moved;
};

// Under `lock`: the stream has something to send. The hub's thread wakes it.
void watch_wake_locked(struct watch_hub *hub, struct watcher *watcher);

// Under `lock`.
struct topic *topic_ref_locked(struct watch_hub *hub, const struct gid *vid, struct item *item);
void topic_unref_locked(struct watch_hub *hub, struct item *item);

#endif
