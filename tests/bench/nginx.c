// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/nginx.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define START_TRIES 500

// A port that was free a moment ago: nginx cannot tell which one it took.
static unsigned free_port(void)
{
    struct sockaddr_in address = bench_address("127.0.0.1:0");
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        bench_fail("no free port: %s", strerror(errno));
    close(fd);
    return ntohs(address.sin_port);
}

static void write_listen(const char *folder, const char *address)
{
    char path[512];
    snprintf(path, sizeof path, "%s/listen.conf", folder);
    FILE *file = fopen(path, "we");
    if (!file || fprintf(file, "listen %s;\n", address) < 0 || fclose(file) != 0)
        bench_fail("cannot write %s", path);
}

// nginx says nowhere that it is ready: tried until it takes a connection.
static void await(const struct nginx *nginx)
{
    struct sockaddr_in peer = bench_address(nginx->address);
    for (int i = 0; i < START_TRIES; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int connected = connect(fd, (struct sockaddr *)&peer, sizeof peer);
        close(fd);
        if (connected == 0)
            return;
        if (waitpid(nginx->pid, NULL, WNOHANG) != 0)
            bench_fail("nginx ended at its start");
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    bench_fail("nginx does not answer on %s", nginx->address);
}

void nginx_start(struct nginx *nginx, const char *folder)
{
    char command[1100], prefix[512], conf[512];
    snprintf(command, sizeof command, "cp '%s' '%s/nginx.conf'", BENCH_FOLDER "/nginx.conf", folder);
    if (system(command) != 0)
        bench_fail("cannot copy nginx.conf");
    snprintf(nginx->address, sizeof nginx->address, "127.0.0.1:%u", free_port());
    write_listen(folder, nginx->address);
    snprintf(prefix, sizeof prefix, "%s/", folder);
    snprintf(conf, sizeof conf, "%s/nginx.conf", folder);
    nginx->pid = fork();
    if (nginx->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        execlp("nginx", "nginx", "-p", prefix, "-c", conf, (char *)NULL);
        fprintf(stderr, "bench: cannot run nginx: %s\n", strerror(errno));
        _exit(127);
    }
    if (nginx->pid < 0)
        bench_fail("starting nginx: %s", strerror(errno));
    await(nginx);
}

void nginx_stop(struct nginx *nginx)
{
    kill(nginx->pid, SIGTERM);
    waitpid(nginx->pid, NULL, 0);
}
