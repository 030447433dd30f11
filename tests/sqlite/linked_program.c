// SPDX-License-Identifier: Apache-2.0
//
// A program that links with libgraftsqlite: makes a database on a volume, tags it, and reads it over a second connection.
//
//     linked_program DATA
#include <graft_sqlite.h>
#include <sqlite3.h>
#include <stdio.h>

static int print_row(void *context, int count, char **values, char **names)
{
    for (int i = 0; i < count; i++)
        printf("%s%s", i > 0 ? "|" : "", values[i] ? values[i] : "NULL");
    putchar('\n');
    return 0;
}

static int run(const char *uri, const char *sql)
{
    sqlite3 *db = NULL;
    char *message = NULL;
    int code = sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db, sql, print_row, NULL, &message);
    if (code != SQLITE_OK)
        fprintf(stderr, "%s: %s\n", uri, message ? message : sqlite3_errmsg(db));
    sqlite3_free(message);
    sqlite3_close(db);
    return code;
}

int main(int argc, char **argv)
{
    char fresh[4096], tagged[4096];
    if (argc != 2)
        return 2;
    snprintf(fresh, sizeof fresh, "file:random?vfs=graft&data=%s", argv[1]);
    snprintf(tagged, sizeof tagged, "file:linked?vfs=graft&data=%s", argv[1]);
    if (graft_sqlite_register(0) != SQLITE_OK || graft_sqlite_register(0) != SQLITE_OK)
        return 1;
    if (run(fresh,
            "CREATE TABLE t(v); INSERT INTO t VALUES('linked'); SELECT graft_tag('linked') IS NOT NULL") !=
        SQLITE_OK)
        return 1;
    return run(tagged, "SELECT v FROM t; SELECT graft_status() ->> 'local_lsn'") != SQLITE_OK;
}
