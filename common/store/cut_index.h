// SPDX-License-Identifier: Apache-2.0
//
// "Has a commit in (v, s] cut the volume below page p?", in O(log n) reads however many commits have cut: a tree of minima
// over LSNs, kept in a RocksDB column family beside what it guards, so that it changes in the same write batch.
//
//     key    volume prefix ‖ level (1 byte) ‖ node number (8 bytes, big-endian)
//     value  lowest cut within the node (4 bytes, little-endian)
//
// A node of level k covers LSNs [node · 64^k, (node + 1) · 64^k); level 0 are the commits themselves, level CUT_LEVEL_MAX
// is the last. Nodes without a cut do not exist. A query reads at most 2 · 63 neighbours a level, through one iterator,
// bounded to the volume; beyond 64^(CUT_LEVEL_MAX + 1) = 4.4 · 10^12 commits the last level would grow.
//
// What covers (after, upto] is never changed by commits above `upto`, so queries need no snapshot.
// Thread rule: any number of readers; one writer a volume at a time.
#ifndef COMMON_STORE_CUT_INDEX_H
#define COMMON_STORE_CUT_INDEX_H

#include <rocksdb/c.h>

#include "common/base/bytes.h"
#include "common/base/compiler.h"
#include "common/base/error.h"

#define CUT_NONE UINT32_MAX
#define CUT_PREFIX_MAX 16
#define CUT_LEVEL_MAX 6

// Adds to `batch` what records that the commit at `lsn` cut the volume to `cut` pages. Reads the nodes above it through
// `batch` from the database: cuts in one batch see each other.
enum graft_status cut_index_put(rocksdb_t *db, rocksdb_column_family_handle_t *family,
                                const rocksdb_readoptions_t *read, rocksdb_writebatch_wi_t *batch,
                                struct bytes prefix, uint64_t lsn, uint32_t cut, struct graft_error *err);

// Reads one volume's cuts, with one iterator for any number of queries: open it after the writes that it must see. One
// thread at a time. `prefix` is copied.
struct cut_reader;
struct cut_reader *cut_reader_open(rocksdb_t *db, rocksdb_column_family_handle_t *family,
                                   struct bytes prefix);
void cut_reader_close(struct cut_reader *reader); // before the database; NULL is fine
DEFINE_CLEANUP(struct cut_reader, cut_reader_close)

// The lowest cut recorded in (after, upto]; CUT_NONE if there is none.
enum graft_status cut_reader_lowest(struct cut_reader *reader, uint64_t after, uint64_t upto,
                                    uint32_t *ret_cut, struct graft_error *err);

#endif
