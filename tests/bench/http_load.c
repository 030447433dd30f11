// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/http_load.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define HEAD_SIZE_MAX 4096u
#define RECEIVE_SIZE (256u * 1024)
#define SILENCE_MAX_MS 30000

enum part {
    PART_HEAD,
    PART_BODY,       // `left` bytes of it, or of a chunk
    PART_CHUNK_SIZE, // a line in `line`
    PART_CHUNK_END,  // the line end behind a chunk
    PART_TRAILER,    // behind the last chunk: no trailer is expected, so one empty line
    PART_DONE,
};

struct connection {
    int fd;
    struct bytes to_send;
    bool busy;
    enum part part;
    bool chunked;
    uint64_t left;
    char line[HEAD_SIZE_MAX]; // what of a head or a line came so far
    size_t line_size;
    int code;
    uint64_t size;
    struct buffer body;
};

struct http_load {
    int epoll;
    unsigned count;
    size_t body_max;
    uint8_t *received;
    struct connection *connections;
    struct http_answer_seen last; // of http_load_call()
    struct bytes single;
};

// ---- connections ----------------------------------------------------------------------------------------------------

static int connect_to(const char *address)
{
    struct sockaddr_in peer = bench_address(address);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&peer, sizeof peer) != 0)
        bench_fail("connecting to %s: %s", address, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

struct http_load *http_load_open(const char *address, unsigned connections, size_t body_max)
{
    struct http_load *load = bench_alloc(sizeof *load);
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    load->count = connections;
    load->body_max = body_max;
    load->received = bench_alloc(RECEIVE_SIZE);
    load->connections = bench_alloc(connections * sizeof *load->connections);
    for (unsigned i = 0; i < connections; i++) {
        struct connection *connection = &load->connections[i];
        connection->fd = connect_to(address);
        buffer_init(&connection->body, body_max);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = i};
        if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, connection->fd, &event) != 0)
            bench_fail("epoll: %s", strerror(errno));
    }
    return load;
}

void http_load_free(struct http_load *load)
{
    if (!load)
        return;
    for (unsigned i = 0; i < load->count; i++) {
        close(load->connections[i].fd);
        buffer_release(&load->connections[i].body);
    }
    close(load->epoll);
    free(load->received);
    free(load->connections);
    free(load);
}

void http_load_head(struct buffer *to, const char *path, const char *content_type, size_t size)
{
    struct graft_error err;
    enum graft_status status;
    if (content_type)
        status = buffer_printf(
            to, &err, "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n",
            path, content_type, size);
    else
        status = buffer_printf(to, &err, "GET %s HTTP/1.1\r\nHost: bench\r\n\r\n", path);
    bench_check(status, &err, "making a request");
}

// ---- answers --------------------------------------------------------------------------------------------------------

static void take_body(struct connection *connection, const uint8_t *data, size_t size)
{
    size_t kept = MIN(size, connection->body.size_max - connection->body.size);
    if (kept > 0)
        bench_check(buffer_append(&connection->body, data, kept, NULL), NULL, "keeping an answer");
    connection->size += size;
    connection->left -= size;
}

static void head_complete(struct connection *connection)
{
    connection->line[connection->line_size] = '\0';
    if (sscanf(connection->line, "HTTP/1.1 %d", &connection->code) != 1)
        bench_fail("not an answer: %.60s", connection->line);
    connection->line_size = 0;
    if (connection->code < 200)
        return; // 100 Continue: the answer's own head follows
    const char *length = strcasestr(connection->line, "\r\ncontent-length:");
    connection->chunked = !length;
    connection->left = length ? strtoull(length + strlen("\r\ncontent-length:"), NULL, 10) : 0;
    connection->part = !length ? PART_CHUNK_SIZE : connection->left > 0 ? PART_BODY : PART_DONE;
}

static void line_complete(struct connection *connection)
{
    connection->line[connection->line_size] = '\0';
    connection->line_size = 0;
    if (connection->part == PART_CHUNK_SIZE) {
        connection->left = strtoull(connection->line, NULL, 16);
        connection->part = connection->left > 0 ? PART_BODY : PART_TRAILER;
    } else {
        connection->part = connection->part == PART_CHUNK_END ? PART_CHUNK_SIZE : PART_DONE;
    }
}

// Takes bytes of a head or of a line; how many.
static size_t take_line(struct connection *connection, const uint8_t *data, size_t size)
{
    const char *end = connection->part == PART_HEAD ? "\r\n\r\n" : "\r\n";
    size_t end_size = strlen(end);
    for (size_t i = 0; i < size; i++) {
        if (connection->line_size + 1 >= sizeof connection->line)
            bench_fail("a head of an answer is too long");
        connection->line[connection->line_size++] = (char)data[i];
        if (connection->line_size < end_size ||
            memcmp(connection->line + connection->line_size - end_size, end, end_size) != 0)
            continue;
        if (connection->part == PART_HEAD)
            head_complete(connection);
        else
            line_complete(connection);
        return i + 1;
    }
    return size;
}

static void take(struct connection *connection, const uint8_t *data, size_t size)
{
    while (size > 0) {
        size_t taken;
        if (connection->part == PART_DONE)
            bench_fail("more was answered than asked");
        if (connection->part == PART_BODY) {
            taken = MIN(size, connection->left);
            take_body(connection, data, taken);
            if (connection->left == 0)
                connection->part = connection->chunked ? PART_CHUNK_END : PART_DONE;
        } else {
            taken = take_line(connection, data, size);
        }
        data += taken;
        size -= taken;
    }
}

// ---- driving --------------------------------------------------------------------------------------------------------

static void send_some(struct connection *connection)
{
    while (connection->to_send.size > 0) {
        ssize_t sent = send(connection->fd, connection->to_send.data, connection->to_send.size,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent < 0)
            bench_fail("sending a request: %s", strerror(errno));
        connection->to_send.data += sent;
        connection->to_send.size -= (size_t)sent;
    }
}

static bool start_next(struct http_load *load, unsigned number, http_load_next_fn *next, void *context)
{
    struct connection *connection = &load->connections[number];
    connection->busy = next(context, number, &connection->to_send);
    if (!connection->busy)
        return false;
    connection->part = PART_HEAD;
    connection->line_size = 0;
    connection->size = 0;
    buffer_clear(&connection->body);
    send_some(connection);
    return true;
}

// Reads what has come; true once the answer is whole.
static bool receive_some(struct http_load *load, struct connection *connection)
{
    while (connection->part != PART_DONE) {
        ssize_t got = recv(connection->fd, load->received, RECEIVE_SIZE, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN)
            return false;
        if (got <= 0)
            bench_fail("reading an answer: %s",
                       got == 0 ? "the server closed the connection" : strerror(errno));
        take(connection, load->received, (size_t)got);
    }
    return true;
}

void http_load_run(struct http_load *load, http_load_next_fn *next, http_load_answered_fn *answered,
                   void *context)
{
    unsigned active = 0;
    for (unsigned i = 0; i < load->count; i++)
        active += start_next(load, i, next, context);
    while (active > 0) {
        struct epoll_event events[64];
        int count = epoll_wait(load->epoll, events, ARRAY_COUNT(events), SILENCE_MAX_MS);
        if (count <= 0)
            bench_fail("no answer within %d ms", SILENCE_MAX_MS);
        for (int i = 0; i < count; i++) {
            unsigned number = events[i].data.u32;
            struct connection *connection = &load->connections[number];
            if (!connection->busy)
                continue;
            send_some(connection);
            // An edge is told once: with the next request sent, its answer may be here already.
            while (connection->busy && receive_some(load, connection)) {
                struct http_answer_seen seen = {connection->code, connection->size,
                                                buffer_bytes(&connection->body)};
                answered(context, number, &seen);
                active -= !start_next(load, number, next, context);
            }
        }
    }
}

static bool next_single(void *context, unsigned connection, struct bytes *ret_request)
{
    struct http_load *load = context;
    *ret_request = load->single;
    load->single = (struct bytes){NULL, 0};
    return connection == 0 && ret_request->size > 0;
}

static void answered_single(void *context, unsigned connection, const struct http_answer_seen *answer)
{
    struct http_load *load = context;
    (void)connection;
    load->last = *answer;
}

struct http_answer_seen http_load_call(struct http_load *load, struct bytes request)
{
    load->single = request;
    http_load_run(load, next_single, answered_single, load);
    return load->last;
}
