// SPDX-License-Identifier: Apache-2.0
//
// How a spec becomes a curl handle, what curl's callbacks do, and the one place where CURLcodes and HTTP
// codes become statuses.
//
// What curl does by itself and we rely on:
// - A request that dies on a kept-alive connection before a byte of the answer came is sent once more on a
// fresh one, a
//   POST as well. The server may thus see it twice. Calls of this protocol bear that (tokens, fresh
//   segments). A streamed body cannot be rewound, so streams ask first (Expect: 100-continue): nothing of the
//   body has left by then.
// - A transfer removed before its end closes its connection, so what was given up is never mixed up with what
// follows.
// - An error answered in the middle of an upload ends the upload and is delivered.
#include "common/net/http_exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/net/http_server.h"
#include "common/net/message.h"

#define EXPECT_SIZE_MIN MIB
#define STREAM_BUFFER_SIZE (128 * KIB) // curl's, for streamed bodies
#define RETRY_AFTER_MAX_S 3600

static const char *method_of(const struct http_exchange_spec *spec)
{
    if (spec->method)
        return spec->method;
    return spec->body.data || spec->read_body ? "POST" : "GET";
}

static bool has_body(const struct http_exchange_spec *spec)
{
    const char *method = method_of(spec);
    return spec->body.size > 0 || spec->read_body || strcmp(method, "POST") == 0 ||
           strcmp(method, "PUT") == 0;
}

// Nothing at the other side depends on whether such a request arrived.
static bool is_download(const struct http_exchange *exchange)
{
    return strcmp(exchange->method, "GET") == 0 || strcmp(exchange->method, "HEAD") == 0 ||
           (exchange->spec.on_data && !exchange->spec.read_body);
}

// The status of an exchange that ends without an answer.
static enum graft_status status_without_answer(const struct http_exchange *exchange)
{
    return !exchange->sent || is_download(exchange) ? GRAFT_UNAVAILABLE : GRAFT_UNKNOWN;
}

// ---- curl's callbacks ---------------------------------------------------------------------------------

static void note_progress(struct http_exchange *exchange)
{
    exchange->progress_us = clock_monotonic_us(clock_system());
}

// The connection stands; from here on the request may reach the server.
static int on_request_leaves(void *context, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
    struct http_exchange *exchange = context;
    (void)remote_ip, (void)local_ip, (void)remote_port, (void)local_port;
    exchange->sent = true;
    note_progress(exchange);
    http_client_note_due(exchange->client, http_exchange_due_us(exchange));
    return CURL_PREREQFUNC_OK;
}

static size_t on_upload(char *to, size_t one, size_t size, void *context)
{
    struct http_exchange *exchange = context;
    long count = exchange->spec.read_body(exchange->spec.context, to, one * size);
    exchange->read_paused = count == HTTP_PAUSE;
    if (count == HTTP_PAUSE)
        return CURL_READFUNC_PAUSE;
    if (count == HTTP_ABORT) {
        error_set(&exchange->failure, GRAFT_CANCELLED, GRAFT_DETAIL_NONE, "the upload to %s was given up",
                  exchange->url);
        return CURL_READFUNC_ABORT;
    }
    CHECK(count >= 0 && (size_t)count <= one * size);
    note_progress(exchange);
    return (size_t)count;
}

// Each header line comes by itself. An interim answer (100) is followed by another head.
static void follow_head(struct http_exchange *exchange, const char *line, size_t size)
{
    if (size > 5 && memcmp(line, "HTTP/", 5) == 0) {
        exchange->head_whole = false;
        return;
    }
    if (line[0] != '\r' && line[0] != '\n')
        return;
    long code = 0;
    exchange->head_whole = true;
    curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &code);
    // curl ends an upload at an error, but would not see that the exchange is over while the upload is
    // paused.
    if (code >= 300 && exchange->read_paused)
        http_exchange_resume(exchange);
}

static size_t on_header(char *data, size_t one, size_t size, void *context)
{
    struct http_exchange *exchange = context;
    follow_head(exchange, data, one * size);
    exchange->header_size += one * size;
    if (exchange->header_size > RESPONSE_HEADERS_SIZE_MAX) {
        error_set(&exchange->failure, status_without_answer(exchange), GRAFT_DETAIL_PROTOCOL,
                  "%s answers with more than %llu bytes of headers", exchange->url,
                  (unsigned long long)RESPONSE_HEADERS_SIZE_MAX);
        return 0;
    }
    note_progress(exchange);
    return one * size;
}

// "application/x-protobuf; x=y" is of the type "application/x-protobuf".
static bool type_matches(const char *content_type, const char *wanted)
{
    size_t size = strlen(wanted);
    if (!content_type || strncasecmp(content_type, wanted, size) != 0)
        return false;
    return content_type[size] == 0 || content_type[size] == ';' || content_type[size] == ' ';
}

static const char *content_type_of(const struct http_exchange *exchange)
{
    char *content_type = NULL;
    curl_easy_getinfo(exchange->easy, CURLINFO_CONTENT_TYPE, &content_type);
    return content_type;
}

// Looks at the answer's head, once. False if it is a 2xx answer of the wrong type.
static bool look_at_answer(struct http_exchange *exchange)
{
    if (!exchange->answer_seen) {
        long code = 0;
        curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &code);
        const char *content_type = content_type_of(exchange);
        bool good = code >= 200 && code < 300;
        exchange->code = (int)code;
        exchange->answer_fits =
            good && (!exchange->accept[0] || type_matches(content_type, exchange->accept));
        exchange->answer_seen = true;
        if (good && !exchange->answer_fits)
            error_set(&exchange->failure, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                      "%s answers with %s where %s belongs: is this the right URL?", exchange->url,
                      content_type ? content_type : "no content type", exchange->accept);
    }
    return exchange->failure.status == GRAFT_OK;
}

static size_t take_unary(struct http_exchange *exchange, const char *data, size_t size)
{
    if (buffer_append(&exchange->response, data, size, NULL) == GRAFT_OK) {
        exchange->received_size += size;
        return size;
    }
    if (exchange->answer_fits)
        error_set(&exchange->failure, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                  "%s answers with more than %zu bytes, which is the limit here", exchange->url,
                  exchange->response.size_max);
    else // of an error page the code alone counts; it is not worth the wait for the rest
        buffer_clear(&exchange->response);
    return 0;
}

static size_t on_download(char *data, size_t one, size_t count, void *context)
{
    struct http_exchange *exchange = context;
    size_t size = one * count;
    if (!look_at_answer(exchange))
        return 0;
    if (exchange->received_size == 0 && exchange->response.size == 0 && !exchange->answer_fits)
        buffer_init(&exchange->response, ERROR_RESPONSE_SIZE_MAX);
    note_progress(exchange);
    if (!exchange->answer_fits || !exchange->spec.on_data)
        return take_unary(exchange, data, size);

    long taken = exchange->spec.on_data(exchange->spec.context, data, size);
    exchange->data_paused = taken == HTTP_PAUSE;
    if (taken == HTTP_PAUSE)
        return CURL_WRITEFUNC_PAUSE;
    if (taken == HTTP_ABORT) {
        error_set(&exchange->failure, GRAFT_CANCELLED, GRAFT_DETAIL_NONE, "the download from %s was given up",
                  exchange->url);
        return 0;
    }
    CHECK(taken == (long)size);
    exchange->received_size += size;
    return size;
}

// ---- building -----------------------------------------------------------------------------------------

static bool is_plain_text(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            return false;
    return true;
}

static bool add_header(struct http_exchange *exchange, const char *name, const char *value)
{
    char line[4096];
    int size = snprintf(line, sizeof line, "%s:%s%s", name, *value ? " " : "", value);
    if (size < 0 || (size_t)size >= sizeof line || !is_plain_text(line))
        return false;
    struct curl_slist *longer = curl_slist_append(exchange->headers, line);
    if (!longer)
        return false;
    exchange->headers = longer;
    return true;
}

// A header without a value takes out the one that curl would add.
static bool build_headers(struct http_exchange *exchange, const struct http_exchange_spec *spec)
{
    bool asks_first = spec->read_body || spec->body.size > EXPECT_SIZE_MIN;
    char bearer[4000];
    if (spec->bearer &&
        ((size_t)snprintf(bearer, sizeof bearer, "Bearer %s", spec->bearer) >= sizeof bearer ||
         !add_header(exchange, "Authorization", bearer)))
        return false;
    return (!has_body(spec) ||
            add_header(exchange, "Content-Type", spec->content_type ? spec->content_type : "")) &&
           (!spec->accept || add_header(exchange, "Accept", spec->accept)) &&
           (!spec->read_body || add_header(exchange, "Transfer-Encoding", "chunked")) &&
           add_header(exchange, "Expect", asks_first ? "100-continue" : "");
}

static void build_body(struct http_exchange *exchange, const struct http_exchange_spec *spec)
{
    CURL *easy = exchange->easy;
    if (!has_body(spec)) {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
        if (strcmp(exchange->method, "HEAD") == 0)
            curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        if (spec->read_body) {
            curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_upload);
            curl_easy_setopt(easy, CURLOPT_READDATA, exchange);
            curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)STREAM_BUFFER_SIZE);
        } else {
            curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)exchange->body.size);
            curl_easy_setopt(easy, CURLOPT_POSTFIELDS,
                             exchange->body.data ? (char *)exchange->body.data : "");
        }
    }
    if (strcmp(exchange->method, "HEAD") != 0)
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, exchange->method);
}

static void build_handle(struct http_exchange *exchange, const char *user_agent, uint32_t connect_timeout_ms)
{
    CURL *easy = exchange->easy;
    curl_easy_setopt(easy, CURLOPT_URL, exchange->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, ""); // nothing comes from the environment
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); // giving up never waits for a name server's answer
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, user_agent);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->headers);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, exchange->curl_message);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, exchange);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_request_leaves);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, exchange);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_download);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
    if (exchange->spec.on_data)
        curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)STREAM_BUFFER_SIZE);
}

static enum graft_status no_memory(struct graft_error *err)
{
    return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for an HTTP request");
}

static enum graft_status copy_spec(struct http_exchange *exchange, const struct http_exchange_spec *spec,
                                   struct graft_error *err)
{
    const char *method = method_of(spec);
    const char *accept = spec->accept ? spec->accept : "";
    if (!spec->url || strlen(method) >= sizeof exchange->method || strlen(accept) >= sizeof exchange->accept)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "an HTTP request needs a URL and a method");
    exchange->spec = *spec;
    strcpy(exchange->method, method);
    strcpy(exchange->accept, accept);
    exchange->url = strdup(spec->url);
    if (!exchange->url)
        return no_memory(err);
    buffer_init(&exchange->body, spec->body.size);
    buffer_init(&exchange->response, spec->response_max);
    return buffer_append(&exchange->body, spec->body.data, spec->body.size, err);
}

enum graft_status http_exchange_new(struct http_client *client, const char *user_agent,
                                    uint32_t connect_timeout_ms, const struct http_exchange_spec *spec,
                                    struct http_exchange **ret_exchange, struct graft_error *err)
{
    struct http_exchange *exchange = calloc(1, sizeof *exchange);
    if (!exchange)
        return no_memory(err);
    atomic_init(&exchange->references, 1);
    exchange->client = client;
    exchange->started_us = clock_monotonic_us(clock_system());
    exchange->deadline_us =
        spec->deadline_ms ? exchange->started_us + spec->deadline_ms * 1000ull : UINT64_MAX;
    enum graft_status status = copy_spec(exchange, spec, err);
    if (status == GRAFT_OK && !build_headers(exchange, spec))
        status = error_set(
            err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
            "the headers of a request to %s are too long or hold control characters: look at the token",
            exchange->url);
    if (status == GRAFT_OK && !(exchange->easy = curl_easy_init()))
        status = no_memory(err);
    if (status != GRAFT_OK) {
        http_exchange_unref(exchange);
        return status;
    }
    build_handle(exchange, user_agent, connect_timeout_ms);
    build_body(exchange, spec);
    *ret_exchange = exchange;
    return GRAFT_OK;
}

void http_exchange_unref(struct http_exchange *exchange)
{
    if (!exchange || atomic_fetch_sub(&exchange->references, 1) != 1)
        return;
    curl_easy_cleanup(exchange->easy);
    curl_slist_free_all(exchange->headers);
    buffer_release(&exchange->body);
    buffer_release(&exchange->response);
    free(exchange->url);
    free(exchange);
}

// ---- time ---------------------------------------------------------------------------------------------

uint64_t http_exchange_due_us(const struct http_exchange *exchange)
{
    // Only the peer can stall: a pause is our own side's, and before the request leaves there is the connect
    // timeout.
    bool can_stall =
        exchange->spec.stall_ms > 0 && exchange->sent && !exchange->read_paused && !exchange->data_paused;
    uint64_t stalled_us = can_stall ? exchange->progress_us + exchange->spec.stall_ms * 1000ull : UINT64_MAX;
    return MIN(exchange->deadline_us, stalled_us);
}

void http_exchange_expire(struct http_exchange *exchange, uint64_t now_us)
{
    if (now_us >= exchange->deadline_us)
        error_set(&exchange->failure, status_without_answer(exchange), GRAFT_DETAIL_TIMEOUT,
                  "%s %s was not done within its deadline of %u ms%s", exchange->method, exchange->url,
                  exchange->spec.deadline_ms, exchange->sent ? "" : ", no connection stood");
    else
        error_set(&exchange->failure, status_without_answer(exchange), GRAFT_DETAIL_TIMEOUT,
                  "%s %s stood still for %u ms", exchange->method, exchange->url, exchange->spec.stall_ms);
}

// ---- what came of it ----------------------------------------------------------------------------------

// The only mapping of CURLcodes.
static void error_from_curl(const struct http_exchange *exchange, CURLcode result,
                            struct graft_error *ret_error)
{
    enum graft_status status = status_without_answer(exchange);
    enum graft_detail detail = GRAFT_DETAIL_PROTOCOL;
    switch (result) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        // After the request left, the latter means an answer that is not HTTP/1.x.
        if (!exchange->sent) {
            status = GRAFT_INVALID;
            detail = GRAFT_DETAIL_BAD_ARGUMENT;
        }
        break;
    case CURLE_OUT_OF_MEMORY:
        // After the request left it may also be a header line beyond curl's own limit.
        if (!exchange->sent) {
            status = GRAFT_INTERNAL;
            detail = GRAFT_DETAIL_NO_MEMORY;
        }
        break;
    case CURLE_OPERATION_TIMEDOUT:
        detail = exchange->sent ? GRAFT_DETAIL_TIMEOUT : GRAFT_DETAIL_UNREACHABLE;
        break;
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_SEND_FAIL_REWIND:
        detail = GRAFT_DETAIL_TRUNCATED;
        break;
    default:
        // Names, connections, TLS: all of it before the request could leave.
        if (!exchange->sent)
            detail = GRAFT_DETAIL_UNREACHABLE;
        break;
    }
    error_set(ret_error, status, detail, "%s %s: %s", exchange->method, exchange->url,
              exchange->curl_message[0] ? exchange->curl_message : curl_easy_strerror(result));
}

// curl takes a connection's end for the answer's where it cannot know better: inside the head, and after the
// body of an answer that states no length. A message cut there might still be well-formed. (Streams have a
// closing frame.)
static bool may_be_cut(const struct http_exchange *exchange)
{
    curl_off_t length = -1;
    long code = 0;
    struct curl_header *chunked;
    if (!exchange->head_whole)
        return true;
    curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &code);
    if (exchange->spec.on_data || code == 204 || strcmp(exchange->method, "HEAD") == 0)
        return false;
    curl_easy_getinfo(exchange->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    return length < 0 &&
           curl_easy_header(exchange->easy, "Transfer-Encoding", 0, CURLH_HEADER, -1, &chunked) != CURLHE_OK;
}

// What an HTTP code says by itself, where no Error message came with it.
static void error_from_code(const struct http_exchange *exchange, struct graft_error *ret_error)
{
    static const struct {
        int code;
        enum graft_status status;
        enum graft_detail detail;
    } known[] = {
        {400, GRAFT_INVALID, GRAFT_DETAIL_PROTOCOL},       {401, GRAFT_DENIED, GRAFT_DETAIL_PROTOCOL},
        {403, GRAFT_DENIED, GRAFT_DETAIL_PROTOCOL},        {404, GRAFT_NOT_FOUND, GRAFT_DETAIL_PROTOCOL},
        {405, GRAFT_INVALID, GRAFT_DETAIL_PROTOCOL},       {409, GRAFT_CONFLICT, GRAFT_DETAIL_PROTOCOL},
        {410, GRAFT_GONE, GRAFT_DETAIL_PROTOCOL},          {411, GRAFT_INVALID, GRAFT_DETAIL_PROTOCOL},
        {412, GRAFT_CONFLICT, GRAFT_DETAIL_PROTOCOL},      {413, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE},
        {415, GRAFT_INVALID, GRAFT_DETAIL_PROTOCOL},       {429, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED},
        {503, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED}, {507, GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE},
    };
    // 5xx: it may have been done. The rest (redirects, other 4xx) comes from something that is no server of
    // ours.
    enum graft_status status = exchange->code >= 500 ? status_without_answer(exchange) : GRAFT_UNAVAILABLE;
    enum graft_detail detail = GRAFT_DETAIL_PROTOCOL;
    for (size_t i = 0; i < ARRAY_COUNT(known); i++) {
        if (known[i].code == exchange->code) {
            status = known[i].status;
            detail = known[i].detail;
        }
    }
    error_set(ret_error, status, detail,
              "%s %s was answered with HTTP %d and no error message of this protocol: is a proxy in between?",
              exchange->method, exchange->url, exchange->code);
}

// The server's own Error, if that is what came.
static bool error_from_body(const struct http_exchange *exchange, struct graft_error *ret_error)
{
    ProtobufCMessage *message = NULL;
    if (!type_matches(content_type_of(exchange), HTTP_PROTOBUF))
        return false;
    if (message_decode(&graft__error__descriptor, buffer_bytes(&exchange->response),
                       4 * ERROR_RESPONSE_SIZE_MAX, &message, NULL) != GRAFT_OK)
        return false;
    // A status that is none of ours is well-formed too (a newer server's); OK is not.
    bool well_formed = ((Graft__Error *)message)->status != GRAFT_OK;
    if (well_formed)
        error_from_message((Graft__Error *)message, ret_error);
    message_free(message);
    return well_formed;
}

void http_exchange_outcome(struct http_exchange *exchange, CURLcode result, struct http_outcome *ret_outcome)
{
    curl_off_t sent_size = 0, retry_after_s = 0;
    long code = 0;
    struct http_outcome outcome = {0};
    // An error page too long to be kept was cut off by ourselves; its code is still an answer.
    bool cut_error_page = result == CURLE_WRITE_ERROR && exchange->answer_seen && !exchange->answer_fits;
    if (exchange->failure.status == GRAFT_OK && result == CURLE_OK && exchange->sent && may_be_cut(exchange))
        result = CURLE_PARTIAL_FILE;
    if (exchange->failure.status == GRAFT_OK && result == CURLE_OK)
        look_at_answer(exchange);
    if (exchange->failure.status != GRAFT_OK)
        outcome.error = exchange->failure;
    else if (result != CURLE_OK && !cut_error_page)
        error_from_curl(exchange, result, &outcome.error);
    else if (!exchange->answer_fits) {
        outcome.answered = !cut_error_page && error_from_body(exchange, &outcome.error);
        if (!outcome.answered)
            error_from_code(exchange, &outcome.error);
    }
    curl_easy_getinfo(exchange->easy, CURLINFO_SIZE_UPLOAD_T, &sent_size);
    if (exchange->head_whole) {
        curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &code);
        curl_easy_getinfo(exchange->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
    }
    outcome.code = code >= 200 ? (int)code : 0;
    outcome.sent = exchange->sent;
    outcome.retry_after_ms = retry_after_s > 0 ? (uint32_t)MIN(retry_after_s, RETRY_AFTER_MAX_S) * 1000 : 0;
    outcome.body = buffer_bytes(&exchange->response);
    outcome.sent_size = (uint64_t)sent_size;
    outcome.received_size = exchange->received_size;
    *ret_outcome = outcome;
}
