// SPDX-License-Identifier: Apache-2.0
//
// The options of graft-metastore: one table makes the parser, --help, the environment variables and the
// sample file.
#ifndef METASTORE_SETTINGS_H
#define METASTORE_SETTINGS_H

#include "common/base/options.h"

struct settings {
    const char *listen, *watch_listen, *store, *cluster_key, *ready_file, *log_level;
    uint64_t disk_reserve;
    uint64_t threads, connections_max, watchers_max;
    bool insecure, print_config;
};

extern const struct option_table settings_table;

// What the table cannot say: mandatory options, addresses beyond loopback. INVALID.
enum graft_status settings_check(const struct settings *settings, struct graft_error *err);

#endif
