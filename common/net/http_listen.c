// SPDX-License-Identifier: Apache-2.0
//
// "HOST:PORT" to a socket that listens.
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/net/http_internal.h"

#define LISTEN_BACKLOG 1024

// The last colon separates; an IPv6 address stands in brackets.
static bool address_split(const char *address, char *ret_host, size_t host_size, const char **ret_port)
{
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || !colon[1])
        return false;
    const char *host = address;
    size_t length = (size_t)(colon - address);
    if (host[0] == '[') {
        if (length < 3 || host[length - 1] != ']')
            return false;
        host++;
        length -= 2;
    } else if (memchr(host, ':', length)) {
        return false;
    }
    if (length >= host_size)
        return false;
    memcpy(ret_host, host, length);
    ret_host[length] = '\0';
    *ret_port = colon + 1;
    return true;
}

static int listen_on(const struct addrinfo *info)
{
    int on = 1;
    int listener = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0)
        return -1;
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(listener, info->ai_addr, info->ai_addrlen) != 0 || listen(listener, LISTEN_BACKLOG) != 0) {
        int error_number = errno;
        close(listener);
        errno = error_number;
        return -1;
    }
    return listener;
}

static void describe(int listener, char *ret_text, size_t size)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char host[64] = "?", port[8] = "?";
    if (getsockname(listener, (struct sockaddr *)&address, &length) == 0)
        getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(ret_text, size, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

enum graft_status http_listen(const char *address, int *ret_listener, char *ret_text, size_t size,
                              struct graft_error *err)
{
    char host[256];
    const char *port;
    if (!address_split(address, host, sizeof host, &port))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "the address %s is not of the form HOST:PORT or [IPV6]:PORT", address);
    struct addrinfo *infos, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    int result = getaddrinfo(host, port, &hints, &infos);
    if (result != 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "listening on %s: %s", address,
                         gai_strerror(result));
    int listener = -1;
    for (struct addrinfo *info = infos; info && listener < 0; info = info->ai_next)
        listener = listen_on(info);
    int error_number = errno;
    freeaddrinfo(infos);
    if (listener < 0)
        return error_from_errno(err, error_number, "listening on %s", address);
    describe(listener, ret_text, size);
    *ret_listener = listener;
    return GRAFT_OK;
}
