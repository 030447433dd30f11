// SPDX-License-Identifier: Apache-2.0
//
// SQLite databases on replicated volumes: the VFS `graft`, for programs that link with it instead of loading
// graft_sqlite.so.
//
//     sqlite3 *db;
//     if (graft_sqlite_register(0) != SQLITE_OK)
//         …
//     sqlite3_open_v2("file:random?vfs=graft", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, NULL);
//
// Settings come from the environment, a file and the URI: see docs/SQLITE.md.
#ifndef GRAFT_SQLITE_H
#define GRAFT_SQLITE_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

// Registers the VFS with the SQLite that this program is linked with, once per process; further calls change nothing but
// the default. `make_default`: databases that name no VFS use it, as with GRAFT_MAKE_DEFAULT=1. Returns an SQLITE_… code.
// Thread-safe. Nothing is opened before the first database is.
int graft_sqlite_register(int make_default);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
