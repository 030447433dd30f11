// SPDX-License-Identifier: Apache-2.0
//
// Brings a backup back as a new store:
//
//     an empty folder ─▶ COPYING ─▶ COMMITTING ─▶ a store that a daemon starts on
//
// Until it is done, the folder holds the file RESTORE, which says how far it came: a restore that was cut off
// goes on when it is called again. Every volume gets a commit without pages, under a token that nobody can
// know, before anybody is served: so the history that goes on from here differs, from its first LSN, from
// what was lost with the old store, and whoever knows lost commits finds out by their chain.
#ifndef METASTORE_RESTORE_H
#define METASTORE_RESTORE_H

#include "metastore/settings.h"

struct objstore;

struct restore_result {
    uint64_t volumes; // that a commit was added to, now or before the restore was cut off
    uint64_t deleted; // that stay as they were: they had ended
};

// `restore --from DIR --store rocksdb:DIR2`. Takes the memory of one volume's newest commit, whatever the
// store holds.
enum graft_status restore_run(const struct settings *settings, struct restore_result *ret_result,
                              struct graft_error *err);

// The second half: a commit without pages at the head of every volume that has none of this id.
enum graft_status restore_volumes(struct objstore *store, const char *id, struct restore_result *ret_result,
                                  struct graft_error *err);

#endif
