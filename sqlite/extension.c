// SPDX-License-Identifier: Apache-2.0
//
// graft_sqlite.so: what SQLite calls when it loads the extension. It stays loaded, for open databases are made of it.
#include <sqlite3ext.h>

#include "sqlite/functions.h"
#include "sqlite/vfs.h"

SQLITE_EXTENSION_INIT1

#define VERSION_MIN 3031000 // earlier ones are not tried

#define EXPORTED __attribute__((visibility("default")))

EXPORTED int sqlite3_graftsqlite_init(sqlite3 *db, char **ret_message, const sqlite3_api_routines *api);

EXPORTED int sqlite3_graftsqlite_init(sqlite3 *db, char **ret_message, const sqlite3_api_routines *api)
{
    SQLITE_EXTENSION_INIT2(api);
    if (sqlite3_libversion_number() < VERSION_MIN) {
        *ret_message =
            sqlite3_mprintf("graft needs SQLite 3.31.0 or newer, and this is %s", sqlite3_libversion());
        return SQLITE_ERROR;
    }
    struct graft_error why = {.status = GRAFT_OK};
    int code = vfs_register(0, &why);
    if (why.status != GRAFT_OK)
        *ret_message = sqlite3_mprintf("graft: %s", why.message);
    if (code == SQLITE_OK)
        code = functions_register(db);
    return code == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : code;
}
