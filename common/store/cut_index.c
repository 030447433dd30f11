// SPDX-License-Identifier: Apache-2.0
//
// Invariants
//   1. A node above level 0 that exists holds the minimum of its children that exist, and exists if any of
//   them does.
//   2. So a node that is at most `cut` already has ancestors that are, too: a put stops climbing there.
#include "common/store/cut_index.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/store/rocksdb_util.h"

#define FANOUT 64u
#define FANOUT_BITS 6u
#define KEY_SIZE_MAX (CUT_PREFIX_MAX + 1 + 8)

struct cut_key {
    uint8_t bytes[KEY_SIZE_MAX];
    size_t size;
};

static struct cut_key make_key(struct bytes prefix, unsigned level, uint64_t node)
{
    struct cut_key key = {.size = prefix.size + 9};
    memcpy(key.bytes, prefix.data, prefix.size);
    key.bytes[prefix.size] = (uint8_t)level;
    put_be64(key.bytes + prefix.size + 1, node);
    return key;
}

static enum graft_status parse_cut(struct bytes value, uint32_t *ret_cut, struct graft_error *err)
{
    if (value.size != sizeof *ret_cut)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
                         "a node of the cut index holds %zu bytes, not 4", value.size);
    *ret_cut = get_le32(value.data);
    return GRAFT_OK;
}

// CUT_NONE where the node does not exist.
static enum graft_status read_node(rocksdb_t *db, rocksdb_column_family_handle_t *family,
                                   const rocksdb_readoptions_t *read, rocksdb_writebatch_wi_t *batch,
                                   const struct cut_key *key, uint32_t *ret_cut, struct graft_error *err)
{
    char *message = NULL;
    struct bytes value;
    _cleanup_(rocks_memory_free_p) char *data = rocksdb_writebatch_wi_get_from_batch_and_db_cf(
        batch, db, read, family, (const char *)key->bytes, key->size, &value.size, &message);
    if (message)
        return rocks_status(err, message, "reading the cut index");
    if (!data) {
        *ret_cut = CUT_NONE;
        return GRAFT_OK;
    }
    value.data = (const uint8_t *)data;
    return parse_cut(value, ret_cut, err);
}

enum graft_status cut_index_put(rocksdb_t *db, rocksdb_column_family_handle_t *family,
                                const rocksdb_readoptions_t *read, rocksdb_writebatch_wi_t *batch,
                                struct bytes prefix, uint64_t lsn, uint32_t cut, struct graft_error *err)
{
    CHECK(prefix.size <= CUT_PREFIX_MAX);
    CHECK(cut != CUT_NONE);
    for (unsigned level = 0; level <= CUT_LEVEL_MAX; level++) {
        struct cut_key key = make_key(prefix, level, lsn >> (level * FANOUT_BITS));
        uint32_t lowest = CUT_NONE;
        enum graft_status status = read_node(db, family, read, batch, &key, &lowest, err);
        if (status != GRAFT_OK)
            return status;
        if (lowest <= cut)
            break;
        uint8_t value[4];
        put_le32(value, cut);
        rocksdb_writebatch_wi_put_cf(batch, family, (const char *)key.bytes, key.size, (const char *)value,
                                     sizeof value);
    }
    return GRAFT_OK;
}

struct cut_reader {
    struct rocks_scan *scan;
    size_t prefix_size;
    uint8_t prefix[CUT_PREFIX_MAX];
};

struct cut_reader *cut_reader_open(rocksdb_t *db, rocksdb_column_family_handle_t *family, struct bytes prefix)
{
    CHECK(prefix.size <= CUT_PREFIX_MAX);
    struct cut_reader *reader = calloc(1, sizeof *reader);
    CHECK(reader);
    memcpy(reader->prefix, prefix.data, prefix.size);
    reader->prefix_size = prefix.size;
    reader->scan = rocks_scan_new(db, family, prefix, NULL);
    return reader;
}

void cut_reader_close(struct cut_reader *reader)
{
    if (!reader)
        return;
    rocks_scan_free(reader->scan);
    free(reader);
}

// Lowers *lowest to the least value of the nodes [from, to) of a level.
static enum graft_status scan_nodes(struct cut_reader *reader, unsigned level, uint64_t from, uint64_t to,
                                    uint32_t *lowest, struct graft_error *err)
{
    if (from >= to)
        return GRAFT_OK;
    struct bytes prefix = {reader->prefix, reader->prefix_size};
    struct cut_key first = make_key(prefix, level, from), last = make_key(prefix, level, to - 1);
    rocksdb_iterator_t *iterator = reader->scan->iterator;
    rocksdb_iter_seek(iterator, (const char *)first.bytes, first.size);
    for (uint64_t left = to - from; left > 0 && rocksdb_iter_valid(iterator); left--) {
        struct bytes key = rocks_iter_key(iterator);
        if (key.size != last.size || memcmp(key.data, last.bytes, last.size) > 0)
            break;
        uint32_t cut = CUT_NONE;
        enum graft_status status = parse_cut(rocks_iter_value(iterator), &cut, err);
        if (status != GRAFT_OK)
            return status;
        *lowest = MIN(*lowest, cut);
        if (left > 1)
            rocksdb_iter_next(iterator);
    }
    return rocks_iter_status(iterator, "reading the cut index", err);
}

enum graft_status cut_reader_lowest(struct cut_reader *reader, uint64_t after, uint64_t upto,
                                    uint32_t *ret_cut, struct graft_error *err)
{
    uint32_t lowest = CUT_NONE;
    // At each level: the nodes at either edge that do not fill a parent; what lies between is the parents'
    // business. LSN 0 does not exist, so a range that starts at 1 may as well start at 0 and fill parents
    // from there.
    uint64_t from = after == 0 ? 0 : MIN(after, UINT64_MAX - 1) + 1, to = MIN(upto, UINT64_MAX - 1) + 1;
    for (unsigned level = 0; from < to; level++) {
        uint64_t inner_from = (from + FANOUT - 1) / FANOUT, inner_to = to / FANOUT;
        bool split = level < CUT_LEVEL_MAX && inner_from < inner_to;
        enum graft_status status =
            scan_nodes(reader, level, from, split ? inner_from * FANOUT : to, &lowest, err);
        if (status == GRAFT_OK && split)
            status = scan_nodes(reader, level, inner_to * FANOUT, to, &lowest, err);
        if (status != GRAFT_OK)
            return status;
        if (!split)
            break;
        from = inner_from;
        to = inner_to;
    }
    *ret_cut = lowest;
    return GRAFT_OK;
}
