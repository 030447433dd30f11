// SPDX-License-Identifier: Apache-2.0
//
// graft-pagestore: parses, builds, runs, drains.
#include <malloc.h>
#include <stdio.h>

#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/net/daemon_life.h"
#include "pagestore/pagestore.h"

#define CONNECTION_MEMORY (64 * KIB)
#define IDLE_TIMEOUT_MS 60000u
#define DRAIN_MS (STOP_TIME_MAX_MS - 1500u) // the rest is for what requests leave under way

enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
};

static void store_failed(void *context, const struct graft_error *error)
{
    log_error("store_failed", "%s", log_format_error(error).text);
    daemon_give_up();
}

static enum exit_code fail(const struct graft_error *error, enum exit_code code)
{
    fprintf(stderr, "graft-pagestore: %s\n", error->message);
    return code;
}

static enum graft_status serve(struct pagestore *pagestore, struct http_server **ret_server,
                               struct graft_error *err)
{
    const struct pagestore_settings *options = pagestore->settings;
    struct http_route routes[PAGESTORE_ROUTES_MAX];
    struct http_server_settings settings = {
        .listen = options->listen,
        .routes = routes,
        .route_count = pagestore_routes(pagestore, routes),
        .context = pagestore,
        .threads = (unsigned)options->threads,
        .connections_max = (unsigned)options->connections_max,
        .connection_memory = CONNECTION_MEMORY,
        .idle_timeout_ms = IDLE_TIMEOUT_MS,
        .metrics_name = "pagestore",
        .metrics = pagestore->metrics,
    };
    return http_server_start(&settings, ret_server, err);
}

static enum exit_code run(const struct pagestore_settings *settings)
{
    struct graft_error error;
    struct pagestore *pagestore = NULL;
    struct http_server *server = NULL;
    bool ended_well = false;
    enum graft_status status = pagestore_new(settings, store_failed, NULL, &pagestore, &error);
    if (status == GRAFT_OK)
        status = serve(pagestore, &server, &error);
    if (status == GRAFT_OK) {
        struct daemon_endpoint endpoint = {"listen", http_server_address(server)};
        status = daemon_write_ready_file(settings->ready_file, &endpoint, 1, &error);
    }
    if (status == GRAFT_OK) {
        log_info("listening", "addr=%s store=%s metastore=%s", http_server_address(server),
                 log_quote(settings->store).text, log_quote(settings->metastore).text);
        if (settings->insecure)
            log_warn("insecure", "addr=%s", http_server_address(server));
        ended_well = daemon_wait_for_end();
        log_info("stopping", "asked=%d", ended_well);
        http_server_drain(server, DRAIN_MS);
    }
    http_server_stop(server);
    pagestore_free(pagestore);
    if (status != GRAFT_OK)
        return fail(&error, EXIT_FAILED);
    return ended_well ? EXIT_DONE : EXIT_FAILED;
}

int main(int argc, char **argv)
{
    daemon_block_signals();
    daemon_raise_file_limit();
    // Blocks of a few hundred KiB come and go: from the heap, not from the kernel page by page, each time.
    mallopt(M_MMAP_THRESHOLD, 4 << 20);
    struct pagestore_settings settings = {0};
    struct options options = {0};
    struct graft_error error;
    int rest;
    bool help, version;
    enum graft_status status =
        options_parse(&pagestore_options, argc, argv, &settings, &options, &rest, &help, &version, &error);
    if (status == GRAFT_OK && !help && !version && rest < argc)
        status = error_set(&error, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                           "%.80s: no such argument; see --help", argv[rest]);
    enum exit_code code = EXIT_DONE;
    if (status != GRAFT_OK)
        code = fail(&error, EXIT_USAGE);
    else if (help)
        options_print_help(&pagestore_options, stdout);
    else if (version)
        printf("graft-pagestore %s\n", GRAFT_VERSION);
    else if (settings.print_config)
        options_print_sample(&pagestore_options, stdout);
    else if (pagestore_settings_check(&settings, &error) != GRAFT_OK)
        code = fail(&error, EXIT_USAGE);
    else {
        enum log_level level;
        if (log_level_parse(settings.log_level, &level))
            log_set_level(level);
        code = run(&settings);
    }
    options_release(&options);
    return code;
}
