// SPDX-License-Identifier: Apache-2.0
//
// What the parts of a handle share: pages (file_pages.c), commits (file_commit.c), locks and the rest (file.c).
#ifndef SQLITE_FILE_INTERNAL_H
#define SQLITE_FILE_INTERNAL_H

#include "sqlite/errors.h"
#include "sqlite/file.h"

// ---- file_pages.c

// Bytes of the handle's pages, 0 while the volume is only named.
uint32_t file_page_size(const struct volume_file *file);
// Gives the handle buffers for pages of this size.
enum graft_status file_need_buffers(struct volume_file *file, uint32_t page_size, struct graft_error *err);
// As SQLite is to see it: the overlay's, else the snapshot's with what page 1 needs filled in.
enum graft_status file_read_page(struct volume_file *file, uint32_t pageidx, void *to,
                                 struct graft_error *err);
int file_read(sqlite3_file *base, void *to, int size, sqlite3_int64 offset);
int file_write(sqlite3_file *base, const void *data, int size, sqlite3_int64 offset);
int file_truncate(sqlite3_file *base, sqlite3_int64 size);
int file_size(sqlite3_file *base, sqlite3_int64 *ret_size);

// ---- file.c

// Pins the head. What the handle saw before decides about its counter and its cookie.
enum graft_status file_pin(struct volume_file *file, struct graft_error *err);
// Takes over a pin, after an own commit: nothing has changed but by this handle.
void file_adopt_pin(struct volume_file *file, struct graft_snapshot *pin);
void file_drop_overlay(struct volume_file *file);
enum graft_status file_freeze(struct volume_file *file, struct graft_error *err);

// ---- file_commit.c

// One durable local commit of the overlay, if there is one. SQLITE_OK, FULL or IOERR_….
int file_commit(struct volume_file *file);
// A writer with the overlay in it, for a volume of `page_count` pages; a volume that was only named is made.
enum graft_status file_begin_commit(struct volume_file *file, uint32_t page_count,
                                    struct graft_writer **ret_writer, struct graft_error *err);
// Is all that was written a change of the journal mode to WAL? It is refused, and SQLite reads page 1 again.
bool file_only_asks_for_wal(struct volume_file *file);
int file_refuse_wal(struct volume_file *file);
// What the size will be once SQLite has truncated: before that page 1 says it.
uint32_t file_page_count_to_be(const struct volume_file *file);

#endif
