// SPDX-License-Identifier: Apache-2.0
//
// Names for volumes: tags, which are local to a data directory, and stub files, which lie anywhere. A tag is a file
// tags/NAME in the data directory; it and a stub hold one line, "graft volume <VID>", and are replaced as a whole.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/client.h"
#include "common/base/check.h"
#include "common/base/files.h"

static const char prefix[] = "graft volume ";

#define LINE_SIZE (sizeof prefix - 1 + GID_TEXT_SIZE + 1)
#define FOLDER "tags"

// ---- stub files ---------------------------------------------------------------------------------

enum graft_status graft_stub_write(const char *path, const char *vid_text, struct graft_error *err)
{
    char line[LINE_SIZE + 1];
    struct gid vid;

    REQUIRE(path);
    REQUIRE(vid_text);
    enum graft_status status = gid_parse(vid_text, GID_VOLUME, &vid, err);
    if (status != GRAFT_OK)
        return status;
    snprintf(line, sizeof line, "%s%s\n", prefix, vid_text);
    return files_replace(path, line, LINE_SIZE, err);
}

enum graft_status graft_stub_read(const char *path, char ret_vid[GRAFT_VID_SIZE], struct graft_error *err)
{
    struct gid vid;
    char text[GID_TEXT_SIZE + 1];

    REQUIRE(path);
    REQUIRE(ret_vid);
    // A database that is no stub may be large: one byte more than a stub has tells them apart.
    FILE *file = fopen(path, "re");
    if (!file)
        return error_from_errno(err, errno, "reading %s", path);
    char line[LINE_SIZE + 1];
    size_t size = fread(line, 1, sizeof line, file);
    bool failed = ferror(file);
    fclose(file);
    if (failed)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_IO, "%s cannot be read", path);
    if (size != LINE_SIZE || memcmp(line, prefix, sizeof prefix - 1) != 0 || line[LINE_SIZE - 1] != '\n')
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE,
                         "%s does not name a volume: a stub file is the line \"%s<VID>\"", path, prefix);
    memcpy(text, line + sizeof prefix - 1, GID_TEXT_SIZE);
    text[GID_TEXT_SIZE] = '\0';
    enum graft_status status = gid_parse(text, GID_VOLUME, &vid, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "reading %s", path);
    memcpy(ret_vid, text, GRAFT_VID_SIZE);
    return GRAFT_OK;
}

// ---- tags ---------------------------------------------------------------------------------------

bool graft_tag_is_name(const char *tag)
{
    struct gid vid;

    if (!tag || tag[0] == '\0' || tag[0] == '.' || tag[0] == '-')
        return false;
    size_t size = strspn(tag, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
    return tag[size] == '\0' && size <= TAG_NAME_SIZE_MAX && strcmp(tag, "random") != 0 &&
           gid_parse(tag, GID_VOLUME, &vid, NULL) != GRAFT_OK;
}

struct tag_path {
    char *folder;
    char *path;
};

static void tag_path_release(struct tag_path *at)
{
    free(at->folder);
    free(at->path);
}

static enum graft_status tag_path(const struct graft *client, const char *tag, struct tag_path *ret_at,
                                  struct graft_error *err)
{
    if (tag && !graft_tag_is_name(tag))
        return error_set(
            err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
            "\"%.80s\" cannot be a tag: that is up to %u letters, digits, dots, dashes and underscores, "
            "beginning with none of the dots and dashes, and neither \"random\" nor a VID",
            tag, TAG_NAME_SIZE_MAX);
    if (asprintf(&ret_at->folder, "%s/%s", client->data, FOLDER) < 0)
        ret_at->folder = NULL;
    if (asprintf(&ret_at->path, "%s/%s/%s", client->data, FOLDER, tag ? tag : "") < 0)
        ret_at->path = NULL;
    if (!ret_at->folder || !ret_at->path)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a path");
    return GRAFT_OK;
}

static enum graft_status tag_remove(const struct tag_path *at, const char *tag, struct graft_error *err)
{
    if (unlink(at->path) == 0)
        return files_sync_folder(at->folder, err);
    if (errno == ENOENT)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "there is no tag \"%s\"", tag);
    return error_from_errno(err, errno, "removing tag \"%s\"", tag);
}

enum graft_status graft_tag_set(struct graft *client, const char *tag, const char *vid,
                                struct graft_error *err)
{
    _cleanup_(tag_path_release) struct tag_path at = {0};

    REQUIRE(client);
    REQUIRE(tag);
    enum graft_status status = store_check_fork(client->store, err);
    if (status == GRAFT_OK)
        status = tag_path(client, tag, &at, err);
    if (status != GRAFT_OK)
        return status;
    if (!vid)
        return tag_remove(&at, tag, err);
    status = files_make_folder(at.folder, err);
    if (status == GRAFT_OK)
        status = graft_stub_write(at.path, vid, err);
    return status == GRAFT_OK ? status : error_context(err, status, "setting tag \"%s\"", tag);
}

enum graft_status graft_tag_get(struct graft *client, const char *tag, char ret_vid[GRAFT_VID_SIZE],
                                struct graft_error *err)
{
    _cleanup_(tag_path_release) struct tag_path at = {0};
    struct graft_error why;

    REQUIRE(client);
    REQUIRE(tag);
    REQUIRE(ret_vid);
    enum graft_status status = store_check_fork(client->store, err);
    if (status == GRAFT_OK)
        status = tag_path(client, tag, &at, err);
    if (status != GRAFT_OK)
        return status;
    status = graft_stub_read(at.path, ret_vid, &why);
    if (status == GRAFT_NOT_FOUND)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "there is no tag \"%s\" in %s", tag,
                         client->data);
    return status == GRAFT_OK ? status : error_copy(err, &why);
}

static int is_tag(const struct dirent *entry)
{
    return graft_tag_is_name(entry->d_name);
}

static int in_order(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

enum graft_status graft_tag_list(struct graft *client,
                                 bool (*visit)(void *context, const char *tag, const char *vid),
                                 void *context, struct graft_error *err)
{
    _cleanup_(tag_path_release) struct tag_path at = {0};
    struct dirent **entries = NULL;

    REQUIRE(client);
    REQUIRE(visit);
    enum graft_status status = store_check_fork(client->store, err);
    if (status == GRAFT_OK)
        status = tag_path(client, NULL, &at, err);
    if (status != GRAFT_OK)
        return status;
    int count = scandir(at.folder, &entries, is_tag, in_order);
    if (count < 0)
        return errno == ENOENT ? GRAFT_OK : error_from_errno(err, errno, "listing %s", at.folder);
    bool more = true;
    for (int i = 0; i < count; i++) {
        char vid[GRAFT_VID_SIZE];
        if (more && status == GRAFT_OK) {
            status = graft_tag_get(client, entries[i]->d_name, vid, err);
            if (status == GRAFT_NOT_FOUND)
                status = GRAFT_OK; // removed meanwhile
            else if (status == GRAFT_OK)
                more = visit(context, entries[i]->d_name, vid);
        }
        free(entries[i]);
    }
    free(entries);
    return status;
}
