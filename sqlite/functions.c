// SPDX-License-Identifier: Apache-2.0
#include "sqlite/functions.h"

#include <stdio.h>
#include <stdlib.h>

#include "sqlite/command.h"

enum graft_status functions_file(sqlite3 *db, const char *schema, struct volume_file **ret_file,
                                 struct graft_error *err)
{
    sqlite3_file *base = NULL;

    if (!schema)
        schema = "main";
    if (sqlite3_file_control(db, schema, SQLITE_FCNTL_FILE_POINTER, &base) != SQLITE_OK)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "there is no database %.60s", schema);
    *ret_file = file_of(base);
    if (!*ret_file)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "database %.60s is not on a volume: it was not opened with vfs=graft", schema);
    if (runtime_is_forked((*ret_file)->shared->runtime))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_FORKED,
                         "this connection belongs to the process that forked this one");
    return GRAFT_OK;
}

static const char *text_at(sqlite3_value **values, int count, int index)
{
    return index < count ? (const char *)sqlite3_value_text(values[index]) : NULL;
}

static enum graft_status run(sqlite3 *db, const struct command *command, int count, sqlite3_value **values,
                             json_t **ret_answer, struct graft_error *err)
{
    struct volume_file *file = NULL;
    int schema_at = command->traits & COMMAND_ARGUMENT ? 1 : 0;

    if (count > schema_at + 1)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "graft_%s takes at most %d arguments",
                         command->name, schema_at + 1);
    if (!(command->traits & COMMAND_ANYWHERE)) {
        enum graft_status status = functions_file(db, text_at(values, count, schema_at), &file, err);
        if (status != GRAFT_OK)
            return status;
    }
    if ((command->traits & COMMAND_CHANGES) && !sqlite3_get_autocommit(db))
        return command_refuse(command, err);
    return command->run(file, schema_at ? text_at(values, count, 0) : NULL, ret_answer, err);
}

static void call(sqlite3_context *context, int count, sqlite3_value **values)
{
    const struct command *command = sqlite3_user_data(context);
    struct graft_error why;
    json_t *answer = NULL;

    if (run(sqlite3_context_db_handle(context), command, count, values, &answer, &why) != GRAFT_OK) {
        sqlite3_result_error(context, why.message, -1);
        return;
    }
    char *text = command_json(answer);
    if (text)
        sqlite3_result_text(context, text, -1, free);
    else
        sqlite3_result_error_nomem(context);
}

// As SQLite calls it for each new connection.
static int register_on(sqlite3 *db, const char **ret_message, const struct sqlite3_api_routines *api)
{
    char name[32];
    const struct command *command;
    int code = tables_register(db);

    (void)ret_message;
    (void)api;
    for (size_t i = 0; code == SQLITE_OK && (command = command_at(i)); i++) {
        snprintf(name, sizeof name, "graft_%s", command->name);
        code = sqlite3_create_function_v2(db, name, -1, SQLITE_UTF8 | SQLITE_DIRECTONLY, (void *)command,
                                          call, NULL, NULL, NULL);
    }
    return code;
}

int functions_register(sqlite3 *db)
{
    int code = sqlite3_auto_extension((void (*)(void))register_on);
    return code == SQLITE_OK && db ? register_on(db, NULL, NULL) : code;
}
