// SPDX-License-Identifier: Apache-2.0
//
// One watcher: watch_start ─▶ its volumes' heads are read, a few at a time ─▶ the stream is answered ─▶
// source() makes a frame whenever the hub's thread woke it ─▶ watch_closed.
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "metastore/reply.h"
#include "metastore/watch_internal.h"

#define LOADS_MAX 32u       // volumes being read at once for one watcher
#define FRAME_HEADS_MAX 24u // so that a frame fits the connection's small buffer
#define FRAME_SIZE_MAX (8 * KIB)

// ---- frames

struct frame {
    Graft__WatchFrame message;
    Graft__Snapshot heads[FRAME_HEADS_MAX];
    Graft__Snapshot *head_pointers[FRAME_HEADS_MAX];
    struct snapshot snapshots[FRAME_HEADS_MAX];
    Graft__WatchTrouble troubles[FRAME_HEADS_MAX];
    Graft__WatchTrouble *trouble_pointers[FRAME_HEADS_MAX];
};

static bool frame_is_full(const struct frame *frame)
{
    return frame->message.n_heads + frame->message.n_troubles == FRAME_HEADS_MAX;
}

static void frame_add_trouble(struct frame *frame, const struct item *item)
{
    size_t place = frame->message.n_troubles++;
    Graft__WatchTrouble *trouble = &frame->troubles[place];
    graft__watch_trouble__init(trouble);
    trouble->vid = binary_of(item->topic->vid.bytes, GID_SIZE);
    trouble->status = item->trouble;
    trouble->detail = item->trouble_detail;
    frame->trouble_pointers[place] = trouble;
}

static void frame_add_locked(struct frame *frame, struct item *item)
{
    struct watch_hub *hub = item->watcher->hub;
    mutex_lock(&hub->topics_lock);
    struct snapshot head = item->topic->head;
    mutex_unlock(&hub->topics_lock);
    if (head.page_size == 0) {
        frame_add_trouble(frame, item);
        return;
    }
    size_t place = frame->message.n_heads++;
    frame->snapshots[place] = head;
    item->known_lsn = head.lsn;
    snapshot_to_message(&frame->snapshots[place], &frame->heads[place]);
    frame->head_pointers[place] = &frame->heads[place];
}

static void take_dirty_locked(struct watcher *watcher, struct frame *frame)
{
    struct item *item;
    while (!frame_is_full(frame) && (item = TAILQ_FIRST(&watcher->dirty))) {
        TAILQ_REMOVE(&watcher->dirty, item, dirty_link);
        item->dirty = false;
        frame_add_locked(frame, item);
    }
}

static void take_beat_locked(struct watcher *watcher, struct frame *frame)
{
    frame->message.heartbeat = true;
    while (!frame_is_full(frame) && watcher->beat_next < watcher->item_count)
        frame_add_locked(frame, &watcher->items[watcher->beat_next++]);
    watcher->beating = watcher->beat_next < watcher->item_count;
}

static void encode_locked(struct watcher *watcher, struct frame *frame)
{
    frame->message.heads = frame->head_pointers;
    frame->message.troubles = frame->trouble_pointers;
    FAILPOINT("watch.frame");
    CHECK(message_encode_frame(&frame->message.base, &watcher->out, NULL) == GRAFT_OK);
    metric_add(watcher->hub->frames, 1);
}

static void encode_end_locked(struct watcher *watcher, struct frame *frame)
{
    struct graft_error error;
    Graft__Error message = GRAFT__ERROR__INIT;
    Graft__StreamEnd end = GRAFT__STREAM_END__INIT;
    error_set(&error, GRAFT_CANCELLED, GRAFT_DETAIL_STOPPING, "the metastore is shutting down");
    error_to_message(&error, &message);
    end.status = error.status;
    end.error = &message;
    frame->message.end = &end;
    encode_locked(watcher, frame);
    watcher->ended = true;
}

// Makes the next frame, if there is anything to say.
static void make_frame_locked(struct watcher *watcher)
{
    struct frame frame;
    graft__watch_frame__init(&frame.message);
    if (watcher->hub->stopping) {
        encode_end_locked(watcher, &frame);
    } else if (!TAILQ_EMPTY(&watcher->dirty)) {
        take_dirty_locked(watcher, &frame);
        encode_locked(watcher, &frame);
    } else if (watcher->beating) {
        take_beat_locked(watcher, &frame);
        encode_locked(watcher, &frame);
    }
}

static enum http_source_result source(struct http_request *request, void *to, size_t size, size_t *ret_size)
{
    struct watcher *watcher = http_request_state(request);
    LOCK_GUARD(&watcher->hub->lock);
    if (watcher->out.size == 0 && !watcher->ended)
        make_frame_locked(watcher);
    if (watcher->out.size == 0)
        return watcher->ended ? HTTP_SOURCE_END : HTTP_SOURCE_WAIT;
    *ret_size = MIN(watcher->out.size - watcher->sent, size);
    memcpy(to, watcher->out.data + watcher->sent, *ret_size);
    watcher->sent += *ret_size;
    if (watcher->sent == watcher->out.size) {
        buffer_release(&watcher->out); // thousands of idle watchers keep no buffer
        watcher->sent = 0;
    }
    return HTTP_SOURCE_DATA;
}

// ---- life

static void watcher_free(struct watcher *watcher)
{
    struct watch_hub *hub = watcher->hub;
    mutex_lock(&hub->lock);
    for (unsigned i = 0; i < watcher->item_count; i++)
        topic_unref_locked(hub, &watcher->items[i]);
    hub->item_count -= watcher->item_count;
    if (watcher->to_wake)
        TAILQ_REMOVE(&hub->to_wake, watcher, wake_link);
    if (watcher->streaming) {
        TAILQ_REMOVE(&hub->by_beat, watcher, beat_link);
        metric_add(hub->watchers, -1);
    }
    mutex_unlock(&hub->lock);
    buffer_release(&watcher->out);
    free(watcher);
}

void watch_closed(struct http_request *request)
{
    struct watcher *watcher = http_request_state(request);
    if (watcher)
        watcher_free(watcher);
}

// All heads are known that can be: the stream begins, with frames for the volumes that are ahead of what the
// peer knows and for those in trouble.
static void begin_stream(struct watcher *watcher)
{
    struct watch_hub *hub = watcher->hub;
    struct http_request *request = watcher->request;
    mutex_lock(&hub->lock);
    mutex_lock(&hub->topics_lock);
    for (unsigned i = 0; i < watcher->item_count; i++) {
        struct item *item = &watcher->items[i];
        const struct snapshot *head = &item->topic->head;
        if (item->dirty || (head->page_size != 0 && head->lsn <= item->known_lsn))
            continue;
        item->dirty = true;
        TAILQ_INSERT_TAIL(&watcher->dirty, item, dirty_link);
    }
    mutex_unlock(&hub->topics_lock);
    FAILPOINT("watch.begin");
    watcher->streaming = true;
    watcher->beat_due_us = clock_monotonic_us(clock_system()) + hub->settings.heartbeat_ms * 1000ull;
    TAILQ_INSERT_TAIL(&hub->by_beat, watcher, beat_link);
    metric_add(hub->watchers, 1);
    // The thread may wait without a deadline: it has to learn of the first heartbeat.
    hub->work = true;
    cond_signal(&hub->changed);
    mutex_unlock(&hub->lock);
    http_request_set_state(request, watcher);
    http_respond_stream(request, HTTP_STREAM, source);
}

static void loads_done(struct watcher *watcher)
{
    if (watcher->load_error.status == GRAFT_OK) {
        begin_stream(watcher);
        return;
    }
    struct http_request *request = watcher->request;
    struct graft_error error = watcher->load_error;
    watcher_free(watcher);
    reply_error(request, &error);
}

// ---- the volumes' heads

struct head_load {
    struct volume_wait wait;
    struct watcher *watcher;
    struct item *item;
};

static void pump_locked(struct watcher *watcher);

// What is wrong with one volume is told of it; what is wrong with the store or the server ends the call, to
// be made again.
static void load_failed_locked(struct watcher *watcher, struct item *item, const struct graft_error *error)
{
    if (error->detail == GRAFT_DETAIL_NO_SUCH_VOLUME || error->status == GRAFT_CORRUPT) {
        item->trouble = error->status;
        item->trouble_detail = error->detail;
    } else if (watcher->load_error.status == GRAFT_OK) {
        watcher->load_error = *error;
    }
}

static void got_volume(struct volume_wait *wait, struct volume *volume, const struct graft_error *error)
{
    struct head_load *load = CONTAINER_OF(wait, struct head_load, wait);
    struct watcher *watcher = load->watcher;
    struct watch_hub *hub = watcher->hub;
    struct item *item = load->item;
    free(load);
    if (volume) {
        struct snapshot head = volume_head(volume);
        volume_unref(volume);
        watch_hub_moved(hub, &head);
    }
    mutex_lock(&hub->lock);
    watcher->loads_out--;
    if (!volume)
        load_failed_locked(watcher, item, error);
    pump_locked(watcher);
}

// Starts loads while there is room, and lets the lock go for good. Loads may be done before the call that
// starts them returns: only the outermost call loops, so many volumes do not mean a deep stack. Exactly one
// call finds that nothing is left to do, because each load is counted off under the same hold of the lock
// as the question is asked.
static void pump_locked(struct watcher *watcher)
{
    struct watch_hub *hub = watcher->hub;
    mutex_assert_held(&hub->lock);
    if (watcher->pumping) {
        mutex_unlock(&hub->lock);
        return;
    }
    watcher->pumping = true;
    while (watcher->load_next < watcher->item_count && watcher->loads_out < LOADS_MAX &&
           watcher->load_error.status == GRAFT_OK) {
        struct item *item = &watcher->items[watcher->load_next++];
        struct gid vid = item->topic->vid;
        watcher->loads_out++;
        mutex_unlock(&hub->lock);
        struct head_load *load = calloc(1, sizeof *load);
        CHECK(load);
        *load = (struct head_load){
            .wait = {.ready = got_volume, .fresh = true}, .watcher = watcher, .item = item};
        volume_table_get(watcher->volumes, &vid, &load->wait);
        mutex_lock(&hub->lock);
    }
    watcher->pumping = false;
    bool more = watcher->load_next < watcher->item_count && watcher->load_error.status == GRAFT_OK;
    bool done = watcher->loads_out == 0 && !more;
    mutex_unlock(&hub->lock);
    if (done)
        loads_done(watcher);
}

// ---- requests

static enum graft_status check_request(const Graft__WatchRequest *message, struct graft_error *err)
{
    if (message->n_items == 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "items is empty: nothing to watch");
    if (message->n_items > WATCH_VOLUMES_MAX)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "items has %zu volumes; the limit is %u",
                         message->n_items, WATCH_VOLUMES_MAX);
    for (size_t i = 0; i < message->n_items; i++) {
        struct gid vid;
        enum graft_status status =
            gid_from_bytes(bytes_of(&message->items[i]->vid), GID_VOLUME, "vid", &vid, err);
        if (status != GRAFT_OK)
            return error_context(err, status, "items[%zu]", i);
    }
    return GRAFT_OK;
}

static enum graft_status register_items(struct watch_hub *hub, struct watcher *watcher,
                                        const Graft__WatchRequest *message, struct graft_error *err)
{
    LOCK_GUARD(&hub->lock);
    if (hub->stopping)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_STOPPING, "the metastore is shutting down");
    if (hub->item_count + message->n_items > WATCH_ITEMS_MAX)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED,
                         "%u volumes are watched already, of at most %u; try again", hub->item_count,
                         WATCH_ITEMS_MAX);
    watcher->item_count = (unsigned)message->n_items;
    hub->item_count += watcher->item_count;
    for (unsigned i = 0; i < watcher->item_count; i++) {
        struct item *item = &watcher->items[i];
        struct gid vid;
        CHECK(gid_from_bytes(bytes_of(&message->items[i]->vid), GID_VOLUME, "vid", &vid, NULL) == GRAFT_OK);
        item->watcher = watcher;
        item->known_lsn = message->items[i]->after_lsn;
        item->topic = topic_ref_locked(hub, &vid, item);
    }
    return GRAFT_OK;
}

void watch_start(struct watch_hub *hub, struct volume_table *volumes, struct http_request *request,
                 const Graft__WatchRequest *message)
{
    struct graft_error error;
    if (check_request(message, &error) != GRAFT_OK) {
        reply_error(request, &error);
        return;
    }
    struct watcher *watcher = calloc(1, sizeof *watcher + message->n_items * sizeof watcher->items[0]);
    CHECK(watcher);
    watcher->hub = hub;
    watcher->request = request;
    watcher->volumes = volumes;
    TAILQ_INIT(&watcher->dirty);
    buffer_init(&watcher->out, FRAME_SIZE_MAX);
    // The topics stand before the heads are read, so that no move between the two is missed.
    if (register_items(hub, watcher, message, &error) == GRAFT_OK) {
        mutex_lock(&hub->lock);
        pump_locked(watcher);
        return;
    }
    free(watcher);
    reply_error(request, &error);
}
