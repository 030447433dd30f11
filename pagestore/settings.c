// SPDX-License-Identifier: Apache-2.0
#include "pagestore/settings.h"

#include <stddef.h>
#include <string.h>

#include "common/base/log.h"
#include "common/net/daemon_life.h"

#define FIELD(name) offsetof(struct pagestore_settings, name)

static const struct option_spec specs[] = {
    {"listen", OPTION_STRING, FIELD(listen), .metavar = "ADDR:PORT", .env = "GRAFT_PAGESTORE_LISTEN",
     .fallback = "127.0.0.1:3000", .help = "where to listen; port 0 takes a free one"},
    {"store", OPTION_STRING, FIELD(store), .metavar = "URL", .env = "GRAFT_PAGESTORE_STORE",
     .fallback = "fs:segments", .help = "where segments are kept: fs:DIR"},
    {"metastore", OPTION_STRING, FIELD(metastore), .metavar = "URL", .env = "GRAFT_METASTORE",
     .fallback = "http://127.0.0.1:3001", .help = "the metastore"},
    {"cache", OPTION_STRING, FIELD(cache), .metavar = "DIR", .env = "GRAFT_PAGESTORE_CACHE",
     .fallback = "cache", .help = "folder for what can be rebuilt: the page-version index"},
    {"cluster-key", OPTION_STRING, FIELD(cluster_key), .metavar = "FILE", .env = "GRAFT_CLUSTER_KEY",
     .help =
         "the key that all daemons of a cluster share: 64 hex digits, readable by its owner only; required"},
    {"memory-cache", OPTION_SIZE, FIELD(memory_cache), .metavar = "SIZE",
     .env = "GRAFT_PAGESTORE_MEMORY_CACHE", .fallback = "64M", .help = "memory for blocks of segments",
     .min = 1 << 20},
    {"threads", OPTION_NUMBER, FIELD(threads), .metavar = "N", .fallback = "2",
     .help = "threads of the HTTP server", .min = 1, .max = 64},
    {"workers", OPTION_NUMBER, FIELD(workers), .metavar = "N", .fallback = "4",
     .help = "threads that verify pages and write segments", .min = 1, .max = 64},
    {"connections-max", OPTION_NUMBER, FIELD(connections_max), .metavar = "N", .fallback = "1024",
     .help = "connections at once", .min = 64, .max = 65536},
    {"disk-reserve", OPTION_SIZE, FIELD(disk_reserve), .metavar = "SIZE",
     .env = "GRAFT_PAGESTORE_DISK_RESERVE", .fallback = "64M",
     .help = "refuse writes while less than this is free; reads go on"},
    {"segment-linger", OPTION_DURATION, FIELD(segment_linger_ms), .metavar = "TIME", .fallback = "0ms",
     .help = "how long a short upload waits for others to share a segment with", .max = 1000},
    {"log-level", OPTION_STRING, FIELD(log_level), .metavar = "LEVEL", .env = "GRAFT_LOG_LEVEL",
     .fallback = "info", .help = "error, warn, info or debug"},
    {"insecure", OPTION_FLAG, FIELD(insecure), .env = "GRAFT_INSECURE",
     .help = "listen beyond this machine although there is no TLS"},
    {"ready-file", OPTION_STRING, FIELD(ready_file), .metavar = "PATH", .command_line_only = true,
     .help = "written once requests are served: a line `listen=ADDR:PORT`"},
    {"print-config", OPTION_FLAG, FIELD(print_config), .command_line_only = true,
     .help = "print a commented configuration file and exit"},
};

const struct option_table pagestore_options = {
    .program = "graft-pagestore",
    .synopsis = "[options]",
    .about =
        "Keeps the pages of volumes: turns uploaded pages into immutable segments and serves pages at any "
        "snapshot. What the metastore does not refer to is not visible to anybody.",
    .specs = specs,
    .count = ARRAY_COUNT(specs),
    .config_file = true,
};

enum graft_status pagestore_settings_check(const struct pagestore_settings *settings, struct graft_error *err)
{
    enum log_level level;
    size_t size = strlen(settings->metastore);
    if (!settings->cluster_key)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "--cluster-key is required: the file with the key that the metastore was given, too "
                         "(64 hex digits: od -An -v -tx1 -N32 /dev/urandom | tr -d ' \\n')");
    if (!log_level_parse(settings->log_level, &level))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "--log-level %.20s is none of error, warn, info, debug", settings->log_level);
    if (strncmp(settings->metastore, "http://", 7) != 0 || settings->metastore[size - 1] == '/')
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "--metastore %.80s is no URL such as http://127.0.0.1:3001", settings->metastore);
    return daemon_check_listen("listen", settings->listen, settings->insecure, err);
}
