// SPDX-License-Identifier: Apache-2.0
#include "sqlite/functions.h"
#include "sqlite/include/graft_sqlite.h"
#include "sqlite/vfs.h"

int graft_sqlite_register(int make_default)
{
    struct graft_error why;

    int code = vfs_register(make_default, &why);
    return code == SQLITE_OK ? functions_register(NULL) : code;
}
