// SPDX-License-Identifier: Apache-2.0
//
// status, log, watch, check.
#include <inttypes.h>
#include <stdio.h>

#include "cli/commands.h"
#include "common/base/clock.h"

// ---- status -----------------------------------------------------------------------------------------------------------

struct status_list {
    struct cli *cli;
    struct cli_list list;
    struct graft_error err;
};

static void print_status(const struct graft_volume_info *info)
{
    printf("%s: %s\n", info->vid, graft_volume_status_text(info->status));
    if (info->status != GRAFT_VOLUME_OK)
        printf("  why        %s\n  next       %s\n", info->status_error.message,
               graft_volume_status_advice(info->status));
    printf("  pages      %" PRIu32 " of %" PRIu32 " bytes%s: %" PRIu64 " here, %" PRIu64 " to be fetched\n",
           info->page_count, info->page_size, info->kind == GRAFT_VARIABLE ? " at most" : "",
           info->pages_available, info->pages_pending);
    printf("  commits    local LSN %" PRIu64 ", remote LSN %" PRIu64 ", %" PRIu64 " to be pushed\n",
           info->local_lsn, info->remote_lsn, info->pending_commits);
    printf("  fetched    %" PRIu64 " pages in %" PRIu64 " requests, %" PRIu64 " bytes\n", info->fetch.pages,
           info->fetch.requests, info->fetch.bytes);
}

// Of the whole data directory.
static void print_cache(const struct graft_cache_info *cache)
{
    printf("cache: %" PRIu64 " bytes on the disk, %" PRIu64 " of them pages", cache->size, cache->live);
    if (cache->limit > 0)
        printf("; limit %" PRIu64 ", %" PRIu64 " pages evicted", cache->limit, cache->evicted_pages);
    printf("\n");
}

static json_t *cache_json(const struct graft_cache_info *cache)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "limit", (json_int_t)cache->limit, "size",
                     (json_int_t)cache->size, "live", (json_int_t)cache->live, "evicted_pages",
                     (json_int_t)cache->evicted_pages, "evicted_bytes", (json_int_t)cache->evicted_bytes);
}

static json_t *status_json(const struct graft_volume_info *info, const struct graft_cache_info *cache)
{
    json_t *object = json_pack(
        "{s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:{s:I, s:I, s:I}}", "vid", info->vid,
        "page_size", (json_int_t)info->page_size, "kind", info->kind == GRAFT_VARIABLE ? "variable" : "fixed",
        "page_count", (json_int_t)info->page_count, "local_lsn", (json_int_t)info->local_lsn, "remote_lsn",
        (json_int_t)info->remote_lsn, "remote_seen_lsn", (json_int_t)info->remote_seen_lsn, "pending_commits",
        (json_int_t)info->pending_commits, "status", graft_volume_status_text(info->status),
        "pages_available", (json_int_t)info->pages_available, "pages_pending",
        (json_int_t)info->pages_pending, "fetch", "requests", (json_int_t)info->fetch.requests, "pages",
        (json_int_t)info->fetch.pages, "bytes", (json_int_t)info->fetch.bytes);
    json_object_set_new(object, "cache", cache_json(cache));
    if (info->status != GRAFT_VOLUME_OK) {
        json_object_set_new(object, "status_message", json_string(info->status_error.message));
        json_object_set_new(object, "status_advice", json_string(graft_volume_status_advice(info->status)));
    }
    return object;
}

static enum graft_status add_status(struct status_list *list, const char *vid)
{
    _cleanup_(graft_volume_close_p) struct graft_volume *volume = NULL;
    struct graft_volume_info info;
    struct graft_cache_info cache;
    enum graft_status status = cli_volume(list->cli, vid, &volume, &list->err);
    if (status == GRAFT_OK)
        status = graft_volume_info(volume, &info, &list->err);
    if (status == GRAFT_OK)
        status = graft_cache_info(list->cli->client, &cache, &list->err);
    if (status != GRAFT_OK)
        return status;
    if (list->cli->settings.json)
        cli_list_add(&list->list, status_json(&info, &cache));
    else
        print_status(&info);
    return GRAFT_OK;
}

static bool visit_status(void *context, const char *vid)
{
    struct status_list *list = context;
    return add_status(list, vid) == GRAFT_OK && !ferror(stdout);
}

static enum exit_code run_status(struct cli *cli, char **arguments, int argument_count)
{
    struct status_list list = {.cli = cli, .list = {.cli = cli}};
    enum graft_status status = cli_client(cli, &list.err);
    if (status == GRAFT_OK && argument_count == 1) {
        status = add_status(&list, arguments[0]);
    } else if (status == GRAFT_OK) {
        status = graft_volume_list(cli->client, visit_status, &list, &list.err);
        if (status == GRAFT_OK)
            status = list.err.status;
    }
    struct graft_cache_info cache;
    if (status == GRAFT_OK)
        status = graft_cache_info(cli->client, &cache, &list.err);
    if (status == GRAFT_OK && !cli->settings.json)
        print_cache(&cache);
    return status == GRAFT_OK ? cli_list_end(&list.list) : cli_list_fail(&list.list, &list.err);
}

const struct cli_command command_status = {
    .name = "status",
    .arguments = "[VID]",
    .summary = "what the data directory holds and what is to be pushed",
    .about =
        "Tells of one local replica, or of all: its pages, commits, status and what was fetched; and what "
        "fetched pages occupy on the disk, of all volumes. With --json, always an array.",
    .argument_max = 1,
    .run = run_status,
};

// ---- log --------------------------------------------------------------------------------------------------------------

static bool visit_commit(void *context, const struct graft_commit_info *commit)
{
    struct cli_list *list = context;
    if (list->cli->settings.json)
        return cli_list_add(
            list, json_pack("{s:I, s:s, s:s, s:I, s:I, s:I, s:b}", "lsn", (json_int_t)commit->lsn, "time",
                            clock_format(commit->time_ms).text, "client", commit->client, "pages_changed",
                            (json_int_t)commit->pages_changed, "segments", (json_int_t)commit->segment_count,
                            "page_count", (json_int_t)commit->page_count, "deleted", commit->deleted));
    return printf("LSN %-8" PRIu64 " %s  %s  %" PRIu64 " pages changed, %" PRIu32 " segments, %" PRIu32
                  " pages%s\n",
                  commit->lsn, clock_format(commit->time_ms).text, commit->client, commit->pages_changed,
                  commit->segment_count, commit->page_count, commit->deleted ? ", deleted" : "") >= 0;
}

static enum exit_code run_log(struct cli *cli, char **arguments, int argument_count)
{
    struct cli_list list = {.cli = cli};
    struct graft_error err;
    enum graft_status status = cli_client(cli, &err);
    if (status == GRAFT_OK)
        status = graft_remote_log(cli->client, arguments[0], cli->settings.limit, visit_commit, &list, &err);
    return status == GRAFT_OK ? cli_list_end(&list) : cli_list_fail(&list, &err);
}

static const struct option_spec log_specs[] = {
    {"limit", OPTION_NUMBER, offsetof(struct cli_settings, limit), .metavar = "N", .fallback = "20",
     .help = "at most N commits; 0: all"},
};

const struct cli_command command_log = {
    .name = "log",
    .arguments = "VID",
    .summary = "the commits of a volume on the servers, newest first",
    .about = "Lists the servers' commits, newest first: LSN, time, client, pages changed, segments.",
    .specs = log_specs,
    .spec_count = ARRAY_COUNT(log_specs),
    .argument_min = 1,
    .argument_max = 1,
    .run = run_log,
};

// ---- watch ------------------------------------------------------------------------------------------------------------

static bool visit_head(void *context, const struct graft_remote_head *head)
{
    struct cli *cli = context;
    if (!head)
        return !ferror(stdout);
    if (cli->settings.json) {
        json_t *json =
            json_pack("{s:s, s:I, s:I, s:s}", "vid", head->vid, "lsn", (json_int_t)head->lsn, "page_count",
                      (json_int_t)head->page_count, "time", clock_format(head->time_ms).text);
        json_dumpf(json, stdout, JSON_COMPACT);
        json_decref(json);
        putchar('\n');
    } else {
        printf("%s  LSN %" PRIu64 "  %" PRIu32 " pages  %s\n", head->vid, head->lsn, head->page_count,
               clock_format(head->time_ms).text);
    }
    return fflush(stdout) == 0;
}

static enum exit_code run_watch(struct cli *cli, char **arguments, int argument_count)
{
    struct graft_error err;
    if (cli_client(cli, &err) != GRAFT_OK ||
        graft_remote_watch(cli->client, (const char *const *)arguments, (size_t)argument_count, visit_head,
                           cli, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    return EXIT_DONE;
}

const struct cli_command command_watch = {
    .name = "watch",
    .arguments = "VID...",
    .summary = "a line whenever a head moves",
    .about =
        "Prints the heads at once, then a line whenever one of them moves, until it is interrupted. With --json, a "
        "JSON object a line.",
    .argument_min = 1,
    .argument_max = -1,
    .run = run_watch,
};

// ---- check ------------------------------------------------------------------------------------------------------------

struct check {
    json_t *damaged; // NULL: text
    struct progress progress;
};

static void visit_damaged(void *context, uint32_t pageidx, const struct graft_error *why)
{
    struct check *check = context;
    if (check->damaged)
        json_array_append_new(
            check->damaged, json_pack("{s:I, s:s}", "pageidx", (json_int_t)pageidx, "message", why->message));
    else
        printf("page %" PRIu32 " is damaged: %s\n", pageidx, why->message);
}

static void visit_progress(void *context, uint64_t done, uint64_t total)
{
    struct check *check = context;
    check->progress.total = total;
    progress_show(&check->progress, done);
}

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

static void visit_local_damage(void *context, const struct graft_local_damage *damage)
{
    struct check *check = context;
    if (!check->damaged) {
        progress_end(&check->progress);
        printf("%s\n", damage->why->message);
        return;
    }
    json_array_append_new(check->damaged,
                          json_pack("{s:o, s:I, s:I, s:o, s:I, s:b, s:s}", "vid", text_or_null(damage->vid),
                                    "pageidx", (json_int_t)damage->pageidx, "local_lsn",
                                    (json_int_t)damage->local_lsn, "file", text_or_null(damage->file),
                                    "offset", (json_int_t)damage->offset, "fetchable", damage->fetchable,
                                    "message", damage->why->message));
}

static enum exit_code answer_local_check(struct cli *cli, struct check *check,
                                         const struct graft_local_counts *counts)
{
    json_t *answer = NULL;
    if (cli->settings.json)
        answer = json_pack("{s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I, s:I, s:I, s:I}, s:o}", "volumes",
                           (json_int_t)counts->volumes, "pages_checked", (json_int_t)counts->pages,
                           "fetched_checked", (json_int_t)counts->fetched, "unnamed",
                           (json_int_t)counts->unnamed, "bytes", "size", (json_int_t)counts->size, "live",
                           (json_int_t)counts->live, "dead", (json_int_t)counts->dead, "headers",
                           (json_int_t)counts->headers, "unused", (json_int_t)counts->unused, "free",
                           (json_int_t)counts->free, "damaged", check->damaged);
    return cli_answer(cli, answer,
                      "%" PRIu64 " volumes: %" PRIu64 " pages of local commits and %" PRIu64
                      " fetched ones read and verified%s\n"
                      "page files: %s, of these %s live, %s dead, %s headers, %s unused, %s free",
                      counts->volumes, counts->pages, counts->fetched,
                      counts->damaged == 0 ? ", all sound" : ", with damage",
                      cli_format_size(counts->size).text, cli_format_size(counts->live).text,
                      cli_format_size(counts->dead).text, cli_format_size(counts->headers).text,
                      cli_format_size(counts->unused).text, cli_format_size(counts->free).text);
}

static enum exit_code check_local(struct cli *cli)
{
    struct check check = {.damaged = NULL};
    struct graft_error err;
    struct graft_local_counts counts;
    if (cli_client(cli, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    check.damaged = cli->settings.json ? json_array() : NULL;
    progress_begin(&check.progress, cli, "checking", 0, true);
    enum graft_status status =
        graft_local_check(cli->client, visit_local_damage, visit_progress, &check, &counts, &err);
    progress_end(&check.progress);
    if (status != GRAFT_OK && status != GRAFT_CORRUPT) {
        json_decref(check.damaged);
        return cli_fail(cli, &err);
    }
    enum exit_code code = answer_local_check(cli, &check, &counts);
    return status == GRAFT_OK ? code : EXIT_FAILED;
}

static enum exit_code run_check(struct cli *cli, char **arguments, int argument_count)
{
    _cleanup_(graft_volume_close_p) struct graft_volume *volume = NULL;
    struct check check = {.damaged = NULL};
    struct graft_error err;
    uint64_t checked = 0;
    if (cli->settings.local && argument_count == 0 && cli->settings.lsn == 0)
        return check_local(cli);
    if (cli->settings.local || argument_count == 0) {
        cli_fail_with(cli, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                      "check wants a VID, or --local and neither VID nor --lsn");
        return EXIT_USAGE;
    }
    if (cli_client(cli, &err) != GRAFT_OK ||
        graft_volume_clone(cli->client, arguments[0], &volume, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    check.damaged = cli->settings.json ? json_array() : NULL;
    progress_begin(&check.progress, cli, "checking", 0, false);
    enum graft_status status =
        graft_remote_check(volume, cli->settings.lsn, visit_damaged, visit_progress, &check, &checked, &err);
    progress_end(&check.progress);
    if (status != GRAFT_OK && status != GRAFT_CORRUPT) {
        json_decref(check.damaged);
        return cli_fail(cli, &err);
    }
    enum exit_code code =
        cli_answer(cli,
                   json_pack("{s:s, s:I, s:o}", "vid", arguments[0], "pages_checked", (json_int_t)checked,
                             "damaged", check.damaged ? check.damaged : json_null()),
                   "%s: %" PRIu64 " pages read and verified%s", arguments[0], checked,
                   status == GRAFT_OK ? ", all sound" : ", with damage");
    return status == GRAFT_OK ? code : EXIT_FAILED;
}

static const struct option_spec check_specs[] = {
    {"lsn", OPTION_NUMBER, offsetof(struct cli_settings, lsn), .metavar = "N",
     .help = "the servers' commit N instead of their head", .min = 1},
    {"local", OPTION_FLAG, offsetof(struct cli_settings, local),
     .help =
         "this data directory instead: page files against index, both ways, and every byte accounted for"},
};

const struct cli_command command_check = {
    .name = "check",
    .arguments = "VID | --local",
    .summary = "read and verify every page of the servers' head, or of this data directory",
    .about =
        "Reads every page past every cache of this client, verifies it and names each damaged one. With --local "
        "reads what lies in the data directory and needs no server: each page of each volume is verified, each "
        "damaged one named with its file and offset, and every byte of the page files accounted for. Exits 1 if "
        "there is damage.",
    .specs = check_specs,
    .spec_count = ARRAY_COUNT(check_specs),
    .argument_min = 0,
    .argument_max = 1,
    .run = run_check,
};
