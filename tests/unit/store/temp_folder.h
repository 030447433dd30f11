// SPDX-License-Identifier: Apache-2.0
//
// A folder of its own for each test, removed with what it holds.
#ifndef TESTS_UNIT_STORE_TEMP_FOLDER_H
#define TESTS_UNIT_STORE_TEMP_FOLDER_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

struct temp_folder {
    char path[64];
};

static inline int temp_folder_remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    return remove(path);
}

static inline void temp_folder_init(struct temp_folder *folder)
{
    snprintf(folder->path, sizeof folder->path, "/tmp/graft-store-XXXXXX");
    if (!mkdtemp(folder->path))
        abort();
}

static inline void temp_folder_release(struct temp_folder *folder)
{
    nftw(folder->path, temp_folder_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
