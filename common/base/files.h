// SPDX-License-Identifier: Apache-2.0
//
// The file operations that durability depends on, done completely: short writes continued, EINTR retried, folders
// synced. All paths are NUL-terminated; all errors come through error_from_errno() with the path in the message.
#ifndef COMMON_BASE_FILES_H
#define COMMON_BASE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buffer.h"
#include "common/base/error.h"

// Creates the folder and its missing parents (mode 0700 for what it makes), each synced into its parent.
enum graft_status files_make_folder(const char *path, struct graft_error *err);
enum graft_status files_sync_folder(const char *path, struct graft_error *err);
// LIMIT if the file is larger than the buffer's cap.
enum graft_status files_read(const char *path, struct buffer *to, struct graft_error *err);
// Written beside (`path` and this), synced, renamed, folder synced.
#define FILES_REPLACE_BESIDE ".new"
enum graft_status files_replace(const char *path, const void *data, size_t size, struct graft_error *err);
enum graft_status files_pwrite_all(int fd, const void *data, size_t size, uint64_t offset, const char *path,
                                   struct graft_error *err);
enum graft_status files_pread_all(int fd, void *to, size_t size, uint64_t offset, const char *path,
                                  size_t *ret_size,
                                  struct graft_error *err); // *ret_size < size only at the end of the file

// Takes an exclusive lock on the file `path` (made if missing), which then holds this process's pid. BUSY / LOCKED with
// the holder's pid in the message if somebody has it. The lock lives as long as *ret_fd is open (flock: it does not
// outlive the process, and is not lost when somebody else in the process closes the file).
enum graft_status files_lock(const char *path, int *ret_fd, struct graft_error *err);

// Bytes that an unprivileged process may still write to the file system of `path`.
enum graft_status files_free_space(const char *path, uint64_t *ret_bytes, struct graft_error *err);

#endif
