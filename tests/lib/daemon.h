// SPDX-License-Identifier: Apache-2.0
//
// Starts the real daemons for a test: on free ports, in a temporary folder with a cluster key, their stderr
// in a log file there. Waits for events (the ready file, the end of the process), never for time to pass.
// What a test cannot go on without aborts it, with the daemon's log on stderr. Daemons die with the thread
// that started them.
//
//     _cleanup_(test_folder_free_p) char *folder = test_folder_new();
//     _cleanup_(daemon_free_p) struct daemon *metastore = metastore_start(folder, NULL);
//     … daemon_url(metastore, "listen") …
//     daemon_kill(metastore);
//     daemon_restart(metastore); // at the same addresses
//     cr_assert_eq(daemon_stop(metastore), 0);
//
// Not thread-safe: one thread a daemon.
#ifndef TESTS_LIB_DAEMON_H
#define TESTS_LIB_DAEMON_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/base/compiler.h"

struct daemon;

// A fresh folder under $TMPDIR (or /tmp) that holds `cluster.key`. The text is the path.
char *test_folder_new(void);
void test_folder_free(char *folder); // removes everything in it; NULL is fine
DEFINE_CLEANUP(char, test_folder_free)

// Paths of the programs under test, in the build folder.
#define METASTORE_PROGRAM BUILD_FOLDER "/metastore/graft-metastore"
#define PAGESTORE_PROGRAM BUILD_FOLDER "/pagestore/graft-pagestore"
#define CLI_PROGRAM BUILD_FOLDER "/cli/graft"

#define DAEMON_ENDPOINTS_MAX 2

struct daemon_spec {
    const char *folder; // from test_folder_new()
    const char *name;   // of its log and ready file: "metastore", "pagestore-2"
    const char *program;
    const char *const *args; // ends with NULL; copied
    // Options that say where to listen, and the names under which the ready file tells what was bound: the
    // first start passes `--option 127.0.0.1:0`, a restart the address of before.
    struct daemon_listener {
        const char *option, *ready;
    } endpoints[DAEMON_ENDPOINTS_MAX];
};

// Adds --cluster-key, --ready-file and the endpoints to the arguments. Returns at once.
struct daemon *daemon_launch(const struct daemon_spec *spec);
// Waits until it serves. False: it ended instead; ask daemon_wait() and daemon_log().
bool daemon_await_ready(struct daemon *daemon);
// Both; aborts if it does not come up.
struct daemon *daemon_start(const struct daemon_spec *spec);
// `metastore` over rocksdb:FOLDER/metastore, `pagestore` over fs:FOLDER/segments. `extra`: more arguments,
// or NULL.
struct daemon *metastore_start(const char *folder, const char *const *extra);
struct daemon *pagestore_start(const char *folder, const struct daemon *metastore, const char *const *extra);

// Where it listens: "127.0.0.1:40123" or "http://127.0.0.1:40123". Borrowed.
const char *daemon_address(const struct daemon *daemon, const char *endpoint);
const char *daemon_url(const struct daemon *daemon, const char *endpoint);
pid_t daemon_pid(const struct daemon *daemon); // 0: not running
// What it has written to stderr so far. Freed by the caller.
char *daemon_log(const struct daemon *daemon);

void daemon_signal(struct daemon *daemon, int signal_number);
// Waits for its end, at most 20 s. The exit code, or minus the signal that ended it.
int daemon_wait(struct daemon *daemon);
int daemon_stop(struct daemon *daemon);     // SIGTERM and daemon_wait()
void daemon_kill(struct daemon *daemon);    // SIGKILL and daemon_wait()
void daemon_restart(struct daemon *daemon); // not running now; aborts if it does not come up
void daemon_free(struct daemon *daemon);    // kills it if it runs; NULL is fine
DEFINE_CLEANUP(struct daemon, daemon_free)

#endif
