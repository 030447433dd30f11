// SPDX-License-Identifier: Apache-2.0
//
// Stands in for libFuzzer in ordinary builds: gives every file of a folder to the target once.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/files.h"

#define INPUT_SIZE_MAX (16 * 1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void replay(const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    struct graft_error err;
    _cleanup_(buffer_release) struct buffer input = BUFFER_INIT(INPUT_SIZE_MAX);
    if (files_read(path, &input, &err) != GRAFT_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    // A copy of the exact size lets the sanitizers see a read one byte beyond it.
    _cleanup_(free_p) uint8_t *data = malloc(input.size + (input.size == 0));
    if (input.size > 0)
        memcpy(data, input.data, input.size);
    LLVMFuzzerTestOneInput(data, input.size);
}

int main(int argc, char **argv)
{
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    if (!folder) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    unsigned count = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.')
            continue;
        replay(argv[1], entry->d_name);
        count++;
    }
    closedir(folder);
    printf("%u inputs\n", count);
    return count > 0 ? 0 : 1;
}
