// SPDX-License-Identifier: Apache-2.0
//
// The same random statements on two databases, one native and one on a volume: each must give the same code and the same
// rows, and after each round both must hold the same and be sound.
//
//     differential --load EXTENSION --seed N --statements N NATIVE SUBJECT [REPLICA]
//
// NATIVE and SUBJECT are URIs of new databases. REPLICA is a URI of the subject's volume in another data directory: after
// each round the subject pushes, the replica pulls, and holds the same too. Caches are small, so that transactions spill.
// A statement that differs is printed with all that led to it since the last round: the seed repeats it.
#include <sqlite3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLES 5
#define ROUND_STATEMENTS 50
#define SQL_SIZE 4096

enum { NATIVE, SUBJECT, REPLICA, DATABASES };
static const char *const names[DATABASES] = {"native", "subject", "replica"};

static sqlite3 *dbs[DATABASES];
static char *history; // since the last round
static size_t history_size;
static FILE *history_file;

// ---- randomness: splitmix64

static uint64_t state;

static uint64_t draw(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static unsigned below(unsigned limit)
{
    return (unsigned)(draw() % limit);
}

static const char *choose(unsigned count, const char *const *from)
{
    return from[below(count)];
}

// ---- running

// What a statement gave: its code and a hash of its rows, in their order.
struct outcome {
    int code;
    uint64_t rows;
    char message[256];
};

static uint64_t mix(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static uint64_t hash_row(uint64_t hash, sqlite3_stmt *statement)
{
    for (int i = 0; i < sqlite3_column_count(statement); i++) {
        int type = sqlite3_column_type(statement, i);
        hash = mix(hash, &type, sizeof type);
        if (type == SQLITE_NULL)
            continue;
        const void *data = sqlite3_column_blob(statement, i);
        int size = sqlite3_column_bytes(statement, i);
        hash = mix(mix(hash, &size, sizeof size), data, (size_t)size);
    }
    return hash;
}

static struct outcome run(sqlite3 *db, const char *sql)
{
    struct outcome outcome = {.rows = 0xcbf29ce484222325u};
    sqlite3_stmt *statement = NULL;
    outcome.code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    if (outcome.code == SQLITE_OK) {
        while ((outcome.code = sqlite3_step(statement)) == SQLITE_ROW)
            outcome.rows = hash_row(outcome.rows, statement);
    }
    if (outcome.code != SQLITE_OK && outcome.code != SQLITE_DONE) {
        outcome.code = sqlite3_extended_errcode(db);
        snprintf(outcome.message, sizeof outcome.message, "%s", sqlite3_errmsg(db));
    }
    sqlite3_finalize(statement);
    return outcome;
}

static void __attribute__((noreturn, format(printf, 1, 2))) differ(const char *format, ...)
{
    fflush(history_file);
    printf("%s\n", history);
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    exit(1);
}

// Runs it on both; they must agree.
static void both(const char *sql)
{
    fprintf(history_file, "%s;\n", sql);
    struct outcome native = run(dbs[NATIVE], sql), subject = run(dbs[SUBJECT], sql);
    if (native.code != subject.code || native.rows != subject.rows)
        differ("differs: native %d %s, subject %d %s%s", native.code, native.message, subject.code,
               subject.message, native.rows != subject.rows ? ", and in rows" : "");
    if (sqlite3_get_autocommit(dbs[NATIVE]) != sqlite3_get_autocommit(dbs[SUBJECT]))
        differ("one is in a transaction and the other is not");
}

static void __attribute__((format(printf, 1, 2))) bothf(const char *format, ...)
{
    char sql[SQL_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sql, sizeof sql, format, arguments);
    va_end(arguments);
    both(sql);
}

// ---- statements

static void make_table(unsigned table)
{
    static const char *const keys[] = {"INTEGER PRIMARY KEY", "INTEGER", "INT NOT NULL", "INTEGER UNIQUE"};
    bothf("CREATE TABLE IF NOT EXISTS t%u(a %s, b TEXT, c BLOB, d REAL DEFAULT 0.5)", table, choose(4, keys));
}

static void make_clustered_table(unsigned table)
{
    bothf(
        "CREATE TABLE IF NOT EXISTS t%u(a INTEGER, b TEXT, c BLOB, d REAL, PRIMARY KEY(a, b)) WITHOUT ROWID",
        table);
}

static void insert_rows(void)
{
    unsigned rows = below(10) == 0 ? 50 + below(300) : 1 + below(10);
    static const char *const verbs[] = {
        "INSERT",          "INSERT OR IGNORE", "INSERT OR REPLACE", "INSERT OR ROLLBACK",
        "INSERT OR ABORT", "INSERT OR FAIL"};
    bothf("WITH RECURSIVE n(i) AS (SELECT %u UNION ALL SELECT i + 1 FROM n WHERE i < %u) %s INTO t%u "
          "SELECT (i * %u) %% %u, 'k' || ((i * %u) %% 97), zeroblob((i * %u) %% %u), i / 7.0 FROM n",
          1 + below(1000), 1000 + rows, choose(below(3) ? 3 : 6, verbs), below(TABLES), 1 + below(99),
          50 + below(5000), 1 + below(99), 1 + below(999), below(6) ? 200 : 4000);
}

static void insert_few(void)
{
    bothf("INSERT OR REPLACE INTO t%u(a, b, c) VALUES(%u, 'v%u', zeroblob(%u)), (%u, NULL, x'0%u')",
          below(TABLES), below(2000), below(100), below(4) ? below(300) : below(9000), below(2000),
          below(10));
}

static void update_rows(void)
{
    static const char *const what[] = {"c = zeroblob(a % 700)", "b = b || '+'", "d = d * 2 + a", "a = a + 1",
                                       "b = NULL, c = c || x'00'"};
    bothf("UPDATE t%u SET %s WHERE a %% %u = %u", below(TABLES), choose(5, what), 2 + below(40), below(40));
}

static void delete_rows(void)
{
    if (below(12) == 0)
        bothf("DELETE FROM t%u", below(TABLES));
    else
        bothf("DELETE FROM t%u WHERE a %% %u = %u OR b = 'k%u'", below(TABLES), 2 + below(30), below(30),
              below(97));
}

static void query(void)
{
    static const char *const queries[] = {
        "SELECT count(*), sum(a), total(length(c)) FROM t%u WHERE b < 'k5'",
        "SELECT a, b, length(c), d FROM t%u ORDER BY a DESC, b, d LIMIT 40",
        "SELECT b, count(*), max(a) FROM t%u GROUP BY b ORDER BY b",
        "SELECT a, c FROM t%u WHERE a BETWEEN 100 AND 160 ORDER BY a, b, c",
    };
    char sql[SQL_SIZE];
    snprintf(sql, sizeof sql, choose(4, queries), below(TABLES));
    both(sql);
}

static void change_schema(void)
{
    unsigned table = below(TABLES);
    switch (below(7)) {
    case 0:
        bothf("DROP TABLE IF EXISTS t%u", table);
        break;
    case 1:
        bothf("CREATE INDEX IF NOT EXISTS i%u_%u ON t%u(b, a)", table, below(3), table);
        break;
    case 2:
        bothf("DROP INDEX IF EXISTS i%u_%u", table, below(3));
        break;
    case 3:
        bothf("ALTER TABLE t%u ADD COLUMN x%u DEFAULT %u", table, below(100), below(9));
        break;
    case 4:
        make_clustered_table(table);
        break;
    case 5:
        both("ANALYZE");
        break;
    default:
        make_table(table);
        break;
    }
    make_table(table);
}

static void control_transaction(void)
{
    static const char *const controls[] = {
        "BEGIN",        "BEGIN IMMEDIATE", "COMMIT",         "COMMIT",     "ROLLBACK",  "SAVEPOINT s1",
        "SAVEPOINT s2", "ROLLBACK TO s1",  "ROLLBACK TO s2", "RELEASE s1", "RELEASE s2"};
    both(choose(11, controls));
}

static void change_settings(void)
{
    static const char *const settings[] = {
        "PRAGMA cache_size = 5",          "PRAGMA cache_size = 50",        "PRAGMA cache_spill = 1",
        "PRAGMA synchronous = OFF",       "PRAGMA synchronous = FULL",     "PRAGMA journal_mode = DELETE",
        "PRAGMA journal_mode = TRUNCATE", "PRAGMA journal_mode = PERSIST", "PRAGMA journal_mode = MEMORY",
        "PRAGMA user_version = 5",        "PRAGMA incremental_vacuum(3)",  "PRAGMA secure_delete = 1",
        "PRAGMA secure_delete = 0"};
    both(choose(13, settings));
}

static void vacuum(void)
{
    if (below(3) == 0)
        bothf("PRAGMA auto_vacuum = %u", below(3));
    both("VACUUM");
}

static void statement(void)
{
    unsigned draw_of_100 = below(100);
    if (draw_of_100 < 22)
        insert_rows();
    else if (draw_of_100 < 36)
        insert_few();
    else if (draw_of_100 < 50)
        update_rows();
    else if (draw_of_100 < 60)
        delete_rows();
    else if (draw_of_100 < 72)
        query();
    else if (draw_of_100 < 90)
        control_transaction();
    else if (draw_of_100 < 95)
        change_schema();
    else if (draw_of_100 < 98)
        change_settings();
    else
        vacuum();
}

// ---- rounds

// All that a database holds: its schema, and each table's rows.
static uint64_t contents(int which)
{
    struct outcome sound =
        run(dbs[which], "SELECT integrity_check = 'ok' FROM pragma_integrity_check LIMIT 2");
    struct outcome yes = run(dbs[which], "SELECT 1");
    if (sound.code != SQLITE_DONE || sound.rows != yes.rows)
        differ("%s: integrity_check fails (%d %s)", names[which], sound.code, sound.message);
    struct outcome schema = run(
        dbs[which], "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name");
    uint64_t hash = schema.rows;
    for (unsigned table = 0; table < TABLES; table++) {
        char sql[128];
        snprintf(sql, sizeof sql, "SELECT * FROM t%u ORDER BY a, b, c, d", table);
        struct outcome rows = run(dbs[which], sql);
        if (rows.code != SQLITE_DONE && rows.code != SQLITE_ERROR)
            differ("%s: reading t%u: %d %s", names[which], table, rows.code, rows.message);
        hash = mix(hash, &rows.rows, sizeof rows.rows);
    }
    return hash;
}

static void move(int which, const char *sql)
{
    struct outcome outcome = run(dbs[which], sql);
    if (outcome.code != SQLITE_DONE)
        differ("%s: %s: %d %s", names[which], sql, outcome.code, outcome.message);
}

static void end_round(void)
{
    if (!sqlite3_get_autocommit(dbs[NATIVE]))
        both(below(2) ? "COMMIT" : "ROLLBACK");
    uint64_t native = contents(NATIVE);
    if (contents(SUBJECT) != native)
        differ("after this the subject holds something else than the native database");
    if (dbs[REPLICA]) {
        move(SUBJECT, "SELECT graft_push()");
        move(REPLICA, "SELECT graft_pull()");
        if (contents(REPLICA) != native)
            differ("after this the replica holds something else than the native database");
    }
    rewind(history_file);
}

// ---- the program

static void open_database(int which, const char *uri)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
    if (sqlite3_open_v2(uri, &dbs[which], flags, NULL) != SQLITE_OK) {
        fprintf(stderr, "differential: opening %s: %s\n", uri, sqlite3_errmsg(dbs[which]));
        exit(2);
    }
    sqlite3_extended_result_codes(dbs[which], 1);
    run(dbs[which], "PRAGMA cache_size = 10");
}

static void load_extension(const char *path)
{
    sqlite3 *db;
    char *message = NULL;
    if (sqlite3_open(":memory:", &db) != SQLITE_OK || sqlite3_enable_load_extension(db, 1) != SQLITE_OK ||
        sqlite3_load_extension(db, path, NULL, &message) != SQLITE_OK) {
        fprintf(stderr, "differential: loading %s: %s\n", path, message ? message : sqlite3_errmsg(db));
        exit(2);
    }
    sqlite3_close(db);
}

int main(int argc, char **argv)
{
    unsigned long statements = 2000;
    int at = 1;
    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
        if (strcmp(argv[at], "--load") == 0)
            load_extension(argv[at + 1]);
        else if (strcmp(argv[at], "--seed") == 0)
            state = strtoull(argv[at + 1], NULL, 10);
        else if (strcmp(argv[at], "--statements") == 0)
            statements = strtoul(argv[at + 1], NULL, 10);
    }
    if (argc - at < 2 || argc - at > DATABASES) {
        fprintf(stderr,
                "usage: differential --load EXTENSION --seed N --statements N NATIVE SUBJECT [REPLICA]\n");
        return 2;
    }
    for (int i = 0; i < argc - at && i < REPLICA; i++)
        open_database(i, argv[at + i]);
    history_file = open_memstream(&history, &history_size);
    static const char *const sizes[] = {"512", "1024", "4096", "8192"};
    bothf("PRAGMA page_size = %s", choose(4, sizes));
    for (unsigned table = 0; table < TABLES; table++)
        make_table(table);
    for (unsigned long i = 1; i <= statements; i++) {
        statement();
        if (i == 1 && argc - at > REPLICA) {
            end_round();
            move(SUBJECT, "SELECT graft_push()");
            open_database(REPLICA, argv[at + REPLICA]);
        }
        if (i % ROUND_STATEMENTS == 0 || i == statements)
            end_round();
    }
    for (int i = 0; i < DATABASES; i++)
        sqlite3_close(dbs[i]);
    fclose(history_file);
    free(history);
    return 0;
}
