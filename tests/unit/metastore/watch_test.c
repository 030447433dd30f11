// SPDX-License-Identifier: Apache-2.0
//
// The hub and its streams on a real server, with heads that a test moves by hand.
#include "tests/unit/metastore/log_fixture.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/mutex.h"
#include "common/net/http_server.h"
#include "common/net/rpc.h"
#include "metastore/keys.h"
#include "metastore/watch.h"

struct stage {
    struct log_fixture *fixture;
    struct watch_hub *hub;
    struct http_server *server;
    struct http_client *http;
    char url[64];
};

static void call_watch(struct http_request *request, struct bytes body)
{
    struct stage *stage = http_request_context(request);
    ProtobufCMessage *message;
    cr_assert_eq(message_decode(&graft__watch_request__descriptor, body, 16 * MIB, &message, NULL), GRAFT_OK);
    watch_start(stage->hub, stage->fixture->volumes, request, (Graft__WatchRequest *)message);
    message_free(message);
}

static struct stage *stage_new(uint32_t heartbeat_ms)
{
    struct stage *stage = calloc(1, sizeof *stage);
    struct graft_error error;
    const struct watch_hub_settings hub = {.heartbeat_ms = heartbeat_ms};
    const struct http_route route = {.method = "POST",
                                     .path = "/v1/watch",
                                     .content_type = HTTP_PROTOBUF,
                                     .body_max = WATCH_REQUEST_SIZE_MAX,
                                     .ready = call_watch,
                                     .closed = watch_closed};
    const struct http_server_settings server = {.listen = "127.0.0.1:0",
                                                .routes = &route,
                                                .route_count = 1,
                                                .context = stage,
                                                .threads = 1,
                                                .connections_max = 100,
                                                .connection_memory = 4096,
                                                .idle_timeout_ms = 60000,
                                                .metrics_name = "watch"};
    const struct http_client_settings client = {0};
    stage->fixture = fixture_new();
    cr_assert_eq(watch_hub_new(&hub, &stage->hub, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(http_server_start(&server, &stage->server, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(http_client_new(&client, &stage->http, &error), GRAFT_OK, "%s", error.message);
    snprintf(stage->url, sizeof stage->url, "http://%s", http_server_address(stage->server));
    return stage;
}

static void stage_free(struct stage *stage)
{
    if (!stage)
        return;
    http_client_free(stage->http);
    watch_hub_stop(stage->hub);
    http_server_drain(stage->server, 5000);
    http_server_stop(stage->server);
    watch_hub_free(stage->hub);
    fixture_free(stage->fixture);
    free(stage);
}
DEFINE_CLEANUP(struct stage, stage_free)

// ---- a watcher that listens

struct listener {
    struct mutex lock;
    struct cond heard;
    uint64_t *lsns; // of volume i, as told last
    const struct gid *vids;
    size_t count;
    unsigned frames;
    unsigned *beaten; // how often volume i stood in a heartbeat
    unsigned troubles, beaten_troubles;
    struct gid trouble_vid; // the last
    enum graft_status trouble_status;
    enum graft_detail trouble_detail;
    bool ended;
};

static void hear(struct listener *listener, const struct snapshot *head, bool heartbeat)
{
    for (size_t i = 0; i < listener->count; i++) {
        if (!gid_equal(&listener->vids[i], &head->vid))
            continue;
        listener->lsns[i] = head->lsn;
        listener->beaten[i] += heartbeat;
    }
}

static enum graft_status on_frame(void *context, struct bytes bytes, bool *ret_end, struct graft_error *err)
{
    struct listener *listener = context;
    ProtobufCMessage *decoded;
    enum graft_status status = message_decode(&graft__watch_frame__descriptor, bytes, MIB, &decoded, err);
    if (status != GRAFT_OK)
        return status;
    const Graft__WatchFrame *frame = (Graft__WatchFrame *)decoded;
    LOCK_GUARD(&listener->lock);
    listener->frames++;
    for (size_t i = 0; i < frame->n_heads; i++) {
        struct snapshot head;
        cr_assert_eq(snapshot_from_message(frame->heads[i], &head, NULL), GRAFT_OK);
        hear(listener, &head, frame->heartbeat);
    }
    for (size_t i = 0; i < frame->n_troubles; i++) {
        const Graft__WatchTrouble *trouble = frame->troubles[i];
        cr_assert_eq(gid_from_bytes(bytes_of(&trouble->vid), GID_VOLUME, "vid", &listener->trouble_vid, NULL),
                     GRAFT_OK);
        listener->trouble_status = status_from_wire(trouble->status);
        listener->trouble_detail = detail_from_wire(trouble->detail);
        listener->troubles++;
        listener->beaten_troubles += frame->heartbeat;
    }
    *ret_end = listener->ended = frame->end != NULL;
    message_free(decoded);
    cond_broadcast(&listener->heard);
    return GRAFT_OK;
}

static struct rpc_stream *listen_to(struct stage *stage, struct listener *listener, const struct gid *vids,
                                    size_t count, uint64_t after)
{
    struct rpc_stream *stream;
    struct graft_error error;
    const struct rpc_target target = {.http = stage->http, .url = stage->url};
    Graft__WatchRequest request = GRAFT__WATCH_REQUEST__INIT;
    Graft__WatchItem *items = calloc(count, sizeof *items), **pointers = calloc(count, sizeof *pointers);
    for (size_t i = 0; i < count; i++) {
        graft__watch_item__init(&items[i]);
        items[i].vid = binary_of(vids[i].bytes, GID_SIZE);
        items[i].after_lsn = after;
        pointers[i] = &items[i];
    }
    request.items = pointers;
    request.n_items = count;
    *listener = (struct listener){.vids = vids,
                                  .count = count,
                                  .lsns = calloc(count, sizeof *listener->lsns),
                                  .beaten = calloc(count, sizeof *listener->beaten)};
    mutex_init(&listener->lock, RANK_LEAF);
    cond_init(&listener->heard);
    cr_assert_eq(
        rpc_stream_start(&target, "watch", &request.base, MIB, 60000, on_frame, listener, &stream, &error),
        GRAFT_OK, "%s", error.message);
    free(items);
    free(pointers);
    return stream;
}

static void await_lsn(struct listener *listener, size_t place, uint64_t lsn)
{
    LOCK_GUARD(&listener->lock);
    while (listener->lsns[place] < lsn)
        cond_wait(&listener->heard, &listener->lock);
}

static void stop_listening(struct rpc_stream *stream, struct listener *listener)
{
    rpc_stream_cancel(stream);
    rpc_stream_finish(stream, NULL, NULL);
    free(listener->lsns);
    free(listener->beaten);
}

static void move(struct stage *stage, const struct gid *vid, uint64_t lsn)
{
    struct snapshot head = {.vid = *vid, .lsn = lsn, .page_count = 1, .page_size = 4096};
    watch_hub_moved(stage->hub, &head);
}

// ---- what it is told

Test(watch, begins_with_the_volumes_that_are_ahead, .timeout = 60)
{
    _cleanup_(stage_free_p) struct stage *stage = stage_new(60000);
    struct listener listener;
    struct gid vids[200];
    for (unsigned i = 0; i < ARRAY_COUNT(vids); i++) {
        vids[i] = fixture_create_volume(stage->fixture->store);
        fixture_write_history(stage->fixture->store, &vids[i], i % 3, NULL, NULL, NULL);
    }
    struct rpc_stream *stream = listen_to(stage, &listener, vids, ARRAY_COUNT(vids), 1);
    for (unsigned i = 0; i < ARRAY_COUNT(vids); i++)
        if (i % 3 == 2)
            await_lsn(&listener, i, 2);
    mutex_lock(&listener.lock);
    for (unsigned i = 0; i < ARRAY_COUNT(vids); i++)
        cr_assert_eq(listener.lsns[i], i % 3 == 2 ? 2 : 0, "volume %u is not ahead", i);
    mutex_unlock(&listener.lock);
    stop_listening(stream, &listener);
}

Test(watch, tells_each_move_of_any_of_many_volumes, .timeout = 60)
{
    _cleanup_(stage_free_p) struct stage *stage = stage_new(60000);
    struct listener listener;
    struct gid vids[100];
    for (unsigned i = 0; i < ARRAY_COUNT(vids); i++) {
        vids[i] = fixture_create_volume(stage->fixture->store);
        fixture_write_history(stage->fixture->store, &vids[i], 1, NULL, NULL, NULL);
    }
    struct rpc_stream *stream = listen_to(stage, &listener, vids, ARRAY_COUNT(vids), 0);
    for (unsigned i = 0; i < ARRAY_COUNT(vids); i++)
        await_lsn(&listener, i, 1);
    for (uint64_t lsn = 2; lsn < 200; lsn++) {
        size_t place = lsn * 7 % ARRAY_COUNT(vids);
        move(stage, &vids[place], lsn);
        await_lsn(&listener, place, lsn);
    }
    stop_listening(stream, &listener);
}

Test(watch, ignores_moves_that_are_old_news, .timeout = 60)
{
    _cleanup_(stage_free_p) struct stage *stage = stage_new(60000);
    struct listener listener;
    struct gid vid = fixture_create_volume(stage->fixture->store);
    fixture_write_history(stage->fixture->store, &vid, 9, NULL, NULL, NULL);
    struct rpc_stream *stream = listen_to(stage, &listener, &vid, 1, 8);
    await_lsn(&listener, 0, 9);
    for (uint64_t lsn = 0; lsn <= 9; lsn++)
        move(stage, &vid, lsn);
    move(stage, &vid, 10);
    await_lsn(&listener, 0, 10);
    cr_assert_eq(listener.frames, 2);
    stop_listening(stream, &listener);
}

Test(watch, beats_with_the_heads_of_all_volumes, .timeout = 60)
{
    _cleanup_(stage_free_p) struct stage *stage = stage_new(30);
    struct listener listener;
    struct gid vids[100];
    for (unsigned i = 0; i < ARRAY_COUNT(vids); i++)
        vids[i] = fixture_create_volume(stage->fixture->store);
    struct rpc_stream *stream = listen_to(stage, &listener, vids, ARRAY_COUNT(vids), 0);
    mutex_lock(&listener.lock);
    for (unsigned i = 0; i < ARRAY_COUNT(vids); i++)
        while (listener.beaten[i] < 2)
            cond_wait(&listener.heard, &listener.lock);
    mutex_unlock(&listener.lock);
    stop_listening(stream, &listener);
}

Test(watch, ends_every_stream_when_it_stops, .timeout = 60)
{
    struct stage *stage = stage_new(60000);
    struct listener listeners[5];
    struct rpc_stream *streams[5];
    struct gid vid = fixture_create_volume(stage->fixture->store);
    fixture_write_history(stage->fixture->store, &vid, 1, NULL, NULL, NULL);
    for (unsigned i = 0; i < ARRAY_COUNT(streams); i++)
        streams[i] = listen_to(stage, &listeners[i], &vid, 1, 0);
    for (unsigned i = 0; i < ARRAY_COUNT(streams); i++)
        await_lsn(&listeners[i], 0, 1);
    watch_hub_stop(stage->hub);
    for (unsigned i = 0; i < ARRAY_COUNT(streams); i++) {
        cr_assert_eq(rpc_stream_finish(streams[i], NULL, NULL), GRAFT_OK);
        cr_assert(listeners[i].ended);
        free(listeners[i].lsns);
        free(listeners[i].beaten);
    }
    stage_free(stage);
}

static void refuse(struct stage *stage, size_t items, size_t vid_size, enum graft_status status,
                   const char *word)
{
    static Graft__WatchItem storage[WATCH_VOLUMES_MAX + 1];
    static Graft__WatchItem *pointers[WATCH_VOLUMES_MAX + 1];
    struct gid vid = gid_make(GID_VOLUME, 1);
    Graft__WatchRequest request = GRAFT__WATCH_REQUEST__INIT;
    for (size_t i = 0; i < items; i++) {
        graft__watch_item__init(&storage[i]);
        storage[i].vid = binary_of(vid.bytes, vid_size);
        pointers[i] = &storage[i];
    }
    request.items = pointers;
    request.n_items = items;
    ProtobufCMessage *response;
    struct graft_error error;
    const struct rpc_target target = {.http = stage->http, .url = stage->url, .deadline_ms = 20000};
    cr_assert_eq(
        rpc_call(&target, "watch", &request.base, &graft__watch_frame__descriptor, &response, NULL, &error),
        status, "%s", error.message);
    cr_assert(strstr(error.message, word), "%s", error.message);
}

Test(watch, refuses_requests_that_make_no_sense, .timeout = 60)
{
    _cleanup_(stage_free_p) struct stage *stage = stage_new(60000);
    refuse(stage, 0, GID_SIZE, GRAFT_INVALID, "items");
    refuse(stage, 2, 7, GRAFT_INVALID, "items[0]");
    refuse(stage, WATCH_VOLUMES_MAX + 1, GID_SIZE, GRAFT_LIMIT, "16384");
}

// ---- volumes whose head cannot be told

static void await_troubles(struct listener *listener, unsigned count, bool beaten)
{
    LOCK_GUARD(&listener->lock);
    while ((beaten ? listener->beaten_troubles : listener->troubles) < count)
        cond_wait(&listener->heard, &listener->lock);
}

Test(watch, watches_the_others_where_one_is_unknown, .timeout = 60)
{
    _cleanup_(stage_free_p) struct stage *stage = stage_new(60000);
    struct listener listener;
    struct gid vids[] = {fixture_create_volume(stage->fixture->store), gid_make(GID_VOLUME, 1),
                         fixture_create_volume(stage->fixture->store)};
    struct rpc_stream *stream = listen_to(stage, &listener, vids, ARRAY_COUNT(vids), 0);
    await_troubles(&listener, 1, false);
    cr_assert(gid_equal(&listener.trouble_vid, &vids[1]));
    cr_assert_eq(listener.trouble_status, GRAFT_NOT_FOUND);
    cr_assert_eq(listener.trouble_detail, GRAFT_DETAIL_NO_SUCH_VOLUME);
    move(stage, &vids[0], 7);
    move(stage, &vids[2], 8);
    await_lsn(&listener, 0, 7);
    await_lsn(&listener, 2, 8);
    // It comes into being: from then on it is one of them.
    move(stage, &vids[1], 1);
    await_lsn(&listener, 1, 1);
    cr_assert_eq(listener.troubles, 1);
    stop_listening(stream, &listener);
}

Test(watch, names_a_damaged_volume_and_many_unknown_ones_in_every_heartbeat, .timeout = 60)
{
    enum { COUNT = 100 }; // several frames
    _cleanup_(stage_free_p) struct stage *stage = stage_new(50);
    struct listener listener;
    struct gid vids[COUNT + 1];
    for (unsigned i = 0; i < COUNT; i++)
        vids[i] = gid_make(GID_VOLUME, 1 + i);
    vids[COUNT] = fixture_create_volume(stage->fixture->store);
    vids[0] = gid_make(GID_VOLUME, 1000);
    cr_assert_eq(objstore_create_wait(stage->fixture->store, key_catalog(&vids[0]).text,
                                      (struct bytes){(const uint8_t *)"no record", 9}, NULL),
                 GRAFT_OK);
    struct rpc_stream *stream = listen_to(stage, &listener, vids, ARRAY_COUNT(vids), 0);
    await_troubles(&listener, COUNT, false);
    await_troubles(&listener, 2 * COUNT, true);
    mutex_lock(&listener.lock);
    cr_assert_geq(listener.beaten[COUNT], 1);
    mutex_unlock(&listener.lock);
    stop_listening(stream, &listener);
    stream = listen_to(stage, &listener, vids, 1, 0);
    await_troubles(&listener, 1, false);
    cr_assert_eq(listener.trouble_status, GRAFT_CORRUPT);
    stop_listening(stream, &listener);
}

Test(watch, fails_as_a_whole_when_the_store_does, .timeout = 60)
{
    _cleanup_(stage_free_p) struct stage *stage = stage_new(60000);
    struct gid vids[] = {fixture_create_volume(stage->fixture->store), gid_make(GID_VOLUME, 1)};
    struct objstore_fault fault = {.op = "get",
                                   .count = 1,
                                   .kind = FAULT_ERROR,
                                   .error = {.status = GRAFT_UNAVAILABLE, .message = "not now"}};
    struct listener listener;
    struct graft_error error;
    objstore_faulty_add(stage->fixture->store, &fault);
    struct rpc_stream *stream = listen_to(stage, &listener, vids, ARRAY_COUNT(vids), 0);
    cr_assert_eq(rpc_stream_finish(stream, NULL, &error), GRAFT_UNAVAILABLE, "%s", error.message);
    cr_assert(strstr(error.message, "not now"), "%s", error.message);
    free(listener.lsns);
    free(listener.beaten);
}

// ---- a watcher that does not read

static int connect_slowly(struct stage *stage, const struct gid *vid)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)atoi(strrchr(stage->url, ':') + 1))};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    Graft__WatchItem item = GRAFT__WATCH_ITEM__INIT, *items[] = {&item};
    Graft__WatchRequest request = GRAFT__WATCH_REQUEST__INIT;
    item.vid = binary_of(vid->bytes, GID_SIZE);
    request.items = items;
    request.n_items = 1;
    _cleanup_(buffer_release) struct buffer bytes = BUFFER_INIT(4096);
    cr_assert_eq(
        buffer_printf(&bytes, NULL,
                      "POST /v1/watch HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-protobuf\r\n"
                      "Content-Length: %zu\r\n\r\n",
                      protobuf_c_message_get_packed_size(&request.base)),
        GRAFT_OK);
    cr_assert_eq(message_encode(&request.base, &bytes, NULL), GRAFT_OK);
    cr_assert_eq(send(fd, bytes.data, bytes.size, 0), (ssize_t)bytes.size);
    return fd;
}

// Heads move a million times while one watcher reads nothing: it is told little, and in the end the newest head; another
// one is told everything meanwhile.
Test(watch, tells_a_slow_watcher_the_newest_and_no_more, .timeout = 120)
{
    enum { MOVES = 1000000 };
    _cleanup_(stage_free_p) struct stage *stage = stage_new(60000);
    struct listener listener;
    struct gid vid = fixture_create_volume(stage->fixture->store);
    fixture_write_history(stage->fixture->store, &vid, 1, NULL, NULL, NULL);
    int fd = connect_slowly(stage, &vid);
    char head[16];
    cr_assert_eq(recv(fd, head, 12, MSG_WAITALL), 12); // the stream has begun
    struct rpc_stream *stream = listen_to(stage, &listener, &vid, 1, 0);
    for (uint64_t lsn = 2; lsn <= MOVES; lsn++) {
        move(stage, &vid, lsn);
        if (lsn % 1000 == 0)
            await_lsn(&listener, 0, lsn); // so that the hub comes round often
    }
    stop_listening(stream, &listener);
    // What comes out now ends with the newest head, long before a frame a move would.
    static uint8_t all[MIB * 16];
    size_t size = 0;
    uint8_t newest[8] = {0x10, 0xc0, 0x84, 0x3d}; // field 2 of a Snapshot: 1,000,000
    while (!memmem(all, size, newest, 4)) {
        ssize_t got = recv(fd, all + size, sizeof all - size, 0);
        cr_assert_gt(got, 0, "after %zu bytes", size);
        size += (size_t)got;
    }
    cr_assert_lt(size, 8 * MIB);
    close(fd);
}
