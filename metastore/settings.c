// SPDX-License-Identifier: Apache-2.0
#include "metastore/settings.h"

#include <string.h>

#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/net/daemon_life.h"

#define FIELD(name) offsetof(struct settings, name)

static const struct option_spec specs[] = {
    {"listen", OPTION_STRING, FIELD(listen), .letter = 'l', .metavar = "ADDR:PORT",
     .env = "GRAFT_METASTORE_LISTEN", .fallback = "127.0.0.1:3001",
     .help = "where to serve calls; port 0 takes a free one"},
    {"watch-listen", OPTION_STRING, FIELD(watch_listen), .metavar = "ADDR:PORT",
     .env = "GRAFT_METASTORE_WATCH_LISTEN", .fallback = "127.0.0.1:3002",
     .help = "where to serve the call watch, on threads of its own"},
    {"watch-url", OPTION_STRING, FIELD(watch_url), .metavar = "URL", .env = "GRAFT_METASTORE_WATCH_URL",
     .help =
         "where clients find the call watch, if not at --watch-listen: the http:// or https:// URL of the "
         "proxy or load balancer in front of it"},
    {"store", OPTION_STRING, FIELD(store), .letter = 's', .metavar = "URL", .env = "GRAFT_METASTORE_STORE",
     .help = "where the log of commits is kept: rocksdb:DIR or fs:DIR"},
    {"cluster-key", OPTION_STRING, FIELD(cluster_key), .metavar = "FILE", .env = "GRAFT_CLUSTER_KEY",
     .help =
         "the key that all daemons of the cluster share: a file of 64 hex digits that only its owner may read"},
    {"insecure", OPTION_FLAG, FIELD(insecure), .env = "GRAFT_INSECURE",
     .help = "listen beyond loopback without TLS and keys"},
    {"disk-reserve", OPTION_SIZE, FIELD(disk_reserve), .metavar = "SIZE",
     .env = "GRAFT_METASTORE_DISK_RESERVE", .fallback = "64M",
     .help = "refuse writes, and go on serving reads, while less than this is free on the disk"},
    {"threads", OPTION_NUMBER, FIELD(threads), .metavar = "N", .env = "GRAFT_METASTORE_THREADS",
     .fallback = "2", .help = "threads that serve connections", .min = 1, .max = 64},
    {"connections-max", OPTION_NUMBER, FIELD(connections_max), .metavar = "N",
     .env = "GRAFT_METASTORE_CONNECTIONS_MAX", .fallback = "4096", .help = "connections for calls at once",
     .min = 8, .max = 1000000},
    {"watchers-max", OPTION_NUMBER, FIELD(watchers_max), .metavar = "N",
     .env = "GRAFT_METASTORE_WATCHERS_MAX", .fallback = "16384",
     .help = "connections for the call watch at once", .min = 8, .max = 1000000},
    {"backup", OPTION_STRING, FIELD(backup), .metavar = "DIR", .command_line_only = true,
     .help =
         "make a copy of the store, as of one moment, in the new folder DIR and exit; the daemon that has "
         "the store is asked at --listen and serves on"},
    {"from", OPTION_STRING, FIELD(from), .metavar = "DIR", .command_line_only = true,
     .help =
         "with the word `restore`: bring the backup in DIR back into the new folder that --store names, and "
         "exit; run it again if it was cut off"},
    {"ready-file", OPTION_STRING, FIELD(ready_file), .metavar = "FILE",
     .help = "write the bound addresses there once serving"},
    {"log-level", OPTION_STRING, FIELD(log_level), .metavar = "LEVEL", .env = "GRAFT_LOG_LEVEL",
     .fallback = "info", .help = "error, warn, info or debug"},
    {"print-config", OPTION_FLAG, FIELD(print_config),
     .help = "print a commented sample configuration file and exit"},
};

const struct option_table settings_table = {
    .program = "graft-metastore",
    .synopsis = "--store rocksdb:DIR --cluster-key FILE [options]\n"
                "       graft-metastore --backup DIR --store rocksdb:DIR [--listen ADDR:PORT]\n"
                "       graft-metastore restore --from DIR --store rocksdb:NEW_DIR",
    .about =
        "Keeps the log of commits of every Graft volume: decides the order of commits, tells clients what changed, "
        "and wakes them when it does.",
    .specs = specs,
    .count = sizeof specs / sizeof specs[0],
    .config_file = true,
    .permute = true,
};

static bool is_http_url(const char *url)
{
    size_t scheme = strncmp(url, "http://", 7) == 0 ? 7 : strncmp(url, "https://", 8) == 0 ? 8 : 0;
    return scheme > 0 && url[scheme] != '\0' && url[scheme] != '/' && strlen(url) <= WATCH_URL_SIZE_MAX;
}

enum graft_status settings_check(const struct settings *settings, enum settings_run run,
                                 struct graft_error *err)
{
    enum log_level level;
    if (!settings->store)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "--store is missing; try --store rocksdb:DIR");
    if ((run == RUN_RESTORE) != (settings->from != NULL) || (run == RUN_RESTORE && settings->backup))
        return error_set(
            err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
            "a backup is brought back with: graft-metastore restore --from DIR --store rocksdb:NEW_DIR");
    if (run != RUN_SERVE)
        return GRAFT_OK;
    if (!settings->cluster_key)
        return error_set(
            err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
            "--cluster-key is missing; make one with: openssl rand -hex 32 >FILE; chmod 600 FILE");
    if (settings->watch_url && !is_http_url(settings->watch_url))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "--watch-url %.80s is no http:// or https:// URL of at most %u characters",
                         settings->watch_url, WATCH_URL_SIZE_MAX);
    if (!log_level_parse(settings->log_level, &level))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "--log-level %.40s is none of error, warn, info, debug", settings->log_level);
    enum graft_status status = daemon_check_listen("listen", settings->listen, settings->insecure, err);
    if (status == GRAFT_OK)
        status = daemon_check_listen("watch-listen", settings->watch_listen, settings->insecure, err);
    return status;
}
