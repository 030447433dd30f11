// SPDX-License-Identifier: Apache-2.0
//
// Commands about the data directory and the process: its volumes, tags, errors, version.
#include <string.h>
#include <strings.h>

#include "common/base/clock.h"
#include "sqlite/command.h"
#include "sqlite/errors.h"

static enum graft_status no_memory(struct graft_error *err)
{
    return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for an answer");
}

enum graft_status command_clone(struct volume_file *file, const char *argument, json_t **ret_answer,
                                struct graft_error *err)
{
    struct graft_volume *volume;
    struct graft_volume_info info;

    if (!argument)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "graft_clone takes the VID of a volume of the servers");
    enum graft_status status = graft_volume_clone(file->shared->runtime->client, argument, &volume, err);
    if (status != GRAFT_OK)
        return status;
    status = graft_volume_info(volume, &info, err);
    graft_volume_close(volume);
    if (status != GRAFT_OK)
        return status;
    *ret_answer = json_pack("{s:s, s:I, s:I}", "vid", info.vid, "remote_lsn", (json_int_t)info.remote_lsn,
                            "pages", (json_int_t)info.page_count);
    return *ret_answer ? GRAFT_OK : no_memory(err);
}

// ---- tags

struct tags_of_volume {
    const char *vid; // NULL: of all
    json_t *rows;
};

static bool add_tag(void *context, const char *tag, const char *vid)
{
    struct tags_of_volume *tags = context;
    return (tags->vid && strcmp(tags->vid, vid) != 0) ||
           json_array_append_new(tags->rows, json_pack("{s:s, s:s}", "tag", tag, "vid", vid)) == 0;
}

enum graft_status command_tag(struct volume_file *file, const char *argument, json_t **ret_answer,
                              struct graft_error *err)
{
    struct graft *client = file->shared->runtime->client;
    struct tags_of_volume tags = {.vid = file->shared->vid};

    // A tag outlives the process, so a volume that is only named has to be remembered as well.
    enum graft_status status = GRAFT_OK;
    if (argument && !atomic_load(&file->shared->volume))
        status = runtime_keep_fresh(file->shared->runtime, file->shared->vid, err);
    if (argument && status == GRAFT_OK)
        status = graft_tag_set(client, argument, file->shared->vid, err);
    if (status != GRAFT_OK)
        return status;
    tags.rows = json_array();
    if (!tags.rows)
        return no_memory(err);
    status = graft_tag_list(client, add_tag, &tags, err);
    if (status != GRAFT_OK)
        json_decref(tags.rows);
    else
        *ret_answer = tags.rows;
    return status;
}

// ---- volumes

static bool add_vid(void *context, const char *vid)
{
    return json_array_append_new(context, json_string(vid)) == 0;
}

// The first tag of each volume.
static bool note_tag(void *context, const char *tag, const char *vid)
{
    return json_object_get(context, vid) || json_object_set_new(context, vid, json_string(tag)) == 0;
}

static enum graft_status volume_row(struct graft *client, const char *vid, const json_t *tags, json_t *rows,
                                    struct graft_error *err)
{
    struct graft_volume *volume;
    struct graft_volume_head head;
    const json_t *tag = json_object_get(tags, vid);

    enum graft_status status = graft_volume_open(client, vid, &volume, err);
    if (status == GRAFT_NOT_FOUND)
        return GRAFT_OK; // deleted meanwhile
    if (status != GRAFT_OK)
        return status;
    status = graft_volume_head(volume, &head, err);
    graft_volume_close(volume);
    if (status != GRAFT_OK)
        return status;
    json_t *row =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "vid", vid, "tag", tag ? json_string_value(tag) : "",
                  "status", graft_volume_status_text(head.status), "local_lsn", (json_int_t)head.local_lsn,
                  "pages", (json_int_t)head.page_count, "page_size", (json_int_t)head.page_size);
    return json_array_append_new(rows, row) == 0 ? GRAFT_OK : no_memory(err);
}

static enum graft_status volume_rows(struct graft *client, json_t *vids, json_t *tags, json_t *rows,
                                     struct graft_error *err)
{
    size_t index;
    json_t *vid;

    if (!vids || !tags || !rows)
        return no_memory(err);
    enum graft_status status = graft_volume_list(client, add_vid, vids, err);
    if (status == GRAFT_OK)
        status = graft_tag_list(client, note_tag, tags, err);
    if (status != GRAFT_OK)
        return status;
    json_array_foreach(vids, index, vid)
    {
        status = volume_row(client, json_string_value(vid), tags, rows, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

enum graft_status command_volumes(struct volume_file *file, const char *argument, json_t **ret_answer,
                                  struct graft_error *err)
{
    json_t *vids = json_array(), *tags = json_object(), *rows = json_array();

    enum graft_status status = volume_rows(file->shared->runtime->client, vids, tags, rows, err);
    json_decref(vids);
    json_decref(tags);
    if (status == GRAFT_OK)
        *ret_answer = rows;
    else
        json_decref(rows);
    return status;
}

// ---- errors

static bool add_error(void *context, const struct error_note *note)
{
    struct time_text time = clock_format(note->time_ms);
    return json_array_append_new(context,
                                 json_pack("{s:s, s:s, s:s, s:s}", "time", time.text, "vid", note->vid,
                                           "status", graft_status_text(note->error.status), "message",
                                           note->error.message)) == 0;
}

enum graft_status command_errors(struct volume_file *file, const char *argument, json_t **ret_answer,
                                 struct graft_error *err)
{
    if (argument && strcasecmp(argument, "clear") != 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "graft_errors takes nothing or 'clear', not '%.40s'", argument);
    *ret_answer = json_array();
    if (!*ret_answer)
        return no_memory(err);
    errors_visit(add_error, *ret_answer);
    if (argument)
        errors_clear();
    return GRAFT_OK;
}

enum graft_status command_version(struct volume_file *file, const char *argument, json_t **ret_answer,
                                  struct graft_error *err)
{
    *ret_answer = json_pack("{s:s, s:s}", "graft", graft_version(), "sqlite", sqlite3_libversion());
    return *ret_answer ? GRAFT_OK : no_memory(err);
}
