// SPDX-License-Identifier: Apache-2.0
//
// Backups of a store on RocksDB: a copy as of one moment, made while the daemon serves.
//
//     graft-metastore --backup DIR ──is nobody's store──▶ checkpoint ─────────────────────────┐
//                │                                                                           ▼
//                └──is a daemon's──▶ POST /v1/backup ─▶ checkpoint under STORE/backups ─▶ moved to DIR.partial
//                                                                                            │
//                                                       DIR ◀── renamed ◀── DIR/BACKUP ◀─────┘
//
// The daemon writes only within its own store, whoever calls; the program that was asked for the backup moves
// the copy, with its own rights. DIR appears whole or not at all. A folder with the file BACKUP is no store
// that a daemon starts on: it is brought back by `restore`, so that nobody takes it for what it was.
#ifndef METASTORE_BACKUP_H
#define METASTORE_BACKUP_H

#include "common/base/random.h"
#include "metastore/settings.h"

struct objstore;

#define BACKUP_FILE "BACKUP"   // of a whole backup
#define RESTORE_FILE "RESTORE" // of a store that a restore has not finished
#define BACKUP_ID_TEXT_SIZE 32 // hex

// The folder of "rocksdb:DIR"; INVALID for other stores.
enum graft_status backup_store_path(const char *store_url, const char **ret_path, struct graft_error *err);

// INVALID if the folder's name is one that a backup gives to what it has not finished, which nothing in it tells.
enum graft_status backup_check_name(const char *folder, struct graft_error *err);

// INVALID if a daemon must not start on this store: it is a backup, or a backup or a restore has not finished it.
enum graft_status backup_check_store(const char *store_url, struct graft_error *err);

// The daemon's part: a checkpoint named *ret_name under the store's folder `backups`. The oldest of those that
// nobody took are removed. Blocks.
#define BACKUP_NAME_SIZE 33
enum graft_status backup_checkpoint(struct objstore *store, const char *store_path,
                                    char ret_name[BACKUP_NAME_SIZE], struct graft_error *err);

// The program's part: --backup.
enum graft_status backup_run(const struct settings *settings, struct graft_error *err);

// Of the file BACKUP in `path`: the id that the backup was given. INVALID if there is none.
enum graft_status backup_read_id(const char *path, char ret_id[BACKUP_ID_TEXT_SIZE + 1],
                                 struct graft_error *err);

#endif
