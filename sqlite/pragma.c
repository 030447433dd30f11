// SPDX-License-Identifier: Apache-2.0
#include "sqlite/pragma.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/compiler.h"
#include "sqlite/command.h"
#include "sqlite/errors.h"

static int answer(char **arguments, const char *text)
{
    arguments[0] = sqlite3_mprintf("%s", text);
    return arguments[0] ? SQLITE_OK : SQLITE_NOMEM;
}

// Without a journal ROLLBACK TO would silently keep what it was to undo.
static int journal_mode(struct volume_file *file, char **arguments)
{
    const char *value = arguments[2];

    if (value && (strcasecmp(value, "off") == 0 || strcasecmp(value, "wal") == 0))
        return answer(arguments, "delete");
    return SQLITE_NOTFOUND;
}

// A lock that is never given back would keep the volume from following the servers.
static int locking_mode(struct volume_file *file, char **arguments)
{
    if (arguments[2] && strcasecmp(arguments[2], "exclusive") == 0)
        return answer(arguments, "normal");
    return SQLITE_NOTFOUND;
}

static int mmap_size(struct volume_file *file, char **arguments)
{
    return answer(arguments, "0");
}

// A volume keeps the page size that it was made with, also under VACUUM.
static int page_size(struct volume_file *file, char **arguments)
{
    uint32_t size = atomic_load(&file->shared->page_size);
    char text[16];

    snprintf(text, sizeof text, "%u", size);
    return arguments[2] && size > 0 && strcmp(arguments[2], text) != 0 ? answer(arguments, text)
                                                                       : SQLITE_NOTFOUND;
}

static const struct {
    const char *name;
    int (*run)(struct volume_file *file, char **arguments);
} pragmas[] = {
    {"journal_mode", journal_mode},
    {"locking_mode", locking_mode},
    {"mmap_size", mmap_size},
    {"page_size", page_size},
};

// SQLite runs a pragma when it prepares it, also under EXPLAIN.
static int run_command(struct volume_file *file, const struct command *command, char **arguments)
{
    struct graft_error why;
    json_t *result = NULL;
    const char *argument = arguments[2];
    bool json = argument && !(command->traits & COMMAND_ARGUMENT) && strcasecmp(argument, "json") == 0;

    enum graft_status status = argument && !json && !(command->traits & COMMAND_ARGUMENT)
                                   ? error_set(&why, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                                               "graft_%s takes no argument but json", command->name)
                               : (command->traits & COMMAND_CHANGES) && file->lock != SQLITE_LOCK_NONE
                                   ? command_refuse(command, &why)
                                   : command->run(file, argument, &result, &why);
    if (status != GRAFT_OK) {
        arguments[0] = sqlite3_mprintf("%s", why.message);
        return SQLITE_ERROR;
    }
    char *text = json ? command_json(result) : command_text(result);
    arguments[0] = text ? sqlite3_mprintf("%s", text) : NULL;
    free(text);
    return arguments[0] ? SQLITE_OK : SQLITE_NOMEM;
}

int pragma_run(struct volume_file *file, char **arguments)
{
    const struct command *command = command_find(arguments[1]);
    if (command)
        return run_command(file, command, arguments);
    if (strncasecmp(arguments[1], "graft_", 6) == 0) {
        arguments[0] = sqlite3_mprintf("there is no %s; docs/SQLITE.md lists the pragmas", arguments[1]);
        return SQLITE_ERROR;
    }
    for (size_t i = 0; i < ARRAY_COUNT(pragmas); i++) {
        if (strcasecmp(arguments[1], pragmas[i].name) == 0)
            return pragmas[i].run(file, arguments);
    }
    return SQLITE_NOTFOUND;
}
