// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/net/http_peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"

void peer_open(struct peer *peer, const char *address)
{
    *peer = (struct peer){0};
    char host[64];
    const char *colon = strrchr(address, ':');
    CHECK(colon);
    snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    CHECK(inet_pton(AF_INET, host, &to.sin_addr) == 1);
    peer->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(peer->socket >= 0);
    CHECK(connect(peer->socket, (struct sockaddr *)&to, sizeof to) == 0);
    int on = 1;
    setsockopt(peer->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct timeval limit = {.tv_sec = PEER_TIMEOUT_MS / 1000};
    setsockopt(peer->socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

void peer_close(struct peer *peer)
{
    close(peer->socket);
    free(peer->input);
    *peer = (struct peer){.socket = -1};
}

bool peer_send(struct peer *peer, const void *data, size_t size)
{
    const char *from = data;
    while (size > 0) {
        ssize_t sent = send(peer->socket, from, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        from += sent;
        size -= (size_t)sent;
    }
    return true;
}

bool peer_print(struct peer *peer, const char *format, ...)
{
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    CHECK(length >= 0 && (size_t)length < sizeof text);
    return peer_send(peer, text, (size_t)length);
}

// False: nothing more, for whatever reason.
static bool peer_fill(struct peer *peer)
{
    if (peer->ended)
        return false;
    if (peer->capacity - peer->start - peer->size < 65536) {
        if (peer->start > 0)
            memmove(peer->input, peer->input + peer->start, peer->size);
        peer->start = 0;
        if (peer->capacity - peer->size < 65536)
            peer->capacity = 2 * peer->capacity + 65536;
        peer->input = realloc(peer->input, peer->capacity);
        CHECK(peer->input);
    }
    struct pollfd poller = {.fd = peer->socket, .events = POLLIN};
    if (poll(&poller, 1, PEER_TIMEOUT_MS) != 1)
        return false;
    size_t end = peer->start + peer->size;
    ssize_t got = recv(peer->socket, peer->input + end, peer->capacity - end, 0);
    if (got <= 0) {
        peer->ended = true;
        return false;
    }
    peer->size += (size_t)got;
    return true;
}

static void peer_consume(struct peer *peer, size_t size)
{
    CHECK(size <= peer->size);
    peer->start += size;
    peer->size -= size;
}

static const char *pending(const struct peer *peer)
{
    return peer->input + peer->start;
}

// Waits until `size` bytes are there.
static bool peer_have(struct peer *peer, size_t size)
{
    while (peer->size < size)
        if (!peer_fill(peer))
            return false;
    return true;
}

// The length of what ends with `mark`, the mark included; 0: it does not come.
static size_t peer_find(struct peer *peer, const char *mark)
{
    for (;;) {
        const char *at = peer->size ? memmem(pending(peer), peer->size, mark, strlen(mark)) : NULL;
        if (at)
            return (size_t)(at - pending(peer)) + strlen(mark);
        if (!peer_fill(peer))
            return 0;
    }
}

static void reply_add(struct reply *reply, struct peer *peer, size_t size)
{
    if (reply->size + size + 1 > reply->capacity) {
        reply->capacity = 2 * (reply->size + size + 1);
        reply->body = realloc(reply->body, reply->capacity);
        CHECK(reply->body);
    }
    memcpy(reply->body + reply->size, pending(peer), size);
    reply->size += size;
    reply->body[reply->size] = '\0';
    peer_consume(peer, size);
}

static void read_chunked(struct peer *peer, struct reply *reply)
{
    for (;;) {
        size_t line = peer_find(peer, "\r\n");
        if (line == 0)
            return;
        size_t size = strtoull(pending(peer), NULL, 16); // a whole line is there
        peer_consume(peer, line);
        if (!peer_have(peer, size + 2))
            return;
        if (size > 0)
            reply_add(reply, peer, size);
        peer_consume(peer, 2);
        if (size == 0) {
            reply->whole = true;
            return;
        }
    }
}

struct reply peer_reply(struct peer *peer, bool to_head)
{
    struct reply reply = {0};
    size_t length = peer_find(peer, "\r\n\r\n");
    if (length == 0 || length >= sizeof reply.head)
        return reply;
    memcpy(reply.head, pending(peer), length);
    if (sscanf(reply.head, "HTTP/1.1 %d", &reply.code) != 1)
        return reply;
    peer_consume(peer, length);
    char value[64];
    if (to_head || reply.code / 100 == 1) {
        reply.whole = true;
    } else if (reply_header(&reply, "Transfer-Encoding", value, sizeof value)) {
        read_chunked(peer, &reply);
    } else if (reply_header(&reply, "Content-Length", value, sizeof value)) {
        size_t size = strtoull(value, NULL, 10);
        reply.whole = peer_have(peer, size);
        if (reply.whole && size > 0)
            reply_add(&reply, peer, size);
    } else {
        while (peer_fill(peer)) {
        }
        reply_add(&reply, peer, peer->size);
        reply.whole = true;
    }
    return reply;
}

void reply_release(struct reply *reply)
{
    free(reply->body);
    *reply = (struct reply){0};
}

const char *reply_header(const struct reply *reply, const char *name, char *ret_value, size_t size)
{
    for (const char *line = strstr(reply->head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        const char *at = line + 2;
        if (strncasecmp(at, name, strlen(name)) != 0 || at[strlen(name)] != ':')
            continue;
        at += strlen(name) + 1;
        at += strspn(at, " ");
        snprintf(ret_value, size, "%.*s", (int)strcspn(at, "\r"), at);
        return ret_value;
    }
    return NULL;
}

bool peer_is_closed(struct peer *peer)
{
    return peer->size == 0 && !peer_fill(peer) && peer->ended;
}

struct reply peer_post(struct peer *peer, const char *path, const char *type, const void *body, size_t size)
{
    peer_print(peer, "POST %s HTTP/1.1\r\nHost: t\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", path,
               type, size);
    peer_send(peer, body, size);
    return peer_reply(peer, false);
}

struct reply peer_get(struct peer *peer, const char *path)
{
    peer_print(peer, "GET %s HTTP/1.1\r\nHost: t\r\n\r\n", path);
    return peer_reply(peer, false);
}
