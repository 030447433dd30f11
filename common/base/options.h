// SPDX-License-Identifier: Apache-2.0
//
// One table of options per program makes its parser, its --help, its environment variables and its commented
// sample file. Precedence: command line, environment, file (--config), default.
//
//     struct settings { const char *listen; uint64_t cache_size; bool insecure; };
//     static const struct option_spec specs[] = {
//         {"listen", OPTION_STRING, offsetof(struct settings, listen), .metavar = "ADDR:PORT",
//          .env = "GRAFT_LISTEN", .fallback = "127.0.0.1:3001", .help = "where to listen"},
//         …
//     };
#ifndef COMMON_BASE_OPTIONS_H
#define COMMON_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/error.h"

enum option_type {
    OPTION_FLAG,     // bool; --name, --no-name; true/false or 1/0 in file and environment
    OPTION_STRING,   // const char *, lives as long as the options
    OPTION_NUMBER,   // uint64_t within [min, max]
    OPTION_SIZE,     // uint64_t bytes; accepts 64K, 16M, 2G (powers of 1,024)
    OPTION_DURATION, // uint64_t milliseconds; accepts 250ms, 5s, 2m, 1h
};

struct option_spec {
    const char *name; // long name without dashes
    enum option_type type;
    size_t offset; // of the field in the settings struct
    char letter;   // short name, 0: none
    const char *metavar;
    const char *env;
    const char *fallback;   // as a user would write it; NULL: zero, false or NULL
    const char *help;       // one sentence, no full stop
    uint64_t min, max;      // of numbers, sizes and durations; max 0: no bound
    bool command_line_only; // not read from a file, not in the sample (--print-config, --ready-file)
};

struct option_table {
    const char *program;  // "graft-metastore"
    const char *synopsis; // "[options]"
    const char *about;    // what the program is for, a paragraph
    const struct option_spec *specs;
    size_t count;
    bool config_file; // understands --config FILE
    bool permute;     // options may stand behind other words, too: argv is put in order while it is parsed
};

// What was parsed keeps its strings here.
struct options {
    void *memory;
};

// A file has lines `name = value`; blank lines and lines that begin with # are skipped; a value goes to the
// end of its line, without quotes. An environment variable that is set to nothing counts as not set.
//
// Fills the settings struct at `settings`. Stops at the first word that is no option (or, with `permute`,
// goes on and moves such words behind the options), or after "--", and returns its place in argv in
// *ret_rest. INVALID for anything unknown, out of range or malformed, naming the option and the source
// (command line, environment variable or file and line). --help and --version are reported through *ret_help
// and *ret_version and parse nothing further.
enum graft_status options_parse(const struct option_table *table, int argc, char **argv, void *settings,
                                struct options *ret_options, int *ret_rest, bool *ret_help, bool *ret_version,
                                struct graft_error *err);
void options_release(struct options *options);

void options_print_help(const struct option_table *table, FILE *to);
// A configuration file with every option, its help as a comment and its default commented out.
void options_print_sample(const struct option_table *table, FILE *to);

// The parsers by themselves: "16M" → 16777216, "250ms" → 250. False if malformed or beyond 64 bits.
bool size_parse(const char *text, uint64_t *ret_size);
bool duration_parse(const char *text, uint64_t *ret_ms);

#endif
