// SPDX-License-Identifier: Apache-2.0
//
// The file RESTORE: "graft-metastore restore 1", the backup's id, this restore's id, and "copying" or
// "committing", a line each.
#include "metastore/restore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/files.h"
#include "common/base/folder.h"
#include "common/base/limits.h"
#include "common/base/mutex.h"
#include "common/store/objstore.h"
#include "metastore/backup.h"
#include "metastore/keys.h"
#include "metastore/volume_load.h"

#define PATH_SIZE 4096
#define LOCK_FILE "graft.lock"
#define FILE_FORMAT "graft-metastore restore 1\n%32[0-9a-f]\n%32[0-9a-f]\n%10[a-z]\n"

struct progress {
    char backup_id[BACKUP_ID_TEXT_SIZE + 1], id[BACKUP_ID_TEXT_SIZE + 1];
    bool copied;
};

// ---- commits

struct loading {
    struct mutex lock; // RANK_LEAF; for what follows
    struct cond done;
    bool is_done;
    struct volume_state state;
    struct graft_error error;
};

static void loaded(void *context, const struct volume_state *state, const struct graft_error *error)
{
    struct loading *loading = context;
    LOCK_GUARD(&loading->lock); // signalled under it: it lies on a stack
    if (state)
        loading->state = *state;
    else
        loading->error = *error;
    loading->is_done = true;
    cond_signal(&loading->done);
}

static enum graft_status load(struct objstore *store, const struct gid *vid, struct volume_state *ret_state,
                              struct graft_error *err)
{
    struct loading loading = {0};
    mutex_init(&loading.lock, RANK_LEAF);
    cond_init(&loading.done);
    volume_load(store, vid, loaded, &loading);
    mutex_lock(&loading.lock);
    while (!loading.is_done)
        cond_wait(&loading.done, &loading.lock);
    mutex_unlock(&loading.lock);
    cond_release(&loading.done);
    mutex_release(&loading.lock);
    if (loading.error.status != GRAFT_OK)
        return error_copy(err, &loading.error);
    *ret_state = loading.state;
    return GRAFT_OK;
}

// Follows from the restore's random id, so that a restore that is run again knows its own.
static struct token token_for(const char *id, const struct gid *vid)
{
    uint8_t input[8 + BACKUP_ID_TEXT_SIZE + GID_SIZE];
    struct token token;
    memcpy(input, "GRFTREST", 8);
    memcpy(input + 8, id, BACKUP_ID_TEXT_SIZE);
    memcpy(input + 8 + BACKUP_ID_TEXT_SIZE, vid->bytes, GID_SIZE);
    struct hash128 hash = hash128(input, sizeof input);
    memcpy(token.bytes, hash.bytes, TOKEN_SIZE);
    return token;
}

static enum graft_status append_void(struct objstore *store, const struct volume_state *state,
                                     const struct token *token, struct graft_error *err)
{
    const struct commit_facts *head = &state->head;
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(COMMIT_RECORD_SIZE_MAX);
    struct commit_facts commit = {.vid = state->record.vid,
                                  .lsn = head->lsn + 1,
                                  .base_lsn = head->lsn,
                                  .base_chain = head->chain,
                                  .token = *token,
                                  .page_count = head->page_count,
                                  .cut = head->page_count,
                                  .time_ms = clock_wall_ms(clock_system())};
    commit.digest = commit_digest_finish(
        commit_digest_new(&commit.vid, commit.base_lsn, commit.page_count, commit.cut, 0));
    commit.chain = chain_next(&commit.base_chain, &commit.vid, commit.lsn, &commit.token, &commit.digest,
                              commit.page_count);
    enum graft_status status = commit_record_encode(&commit, NULL, NULL, 0, &record, err);
    if (status == GRAFT_OK)
        status = FAILPOINT_ERROR("restore.void.before", err);
    if (status == GRAFT_OK)
        status =
            objstore_create_wait(store, key_commit(&commit.vid, commit.lsn).text, buffer_bytes(&record), err);
    FAILPOINT("restore.void.after");
    return status;
}

struct restoring {
    struct objstore *store;
    const char *id;
    struct restore_result result;
    struct graft_error error;
};

static enum graft_status bring_forward(struct restoring *restoring, const struct gid *vid,
                                       struct graft_error *err)
{
    struct volume_state state;
    const struct token token = token_for(restoring->id, vid);
    enum graft_status status = load(restoring->store, vid, &state, err);
    if (status != GRAFT_OK)
        return status;
    if (state.head.deleted) {
        restoring->result.deleted++;
        return GRAFT_OK;
    }
    if (state.head.lsn == 0 || !token_equal(&state.head.token, &token))
        status = append_void(restoring->store, &state, &token, err);
    restoring->result.volumes++;
    return status;
}

static bool visit_volume(void *context, const struct objstore_entry *entry)
{
    struct restoring *restoring = context;
    struct gid vid;
    if (!key_parse_catalog(entry->key, &vid))
        return true; // not ours
    enum graft_status status = bring_forward(restoring, &vid, &restoring->error);
    if (status != GRAFT_OK)
        error_context(&restoring->error, status, "volume %s", gid_format(&vid).text);
    return status == GRAFT_OK;
}

enum graft_status restore_volumes(struct objstore *store, const char *id, struct restore_result *ret_result,
                                  struct graft_error *err)
{
    struct restoring restoring = {.store = store, .id = id};
    enum graft_status status =
        objstore_list_wait(store, KEY_CATALOG_PREFIX, NULL, visit_volume, &restoring, err);
    if (status == GRAFT_OK && restoring.error.status != GRAFT_OK)
        status = error_copy(err, &restoring.error);
    if (status == GRAFT_OK)
        *ret_result = restoring.result;
    return status;
}

// ---- the folder

static enum graft_status progress_path(const char *folder, char to[PATH_SIZE], struct graft_error *err)
{
    if (snprintf(to, PATH_SIZE, "%s/" RESTORE_FILE, folder) < PATH_SIZE)
        return GRAFT_OK;
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "the path %s is too long", folder);
}

static enum graft_status write_progress(const char *folder, const struct progress *progress,
                                        struct graft_error *err)
{
    char path[PATH_SIZE], text[200];
    int size = snprintf(text, sizeof text, "graft-metastore restore 1\n%s\n%s\n%s\n", progress->backup_id,
                        progress->id, progress->copied ? "committing" : "copying");
    enum graft_status status = progress_path(folder, path, err);
    return status == GRAFT_OK ? files_replace(path, text, (size_t)size, err) : status;
}

static enum graft_status read_progress(const char *path, struct progress *ret_progress,
                                       struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer text = BUFFER_INIT(4096);
    char phase[11] = "";
    enum graft_status status = files_read(path, &text, err);
    if (status == GRAFT_OK)
        status = buffer_append(&text, "", 1, err);
    if (status != GRAFT_OK)
        return status;
    if (sscanf((const char *)text.data, FILE_FORMAT, ret_progress->backup_id, ret_progress->id, phase) != 3 ||
        strlen(ret_progress->id) != BACKUP_ID_TEXT_SIZE)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE, "%s is damaged", path);
    ret_progress->copied = strcmp(phase, "committing") == 0;
    return GRAFT_OK;
}

// Of a file RESTORE that was never named so: one that was cut off before it had begun.
static enum graft_status remove_unfinished(const char *path, struct graft_error *err)
{
    char beside[PATH_SIZE + sizeof FILES_REPLACE_BESIDE];
    snprintf(beside, sizeof beside, "%s" FILES_REPLACE_BESIDE, path);
    if (unlink(beside) == 0 || errno == ENOENT)
        return GRAFT_OK;
    return error_from_errno(err, errno, "removing %s", beside);
}

// Where a restore to this folder stands; begins one in an empty folder.
static enum graft_status begin(const char *folder, const char *backup_id, struct progress *ret_progress,
                               struct graft_error *err)
{
    struct progress progress = {0};
    char path[PATH_SIZE];
    bool empty = false;
    enum graft_status status = progress_path(folder, path, err);
    if (status == GRAFT_OK)
        status = remove_unfinished(path, err);
    if (status == GRAFT_OK)
        status = folder_is_empty(folder, &empty, err);
    if (status != GRAFT_OK)
        return status;
    if (empty) {
        uint64_t random[2];
        random_bytes(random, sizeof random);
        snprintf(progress.backup_id, sizeof progress.backup_id, "%s", backup_id);
        snprintf(progress.id, sizeof progress.id, "%016llx%016llx", (unsigned long long)random[0],
                 (unsigned long long)random[1]);
        status = files_make_folder(folder, err);
        if (status == GRAFT_OK)
            status = write_progress(folder, &progress, err);
    } else if (access(path, F_OK) != 0) {
        status = error_set(err, GRAFT_INVALID, GRAFT_DETAIL_EXISTS,
                           "%s is not empty; a backup is brought back into a new folder", folder);
    } else {
        status = read_progress(path, &progress, err);
        if (status == GRAFT_OK && strcmp(progress.backup_id, backup_id) != 0)
            status =
                error_set(err, GRAFT_INVALID, GRAFT_DETAIL_EXISTS,
                          "%s holds the restore of another backup, which was cut off; remove it", folder);
    }
    if (status == GRAFT_OK)
        *ret_progress = progress;
    return status;
}

static bool is_backup_file(const char *name)
{
    return strcmp(name, BACKUP_FILE) == 0;
}

static bool is_restores_own(const char *name)
{
    return strcmp(name, RESTORE_FILE) == 0 || strcmp(name, LOCK_FILE) == 0;
}

static void close_p(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

// What an earlier try copied is not trusted: it may have been cut off in the middle of a file.
static enum graft_status copy(const char *from, const char *to, struct progress *progress,
                              struct graft_error *err)
{
    char lock_path[PATH_SIZE];
    _cleanup_(close_p) int lock = -1;
    if (snprintf(lock_path, sizeof lock_path, "%s/" LOCK_FILE, to) >= PATH_SIZE)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "the path %s is too long", to);
    enum graft_status status = files_lock(lock_path, &lock, err);
    if (status == GRAFT_OK)
        status = folder_remove_files(to, is_restores_own, err);
    if (status == GRAFT_OK)
        status = folder_copy_files(from, to, is_backup_file, err);
    if (status != GRAFT_OK)
        return status;
    progress->copied = true;
    return write_progress(to, progress, err);
}

static enum graft_status commit(const struct settings *settings, const struct progress *progress,
                                struct restore_result *ret_result, struct graft_error *err)
{
    const struct objstore_settings store_settings = {.disk_reserve = settings->disk_reserve};
    struct objstore *store;
    enum graft_status status = objstore_open(settings->store, &store_settings, &store, err);
    if (status != GRAFT_OK)
        return status;
    status = restore_volumes(store, progress->id, ret_result, err);
    objstore_close(store);
    return status;
}

enum graft_status restore_run(const struct settings *settings, struct restore_result *ret_result,
                              struct graft_error *err)
{
    char backup_id[BACKUP_ID_TEXT_SIZE + 1], path[PATH_SIZE];
    const char *folder = NULL;
    struct progress progress = {0};
    enum graft_status status = backup_store_path(settings->store, &folder, err);
    if (status == GRAFT_OK)
        status = backup_check_name(folder, err);
    if (status == GRAFT_OK)
        status = backup_read_id(settings->from, backup_id, err);
    if (status == GRAFT_OK)
        status = begin(folder, backup_id, &progress, err);
    FAILPOINT("restore.begun");
    if (status == GRAFT_OK && !progress.copied)
        status = copy(settings->from, folder, &progress, err);
    FAILPOINT("restore.copied");
    if (status == GRAFT_OK)
        status = commit(settings, &progress, ret_result, err);
    if (status == GRAFT_OK)
        status = progress_path(folder, path, err);
    if (status == GRAFT_OK)
        status = FAILPOINT_ERROR("restore.finish.before", err);
    if (status == GRAFT_OK && unlink(path) != 0)
        status = error_from_errno(err, errno, "removing %s", path);
    FAILPOINT("restore.finish.unlinked");
    if (status == GRAFT_OK)
        status = files_sync_folder(folder, err);
    FAILPOINT("restore.finish.after");
    return status == GRAFT_OK ? status
                              : error_context(err, status, "restore of %s to %s", settings->from, folder);
}
