// SPDX-License-Identifier: Apache-2.0
//
// The options of graft-metastore: one table makes the parser, --help, the environment variables and the
// sample file.
#ifndef METASTORE_SETTINGS_H
#define METASTORE_SETTINGS_H

#include "common/base/options.h"

struct settings {
    const char *listen, *watch_listen, *watch_url, *store, *cluster_key, *ready_file, *log_level;
    const char *backup, *from; // of the two runs that serve nobody
    uint64_t disk_reserve;
    uint64_t threads, connections_max, watchers_max;
    bool insecure, print_config;
};

extern const struct option_table settings_table;

// What the program is run for.
enum settings_run {
    RUN_SERVE,
    RUN_BACKUP,  // --backup DIR
    RUN_RESTORE, // the word `restore`
};

// What the table cannot say: mandatory options of each run, addresses beyond loopback. INVALID.
enum graft_status settings_check(const struct settings *settings, enum settings_run run,
                                 struct graft_error *err);

#endif
