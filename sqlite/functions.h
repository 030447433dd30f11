// SPDX-License-Identifier: Apache-2.0
//
// The commands of command.h as SQL functions, SELECT graft_status(), and tables that can be queried:
//
//     SELECT * FROM graft_log              the servers' commits of the main database, newest first
//     SELECT * FROM graft_volumes          the volumes of its data directory
//     SELECT * FROM graft_pages            its pages, in runs that are here or pending
//
// A hidden column of each, `schema`, names another attached database: SELECT * FROM graft_log('aux').
#ifndef SQLITE_FUNCTIONS_H
#define SQLITE_FUNCTIONS_H

#include "sqlite/file.h"

// For this connection (NULL: none) and all that the process opens later. Returns an SQLITE_… code.
int functions_register(sqlite3 *db);

// The handle of an attached database, "main" if `schema` is NULL. INVALID if it is not on a volume.
enum graft_status functions_file(sqlite3 *db, const char *schema, struct volume_file **ret_file,
                                 struct graft_error *err);

// ---- tables.c

int tables_register(sqlite3 *db);

#endif
