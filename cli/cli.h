// SPDX-License-Identifier: Apache-2.0
//
// The command line's own vocabulary: settings, the table of commands, answers in text or JSON, exit codes.
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/include/graft.h"
#include "common/base/compiler.h"
#include "common/base/options.h"

enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_REJECTED = 3,    // conflict or rejected
    EXIT_UNREACHABLE = 4, // no answer from a server
};

struct cli_settings {
    const char *data;
    const char *metastore;
    const char *pagestore;
    bool json;
    bool progress;
    const char *durability;
    uint64_t deadline_ms;
    uint64_t cache_limit;
    // of single commands
    uint64_t page_size;
    bool variable;
    bool remote;
    bool reattach;
    bool watch;
    bool pad;
    bool local;
    uint64_t lsn;
    uint64_t limit;
};

struct cli {
    struct cli_settings settings;
    struct graft *client; // opened by cli_client()
};

struct cli_command {
    const char *name; // "push", "volume create"
    const char *arguments;
    const char *summary; // for the list of commands
    const char *about;   // for its own --help
    const struct option_spec *specs;
    size_t spec_count;
    int argument_min, argument_max; // -1: any number
    enum exit_code (*run)(struct cli *cli, char **arguments, int argument_count);
};

extern const struct cli_command *const cli_commands[]; // NULL at the end

// ---- what commands use ----------------------------------------------------------------------------------------------

// Prints "graft: <message>" to stderr (or {"error": …} with --json) and gives the exit code that fits the status.
enum exit_code cli_fail(const struct cli *cli, const struct graft_error *err);
enum exit_code cli_fail_with(const struct cli *cli, enum graft_status status, enum graft_detail detail,
                             const char *format, ...) _printf_(4, 5);

// Opens the data directory at the first call.
enum graft_status cli_client(struct cli *cli, struct graft_error *err);
enum graft_status cli_volume(struct cli *cli, const char *vid, struct graft_volume **ret_volume,
                             struct graft_error *err);

// Prints a JSON answer and drops the reference.
void cli_print_json(json_t *answer);
// With --json prints `answer`, else the text; drops the reference either way.
enum exit_code cli_answer(const struct cli *cli, json_t *answer, const char *format, ...) _printf_(3, 4);

// With --json an array that is printed item by item, for lists without a bound; else nothing but the caller's own lines.
struct cli_list {
    const struct cli *cli;
    bool begun;
};
// Drops the reference. False: nobody reads on, stop.
bool cli_list_add(struct cli_list *list, json_t *item);
enum exit_code cli_list_end(struct cli_list *list);
// An error before the first item is the answer; one that comes later goes to stderr, behind an array that ends early.
enum exit_code cli_list_fail(struct cli_list *list, const struct graft_error *err);

bool cli_parse_number(const char *text, uint64_t max, uint64_t *ret_number);

// "20.5 MB"
struct size_text {
    char text[24];
};
struct size_text cli_format_size(uint64_t size);

static inline void graft_volume_close_p(struct graft_volume **volume)
{
    graft_volume_close(*volume);
}
static inline void graft_snapshot_release_p(struct graft_snapshot **snapshot)
{
    graft_snapshot_release(*snapshot);
}
static inline void graft_writer_abort_p(struct graft_writer **writer)
{
    graft_writer_abort(*writer);
}

// ---- progress ---------------------------------------------------------------------------------------------------------

// A bar on stderr, drawn only on a terminal, only for work that has taken more than a second, at most ten times a second.
struct progress {
    const char *label;
    uint64_t total; // 0: unknown
    uint64_t started_ms, drawn_ms;
    bool enabled, drawn;
    bool bytes; // counts bytes, not pages
};
void progress_begin(struct progress *progress, const struct cli *cli, const char *label, uint64_t total,
                    bool bytes);
void progress_show(struct progress *progress, uint64_t done);
void progress_end(struct progress *progress); // removes the bar

#endif
