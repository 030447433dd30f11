// SPDX-License-Identifier: Apache-2.0
//
// The life of a daemon's process, the same for both:
//
//     daemon_block_signals();                                first of all, while there is one thread
//     … parse, build, serve …
//     daemon_write_ready_file(path, endpoints, count, …);    clients may come
//     ended_well = daemon_wait_for_end();                    SIGTERM, SIGINT, or daemon_give_up()
//     … drain, free …
#ifndef COMMON_NET_DAEMON_LIFE_H
#define COMMON_NET_DAEMON_LIFE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/error.h"

// Blocks SIGTERM, SIGINT and SIGPIPE for this thread and those that it starts.
void daemon_block_signals(void);

// Lets the process open as many files and connections as the system allows: the soft limit of most shells is 1,024.
void daemon_raise_file_limit(void);

// Blocks until the process is asked to end (true), or a part of it cannot go on (false).
bool daemon_wait_for_end(void);
// Makes daemon_wait_for_end() return false. Any thread.
void daemon_give_up(void);

// INVALID unless `address` ("HOST:PORT") is a loopback one, or `insecure`: there is no TLS yet and no keys.
// `option` names it in the error.
enum graft_status daemon_check_listen(const char *option, const char *address, bool insecure,
                                      struct graft_error *err);

struct daemon_endpoint {
    const char *name;    // "listen", "watch"
    const char *address; // "127.0.0.1:40123", as bound
};
// Writes "name=address" lines, whole or not at all. `path` NULL: nothing.
enum graft_status daemon_write_ready_file(const char *path, const struct daemon_endpoint *endpoints,
                                          size_t count, struct graft_error *err);

#endif
