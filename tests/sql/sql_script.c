// SPDX-License-Identifier: Apache-2.0
//
// Runs a script of SQL on any number of connections and prints what each statement gives, for comparing with what is
// expected.
//
//     sql_script [--load EXTENSION] [NAME=VALUE]… < script
//
//     @A open ${db}        opens connection A; ${NAME} is a value from the command line
//     @A                   the statements that follow run on A
//     @A close
//     @ step A 2 SELECT …  begins a statement on A and takes two rows of it; it stays open
//     @ finish A           takes the rest of it
//     @ run COMMAND        runs a command with the shell and prints its exit code if it is not 0
//     -- …                 a comment
//
// A row is printed with | between its columns, NULL as NULL, blobs as x'…' (long ones by size); an error as its name and
// message. The exit code is 0 unless the script itself is wrong.
#include <ctype.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECTIONS_MAX 16
#define NAME_SIZE 32
#define BLOB_SHOWN_MAX 32

struct connection {
    char name[NAME_SIZE];
    sqlite3 *db;
    sqlite3_stmt *open_statement;
};

static struct connection connections[CONNECTIONS_MAX];
static struct connection *current;
static char **values;
static int value_count;
static unsigned line_number;

static void __attribute__((noreturn, format(printf, 1, 2))) wrong_script(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "sql_script: line %u: ", line_number);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

static struct connection *find_connection(const char *name)
{
    for (int i = 0; i < CONNECTIONS_MAX; i++) {
        if (connections[i].db && strcmp(connections[i].name, name) == 0)
            return &connections[i];
    }
    return NULL;
}

static struct connection *need_connection(const char *name)
{
    struct connection *connection = find_connection(name);
    if (!connection)
        wrong_script("connection %s is not open", name);
    return connection;
}

// ---- output

static const char *code_name(int code)
{
    static char other[16];
    switch (code) {
    case SQLITE_ERROR:
        return "ERROR";
    case SQLITE_BUSY:
        return "BUSY";
    case SQLITE_BUSY_SNAPSHOT:
        return "BUSY_SNAPSHOT";
    case SQLITE_LOCKED:
        return "LOCKED";
    case SQLITE_READONLY:
        return "READONLY";
    case SQLITE_IOERR:
        return "IOERR";
    case SQLITE_IOERR_READ:
        return "IOERR_READ";
    case SQLITE_IOERR_WRITE:
        return "IOERR_WRITE";
    case SQLITE_IOERR_DATA:
        return "IOERR_DATA";
    case SQLITE_IOERR_LOCK:
        return "IOERR_LOCK";
    case SQLITE_CORRUPT:
        return "CORRUPT";
    case SQLITE_FULL:
        return "FULL";
    case SQLITE_CANTOPEN:
        return "CANTOPEN";
    case SQLITE_CONSTRAINT_UNIQUE:
        return "CONSTRAINT_UNIQUE";
    case SQLITE_CONSTRAINT_PRIMARYKEY:
        return "CONSTRAINT_PRIMARYKEY";
    case SQLITE_CONSTRAINT_NOTNULL:
        return "CONSTRAINT_NOTNULL";
    case SQLITE_CONSTRAINT_CHECK:
        return "CONSTRAINT_CHECK";
    case SQLITE_CONSTRAINT_FOREIGNKEY:
        return "CONSTRAINT_FOREIGNKEY";
    default:
        snprintf(other, sizeof other, "%d", code);
        return other;
    }
}

static void print_error(const struct connection *connection)
{
    printf("%s: %s\n", code_name(sqlite3_extended_errcode(connection->db)), sqlite3_errmsg(connection->db));
}

static void print_blob(sqlite3_stmt *statement, int column)
{
    int size = sqlite3_column_bytes(statement, column);
    const unsigned char *bytes = sqlite3_column_blob(statement, column);
    if (size > BLOB_SHOWN_MAX) {
        printf("(%d bytes)", size);
        return;
    }
    printf("x'");
    for (int i = 0; i < size; i++)
        printf("%02x", bytes[i]);
    printf("'");
}

static void print_row(sqlite3_stmt *statement)
{
    for (int i = 0; i < sqlite3_column_count(statement); i++) {
        if (i > 0)
            putchar('|');
        int type = sqlite3_column_type(statement, i);
        if (type == SQLITE_NULL)
            printf("NULL");
        else if (type == SQLITE_BLOB)
            print_blob(statement, i);
        else
            printf("%s", (const char *)sqlite3_column_text(statement, i));
    }
    putchar('\n');
}

// ---- statements

static sqlite3_stmt *prepare(struct connection *connection, const char *sql, const char **rest)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(connection->db, sql, -1, &statement, rest) != SQLITE_OK) {
        print_error(connection);
        return NULL;
    }
    return statement;
}

// Takes up to `rows_max` rows. True if there may be more.
static bool step(struct connection *connection, sqlite3_stmt *statement, long rows_max)
{
    for (long i = 0; i < rows_max; i++) {
        int code = sqlite3_step(statement);
        if (code == SQLITE_DONE)
            return false;
        if (code != SQLITE_ROW) {
            print_error(connection);
            return false;
        }
        if (sqlite3_column_count(statement) > 0)
            print_row(statement);
    }
    return true;
}

static void run_sql(struct connection *connection, const char *sql)
{
    while (*sql) {
        const char *rest = sql;
        sqlite3_stmt *statement = prepare(connection, sql, &rest);
        if (!statement && sqlite3_errcode(connection->db) != SQLITE_OK)
            return;
        if (statement)
            step(connection, statement, 1000000000L);
        sqlite3_finalize(statement);
        sql = rest;
    }
}

// ---- directives

static void open_connection(const char *name, const char *uri)
{
    if (find_connection(name))
        wrong_script("connection %s is open already", name);
    struct connection *connection = connections;
    while (connection->db && connection < connections + CONNECTIONS_MAX - 1)
        connection++;
    if (connection->db)
        wrong_script("too many connections");
    int code = sqlite3_open_v2(uri, &connection->db,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
    if (code != SQLITE_OK) {
        print_error(connection);
        sqlite3_close(connection->db);
        connection->db = NULL;
        return;
    }
    snprintf(connection->name, sizeof connection->name, "%s", name);
    current = connection;
}

static void close_connection(struct connection *connection)
{
    sqlite3_finalize(connection->open_statement);
    connection->open_statement = NULL;
    if (sqlite3_close(connection->db) != SQLITE_OK)
        print_error(connection);
    connection->db = NULL;
    if (current == connection)
        current = NULL;
}

static void begin_statement(char *arguments)
{
    char *name = strtok(arguments, " ");
    char *rows = strtok(NULL, " ");
    char *sql = strtok(NULL, "\n");
    if (!name || !rows || !sql)
        wrong_script("@ step CONNECTION ROWS SQL");
    struct connection *connection = need_connection(name);
    if (connection->open_statement)
        wrong_script("%s has an open statement", name);
    sqlite3_stmt *statement = prepare(connection, sql, NULL);
    if (statement && step(connection, statement, atol(rows)))
        connection->open_statement = statement;
    else
        sqlite3_finalize(statement);
}

static void finish_statement(const char *name)
{
    struct connection *connection = need_connection(name);
    if (!connection->open_statement)
        wrong_script("%s has no open statement", name);
    step(connection, connection->open_statement, 1000000000L);
    sqlite3_finalize(connection->open_statement);
    connection->open_statement = NULL;
}

static void run_command(const char *command)
{
    fflush(stdout);
    int code = system(command);
    if (code != 0)
        printf("exit code %d\n", code / 256);
}

static void directive(char *line)
{
    if (strncmp(line, "@ step ", 7) == 0) {
        begin_statement(line + 7);
    } else if (strncmp(line, "@ finish ", 9) == 0) {
        finish_statement(line + 9);
    } else if (strncmp(line, "@ run ", 6) == 0) {
        run_command(line + 6);
    } else {
        char *name = strtok(line + 1, " ");
        char *verb = strtok(NULL, " ");
        char *rest = strtok(NULL, "");
        if (name && verb && rest && strcmp(verb, "open") == 0)
            open_connection(name, rest);
        else if (name && verb && strcmp(verb, "close") == 0)
            close_connection(need_connection(name));
        else if (name && !verb)
            current = need_connection(name);
        else
            wrong_script("an unknown directive");
    }
}

// ---- the script

static const char *value_of(const char *name, size_t size)
{
    for (int i = 0; i < value_count; i++) {
        if (strncmp(values[i], name, size) == 0 && values[i][size] == '=')
            return values[i] + size + 1;
    }
    wrong_script("${%.*s} has no value", (int)size, name);
}

// The line with its ${NAME}s replaced. The caller frees it.
static char *expand(const char *line)
{
    char *expanded = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&expanded, &size);
    for (const char *at = line; *at; at++) {
        const char *end = strncmp(at, "${", 2) == 0 ? strchr(at, '}') : NULL;
        if (end) {
            fputs(value_of(at + 2, (size_t)(end - at - 2)), to);
            at = end;
        } else {
            fputc(*at, to);
        }
    }
    fclose(to);
    return expanded;
}

static bool is_blank(const char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    return *text == '\0';
}

static void run_script(FILE *script)
{
    char *line = NULL, *sql = NULL;
    size_t line_capacity = 0, sql_size = 0;
    FILE *statement = open_memstream(&sql, &sql_size);
    while (getline(&line, &line_capacity, script) > 0) {
        line_number++;
        line[strcspn(line, "\n")] = '\0';
        char *expanded = expand(line);
        fflush(statement);
        if (expanded[0] == '@' && is_blank(sql)) {
            directive(expanded);
        } else if (strncmp(expanded, "--", 2) != 0 && (!is_blank(expanded) || !is_blank(sql))) {
            fprintf(statement, "%s\n", expanded);
            fflush(statement);
            if (sqlite3_complete(sql)) {
                if (!current)
                    wrong_script("no connection to run this on");
                run_sql(current, sql);
                fclose(statement);
                free(sql);
                sql = NULL;
                statement = open_memstream(&sql, &sql_size);
                fflush(statement);
            }
        }
        free(expanded);
    }
    fclose(statement);
    if (!is_blank(sql))
        wrong_script("the last statement has no end");
    free(sql);
    free(line);
}

static void load_extension(const char *path)
{
    sqlite3 *db;
    char *message = NULL;
    if (sqlite3_open(":memory:", &db) != SQLITE_OK || sqlite3_enable_load_extension(db, 1) != SQLITE_OK ||
        sqlite3_load_extension(db, path, NULL, &message) != SQLITE_OK) {
        fprintf(stderr, "sql_script: loading %s: %s\n", path, message ? message : sqlite3_errmsg(db));
        exit(2);
    }
    sqlite3_close(db);
}

int main(int argc, char **argv)
{
    int first = 1;
    if (argc > 2 && strcmp(argv[1], "--load") == 0) {
        load_extension(argv[2]);
        first = 3;
    }
    values = argv + first;
    value_count = argc - first;
    run_script(stdin);
    for (int i = 0; i < CONNECTIONS_MAX; i++) {
        if (connections[i].db)
            close_connection(&connections[i]);
    }
    return 0;
}
