// SPDX-License-Identifier: Apache-2.0
//
// Folders that hold files and no folders, taken as a whole: copied, durably, and removed. Errors name the path.
#ifndef COMMON_BASE_FOLDER_H
#define COMMON_BASE_FOLDER_H

#include <stdbool.h>

#include "common/base/error.h"

// OK also where there is no such folder. Hidden files count.
enum graft_status folder_is_empty(const char *path, bool *ret_empty, struct graft_error *err);

// Copies the files of `from` into the folder `to`, which exists, each synced; the folder is synced last. Those that `skip`
// (NULL: none) says are left out. INVALID if `from` holds anything but files.
enum graft_status folder_copy_files(const char *from, const char *to, bool (*skip)(const char *name),
                                    struct graft_error *err);
// Removes the files of the folder but those that `keep` (NULL: none) says.
enum graft_status folder_remove_files(const char *path, bool (*keep)(const char *name),
                                      struct graft_error *err);
// The folder itself, with its files. OK also where there is no such folder.
enum graft_status folder_remove(const char *path, struct graft_error *err);

#endif
