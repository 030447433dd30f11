// SPDX-License-Identifier: Apache-2.0
//
// Edits an object store behind a daemon's back, while none has it open:
//     sim-objects STORE list PREFIX | dump PREFIX | get KEY | put KEY | remove KEY       (bytes on stdin and stdout)
// dump: each object under the prefix, behind its size (8, little-endian).
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/bytes.h"
#include "common/store/objstore.h"

#define OBJECT_SIZE_MAX (1u << 20)

static bool show(void *context, const struct objstore_entry *entry)
{
    puts(entry->key);
    return true;
}

static enum graft_status get(struct objstore *store, const char *key, struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer data = BUFFER_INIT(OBJECT_SIZE_MAX);
    enum graft_status status = objstore_get_wait(store, key, 0, OBJECT_SIZE_MAX, &data, err);
    if (status == GRAFT_OK)
        fwrite(buffer_bytes(&data).data, 1, buffer_bytes(&data).size, stdout);
    return status;
}

struct dump {
    struct objstore *store;
    struct graft_error *err;
    enum graft_status status;
};

static bool dump_one(void *context, const struct objstore_entry *entry)
{
    struct dump *dump = context;
    _cleanup_(buffer_release) struct buffer data = BUFFER_INIT(OBJECT_SIZE_MAX);
    uint8_t size[8];

    dump->status = objstore_get_wait(dump->store, entry->key, 0, OBJECT_SIZE_MAX, &data, dump->err);
    if (dump->status != GRAFT_OK)
        return false;
    put_le64(size, buffer_bytes(&data).size);
    fwrite(size, 1, sizeof size, stdout);
    fwrite(buffer_bytes(&data).data, 1, buffer_bytes(&data).size, stdout);
    return true;
}

static enum graft_status dump(struct objstore *store, const char *prefix, struct graft_error *err)
{
    struct dump dump = {.store = store, .err = err};
    enum graft_status status = objstore_list_wait(store, prefix, NULL, dump_one, &dump, err);
    return status != GRAFT_OK ? status : dump.status;
}

static enum graft_status put(struct objstore *store, const char *key, struct graft_error *err)
{
    static uint8_t data[OBJECT_SIZE_MAX];
    size_t size = fread(data, 1, sizeof data, stdin);
    enum graft_status status = objstore_remove_wait(store, key, err);
    return status == GRAFT_OK ? objstore_create_wait(store, key, (struct bytes){data, size}, err) : status;
}

int main(int argc, char **argv)
{
    _cleanup_(objstore_close_p) struct objstore *store = NULL;
    struct objstore_settings settings = {0};
    struct graft_error err;

    if (argc != 4)
        return 2;
    const char *what = argv[2], *key = argv[3];
    enum graft_status status = objstore_open(argv[1], &settings, &store, &err);
    if (status == GRAFT_OK && strcmp(what, "list") == 0)
        status = objstore_list_wait(store, key, NULL, show, NULL, &err);
    else if (status == GRAFT_OK && strcmp(what, "dump") == 0)
        status = dump(store, key, &err);
    else if (status == GRAFT_OK && strcmp(what, "get") == 0)
        status = get(store, key, &err);
    else if (status == GRAFT_OK && strcmp(what, "put") == 0)
        status = put(store, key, &err);
    else if (status == GRAFT_OK && strcmp(what, "remove") == 0)
        status = objstore_remove_wait(store, key, &err);
    else if (status == GRAFT_OK)
        return 2;
    if (status != GRAFT_OK)
        fprintf(stderr, "sim-objects: %s\n", err.message);
    return status != GRAFT_OK;
}
