// SPDX-License-Identifier: Apache-2.0
//
// Transactions on several databases: stage.c says how they are decided.
//
//     file_stage (FCNTL_SYNC with a name) ─▶ stage_commit (COMMIT_PHASETWO) | stage_take_back (a write, or the lock is dropped)
#ifndef SQLITE_STAGE_H
#define SQLITE_STAGE_H

#include "sqlite/file.h"

void stage_init(void);
// Removes from a folder what an earlier process left of such transactions, as far as nobody needs it. Prepared writes are
// settled already, and no database of this folder is open.
void stage_clean(const char *folder);

// The first phase of a commit. With a super-journal's name what was written is prepared under it; without one nothing is
// to be done. An SQLITE_… code.
int file_stage(struct volume_file *file, const char *super_journal);
// Takes back what this handle has prepared, and the others under the same name. Nothing if it has not.
void stage_take_back(struct volume_file *file);
// Commits what was prepared. After a failure the volume cannot be used until its data directory is opened again.
enum graft_status stage_commit(struct volume_file *file, struct graft_error *err);

#endif
