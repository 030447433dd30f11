// SPDX-License-Identifier: Apache-2.0
//
// The two halves of the file back-end: objstore_fs.c (opening, reading, writing) and objstore_fs_list.c (listing).
//
//     DIR/graft.lock              held as long as the store is open
//     DIR/tmp/<16 hex digits>     being written; removed at the next opening
//     DIR/objects/<path>          one file for each object
//
// The path is the key with an '@', which no key holds, behind each part that is a folder: "segments@/5Qp…". So the
// object "a" and the object "a/b" do not want the same name.
#ifndef COMMON_STORE_OBJSTORE_FS_H
#define COMMON_STORE_OBJSTORE_FS_H

#include "common/store/disk_reserve.h"
#include "common/store/objstore_backend.h"
#include "common/store/store_fate.h"

#define FS_PATH_MAX 4096
#define FS_FOLDER_MARK '@'

struct fs_publish;

struct fs_store {
    struct objstore base;
    struct pool *readers;
    struct pool *writers;
    struct store_fate fate;
    struct disk_reserve reserve;
    char *path;
    int lock_fd;

    struct mutex names; // RANK_OBJSTORE; held over link, rename, unlink and mkdir; guards publishes
    TAILQ_HEAD(, fs_publish) publishes;
};

// A name that was made and whose folder is not synced yet. Who meets the object meanwhile syncs the folder first.
struct fs_publish {
    const char *key;
    TAILQ_ENTRY(fs_publish) link;
};

struct fs_path {
    char text[FS_PATH_MAX];
};

void fs_object_path(const struct fs_store *store, const char *key, struct fs_path *ret_path);
// Syncs the folders of names under way that start with `prefix` (or are `prefix`, if `exact`).
enum graft_status fs_sync_publishes(struct fs_store *store, const char *prefix, bool exact,
                                    struct graft_error *err);

enum graft_status fs_list(struct fs_store *store, const struct objstore_op *op,
                          struct objstore_result *result);

#endif
