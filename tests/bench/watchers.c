// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/watchers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/net/http_server.h"

struct watchers {
    int fds[WATCHERS];
};

void watchers_raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < WATCHERS + 1000)
        fprintf(stderr, "bench: only %llu files may be open: too few for %u watchers\n",
                (unsigned long long)limit.rlim_cur, WATCHERS);
}

static int open_one(const struct sockaddr_in *peer, const struct buffer *request)
{
    // Reset when closed, so that no ports stay taken.
    struct linger reset = {.l_onoff = 1};
    struct timeval patience = {.tv_sec = 30};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)peer, sizeof *peer) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0 ||
        send(fd, request->data, request->size, MSG_NOSIGNAL) != (ssize_t)request->size)
        bench_fail("opening a watcher: %s", strerror(errno));
    return fd;
}

// Until a frame has come, or at least its beginning.
static void await_frame(int fd)
{
    char text[2048];
    size_t size = 0;
    const char *end = NULL;
    while (!end || end + 4 == text + size) {
        ssize_t got = recv(fd, text + size, sizeof text - 1 - size, 0);
        if (got <= 0)
            bench_fail("a watcher was told nothing: %s", got == 0 ? "closed" : strerror(errno));
        size += (size_t)got;
        text[size] = '\0';
        end = strstr(text, "\r\n\r\n");
    }
    if (strncmp(text, "HTTP/1.1 200 ", 13) != 0)
        bench_fail("a watcher was refused: %.60s", text);
}

struct watchers *watchers_open(const struct cluster *cluster, const struct gid *vid)
{
    struct watchers *watchers = bench_alloc(sizeof *watchers);
    struct buffer request = BUFFER_INIT(4096);
    struct graft_error err;
    Graft__WatchItem item = GRAFT__WATCH_ITEM__INIT, *items[] = {&item};
    Graft__WatchRequest message = GRAFT__WATCH_REQUEST__INIT;
    item.vid = binary_of(vid->bytes, GID_SIZE);
    message.n_items = 1;
    message.items = items;
    http_load_head(&request, "/v1/watch", HTTP_PROTOBUF, protobuf_c_message_get_packed_size(&message.base));
    bench_check(message_encode(&message.base, &request, &err), &err, "a watch");
    struct sockaddr_in peer = bench_address(daemon_address(cluster->metastore, "watch"));
    for (unsigned i = 0; i < WATCHERS; i++)
        watchers->fds[i] = open_one(&peer, &request);
    for (unsigned i = 0; i < WATCHERS; i++)
        await_frame(watchers->fds[i]);
    buffer_release(&request);
    return watchers;
}

void watchers_close(struct watchers *watchers)
{
    for (unsigned i = 0; i < WATCHERS; i++)
        close(watchers->fds[i]);
    free(watchers);
}
