// SPDX-License-Identifier: Apache-2.0
//
// SQLite's API as this build reaches it: through the table that a loaded extension is given, or (GRAFT_SQLITE_LINKED) by
// linking.
#ifndef SQLITE_SQLITE_H
#define SQLITE_SQLITE_H

#ifdef GRAFT_SQLITE_LINKED
#include <sqlite3.h>
#else
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3
#endif

#endif
