// SPDX-License-Identifier: Apache-2.0
//
// Eponymous virtual tables over what graft_log and graft_volumes answer, and over a snapshot's pages. A cursor holds the
// answer; of pages it holds a few runs at a time.
#include <stdlib.h>
#include <string.h>

#include "sqlite/command.h"
#include "sqlite/errors.h"
#include "sqlite/functions.h"

#define RUNS_MAX 256u

struct table_kind {
    const char *name;    // of the table
    const char *command; // NULL: the pages
    const char *declaration;
    const char *columns[8]; // of the answer, in the order of the declaration; `schema` follows
    const char *argument;   // of the command
};

static const struct table_kind kinds[] = {
    {"graft_log",
     "graft_log",
     "CREATE TABLE x(lsn INTEGER, time TEXT, client TEXT, pages_changed INTEGER, segments INTEGER, pages INTEGER, "
     "schema HIDDEN)",
     {"lsn", "time", "client", "pages_changed", "segments", "pages"},
     "100000"},
    {"graft_volumes",
     "graft_volumes",
     "CREATE TABLE x(vid TEXT, tag TEXT, status TEXT, local_lsn INTEGER, pages INTEGER, page_size INTEGER, "
     "schema HIDDEN)",
     {"vid", "tag", "status", "local_lsn", "pages", "page_size"},
     NULL},
    {"graft_pages",
     NULL,
     "CREATE TABLE x(first INTEGER, count INTEGER, state TEXT, schema HIDDEN)",
     {"first", "count", "state"},
     NULL},
};

struct table {
    sqlite3_vtab base;
    sqlite3 *db;
    const struct table_kind *kind;
    int column_count; // without `schema`
};

struct cursor {
    sqlite3_vtab_cursor base;
    char *schema; // NULL: main
    sqlite3_int64 rowid;
    json_t *rows; // of a command
    size_t row;
    // Pages: runs pending, and those between them that are here.
    struct graft_snapshot *snapshot;
    struct graft_page_range runs[RUNS_MAX];
    size_t run, run_count;
    uint64_t next;   // the first page that was not shown yet
    uint64_t looked; // the first page that `runs` says nothing about
    struct graft_page_range shown;
    bool shown_pending, end;
};

static struct table *table_of(sqlite3_vtab_cursor *cursor)
{
    return (struct table *)cursor->pVtab;
}

static int fail(sqlite3_vtab *table, const struct graft_error *why)
{
    sqlite3_free(table->zErrMsg);
    table->zErrMsg = sqlite3_mprintf("%s", why->message);
    return SQLITE_ERROR;
}

// ---- tables

static int connect(sqlite3 *db, void *context, int argument_count, const char *const *arguments,
                   sqlite3_vtab **ret_table, char **ret_message)
{
    const struct table_kind *kind = context;

    int code = sqlite3_declare_vtab(db, kind->declaration);
    if (code != SQLITE_OK)
        return code;
    sqlite3_vtab_config(db, SQLITE_VTAB_DIRECTONLY);
    struct table *table = calloc(1, sizeof *table);
    if (!table)
        return SQLITE_NOMEM;
    table->db = db;
    table->kind = kind;
    while (kind->columns[table->column_count])
        table->column_count++;
    *ret_table = &table->base;
    return SQLITE_OK;
}

static int disconnect(sqlite3_vtab *table)
{
    free(table);
    return SQLITE_OK;
}

// Plan 1 has the schema as its argument.
static int best_index(sqlite3_vtab *base, sqlite3_index_info *info)
{
    const struct table *table = (struct table *)base;

    info->estimatedCost = 1000;
    for (int i = 0; i < info->nConstraint; i++) {
        if (info->aConstraint[i].iColumn != table->column_count ||
            info->aConstraint[i].op != SQLITE_INDEX_CONSTRAINT_EQ)
            continue;
        if (!info->aConstraint[i].usable)
            return SQLITE_CONSTRAINT;
        info->aConstraintUsage[i].argvIndex = 1;
        info->aConstraintUsage[i].omit = 1;
        info->idxNum = 1;
        break;
    }
    return SQLITE_OK;
}

// ---- cursors

static int open_cursor(sqlite3_vtab *table, sqlite3_vtab_cursor **ret_cursor)
{
    struct cursor *cursor = calloc(1, sizeof *cursor);
    if (!cursor)
        return SQLITE_NOMEM;
    *ret_cursor = &cursor->base;
    return SQLITE_OK;
}

static void reset(struct cursor *cursor)
{
    graft_snapshot_release(TAKE(cursor->snapshot));
    json_decref(TAKE(cursor->rows));
    sqlite3_free(TAKE(cursor->schema));
}

static int close_cursor(sqlite3_vtab_cursor *base)
{
    reset((struct cursor *)base);
    free(base);
    return SQLITE_OK;
}

// The next run of pages that are alike.
static enum graft_status next_pages(struct cursor *cursor, struct graft_error *err)
{
    uint64_t end = (uint64_t)graft_snapshot_page_count(cursor->snapshot) + 1;

    while (cursor->run == cursor->run_count && cursor->looked < end && cursor->next == cursor->looked) {
        uint32_t next = (uint32_t)cursor->looked;
        enum graft_status status =
            graft_snapshot_pending(cursor->snapshot, &next, cursor->runs, RUNS_MAX, &cursor->run_count, err);
        if (status != GRAFT_OK)
            return status;
        cursor->run = 0;
        cursor->looked = next > 0 ? next : end;
        if (cursor->run_count == 0 && cursor->looked < end)
            continue; // it looks at a bounded number of pages at a time
        break;
    }
    cursor->end = cursor->next >= end;
    if (cursor->end)
        return GRAFT_OK;
    bool has_run = cursor->run < cursor->run_count;
    uint64_t run_first = has_run ? cursor->runs[cursor->run].first : cursor->looked;
    cursor->shown_pending = has_run && run_first == cursor->next;
    if (cursor->shown_pending)
        cursor->shown = cursor->runs[cursor->run++];
    else
        cursor->shown =
            (struct graft_page_range){(uint32_t)cursor->next, (uint32_t)(run_first - cursor->next)};
    cursor->next += cursor->shown.count;
    return GRAFT_OK;
}

static enum graft_status begin(struct cursor *cursor, const struct table *table, struct graft_error *err)
{
    struct volume_file *file;
    const struct table_kind *kind = table->kind;

    enum graft_status status = functions_file(table->db, cursor->schema, &file, err);
    if (status != GRAFT_OK)
        return status;
    if (kind->command)
        return command_find(kind->command)->run(file, kind->argument, &cursor->rows, err);
    struct graft_volume *volume = atomic_load(&file->shared->volume);
    if (!volume) {
        cursor->end = true;
        return GRAFT_OK;
    }
    status = graft_snapshot_open(volume, &cursor->snapshot, err);
    return status == GRAFT_OK ? next_pages(cursor, err) : status;
}

static int filter(sqlite3_vtab_cursor *base, int plan, const char *plan_text, int count,
                  sqlite3_value **values)
{
    struct cursor *cursor = (struct cursor *)base;
    struct graft_error why;

    reset(cursor);
    *cursor = (struct cursor){.base = cursor->base, .next = 1, .looked = 1};
    if (plan == 1 && count == 1) {
        cursor->schema = sqlite3_mprintf("%s", sqlite3_value_text(values[0]));
        if (!cursor->schema)
            return SQLITE_NOMEM;
    }
    return begin(cursor, table_of(base), &why) == GRAFT_OK ? SQLITE_OK : fail(base->pVtab, &why);
}

static int next(sqlite3_vtab_cursor *base)
{
    struct cursor *cursor = (struct cursor *)base;
    struct graft_error why;

    cursor->rowid++;
    cursor->row++;
    if (!cursor->snapshot || next_pages(cursor, &why) == GRAFT_OK)
        return SQLITE_OK;
    return fail(base->pVtab, &why);
}

static int at_end(sqlite3_vtab_cursor *base)
{
    const struct cursor *cursor = (struct cursor *)base;
    return cursor->rows ? cursor->row >= json_array_size(cursor->rows) : cursor->end;
}

static void give_json(sqlite3_context *context, const json_t *value)
{
    if (json_is_integer(value))
        sqlite3_result_int64(context, json_integer_value(value));
    else if (json_is_string(value))
        sqlite3_result_text(context, json_string_value(value), -1, SQLITE_TRANSIENT);
}

static int column(sqlite3_vtab_cursor *base, sqlite3_context *context, int index)
{
    const struct cursor *cursor = (struct cursor *)base;
    const struct table *table = table_of(base);

    if (index == table->column_count)
        sqlite3_result_text(context, cursor->schema ? cursor->schema : "main", -1, SQLITE_TRANSIENT);
    else if (cursor->rows)
        give_json(context,
                  json_object_get(json_array_get(cursor->rows, cursor->row), table->kind->columns[index]));
    else if (index == 2)
        sqlite3_result_text(context, cursor->shown_pending ? "pending" : "here", -1, SQLITE_STATIC);
    else
        sqlite3_result_int64(context, index == 0 ? cursor->shown.first : cursor->shown.count);
    return SQLITE_OK;
}

static int rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *ret_rowid)
{
    *ret_rowid = ((struct cursor *)base)->rowid;
    return SQLITE_OK;
}

// Without xCreate a table is there by its name and cannot be made.
static const sqlite3_module module = {
    .xConnect = connect,
    .xBestIndex = best_index,
    .xDisconnect = disconnect,
    .xOpen = open_cursor,
    .xClose = close_cursor,
    .xFilter = filter,
    .xNext = next,
    .xEof = at_end,
    .xColumn = column,
    .xRowid = rowid,
};

int tables_register(sqlite3 *db)
{
    int code = SQLITE_OK;
    for (size_t i = 0; code == SQLITE_OK && i < ARRAY_COUNT(kinds); i++)
        code = sqlite3_create_module_v2(db, kinds[i].name, &module, (void *)&kinds[i], NULL);
    return code;
}
