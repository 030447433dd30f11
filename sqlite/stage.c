// SPDX-License-Identifier: Apache-2.0
//
// Transactions on several databases. SQLite writes a *super-journal*, a file that names the journals of all of them, has
// each database do its first phase, removes the file, and has each do its second. The removal is the commit: a native
// database that is found with a journal rolls back if the file that it names is there, and else has committed. So does a
// volume: its first phase prepares the write with the super-journal as the witness (graft_writer_prepare()), its second
// commits it, and what was interrupted is settled when the data directory is opened again.
//
// Whoever finishes a rollback removes the super-journal once no journal is left that names it, and a volume's journal is in
// memory. So while a write is prepared a *marker* lies where its journal would: its end is that of a journal with the
// super-journal's name, which is all that is looked at. Marker before preparation, removed after it.
//
// In a rollback SQLite writes the old pages back, while the super-journal is still there. The first such write takes back
// what was prepared under it, of all volumes: then it may go.
#include "sqlite/stage.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/files.h"
#include "common/base/limits.h"
#include "common/base/mutex.h"
#include "sqlite/file_internal.h"

static struct {
    struct mutex lock;                // RANK_LEAF
    LIST_HEAD(, volume_file) handles; // lock
} staged;

void stage_init(void)
{
    mutex_init(&staged.lock, RANK_LEAF);
    LIST_INIT(&staged.handles);
}

// ---- the marker ---------------------------------------------------------------------------------

#define MARKER_TAIL_SIZE 16u

static char *marker_path(const struct volume_file *file)
{
    char *path;
    return asprintf(&path, "%s-journal", file->path) < 0 ? NULL : path;
}

static enum graft_status marker_write(const struct volume_file *file, const char *super_journal,
                                      struct graft_error *err)
{
    static const uint8_t magic[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};
    _cleanup_(free_p) char *path = marker_path(file);
    size_t size = strlen(super_journal);
    _cleanup_(free_p) uint8_t *marker = malloc(size + MARKER_TAIL_SIZE);
    uint32_t sum = 0;

    if (!path || !marker)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a transaction");
    for (size_t i = 0; i < size; i++)
        sum += (uint32_t)super_journal[i];
    memcpy(marker, super_journal, size);
    put_be32(marker + size, (uint32_t)size);
    put_be32(marker + size + 4, sum);
    memcpy(marker + size + 8, magic, sizeof magic);
    return files_replace(path, marker, size + MARKER_TAIL_SIZE, err);
}

static void marker_remove(const struct volume_file *file)
{
    _cleanup_(free_p) char *path = marker_path(file);

    if (path)
        unlink(path); // one that stays is harmless: it names a super-journal that is gone
}

// ---- what was left ------------------------------------------------------------------------------

#define SUPER_JOURNAL_SIZE_MAX (64 * KIB) // of one that is looked into

static void join_path(const char *folder, const char *name, char path[PATH_MAX])
{
    if (snprintf(path, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
        path[0] = '\0';
}

// Is there a journal that this super-journal names? Then it decides about that.
static bool is_needed(const char *path)
{
    struct buffer content;
    bool needed = false;

    buffer_init(&content, SUPER_JOURNAL_SIZE_MAX);
    if (files_read(path, &content, NULL) != GRAFT_OK || buffer_append(&content, "", 1, NULL) != GRAFT_OK)
        needed = true; // not looked into is not known
    for (size_t at = 0; !needed && at + 1 < content.size; at += strlen((const char *)content.data + at) + 1)
        needed = access((const char *)content.data + at, F_OK) == 0;
    buffer_release(&content);
    return needed;
}

static void marker_clean(const char *path)
{
    struct buffer content;

    buffer_init(&content, PATH_MAX + MARKER_TAIL_SIZE);
    if (files_read(path, &content, NULL) == GRAFT_OK && content.size > MARKER_TAIL_SIZE) {
        content.data[content.size - MARKER_TAIL_SIZE] = '\0';
        unlink(path);
        if (!is_needed((const char *)content.data))
            unlink((const char *)content.data);
    }
    buffer_release(&content);
}

void stage_clean(const char *folder)
{
    char path[PATH_MAX];
    struct dirent *entry;

    // Markers, and what they name, wherever it is; then super-journals that lost theirs before.
    for (int pass = 0; pass < 2; pass++) {
        DIR *listing = opendir(folder);
        while (listing && (entry = readdir(listing))) {
            size_t size = strlen(entry->d_name), suffix = sizeof "-journal" - 1;
            bool marker = size > suffix && strcmp(entry->d_name + size - suffix, "-journal") == 0;
            join_path(folder, entry->d_name, path);
            if (pass == 0 && marker)
                marker_clean(path);
            else if (pass == 1 && !marker && strstr(entry->d_name, "-mj") && !is_needed(path))
                unlink(path);
        }
        if (listing)
            closedir(listing);
    }
}

// ---- staging ------------------------------------------------------------------------------------

static void list_add(struct volume_file *file)
{
    LOCK_GUARD(&staged.lock);
    LIST_INSERT_HEAD(&staged.handles, file, staged_link);
}

static void list_remove(struct volume_file *file)
{
    LOCK_GUARD(&staged.lock);
    LIST_REMOVE(file, staged_link);
}

static enum graft_status stage(struct volume_file *file, const char *super_journal, struct graft_error *err)
{
    char *name = strdup(super_journal);
    if (!name)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a transaction");
    enum graft_status status = marker_write(file, super_journal, err);
    if (status == GRAFT_OK)
        status = file_begin_commit(file, file_page_count_to_be(file), &file->staged, err);
    if (status == GRAFT_OK)
        status = graft_writer_prepare(file->staged, super_journal, err);
    if (status != GRAFT_OK) {
        graft_writer_abort(TAKE(file->staged));
        marker_remove(file);
        free(name);
        return status;
    }
    file->super_journal = name;
    list_add(file);
    return GRAFT_OK;
}

int file_stage(struct volume_file *file, const char *super_journal)
{
    struct graft_error why;

    if (!super_journal || !file->overlay)
        return SQLITE_OK;
    if (file->staged)
        stage_take_back(file);
    if (file->lock < SQLITE_LOCK_EXCLUSIVE)
        return SQLITE_IOERR;
    if (file_only_asks_for_wal(file))
        return file_refuse_wal(file);
    if (stage(file, super_journal, &why) != GRAFT_OK)
        return errors_note(errors_code_of_write(&why), file->shared->vid, &why);
    return SQLITE_OK;
}

static void forget(struct volume_file *file)
{
    marker_remove(file);
    free(TAKE(file->super_journal));
}

// Another handle under that name, out of the list.
static struct volume_file *take_from_list(const char *super_journal)
{
    struct volume_file *file;

    LOCK_GUARD(&staged.lock);
    LIST_FOREACH(file, &staged.handles, staged_link)
    {
        if (strcmp(file->super_journal, super_journal) == 0) {
            LIST_REMOVE(file, staged_link);
            return file;
        }
    }
    return NULL;
}

void stage_take_back(struct volume_file *file)
{
    struct volume_file *other;

    if (!file->staged)
        return;
    // All of them are one connection's, so nobody else is at them.
    _cleanup_(free_p) char *name = strdup(file->super_journal);
    list_remove(file);
    graft_writer_abort(TAKE(file->staged));
    forget(file);
    while (name && (other = take_from_list(name))) {
        graft_writer_abort(TAKE(other->staged));
        forget(other);
    }
}

enum graft_status stage_commit(struct volume_file *file, struct graft_error *err)
{
    list_remove(file);
    enum graft_status status = graft_writer_commit(TAKE(file->staged), NULL, err);
    if (status == GRAFT_OK) {
        forget(file);
        return GRAFT_OK;
    }
    free(TAKE(file->super_journal));
    atomic_store(&file->shared->undecided, true);
    return error_context(
        err, status,
        "the transaction is committed and could not be written; it will be when the data directory is "
        "opened again, and until then nothing is read");
}
