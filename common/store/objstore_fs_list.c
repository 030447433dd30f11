// SPDX-License-Identifier: Apache-2.0
//
// Listing files in the order of their keys' bytes. A folder counts as its name with a '/' behind it, so going
// through names in order, and into folders as they come, gives the order of the keys.
//
// Each folder is read as a whole, but only the least `limit` names are kept: memory is bounded, and a page of
// a list costs one pass over the folders that it touches.
#include "common/store/objstore_fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/check.h"

struct listing {
    struct fs_store *store;
    const struct objstore_op *op;
    struct objstore_result *result;
};

// The least names found so far, as a heap with the greatest on top; sorted at the end.
struct names {
    char **names; // keys relative to the folder, folders with a '/' behind
    size_t count;
    size_t max;
};

static void names_release(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->names[i]);
    free(names->names);
}

static void swap(char **a, char **b)
{
    char *other = *a;
    *a = *b;
    *b = other;
}

static void sift_up(struct names *names, size_t at)
{
    for (; at > 0 && strcmp(names->names[(at - 1) / 2], names->names[at]) < 0; at = (at - 1) / 2)
        swap(&names->names[(at - 1) / 2], &names->names[at]);
}

static void sift_down(struct names *names)
{
    for (size_t at = 0;;) {
        size_t greatest = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < names->count; child++)
            if (strcmp(names->names[child], names->names[greatest]) > 0)
                greatest = child;
        if (greatest == at)
            return;
        swap(&names->names[at], &names->names[greatest]);
        at = greatest;
    }
}

static void names_add(struct names *names, const char *name)
{
    if (names->count == names->max) {
        if (strcmp(name, names->names[0]) >= 0)
            return;
        free(names->names[0]);
        names->names[0] = names->names[--names->count];
        sift_down(names);
    }
    char *copy = strdup(name);
    CHECK(copy);
    names->names[names->count] = copy;
    sift_up(names, names->count++);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// Turns a file's name into the last part of a key, or a folder's into "part/". False: not ours.
static bool to_key_part(const struct dirent *entry, char part[NAME_MAX + 2])
{
    size_t size = strlen(entry->d_name);
    bool marked = entry->d_name[size - 1] == FS_FOLDER_MARK;
    if (entry->d_name[0] == '.' && (size == 1 || (size == 2 && entry->d_name[1] == '.')))
        return false;
    memcpy(part, entry->d_name, size + 1);
    if (marked)
        part[size - 1] = '/';
    return true;
}

// May a name that starts with `key` (a folder's ends in '/') be one that was asked for?
static bool is_wanted(const struct objstore_op *op, const char *key, size_t size)
{
    size_t prefix_size = strlen(op->key);
    bool folder = key[size - 1] == '/';
    if (strncmp(key, op->key, folder ? MIN(size, prefix_size) : prefix_size) != 0)
        return false;
    if (!op->other)
        return true;
    // Below a folder there is something above `other` unless all its keys are below: its name is, and is no
    // start of it.
    int order = strcmp(key, op->other);
    return order > 0 || (folder && strncmp(key, op->other, size) == 0);
}

// The least names in the folder of the keys that start with `folder` ("" or ending in '/') which are wanted
// and above `after`.
static enum graft_status read_folder(const struct listing *listing, const char *folder, const char *after,
                                     struct names *ret_names, struct graft_error *err)
{
    struct fs_path path;
    fs_object_path(listing->store, folder, &path);
    DIR *stream = opendir(path.text);
    if (!stream && (errno == ENOENT || errno == ENOTDIR))
        return GRAFT_OK;
    if (!stream)
        return error_from_errno(err, errno, "listing %s", path.text);

    char key[OBJSTORE_KEY_MAX + NAME_MAX + 2];
    size_t folder_size = strlen(folder);
    memcpy(key, folder, folder_size);
    errno = 0;
    for (struct dirent *entry; (entry = readdir(stream)); errno = 0) {
        char *part = key + folder_size;
        if (!to_key_part(entry, part) || strlen(key) > OBJSTORE_KEY_MAX)
            continue;
        if (is_wanted(listing->op, key, strlen(key)) && (!after || strcmp(part, after) > 0))
            names_add(ret_names, part);
    }
    int error_number = errno;
    closedir(stream);
    if (error_number != 0)
        return error_from_errno(err, error_number, "listing %s", path.text);
    qsort(ret_names->names, ret_names->count, sizeof *ret_names->names, compare_names);
    return GRAFT_OK;
}

// False: it has been removed since its name was read.
static bool add_entry(const struct listing *listing, const char *key)
{
    struct fs_path path;
    fs_object_path(listing->store, key, &path);
    struct stat stat;
    if (lstat(path.text, &stat) != 0 || !S_ISREG(stat.st_mode))
        return false;
    struct objstore_result *result = listing->result;
    struct objstore_entry *entry = &result->entries[result->entry_count++];
    memcpy(entry->key, key, strlen(key) + 1);
    entry->size = (uint64_t)stat.st_size;
    entry->modified_ms = (uint64_t)stat.st_mtim.tv_sec * 1000 + (uint64_t)stat.st_mtim.tv_nsec / 1000000;
    return true;
}

static bool is_full(const struct listing *listing)
{
    return listing->result->entry_count > listing->op->limit;
}

// Recursion is as deep as a key has parts.
static enum graft_status list_folder(const struct listing *listing, const char *folder,
                                     struct graft_error *err)
{
    size_t max = listing->op->limit + 1;
    size_t folder_size = strlen(folder);
    char after[NAME_MAX + 2];
    for (bool more = true, first = true; more && !is_full(listing); first = false) {
        _cleanup_(names_release) struct names names = {.names = calloc(max, sizeof *names.names), .max = max};
        CHECK(names.names);
        enum graft_status status = read_folder(listing, folder, first ? NULL : after, &names, err);
        if (status != GRAFT_OK)
            return status;
        more = names.count == max;
        for (size_t i = 0; i < names.count && !is_full(listing); i++) {
            char key[OBJSTORE_KEY_MAX + 1];
            size_t size = strlen(names.names[i]);
            memcpy(key, folder, folder_size);
            memcpy(key + folder_size, names.names[i], size + 1);
            memcpy(after, names.names[i], size + 1);
            if (names.names[i][size - 1] != '/')
                add_entry(listing, key);
            else if ((status = list_folder(listing, key, err)) != GRAFT_OK)
                return status;
        }
    }
    return GRAFT_OK;
}

enum graft_status fs_list(struct fs_store *store, const struct objstore_op *op,
                          struct objstore_result *result)
{
    // One more than asked for tells whether there is more.
    result->entries = calloc((size_t)op->limit + 1, sizeof *result->entries);
    CHECK(result->entries);
    struct listing listing = {.store = store, .op = op, .result = result};

    char folder[OBJSTORE_KEY_MAX + 1];
    const char *end = strrchr(op->key, '/');
    size_t size = end ? (size_t)(end - op->key) + 1 : 0;
    memcpy(folder, op->key, size);
    folder[size] = '\0';

    enum graft_status status = list_folder(&listing, folder, &result->error);
    if (status == GRAFT_OK)
        status = fs_sync_publishes(store, op->key, false, &result->error);
    result->more = result->entry_count > op->limit;
    if (result->more)
        result->entry_count = op->limit;
    return status;
}
