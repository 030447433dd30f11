// SPDX-License-Identifier: Apache-2.0
#include "common/net/daemon_life.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/files.h"

#define GIVEN_UP 1 // the value that comes with our own signal

static void end_signals(sigset_t *ret_set)
{
    sigemptyset(ret_set);
    sigaddset(ret_set, SIGTERM);
    sigaddset(ret_set, SIGINT);
}

void daemon_block_signals(void)
{
    sigset_t set;
    end_signals(&set);
    sigaddset(&set, SIGPIPE);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
}

void daemon_raise_file_limit(void)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    // Where it is refused, connections are refused as they run out: no reason not to serve.
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

bool daemon_wait_for_end(void)
{
    sigset_t set;
    siginfo_t info;
    end_signals(&set);
    while (sigwaitinfo(&set, &info) < 0)
        CHECK(errno == EINTR);
    return !(info.si_code == SI_QUEUE && info.si_pid == getpid() && info.si_value.sival_int == GIVEN_UP);
}

void daemon_give_up(void)
{
    (void)sigqueue(getpid(), SIGTERM, (union sigval){.sival_int = GIVEN_UP});
}

static bool is_loopback(const char *address)
{
    const char *colon = strrchr(address, ':');
    char host[INET6_ADDRSTRLEN];
    size_t size = colon ? (size_t)(colon - address) : strlen(address);
    if (size > 1 && address[0] == '[' && address[size - 1] == ']') {
        address++;
        size -= 2;
    }
    if (size >= sizeof host)
        return false;
    memcpy(host, address, size);
    host[size] = '\0';
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, host, &v6) == 1)
        return IN6_IS_ADDR_LOOPBACK(&v6);
    return strcmp(host, "localhost") == 0;
}

enum graft_status daemon_check_listen(const char *option, const char *address, bool insecure,
                                      struct graft_error *err)
{
    if (insecure || is_loopback(address))
        return GRAFT_OK;
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                     "--%s %s is reachable from other machines, and anybody there could read and write; give "
                     "--insecure if that is meant",
                     option, address);
}

enum graft_status daemon_write_ready_file(const char *path, const struct daemon_endpoint *endpoints,
                                          size_t count, struct graft_error *err)
{
    if (!path)
        return GRAFT_OK;
    _cleanup_(buffer_release) struct buffer text = BUFFER_INIT(4096);
    for (size_t i = 0; i < count; i++) {
        enum graft_status status =
            buffer_printf(&text, err, "%s=%s\n", endpoints[i].name, endpoints[i].address);
        if (status != GRAFT_OK)
            return status;
    }
    return files_replace(path, text.data, text.size, err);
}
