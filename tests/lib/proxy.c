// SPDX-License-Identifier: Apache-2.0
#include "tests/lib/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"

#define LINKS_MAX 64
#define CHUNK_SIZE 16384

// One proxied connection. Both ends belong to the proxy's thread.
struct link {
    int ends[2]; // client, daemon; -1: free
    char path[64];
    size_t passed[2]; // bytes of the present call, by direction
    bool held;
};

struct proxy {
    struct sockaddr_in target;
    char url[64];
    int listener, wake;
    pthread_t thread;
    struct link links[LINKS_MAX];

    struct mutex lock;
    struct cond changed;
    struct proxy_stop stop; // path NULL: none; under lock, as what follows
    bool is_held, cut_all, ending;
};

static void close_link(struct link *link)
{
    for (int i = 0; i < 2; i++) {
        if (link->ends[i] >= 0)
            close(link->ends[i]);
        link->ends[i] = -1;
    }
    link->held = false;
}

static void accept_link(struct proxy *proxy)
{
    int client = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC);
    int daemon = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    for (struct link *link = proxy->links; client >= 0 && link < proxy->links + LINKS_MAX; link++) {
        if (link->ends[0] >= 0)
            continue;
        // Nobody listens while the daemon is down: the client sees its connection close.
        if (connect(daemon, (struct sockaddr *)&proxy->target, sizeof proxy->target) != 0)
            break;
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(daemon, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        *link = (struct link){.ends = {client, daemon}};
        return;
    }
    close(client);
    close(daemon);
}

// A request's first bytes name its path. Calls do not overlap on a connection, so an answer belongs to the last request.
static void note_call(struct link *link, enum proxy_direction direction, const char *data)
{
    if (direction != PROXY_REQUEST || (strncmp(data, "POST /", 6) != 0 && strncmp(data, "GET /", 5) != 0))
        return;
    const char *path = strchr(data, '/');
    size_t path_size = MIN(strcspn(path, " "), sizeof link->path - 1);
    memcpy(link->path, path, path_size);
    link->path[path_size] = '\0';
    link->passed[PROXY_REQUEST] = link->passed[PROXY_ANSWER] = 0;
}

// "100 Continue" comes before the body was sent: it is no part of the answer.
static size_t interim_size(enum proxy_direction direction, const char *data)
{
    const char *end = strstr(data, "\r\n\r\n");
    if (direction != PROXY_ANSWER || strncmp(data, "HTTP/1.1 100 ", 13) != 0 || !end)
        return 0;
    return (size_t)(end - data) + 4;
}

// How many of `size` bytes may pass before the call is held.
static size_t allowed(struct proxy *proxy, const struct link *link, enum proxy_direction direction,
                      size_t size)
{
    LOCK_GUARD(&proxy->lock);
    const struct proxy_stop *stop = &proxy->stop;
    if (!stop->path || proxy->is_held || stop->direction != direction ||
        strcmp(stop->path, link->path) != 0 || link->passed[direction] + size <= stop->after)
        return size;
    return stop->after - link->passed[direction];
}

static void pass(struct proxy *proxy, struct link *link, enum proxy_direction direction)
{
    char data[CHUNK_SIZE + 1];
    ssize_t size = recv(link->ends[direction == PROXY_REQUEST ? 0 : 1], data, CHUNK_SIZE, 0);
    if (size <= 0) {
        close_link(link);
        return;
    }
    data[size] = '\0';
    note_call(link, direction, data);
    size_t interim = interim_size(direction, data);
    size_t count = interim + allowed(proxy, link, direction, (size_t)size - interim);
    int to = link->ends[direction == PROXY_REQUEST ? 1 : 0];
    for (size_t sent = 0; sent < count;) {
        ssize_t written = send(to, data + sent, count - sent, MSG_NOSIGNAL);
        if (written <= 0) {
            close_link(link);
            return;
        }
        sent += (size_t)written;
    }
    link->passed[direction] += count - interim;
    if (count == (size_t)size)
        return;
    link->held = true;
    mutex_lock(&proxy->lock);
    proxy->is_held = true;
    mutex_unlock(&proxy->lock);
    cond_broadcast(&proxy->changed);
}

static bool obey(struct proxy *proxy)
{
    uint64_t count;
    if (read(proxy->wake, &count, sizeof count) < 0)
        CHECK(errno == EAGAIN);
    LOCK_GUARD(&proxy->lock);
    if (proxy->cut_all) {
        for (struct link *link = proxy->links; link < proxy->links + LINKS_MAX; link++)
            close_link(link);
        proxy->cut_all = false;
        proxy->is_held = false;
        proxy->stop.path = NULL;
        cond_broadcast(&proxy->changed);
    }
    return !proxy->ending;
}

static void *run(void *context)
{
    struct proxy *proxy = context;
    struct pollfd polled[2 + 2 * LINKS_MAX];
    while (obey(proxy)) {
        polled[0] = (struct pollfd){.fd = proxy->wake, .events = POLLIN};
        polled[1] = (struct pollfd){.fd = proxy->listener, .events = POLLIN};
        for (int i = 0; i < LINKS_MAX; i++) {
            const struct link *link = &proxy->links[i];
            for (int end = 0; end < 2; end++)
                polled[2 + 2 * i + end] =
                    (struct pollfd){.fd = link->held ? -1 : link->ends[end], .events = POLLIN};
        }
        if (poll(polled, ARRAY_COUNT(polled), -1) < 0) {
            CHECK(errno == EINTR);
            continue;
        }
        if (polled[1].revents)
            accept_link(proxy);
        for (int i = 0; i < LINKS_MAX; i++) {
            struct link *link = &proxy->links[i];
            for (int end = 0; end < 2; end++) {
                if (polled[2 + 2 * i + end].revents && link->ends[end] == polled[2 + 2 * i + end].fd &&
                    !link->held)
                    pass(proxy, link, end == 0 ? PROXY_REQUEST : PROXY_ANSWER);
            }
        }
    }
    return NULL;
}

struct proxy *proxy_new(const char *address)
{
    struct proxy *proxy = calloc(1, sizeof *proxy);
    const char *colon = strrchr(address, ':');
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t own_size = sizeof own;
    CHECK(proxy && colon);
    proxy->target = own;
    proxy->target.sin_port = htons((uint16_t)atoi(colon + 1));
    for (int i = 0; i < LINKS_MAX; i++)
        proxy->links[i].ends[0] = proxy->links[i].ends[1] = -1;
    proxy->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    proxy->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(proxy->wake >= 0 && bind(proxy->listener, (struct sockaddr *)&own, sizeof own) == 0);
    CHECK(listen(proxy->listener, LINKS_MAX) == 0);
    CHECK(getsockname(proxy->listener, (struct sockaddr *)&own, &own_size) == 0);
    snprintf(proxy->url, sizeof proxy->url, "http://127.0.0.1:%u", ntohs(own.sin_port));
    mutex_init(&proxy->lock, RANK_LEAF);
    cond_init(&proxy->changed);
    CHECK(pthread_create(&proxy->thread, NULL, run, proxy) == 0);
    return proxy;
}

static void tell(struct proxy *proxy)
{
    uint64_t one = 1;
    CHECK(write(proxy->wake, &one, sizeof one) == sizeof one);
}

void proxy_free(struct proxy *proxy)
{
    if (!proxy)
        return;
    mutex_lock(&proxy->lock);
    proxy->ending = proxy->cut_all = true;
    mutex_unlock(&proxy->lock);
    tell(proxy);
    pthread_join(proxy->thread, NULL);
    close(proxy->listener);
    close(proxy->wake);
    cond_release(&proxy->changed);
    mutex_release(&proxy->lock);
    free(proxy);
}

const char *proxy_url(const struct proxy *proxy)
{
    return proxy->url;
}

void proxy_stop_at(struct proxy *proxy, const struct proxy_stop *stop)
{
    LOCK_GUARD(&proxy->lock);
    CHECK(!proxy->stop.path && !proxy->is_held);
    proxy->stop = *stop;
}

bool proxy_await_stop(struct proxy *proxy, unsigned timeout_ms)
{
    uint64_t deadline_us = clock_monotonic_us(clock_system()) + timeout_ms * 1000ull;
    LOCK_GUARD(&proxy->lock);
    while (!proxy->is_held) {
        if (!cond_wait_until(&proxy->changed, &proxy->lock, deadline_us))
            return proxy->is_held;
    }
    return true;
}

void proxy_go_on(struct proxy *proxy)
{
    mutex_lock(&proxy->lock);
    proxy->cut_all = true;
    mutex_unlock(&proxy->lock);
    tell(proxy);
    LOCK_GUARD(&proxy->lock);
    while (proxy->cut_all)
        cond_wait(&proxy->changed, &proxy->lock);
}
