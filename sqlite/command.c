// SPDX-License-Identifier: Apache-2.0
#include "sqlite/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/clock.h"
#include "common/base/limits.h"

#define LOG_DEFAULT 20u

// The volume, or INVALID while it is only named: its first commit makes it.
static enum graft_status made_volume(const struct volume_file *file, struct graft_volume **ret_volume,
                                     struct graft_error *err)
{
    *ret_volume = atomic_load(&file->shared->volume);
    if (*ret_volume)
        return GRAFT_OK;
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_NONE,
                     "volume %s is new and empty: it is made by the first commit", file->shared->vid);
}

static enum graft_status answer_with(json_t *answer, json_t **ret_answer, struct graft_error *err)
{
    if (!answer)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for an answer");
    *ret_answer = answer;
    return GRAFT_OK;
}

static enum graft_status volume_and_info(const struct volume_file *file, struct graft_volume **ret_volume,
                                         struct graft_volume_info *ret_info, struct graft_error *err)
{
    enum graft_status status = made_volume(file, ret_volume, err);
    return status == GRAFT_OK ? graft_volume_info(*ret_volume, ret_info, err) : status;
}

// ---- looking

static enum graft_status command_status(struct volume_file *file, const char *argument, json_t **ret_answer,
                                        struct graft_error *err)
{
    struct graft_volume *volume = atomic_load(&file->shared->volume);
    struct graft_volume_info info;

    if (!volume)
        return answer_with(json_pack("{s:s, s:s}", "vid", file->shared->vid, "status", "new"), ret_answer,
                           err);
    enum graft_status status = graft_volume_info(volume, &info, err);
    if (status != GRAFT_OK)
        return status;
    json_t *answer = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "vid", info.vid, "status",
        graft_volume_status_text(info.status), "local_lsn", (json_int_t)info.local_lsn, "remote_lsn",
        (json_int_t)info.remote_lsn, "remote_seen_lsn", (json_int_t)info.remote_seen_lsn, "pending_commits",
        (json_int_t)info.pending_commits, "pages", (json_int_t)info.page_count, "pages_pending",
        (json_int_t)info.pages_pending, "autosync", atomic_load(&file->shared->autosync));
    if (answer && info.status != GRAFT_VOLUME_OK) {
        json_object_set_new(answer, "reason", json_string(info.status_error.message));
        json_object_set_new(answer, "advice", json_string(graft_volume_status_advice(info.status)));
    }
    return answer_with(answer, ret_answer, err);
}

// What this connection reads now: its pin, else the head, which its next statement pins.
static enum graft_status command_snapshot(struct volume_file *file, const char *argument, json_t **ret_answer,
                                          struct graft_error *err)
{
    struct graft_volume *volume;
    struct graft_snapshot *snapshot = file->pin;

    enum graft_status status = made_volume(file, &volume, err);
    if (status == GRAFT_OK && !snapshot)
        status = graft_snapshot_open(volume, &snapshot, err);
    if (status != GRAFT_OK)
        return status;
    json_t *answer = json_pack("{s:s, s:I, s:I, s:I, s:I}", "vid", file->shared->vid, "local_lsn",
                               (json_int_t)graft_snapshot_local_lsn(snapshot), "remote_lsn",
                               (json_int_t)graft_snapshot_remote_lsn(snapshot), "pages",
                               (json_int_t)graft_snapshot_page_count(snapshot), "page_size",
                               (json_int_t)atomic_load(&file->shared->page_size));
    if (snapshot != file->pin)
        graft_snapshot_release(snapshot);
    return answer_with(answer, ret_answer, err);
}

static enum graft_status command_pages(struct volume_file *file, const char *argument, json_t **ret_answer,
                                       struct graft_error *err)
{
    struct graft_volume *volume;
    struct graft_volume_info info;

    enum graft_status status = volume_and_info(file, &volume, &info, err);
    if (status != GRAFT_OK)
        return status;
    uint64_t empty = info.page_count - info.pages_available - info.pages_pending;
    return answer_with(json_pack("{s:I, s:I, s:I, s:I}", "pages", (json_int_t)info.page_count, "available",
                                 (json_int_t)info.pages_available, "pending", (json_int_t)info.pages_pending,
                                 "empty", (json_int_t)empty),
                       ret_answer, err);
}

static enum graft_status command_fetch_stats(struct volume_file *file, const char *argument,
                                             json_t **ret_answer, struct graft_error *err)
{
    struct graft_volume *volume;
    struct graft_volume_info info;

    enum graft_status status = volume_and_info(file, &volume, &info, err);
    if (status != GRAFT_OK)
        return status;
    return answer_with(json_pack("{s:I, s:I, s:I}", "requests", (json_int_t)info.fetch.requests, "pages",
                                 (json_int_t)info.fetch.pages, "bytes", (json_int_t)info.fetch.bytes),
                       ret_answer, err);
}

static bool add_commit(void *context, const struct graft_commit_info *commit)
{
    struct time_text time = clock_format(commit->time_ms);
    return json_array_append_new(context,
                                 json_pack("{s:I, s:s, s:s, s:I, s:I, s:I}", "lsn", (json_int_t)commit->lsn,
                                           "time", time.text, "client", commit->client, "pages_changed",
                                           (json_int_t)commit->pages_changed, "segments",
                                           (json_int_t)commit->segment_count, "pages",
                                           (json_int_t)commit->page_count)) == 0;
}

static enum graft_status command_log(struct volume_file *file, const char *argument, json_t **ret_answer,
                                     struct graft_error *err)
{
    char *end = NULL;
    unsigned long long limit = argument ? strtoull(argument, &end, 10) : LOG_DEFAULT;

    if (argument && (*end != '\0' || limit == 0 || limit > SQL_ROWS_MAX))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "graft_log takes how many commits to show, 1 to %u", SQL_ROWS_MAX);
    json_t *answer = json_array();
    enum graft_status status =
        graft_remote_log(file->shared->runtime->client, file->shared->vid, limit, add_commit, answer, err);
    if (status == GRAFT_OK)
        return answer_with(answer, ret_answer, err);
    json_decref(answer);
    return status;
}

// ---- synchronising

static enum graft_status answer_lsn(struct volume_file *file, json_t *answer, json_t **ret_answer,
                                    struct graft_error *err)
{
    struct graft_volume *volume;
    struct graft_volume_info info;

    enum graft_status status = volume_and_info(file, &volume, &info, err);
    if (status != GRAFT_OK) {
        json_decref(answer);
        return status;
    }
    json_object_set_new(answer, "remote_lsn", json_integer((json_int_t)info.remote_lsn));
    json_object_set_new(answer, "local_lsn", json_integer((json_int_t)info.local_lsn));
    return answer_with(answer, ret_answer, err);
}

static enum graft_status command_push(struct volume_file *file, const char *argument, json_t **ret_answer,
                                      struct graft_error *err)
{
    struct graft_volume *volume;

    enum graft_status status = made_volume(file, &volume, err);
    if (status == GRAFT_OK)
        status = graft_push(volume, NULL, err);
    return status == GRAFT_OK ? answer_lsn(file, json_object(), ret_answer, err) : status;
}

static enum graft_status command_pull(struct volume_file *file, const char *argument, json_t **ret_answer,
                                      struct graft_error *err)
{
    struct graft_volume *volume;
    uint64_t changed = 0;

    enum graft_status status = made_volume(file, &volume, err);
    if (status == GRAFT_OK)
        status = graft_pull(volume, &changed, err);
    if (status != GRAFT_OK)
        return status;
    return answer_lsn(file, json_pack("{s:I}", "pages_changed", (json_int_t)changed), ret_answer, err);
}

static enum graft_status command_sync(struct volume_file *file, const char *argument, json_t **ret_answer,
                                      struct graft_error *err)
{
    struct graft_volume *volume;

    enum graft_status status = made_volume(file, &volume, err);
    if (status == GRAFT_OK)
        status = graft_sync(volume, err);
    return status == GRAFT_OK ? answer_lsn(file, json_object(), ret_answer, err) : status;
}

static enum graft_status command_reset(struct volume_file *file, const char *argument, json_t **ret_answer,
                                       struct graft_error *err)
{
    struct graft_volume *volume;
    uint64_t dropped = 0;
    bool reattach = argument && strcasecmp(argument, "reattach") == 0;

    if (argument && !reattach)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "graft_reset takes nothing or 'reattach', not '%.40s'", argument);
    enum graft_status status = made_volume(file, &volume, err);
    if (status == GRAFT_OK)
        status = graft_discard(volume, reattach ? GRAFT_DISCARD_REATTACH : 0, &dropped, err);
    if (status != GRAFT_OK)
        return status;
    return answer_lsn(file, json_pack("{s:I}", "commits_dropped", (json_int_t)dropped), ret_answer, err);
}

static enum graft_status command_fork(struct volume_file *file, const char *argument, json_t **ret_answer,
                                      struct graft_error *err)
{
    struct graft_volume *volume, *fork;
    struct graft_volume_info info;

    enum graft_status status = made_volume(file, &volume, err);
    if (status == GRAFT_OK)
        status = graft_fork(volume, &fork, err);
    if (status != GRAFT_OK)
        return status;
    status = graft_volume_info(fork, &info, err);
    graft_volume_close(fork);
    if (status != GRAFT_OK)
        return status;
    return answer_with(json_pack("{s:s, s:s, s:I}", "vid", info.vid, "forked_from", file->shared->vid,
                                 "pages", (json_int_t)info.page_count),
                       ret_answer, err);
}

static enum graft_status command_hydrate(struct volume_file *file, const char *argument, json_t **ret_answer,
                                         struct graft_error *err)
{
    struct graft_volume *volume;
    struct graft_snapshot *snapshot;
    struct graft_volume_info before, after;

    enum graft_status status = volume_and_info(file, &volume, &before, err);
    if (status == GRAFT_OK)
        status = graft_snapshot_open(volume, &snapshot, err);
    if (status != GRAFT_OK)
        return status;
    struct graft_page_range all = {.first = 1, .count = graft_snapshot_page_count(snapshot)};
    if (all.count > 0)
        status = graft_hydrate(snapshot, &all, 1, err);
    graft_snapshot_release(snapshot);
    if (status == GRAFT_OK)
        status = graft_volume_info(volume, &after, err);
    if (status != GRAFT_OK)
        return status;
    return answer_with(json_pack("{s:I, s:I}", "pages", (json_int_t)after.page_count, "fetched",
                                 (json_int_t)(after.fetch.pages - before.fetch.pages)),
                       ret_answer, err);
}

static enum graft_status command_autosync(struct volume_file *file, const char *argument, json_t **ret_answer,
                                          struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;

    if (argument)
        status = shared_set_autosync(file->shared, settings_flag(argument), err);
    if (status != GRAFT_OK)
        return status;
    return answer_with(json_pack("{s:b}", "autosync", atomic_load(&file->shared->autosync)), ret_answer, err);
}

// ---- all of them

static const struct command commands[] = {
    {"status", 0, command_status},
    {"snapshot", 0, command_snapshot},
    {"pages", 0, command_pages},
    {"pull", COMMAND_CHANGES, command_pull},
    {"push", COMMAND_CHANGES, command_push},
    {"sync", COMMAND_CHANGES, command_sync},
    {"autosync", COMMAND_ARGUMENT, command_autosync},
    {"reset", COMMAND_CHANGES | COMMAND_ARGUMENT, command_reset},
    {"fork", COMMAND_CHANGES, command_fork},
    {"clone", COMMAND_CHANGES | COMMAND_ARGUMENT, command_clone},
    {"tag", COMMAND_ARGUMENT, command_tag},
    {"volumes", 0, command_volumes},
    {"log", COMMAND_ARGUMENT, command_log},
    {"fetch_stats", 0, command_fetch_stats},
    {"hydrate", 0, command_hydrate},
    {"errors", COMMAND_ARGUMENT | COMMAND_ANYWHERE, command_errors},
    {"version", COMMAND_ANYWHERE, command_version},
};

const struct command *command_at(size_t index)
{
    return index < ARRAY_COUNT(commands) ? &commands[index] : NULL;
}

const struct command *command_find(const char *name)
{
    if (strncasecmp(name, "graft_", 6) != 0)
        return NULL;
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        if (strcasecmp(name + 6, commands[i].name) == 0)
            return &commands[i];
    }
    return NULL;
}

enum graft_status command_refuse(const struct command *command, struct graft_error *err)
{
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_NONE,
                     "graft_%s is not done inside a transaction: end it first", command->name);
}

// ---- answers as text

static void print_value(FILE *to, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        fputs(json_string_value(value), to);
        break;
    case JSON_INTEGER:
        fprintf(to, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        fputs(json_is_true(value) ? "on" : "off", to);
        break;
    default:
        break;
    }
}

static void print_object(FILE *to, json_t *object)
{
    const char *key;
    json_t *value;
    int width = 0;

    json_object_foreach(object, key, value)
    {
        width = MAX(width, (int)strlen(key));
    }
    json_object_foreach(object, key, value)
    {
        fprintf(to, "%-*s  ", width, key);
        print_value(to, value);
        fputc('\n', to);
    }
}

static void print_rows(FILE *to, json_t *rows)
{
    size_t index;
    json_t *row, *value;
    const char *key;

    json_array_foreach(rows, index, row)
    {
        if (index == 0) {
            const char *before = "";
            json_object_foreach(row, key, value)
            {
                fprintf(to, "%s%s", before, key);
                before = "  ";
            }
            fputc('\n', to);
        }
        const char *before = "";
        json_object_foreach(row, key, value)
        {
            fputs(before, to);
            print_value(to, value);
            before = "  ";
        }
        fputc('\n', to);
    }
}

char *command_text(json_t *answer)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    if (to && json_is_array(answer))
        print_rows(to, answer);
    else if (to)
        print_object(to, answer);
    json_decref(answer);
    if (!to || fclose(to) != 0) {
        free(text);
        return NULL;
    }
    if (size > 0 && text[size - 1] == '\n')
        text[size - 1] = '\0';
    return text;
}

char *command_json(json_t *answer)
{
    char *text = json_dumps(answer, JSON_ENSURE_ASCII);
    json_decref(answer);
    return text;
}
