// SPDX-License-Identifier: Apache-2.0
//
// The pagestore's options: one table makes the parser, --help, the environment variables and the sample file.
#ifndef PAGESTORE_SETTINGS_H
#define PAGESTORE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/options.h"

struct pagestore_settings {
    const char *listen;
    const char *store;       // "fs:DIR"
    const char *metastore;   // URL, no slash at its end
    const char *cache;       // folder of what can be rebuilt: the page-version index
    const char *cluster_key; // path
    const char *ready_file;
    const char *log_level;
    uint64_t memory_cache; // bytes of segment blocks
    uint64_t threads;      // of the HTTP server
    uint64_t workers;      // that verify and write
    uint64_t connections_max;
    uint64_t disk_reserve;      // bytes
    uint64_t segment_linger_ms; // how long a shared segment waits for company
    bool insecure;
    bool print_config;
};

extern const struct option_table pagestore_options;

// What the parser cannot see: required options, combinations, an address beyond loopback without --insecure.
// INVALID naming the option.
enum graft_status pagestore_settings_check(const struct pagestore_settings *settings,
                                           struct graft_error *err);

#endif
