// SPDX-License-Identifier: Apache-2.0
//
// What a database on a volume can be asked beside SQL: graft_status, graft_push and so on. Each command is one function
// that gives JSON; it is reached as
//
//     PRAGMA graft_status              a text for people
//     PRAGMA graft_status = json       the JSON (of commands that take no argument)
//     SELECT graft_status()            the JSON; an argument, and the name of an attached database behind it, may follow
//
// Commands that change something refuse inside a transaction. Threads: those of the handle.
#ifndef SQLITE_COMMAND_H
#define SQLITE_COMMAND_H

#include <jansson.h>

#include "sqlite/file.h"

enum command_traits {
    COMMAND_CHANGES = 1,  // what the database holds, or where it is kept
    COMMAND_ARGUMENT = 2, // takes one; it may be left out
    COMMAND_ANYWHERE = 4, // also on a connection without a volume: `file` may be NULL
};

struct command {
    const char *name; // without "graft_"
    unsigned traits;
    // `argument` may be NULL. *ret_answer is the caller's: an object, or an array of objects.
    enum graft_status (*run)(struct volume_file *file, const char *argument, json_t **ret_answer,
                             struct graft_error *err);
};

// By its name with "graft_" before it; NULL if there is none.
const struct command *command_find(const char *name);
// The i-th of all, NULL behind the last.
const struct command *command_at(size_t index);

// The error that a command which changes something gives inside a transaction.
enum graft_status command_refuse(const struct command *command, struct graft_error *err);

// Takes the answer. "name  value" in lines, or a table; the caller's to free().
char *command_text(json_t *answer);
char *command_json(json_t *answer);

// ---- command_client.c: what concerns the data directory

enum graft_status command_clone(struct volume_file *file, const char *argument, json_t **ret_answer,
                                struct graft_error *err);
enum graft_status command_tag(struct volume_file *file, const char *argument, json_t **ret_answer,
                              struct graft_error *err);
enum graft_status command_volumes(struct volume_file *file, const char *argument, json_t **ret_answer,
                                  struct graft_error *err);
enum graft_status command_errors(struct volume_file *file, const char *argument, json_t **ret_answer,
                                 struct graft_error *err);
enum graft_status command_version(struct volume_file *file, const char *argument, json_t **ret_answer,
                                  struct graft_error *err);

#endif
