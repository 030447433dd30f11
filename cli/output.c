// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/base/clock.h"

#define PROGRESS_AFTER_MS 1000
#define PROGRESS_EVERY_MS 100
#define PROGRESS_BAR_WIDTH 30

static enum exit_code exit_code_of(const struct graft_error *err)
{
    switch (err->status) {
    case GRAFT_OK:
        return EXIT_DONE;
    case GRAFT_CONFLICT:
        return EXIT_REJECTED;
    case GRAFT_UNAVAILABLE:
    case GRAFT_UNKNOWN:
        return EXIT_UNREACHABLE;
    default:
        return EXIT_FAILED;
    }
}

enum exit_code cli_fail(const struct cli *cli, const struct graft_error *err)
{
    if (cli->settings.json) {
        cli_print_json(json_pack("{s:{s:s, s:s, s:s}}", "error", "status", graft_status_text(err->status),
                                 "detail", graft_detail_text(err->detail), "message", err->message));
    } else {
        fprintf(stderr, "graft: %s\n", err->message);
    }
    return exit_code_of(err);
}

enum exit_code cli_fail_with(const struct cli *cli, enum graft_status status, enum graft_detail detail,
                             const char *format, ...)
{
    struct graft_error err = {.status = status, .detail = detail};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err.message, sizeof err.message, format, arguments);
    va_end(arguments);
    return cli_fail(cli, &err);
}

void cli_print_json(json_t *answer)
{
    json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    putchar('\n');
    json_decref(answer);
}

enum exit_code cli_answer(const struct cli *cli, json_t *answer, const char *format, ...)
{
    if (cli->settings.json) {
        cli_print_json(answer);
        return EXIT_DONE;
    }
    json_decref(answer);
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    return EXIT_DONE;
}

bool cli_list_add(struct cli_list *list, json_t *item)
{
    fputs(list->begun ? ",\n" : "[\n", stdout);
    list->begun = true;
    json_dumpf(item, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    json_decref(item);
    return !ferror(stdout);
}

enum exit_code cli_list_end(struct cli_list *list)
{
    if (list->cli->settings.json)
        puts(list->begun ? "\n]" : "[]");
    return EXIT_DONE;
}

enum exit_code cli_list_fail(struct cli_list *list, const struct graft_error *err)
{
    if (!list->begun)
        return cli_fail(list->cli, err);
    cli_list_end(list);
    fprintf(stderr, "graft: %s\n", err->message);
    return exit_code_of(err);
}

enum graft_status cli_client(struct cli *cli, struct graft_error *err)
{
    if (cli->client)
        return GRAFT_OK;
    bool normal = strcmp(cli->settings.durability, "normal") == 0;
    if (!normal && strcmp(cli->settings.durability, "full") != 0) {
        *err = (struct graft_error){.status = GRAFT_INVALID, .detail = GRAFT_DETAIL_BAD_ARGUMENT};
        snprintf(err->message, sizeof err->message, "--durability is full or normal, not \"%.40s\"",
                 cli->settings.durability);
        return err->status;
    }
    struct graft_settings settings = {
        .durability = normal ? GRAFT_DURABILITY_NORMAL : GRAFT_DURABILITY_FULL,
        .data = cli->settings.data,
        .metastore = cli->settings.metastore,
        .pagestore = cli->settings.pagestore,
        .deadline_ms = (uint32_t)cli->settings.deadline_ms,
        .cache_limit = cli->settings.cache_limit,
    };
    return graft_open(&settings, &cli->client, err);
}

enum graft_status cli_volume(struct cli *cli, const char *vid, struct graft_volume **ret_volume,
                             struct graft_error *err)
{
    enum graft_status status = cli_client(cli, err);
    return status == GRAFT_OK ? graft_volume_open(cli->client, vid, ret_volume, err) : status;
}

bool cli_parse_number(const char *text, uint64_t max, uint64_t *ret_number)
{
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno || *end || number > max)
        return false;
    *ret_number = number;
    return true;
}

struct size_text cli_format_size(uint64_t size)
{
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB", "PB"};
    struct size_text text;
    double value = (double)size;
    size_t unit = 0;
    while (value >= 1000 && unit + 1 < ARRAY_COUNT(units)) {
        value /= 1000;
        unit++;
    }
    snprintf(text.text, sizeof text.text, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return text;
}

void progress_begin(struct progress *progress, const struct cli *cli, const char *label, uint64_t total,
                    bool bytes)
{
    *progress = (struct progress){
        .label = label,
        .total = total,
        .bytes = bytes,
        .started_ms = clock_monotonic_ms(clock_system()),
        .enabled = cli->settings.progress && !cli->settings.json && isatty(STDERR_FILENO),
    };
}

void progress_show(struct progress *progress, uint64_t done)
{
    if (!progress->enabled)
        return;
    uint64_t now_ms = clock_monotonic_ms(clock_system());
    uint64_t elapsed_ms = now_ms - progress->started_ms;
    if (elapsed_ms < PROGRESS_AFTER_MS || now_ms - progress->drawn_ms < PROGRESS_EVERY_MS)
        return;
    progress->drawn_ms = now_ms;
    progress->drawn = true;
    uint64_t rate = done * 1000 / elapsed_ms;
    char amount[64];
    if (progress->bytes)
        snprintf(amount, sizeof amount, "%s, %s/s", cli_format_size(done).text, cli_format_size(rate).text);
    else
        snprintf(amount, sizeof amount, "%" PRIu64 " pages, %" PRIu64 "/s", done, rate);
    if (!progress->total) {
        fprintf(stderr, "\r\033[K%s: %s", progress->label, amount);
        return;
    }
    int filled = (int)(MIN(done, progress->total) * PROGRESS_BAR_WIDTH / progress->total);
    uint64_t left_s = rate && done < progress->total ? (progress->total - done) / rate : 0;
    fprintf(stderr, "\r\033[K%s [%.*s%*s] %3u%%  %s, %" PRIu64 " s left", progress->label, filled,
            "##############################", PROGRESS_BAR_WIDTH - filled, "",
            (unsigned)(MIN(done, progress->total) * 100 / progress->total), amount, left_s);
}

void progress_end(struct progress *progress)
{
    if (progress->drawn)
        fprintf(stderr, "\r\033[K");
    progress->enabled = false;
}
