// SPDX-License-Identifier: Apache-2.0
//
// graft-metastore: parse, build, run, drain.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/log.h"
#include "common/net/daemon_life.h"
#include "metastore/backup.h"
#include "metastore/metastore.h"
#include "metastore/restore.h"

#define EXIT_USAGE 2

static void store_failed(void *context, const struct graft_error *error)
{
    (void)context;
    log_error("store_failed", "%s", log_format_error(error).text);
    daemon_give_up();
}

static int fail(const struct graft_error *error, int code)
{
    fprintf(stderr, "graft-metastore: %s\n", error->message);
    return code;
}

static int serve(const struct settings *settings)
{
    struct metastore *metastore;
    struct graft_error error;
    if (metastore_start(settings, store_failed, NULL, &metastore, &error) != GRAFT_OK)
        return fail(&error, EXIT_FAILURE);
    const struct daemon_endpoint endpoints[] = {{"listen", metastore_address(metastore)},
                                                {"watch", metastore_watch_address(metastore)}};
    log_info("serving", "listen=%s watch=%s store=%s version=%s", endpoints[0].address, endpoints[1].address,
             log_quote(settings->store).text, GRAFT_VERSION);
    if (settings->insecure)
        log_warn("insecure",
                 "note=\"--insecure: whoever reaches the listening addresses may read and write\"");

    bool asked = false;
    bool ready =
        daemon_write_ready_file(settings->ready_file, endpoints, ARRAY_COUNT(endpoints), &error) == GRAFT_OK;
    if (ready)
        asked = daemon_wait_for_end();
    log_info("stopping", "asked=%s", asked ? "yes" : "no");
    metastore_stop(metastore);
    if (!ready)
        return fail(&error, EXIT_FAILURE);
    return asked ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int back_up(const struct settings *settings)
{
    struct graft_error error;
    if (backup_run(settings, &error) != GRAFT_OK)
        return fail(&error, EXIT_FAILURE);
    printf("backup of %s in %s\n", settings->store, settings->backup);
    return EXIT_SUCCESS;
}

static int restore(const struct settings *settings)
{
    struct restore_result result;
    struct graft_error error;
    if (restore_run(settings, &result, &error) != GRAFT_OK)
        return fail(&error, EXIT_FAILURE);
    printf("restored %s from %s: %llu volumes, and %llu that were deleted\n", settings->store, settings->from,
           (unsigned long long)result.volumes, (unsigned long long)result.deleted);
    return EXIT_SUCCESS;
}

static int run(int argc, char **argv, struct options *options)
{
    struct settings settings = {0};
    struct graft_error error;
    enum log_level level;
    int rest;
    bool help, version;
    if (options_parse(&settings_table, argc, argv, &settings, options, &rest, &help, &version, &error) !=
        GRAFT_OK)
        return fail(&error, EXIT_USAGE);
    if (help) {
        options_print_help(&settings_table, stdout);
        return EXIT_SUCCESS;
    }
    if (version) {
        printf("graft-metastore %s\n", GRAFT_VERSION);
        return EXIT_SUCCESS;
    }
    if (settings.print_config) {
        options_print_sample(&settings_table, stdout);
        return EXIT_SUCCESS;
    }
    enum settings_run purpose = settings.backup ? RUN_BACKUP : RUN_SERVE;
    if (rest < argc && strcmp(argv[rest], "restore") == 0) {
        purpose = RUN_RESTORE;
        rest++;
    }
    if (rest < argc) {
        error_set(&error, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "unexpected argument '%s'; see --help",
                  argv[rest]);
        return fail(&error, EXIT_USAGE);
    }
    if (settings_check(&settings, purpose, &error) != GRAFT_OK)
        return fail(&error, EXIT_USAGE);
    if (purpose == RUN_BACKUP)
        return back_up(&settings);
    if (purpose == RUN_RESTORE)
        return restore(&settings);
    CHECK(log_level_parse(settings.log_level, &level));
    log_set_level(level);
    return serve(&settings);
}

int main(int argc, char **argv)
{
    struct options options = {0};
    daemon_block_signals();
    daemon_raise_file_limit();
    int code = run(argc, argv, &options);
    options_release(&options);
    return code;
}
