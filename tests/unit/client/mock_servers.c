// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/client/mock_servers.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/limits.h"
#include "common/base/pageset.h"
#include "common/net/http_client.h"
#include "common/net/message.h"
#include "common/net/page_stream.h"

static struct mock_servers *mock_of(const struct http_request *request)
{
    return http_request_context(request);
}

static void respond(struct http_request *request, const ProtobufCMessage *message)
{
    struct buffer body = BUFFER_INIT(1 << 20);

    cr_assert_eq(message_encode(message, &body, NULL), GRAFT_OK);
    http_respond(request, 200, HTTP_PROTOBUF, &body);
}

static void respond_text(struct http_request *request, unsigned code, const char *text)
{
    struct buffer body = BUFFER_INIT(1024);

    cr_assert_eq(buffer_append(&body, text, strlen(text), NULL), GRAFT_OK);
    http_respond(request, code, HTTP_TEXT, &body);
}

static struct snapshot head_locked(struct mock_servers *mock, const struct gid *vid)
{
    return (struct snapshot){.vid = *vid,
                             .lsn = mock->head_lsn,
                             .page_count = mock->head_page_count,
                             .chain = mock->head_chain,
                             .page_size = MOCK_PAGE_SIZE,
                             .time_ms = 1};
}

// Any call that is about one volume and answers with its head.
static struct snapshot head_for(struct http_request *request, struct bytes vid_bytes)
{
    struct mock_servers *mock = mock_of(request);
    struct gid vid;

    cr_assert_eq(gid_from_bytes(vid_bytes, GID_VOLUME, "vid", &vid, NULL), GRAFT_OK);
    LOCK_GUARD(&mock->lock);
    return head_locked(mock, &vid);
}

static void refuse_for_a_second(struct http_request *request)
{
    struct graft_error error;

    error_set(&error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED, "the mock is busy");
    http_respond_error(request, &error, 1);
}

// Counts a call, and says whether it is one of the next so many that are refused.
static bool take_busy(struct http_request *request, unsigned *count, unsigned *busy)
{
    LOCK_GUARD(&mock_of(request)->lock);
    ++*count;
    if (*busy == 0)
        return false;
    --*busy;
    return true;
}

static ProtobufCMessage *decode(const ProtobufCMessageDescriptor *descriptor, struct bytes whole)
{
    ProtobufCMessage *message;

    cr_assert_eq(message_decode(descriptor, whole, 1 << 24, &message, NULL), GRAFT_OK);
    return message;
}

static void call_create(struct http_request *request, struct bytes whole)
{
    struct mock_servers *mock = mock_of(request);

    if (take_busy(request, &mock->creates, &mock->creates_busy)) {
        refuse_for_a_second(request);
        return;
    }
    ProtobufCMessage *message = decode(&graft__create_volume_request__descriptor, whole);
    Graft__CreateVolumeResponse response = GRAFT__CREATE_VOLUME_RESPONSE__INIT;
    Graft__Snapshot head = GRAFT__SNAPSHOT__INIT;

    struct snapshot snapshot = head_for(request, bytes_of(&((Graft__CreateVolumeRequest *)message)->vid));
    snapshot_to_message(&snapshot, &head);
    response.head = &head;
    respond(request, &response.base);
    message_free(message);
}

static void call_snapshot(struct http_request *request, struct bytes whole)
{
    ProtobufCMessage *message = decode(&graft__snapshot_request__descriptor, whole);
    Graft__SnapshotResponse response = GRAFT__SNAPSHOT_RESPONSE__INIT;
    Graft__Snapshot head = GRAFT__SNAPSHOT__INIT;

    struct snapshot snapshot = head_for(request, bytes_of(&((Graft__SnapshotRequest *)message)->vid));
    snapshot_to_message(&snapshot, &head);
    response.snapshot = &head;
    respond(request, &response.base);
    message_free(message);
}

static void call_pull(struct http_request *request, struct bytes whole)
{
    struct mock_servers *mock = mock_of(request);

    if (take_busy(request, &mock->pulls, &mock->pulls_busy)) {
        refuse_for_a_second(request);
        return;
    }
    ProtobufCMessage *message = decode(&graft__pull_request__descriptor, whole);
    Graft__PullResponse response = GRAFT__PULL_RESPONSE__INIT;
    Graft__Snapshot head = GRAFT__SNAPSHOT__INIT;

    struct snapshot snapshot = head_for(request, bytes_of(&((Graft__PullRequest *)message)->vid));
    snapshot_to_message(&snapshot, &head);
    response.head = &head;
    response.cut = snapshot.page_count;
    respond(request, &response.base);
    message_free(message);
}

// ---- commit

// An Error of the server itself.
static void refuse(struct http_request *request, unsigned code, enum graft_status status,
                   enum graft_detail detail, const struct token *token)
{
    struct buffer body = BUFFER_INIT(4096);
    struct graft_error error;
    Graft__Error message = GRAFT__ERROR__INIT;

    error_set(&error, status, detail, "the mock refuses");
    error_to_message(&error, &message);
    if (token)
        message.token = binary_of(token->bytes, TOKEN_SIZE);
    cr_assert_eq(message_encode(&message.base, &body, NULL), GRAFT_OK);
    http_respond(request, code, HTTP_PROTOBUF, &body);
}

static void append_locked(struct mock_servers *mock, const struct gid *vid, const struct token *token,
                          const struct hash128 *digest, uint32_t page_count)
{
    cr_assert_lt(mock->head_lsn, MOCK_COMMITS_MAX);
    mock->landed[mock->head_lsn] = *token;
    mock->head_lsn++;
    mock->head_chain = chain_next(&mock->head_chain, vid, mock->head_lsn, token, digest, page_count);
    mock->head_page_count = page_count;
    mock->landed_as[mock->head_lsn - 1] = head_locked(mock, vid);
}

// False: its place is taken by another.
static bool land_locked(struct mock_servers *mock, const Graft__CommitRequest *commit,
                        const struct token *token, const struct hash128 *digest,
                        struct snapshot *ret_snapshot)
{
    struct gid vid;

    memcpy(vid.bytes, commit->vid.data, GID_SIZE);
    cr_assert_leq(commit->base_lsn, mock->head_lsn);
    if (commit->base_lsn == mock->head_lsn)
        append_locked(mock, &vid, token, digest, commit->page_count);
    // One that landed before is recognised by its token.
    *ret_snapshot = mock->landed_as[commit->base_lsn];
    return token_equal(&mock->landed[commit->base_lsn], token);
}

void mock_land_other(struct mock_servers *mock, const char *vid_text)
{
    struct gid vid;
    struct token token = {.bytes = {1, 2, 3}};
    struct hash128 digest = {.bytes = {4}};

    cr_assert_eq(gid_parse(vid_text, GID_VOLUME, &vid, NULL), GRAFT_OK);
    LOCK_GUARD(&mock->lock);
    append_locked(mock, &vid, &token, &digest, mock->head_page_count);
}

static void accept(struct http_request *request, struct snapshot snapshot, struct token token,
                   struct hash128 digest, enum commit_fault fault)
{
    Graft__CommitResponse response = GRAFT__COMMIT_RESPONSE__INIT;
    Graft__Snapshot landed = GRAFT__SNAPSHOT__INIT;

    token.bytes[0] ^= fault == COMMIT_OTHER_TOKEN_OK;
    digest.bytes[0] ^= fault == COMMIT_OTHER_DIGEST_OK;
    snapshot.chain.bytes[0] ^= fault == COMMIT_OTHER_CHAIN_OK;
    snapshot_to_message(&snapshot, &landed);
    response.snapshot = &landed;
    response.token = binary_of(token.bytes, TOKEN_SIZE);
    response.digest = binary_of(digest.bytes, HASH_SIZE);
    respond(request, &response.base);
}

static void answer_commit(struct http_request *request, const Graft__CommitRequest *commit,
                          enum commit_fault fault)
{
    struct mock_servers *mock = mock_of(request);
    struct token token, other;
    struct hash128 digest;
    struct snapshot snapshot = {0};

    memcpy(token.bytes, commit->token.data, TOKEN_SIZE);
    memcpy(digest.bytes, commit->digest.data, HASH_SIZE);
    other = token;
    other.bytes[3] ^= 1;
    if (fault == COMMIT_PLAIN || fault == COMMIT_LOST || fault == COMMIT_OTHER_CHAIN_OK ||
        fault == COMMIT_OTHER_DIGEST_OK || fault == COMMIT_OTHER_TOKEN_OK) {
        LOCK_GUARD(&mock->lock);
        if (!land_locked(mock, commit, &token, &digest, &snapshot))
            fault = fault == COMMIT_LOST ? COMMIT_BUSY : COMMIT_CONFLICT;
    }
    if (mock->plain_after_fence && commit->n_segments == 0 &&
        (fault == COMMIT_CONFLICT || fault == COMMIT_DELETED)) {
        LOCK_GUARD(&mock->lock);
        mock->plain_now = true;
    }
    switch (fault) {
    case COMMIT_PLAIN:
    case COMMIT_OTHER_TOKEN_OK:
    case COMMIT_OTHER_DIGEST_OK:
    case COMMIT_OTHER_CHAIN_OK:
        accept(request, snapshot, token, digest, fault);
        return;
    case COMMIT_LOST:
        respond_text(request, 502, "bad gateway");
        return;
    case COMMIT_PROXY_CONFLICT:
        respond_text(request, 409, "conflict");
        return;
    case COMMIT_BARE_CONFLICT:
        refuse(request, 409, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, NULL);
        return;
    case COMMIT_OTHER_CONFLICT:
        refuse(request, 409, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, &other);
        return;
    case COMMIT_CONFLICT:
        refuse(request, 409, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, &token);
        return;
    case COMMIT_TOKEN_REUSED:
        refuse(request, 400, GRAFT_INVALID, GRAFT_DETAIL_TOKEN_REUSED, &token);
        return;
    case COMMIT_DELETED:
        refuse(request, 404, GRAFT_NOT_FOUND, GRAFT_DETAIL_DELETED, &token);
        return;
    case COMMIT_DENIED:
        refuse(request, 403, GRAFT_DENIED, GRAFT_DETAIL_NONE, &token);
        return;
    case COMMIT_SEGMENT_GONE:
        refuse(request, 410, GRAFT_GONE, GRAFT_DETAIL_SEGMENT_GONE, &token);
        return;
    case COMMIT_RETIRED:
        refuse(request, 410, GRAFT_GONE, GRAFT_DETAIL_RETIRED, &token);
        return;
    case COMMIT_CHAIN_MISMATCH:
        refuse(request, 500, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH, &token);
        return;
    case COMMIT_BUSY:
        refuse(request, 503, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED, NULL);
        return;
    case COMMIT_BUSY_A_SECOND:
        refuse_for_a_second(request);
        return;
    case COMMIT_HOLD:
        mutex_lock(&mock->lock);
        buffer_init(&mock->held_bodies[mock->held_count], 1);
        mock->held[mock->held_count++] = request;
        mutex_unlock(&mock->lock);
        cond_broadcast(&mock->changed);
        return;
    }
}

static void call_commit(struct http_request *request, struct bytes whole)
{
    struct mock_servers *mock = mock_of(request);
    ProtobufCMessage *message = decode(&graft__commit_request__descriptor, whole);
    enum commit_fault fault;

    if (mock->on_commit)
        mock->on_commit(mock->context);
    mutex_lock(&mock->lock);
    if (mock->fences_apart && ((Graft__CommitRequest *)message)->n_segments == 0) {
        fault = mock->fence_faults[MIN(mock->fences, MOCK_COMMITS_MAX - 1)];
        mock->fences++;
    } else {
        unsigned place = MIN(mock->commits, MOCK_COMMITS_MAX - 1);
        fault = mock->plain_now ? mock->plain_is : mock->commit_faults[place];
        buffer_release(&mock->requests[place]);
        cr_assert_eq(buffer_append(&mock->requests[place], whole.data, whole.size, NULL), GRAFT_OK);
        mock->commits++;
    }
    mutex_unlock(&mock->lock);
    answer_commit(request, (Graft__CommitRequest *)message, fault);
    message_free(message);
}

// ---- write_pages

struct write_state {
    struct page_decoder *decoder;
    struct pageset *pages;
    struct gid vid;
};

static void write_begin(struct http_request *request, void *context)
{
    struct write_state *state = calloc(1, sizeof *state);

    state->decoder = page_decoder_new();
    state->pages = pageset_new();
    http_request_set_state(request, state);
}

static size_t write_body(struct http_request *request, const void *data, size_t size)
{
    struct write_state *state = http_request_state(request);
    struct bytes input = {data, size};
    struct page_event event;

    do {
        cr_assert_eq(page_decoder_next(state->decoder, &input, &event, NULL), GRAFT_OK);
        if (event.type == PAGE_EVENT_BEGIN)
            state->vid = event.vid;
        if (event.type == PAGE_EVENT_PAGE)
            pageset_add(state->pages, event.page.pageidx);
    } while (event.type != PAGE_EVENT_NEED_MORE);
    return size;
}

static void write_ready(struct http_request *request, struct bytes whole)
{
    struct mock_servers *mock = mock_of(request);
    struct write_state *state = http_request_state(request);
    Graft__WritePagesResponse response = GRAFT__WRITE_PAGES_RESPONSE__INIT;
    Graft__SegmentRef reference = GRAFT__SEGMENT_REF__INIT, *references[] = {&reference};
    _cleanup_(buffer_release) struct buffer pages = BUFFER_INIT(1 << 16);
    struct gid sid = gid_make(GID_SEGMENT, 1);
    uint8_t receipt[32] = {0};
    enum write_fault fault;

    cr_assert_eq(page_decoder_finish(state->decoder, NULL), GRAFT_OK);
    {
        LOCK_GUARD(&mock->lock);
        fault = mock->write_faults[MIN(mock->writes, MOCK_COMMITS_MAX - 1)];
        mock->writes++;
    }
    if (fault == WRITE_BUSY || fault == WRITE_BAD_BYTES) {
        struct graft_error error;
        if (fault == WRITE_BUSY)
            error_set(&error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED, "the mock is busy");
        else
            error_set(&error, GRAFT_INVALID, GRAFT_DETAIL_BAD_CHECKSUM, "the mock got other bytes");
        http_respond_error(request, &error, 0);
        return;
    }
    if (fault == WRITE_FEWER_PAGES)
        pageset_remove(state->pages, pageset_max(state->pages));
    cr_assert_eq(pageset_encode(state->pages, &pages, NULL), GRAFT_OK);
    reference.sid = binary_of(sid.bytes, GID_SIZE);
    reference.owner = binary_of(state->vid.bytes, GID_SIZE);
    reference.pages = binary_of(pages.data, pages.size);
    reference.receipt = binary_of(receipt, sizeof receipt);
    response.segments = references;
    response.n_segments = 1;
    respond(request, &response.base);
}

static void write_closed(struct http_request *request)
{
    struct write_state *state = http_request_state(request);

    if (!state)
        return;
    page_decoder_free(state->decoder);
    pageset_free(state->pages);
    free(state);
}

// ---- read_pages

void mock_page(uint32_t pageidx, uint8_t to[MOCK_PAGE_SIZE])
{
    for (size_t i = 0; i < MOCK_PAGE_SIZE; i++)
        to[i] = (uint8_t)(pageidx * 31 + i * (pageidx % 7 + 1));
}

static void put_page(struct buffer *to, const struct gid *vid, uint32_t pageidx, enum read_fault fault)
{
    uint8_t frame[PAGE_FRAME_HEADER_SIZE_MAX], page[MOCK_PAGE_SIZE];
    uint32_t size = MOCK_PAGE_SIZE - (fault == READ_SHORT);
    struct graft_error error;

    if (fault == READ_DAMAGED) {
        error_set(&error, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM, "the mock's page is damaged");
        cr_assert_eq(page_stream_append_damaged(to, pageidx, &error, NULL), GRAFT_OK);
        return;
    }
    mock_page(pageidx, page);
    struct page_header header = {.pageidx = pageidx,
                                 .state = PAGE_STATE_STORED,
                                 .raw_size = size,
                                 .checksum = page_checksum(vid, pageidx, page, size)};
    if (fault == READ_BAD_BYTES)
        page[5] ^= 1;
    cr_assert_eq(buffer_append(to, frame, page_stream_put_page(frame, &header, size), NULL), GRAFT_OK);
    cr_assert_eq(buffer_append(to, page, size, NULL), GRAFT_OK);
}

static void put_stream(struct buffer *to, const Graft__ReadPagesRequest *asked, const struct pageset *pages,
                       enum read_fault fault)
{
    uint8_t frame[PAGE_FRAME_HEADER_SIZE_MAX];
    struct pageset_cursor cursor = pageset_cursor(pages);
    uint32_t pageidx, last = pageset_max(pages);
    struct hash128 chain;
    struct gid vid;
    uint64_t count = 0;

    memcpy(vid.bytes, asked->vid.data, GID_SIZE);
    memcpy(chain.bytes, asked->chain.data, HASH_SIZE);
    chain.bytes[1] ^= fault == READ_OTHER_CHAIN;
    cr_assert_eq(
        buffer_append(to, frame,
                      page_stream_put_begin(frame, &vid, asked->lsn + (fault == READ_OTHER_LSN), &chain),
                      NULL),
        GRAFT_OK);
    while (pageset_next(&cursor, &pageidx)) {
        if (pageidx == last && (fault == READ_CUT || fault == READ_LEAVE_OUT))
            break;
        put_page(to, &vid, pageidx, pageidx == last ? fault : READ_PLAIN);
        count++;
    }
    if (fault == READ_TWICE || fault == READ_STRANGER) {
        put_page(to, &vid, fault == READ_TWICE ? last : last + 1, READ_PLAIN);
        count++;
    }
    if (fault != READ_CUT)
        cr_assert_eq(page_stream_append_end(to, count, NULL, NULL), GRAFT_OK);
}

static void call_read(struct http_request *request, struct bytes whole)
{
    struct mock_servers *mock = mock_of(request);
    ProtobufCMessage *message = decode(&graft__read_pages_request__descriptor, whole);
    const Graft__ReadPagesRequest *asked = (Graft__ReadPagesRequest *)message;
    struct buffer body = BUFFER_INIT(16 * MIB);
    struct pageset *pages;
    enum read_fault fault;

    cr_assert_eq(pageset_decode(bytes_of(&asked->pages), UINT32_MAX, "pages", &pages, NULL), GRAFT_OK);
    put_stream(&body, asked, pages, READ_PLAIN);
    mutex_lock(&mock->lock);
    unsigned place = MIN(mock->reads, MOCK_COMMITS_MAX - 1);
    fault = mock->read_faults[place];
    mock->first[place] = asked->first;
    mock->read_counts[place] = pageset_count(pages);
    mock->reads++;
    if (fault == READ_HOLD) {
        mock->held[mock->held_count] = request;
        mock->held_bodies[mock->held_count++] = buffer_take(&body);
        mock->held_most = MAX(mock->held_most, mock->held_count);
    }
    mutex_unlock(&mock->lock);
    cond_broadcast(&mock->changed);
    if (fault == READ_BEHIND) {
        refuse(request, 503, GRAFT_UNAVAILABLE, GRAFT_DETAIL_BEHIND, NULL);
    } else if (fault == READ_RETIRED) {
        refuse(request, 410, GRAFT_GONE, GRAFT_DETAIL_RETIRED, NULL);
    } else if (fault != READ_HOLD) {
        buffer_clear(&body);
        put_stream(&body, asked, pages, fault);
        http_respond(request, 200, HTTP_STREAM, &body);
    }
    buffer_release(&body);
    pageset_free(pages);
    message_free(message);
}

void mock_await_held(struct mock_servers *mock, unsigned count)
{
    LOCK_GUARD(&mock->lock);
    while (mock->held_count < count)
        cond_wait(&mock->changed, &mock->lock);
}

static void let_go(struct mock_servers *mock, bool refused)
{
    struct http_request *held[MOCK_COMMITS_MAX];
    struct buffer bodies[MOCK_COMMITS_MAX];

    mutex_lock(&mock->lock);
    unsigned count = mock->held_count;
    memcpy(held, mock->held, sizeof held);
    memcpy(bodies, mock->held_bodies, sizeof bodies);
    mock->held_count = 0;
    memset(mock->read_faults, 0, sizeof mock->read_faults);
    mutex_unlock(&mock->lock);
    for (unsigned i = 0; i < count; i++) {
        if (bodies[i].size == 0)
            refuse(held[i], 503, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED, NULL);
        else if (refused)
            refuse(held[i], 410, GRAFT_GONE, GRAFT_DETAIL_RETIRED, NULL);
        else
            http_respond(held[i], 200, HTTP_STREAM, &bodies[i]);
        buffer_release(&bodies[i]);
    }
}

void mock_release(struct mock_servers *mock)
{
    let_go(mock, false);
}

void mock_refuse(struct mock_servers *mock)
{
    let_go(mock, true);
}

// ---- life

void mock_start(struct mock_servers *mock)
{
    static const struct http_route routes[] = {
        {"POST", "/v1/create_volume", HTTP_PROTOBUF, 1 << 16, .ready = call_create, .deadline_ms = 60000},
        {"POST", "/v1/snapshot", HTTP_PROTOBUF, 1 << 16, .ready = call_snapshot, .deadline_ms = 60000},
        {"POST", "/v1/pull", HTTP_PROTOBUF, 1 << 16, .ready = call_pull, .deadline_ms = 60000},
        {"POST", "/v1/commit", HTTP_PROTOBUF, 1 << 22, .ready = call_commit, .deadline_ms = 60000},
        {"POST", "/v1/write_pages", HTTP_STREAM, 1 << 30, .begin = write_begin, .body = write_body,
         .ready = write_ready, .closed = write_closed, .deadline_ms = 60000},
        {"POST", "/v1/read_pages", HTTP_PROTOBUF, 1 << 18, .ready = call_read, .deadline_ms = 60000},
    };
    struct http_server_settings settings = {.listen = "127.0.0.1:0",
                                            .routes = routes,
                                            .route_count = ARRAY_COUNT(routes),
                                            .context = mock,
                                            .threads = 2,
                                            .connections_max = 64,
                                            .connection_memory = 65536,
                                            .idle_timeout_ms = 60000,
                                            .metrics_name = "mock"};
    struct graft_error err;

    memset(mock, 0, sizeof *mock);
    mutex_init(&mock->lock, RANK_LEAF);
    cond_init(&mock->changed);
    for (unsigned i = 0; i < MOCK_COMMITS_MAX; i++)
        buffer_init(&mock->requests[i], 1 << 22);
    cr_assert_eq(http_server_start(&settings, &mock->server, &err), GRAFT_OK, "%s", err.message);
    snprintf(mock->url, sizeof mock->url, "http://%s", http_server_address(mock->server));
}

void mock_stop(struct mock_servers *mock)
{
    mock_release(mock);
    http_server_drain(mock->server, 5000);
    http_server_stop(mock->server);
    for (unsigned i = 0; i < MOCK_COMMITS_MAX; i++)
        buffer_release(&mock->requests[i]);
    cond_release(&mock->changed);
    mutex_release(&mock->lock);
}

struct token mock_request_token(struct mock_servers *mock, unsigned place)
{
    ProtobufCMessage *message =
        decode(&graft__commit_request__descriptor, buffer_bytes(&mock->requests[place]));
    struct token token;

    cr_assert_eq(token_from_bytes(bytes_of(&((Graft__CommitRequest *)message)->token), "token", &token, NULL),
                 GRAFT_OK);
    message_free(message);
    return token;
}

unsigned mock_replay(struct mock_servers *mock, unsigned place)
{
    struct http_client_settings settings = {0};
    struct http_client *http;
    struct http_outcome outcome = {0};
    struct buffer answer;
    char url[128];

    snprintf(url, sizeof url, "%s/v1/commit", mock->url);
    struct http_exchange_spec spec = {.url = url,
                                      .content_type = HTTP_PROTOBUF,
                                      .body = buffer_bytes(&mock->requests[place]),
                                      .deadline_ms = 10000,
                                      .response_max = 1 << 16};
    cr_assert_eq(http_client_new(&settings, &http, NULL), GRAFT_OK);
    http_client_call(http, &spec, &answer, &outcome, NULL);
    buffer_release(&answer);
    http_client_free(http);
    return (unsigned)outcome.code;
}

void mock_set_head(struct mock_servers *mock, const char *vid, uint32_t page_count)
{
    LOCK_GUARD(&mock->lock);
    mock->head_lsn = 1;
    mock->head_chain = hash128(vid, strlen(vid));
    mock->head_page_count = page_count;
}
