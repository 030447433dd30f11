// SPDX-License-Identifier: Apache-2.0
//
// The options that every program with a client has: one table of them, for settings structs that have fields of these
// names.
//
//     const char *data, *metastore, *pagestore, *durability; uint64_t deadline_ms, cache_limit;
#ifndef CLIENT_SETTINGS_H
#define CLIENT_SETTINGS_H

#include "common/base/options.h"

#define CLIENT_OPTIONS(settings_type)                                                                              \
    {"data",                                                                                                       \
     OPTION_STRING,                                                                                                \
     offsetof(settings_type, data),                                                                                \
     .metavar = "DIR",                                                                                             \
     .env = "GRAFT_DATA",                                                                                          \
     .fallback = "graft-data",                                                                                     \
     .help = "directory of the local replicas"},                                                                   \
        {"metastore",                                                                                              \
         OPTION_STRING,                                                                                            \
         offsetof(settings_type, metastore),                                                                       \
         .metavar = "URL",                                                                                         \
         .env = "GRAFT_METASTORE",                                                                                 \
         .fallback = "http://127.0.0.1:3001",                                                                      \
         .help = "where the metastore listens"},                                                                   \
        {"pagestore",                                                                                              \
         OPTION_STRING,                                                                                            \
         offsetof(settings_type, pagestore),                                                                       \
         .metavar = "URL",                                                                                         \
         .env = "GRAFT_PAGESTORE",                                                                                 \
         .fallback = "http://127.0.0.1:3000",                                                                      \
         .help = "where the pagestore listens"},                                                                   \
        {"deadline",                                                                                               \
         OPTION_DURATION,                                                                                          \
         offsetof(settings_type, deadline_ms),                                                                     \
         .metavar = "TIME",                                                                                        \
         .env = "GRAFT_DEADLINE",                                                                                  \
         .fallback = "30s",                                                                                        \
         .help = "the longest that one request to a server may take",                                              \
         .min = 1,                                                                                                 \
         .max = 24 * 3600 * 1000},                                                                                 \
        {"cache-limit",                                                                                            \
         OPTION_SIZE,                                                                                              \
         offsetof(settings_type, cache_limit),                                                                     \
         .metavar = "SIZE",                                                                                        \
         .env = "GRAFT_CACHE_LIMIT",                                                                               \
         .fallback = "0",                                                                                          \
         .help =                                                                                                   \
             "what fetched pages may occupy on the disk, at least 8M; the least lately read ones go; 0: no limit", \
         .min = 0,                                                                                                 \
         .max = 1ull << 50},                                                                                       \
    {                                                                                                              \
        "durability", OPTION_STRING, offsetof(settings_type, durability),                                          \
            .metavar = "LEVEL", .env = "GRAFT_DURABILITY", .fallback = "full",                                     \
            .help =                                                                                                \
                "of local commits: full (on the disk at once) or normal (survive a kill, not a power failure)"     \
    }

#endif
