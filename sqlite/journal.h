// SPDX-License-Identifier: Apache-2.0
//
// Rollback journals of our databases: files in memory, which move into a file without a name when they outgrow it. They
// must not survive the process: what is committed is in the volume, and a journal found after a crash would undo it.
#ifndef SQLITE_JOURNAL_H
#define SQLITE_JOURNAL_H

#include "sqlite/sqlite.h"

// Makes `file` (journal_file_size() bytes, SQLite's memory) an empty journal that spills into `folder`, which outlives it.
int journal_open(sqlite3_file *file, const char *folder);
int journal_file_size(void);

#endif
