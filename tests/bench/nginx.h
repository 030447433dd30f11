// SPDX-License-Identifier: Apache-2.0
//
// nginx as a baseline: static files of FOLDER/www, with tests/bench/nginx.conf. It ends with the thread that started it.
#ifndef TESTS_BENCH_NGINX_H
#define TESTS_BENCH_NGINX_H

#include <sys/types.h>

struct nginx {
    pid_t pid;
    char address[32];
};

// FOLDER/www is there. Returns once it answers connections.
void nginx_start(struct nginx *nginx, const char *folder);
void nginx_stop(struct nginx *nginx);

#endif
