// SPDX-License-Identifier: Apache-2.0
//
// RocksDB's MANIFEST after a loss of power. RocksDB appends records to it and then syncs it; the power may fail in between,
// and of the sectors that were not synced some may be on the disk and others not. Of its logs RocksDB reads what stands
// before the damage (rocksdb_util.h); a MANIFEST that ends so it refuses to open, though the records that are damaged were
// never relied upon: what they name is removed or used only after the sync.
#ifndef COMMON_STORE_ROCKSDB_MANIFEST_H
#define COMMON_STORE_ROCKSDB_MANIFEST_H

#include <stdbool.h>

#include "common/base/error.h"

// Cuts the current MANIFEST of the closed database in `path` before its first damaged record, durably, if that lacks a whole
// sector, as what was not synced does. *ret_cut: it did. False, and nothing changed, where the damage is of another kind.
enum graft_status rocks_cut_manifest(const char *path, bool *ret_cut, struct graft_error *err);

#endif
