// SPDX-License-Identifier: Apache-2.0
//
// Pragmas, as SQLite hands them to a file (SQLITE_FCNTL_PRAGMA): those of SQLite that a volume cannot have, and ours.
#ifndef SQLITE_PRAGMA_H
#define SQLITE_PRAGMA_H

#include "sqlite/file.h"

// `arguments`: [0] takes an answer or a message (sqlite3_mprintf()), [1] is the name, [2] the value or NULL. SQLITE_OK with
// an answer, SQLITE_ERROR with a message, SQLITE_NOTFOUND: SQLite does what it always does.
int pragma_run(struct volume_file *file, char **arguments);

#endif
