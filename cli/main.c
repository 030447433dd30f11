// SPDX-License-Identifier: Apache-2.0
//
// graft: finds the command, parses its options, runs it.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "client/settings.h"
#include "common/base/error.h"

#define SPECS_MAX 24

static const struct option_spec global_specs[] = {
    CLIENT_OPTIONS(struct cli_settings),
    {"json", OPTION_FLAG, offsetof(struct cli_settings, json), .help = "answer in JSON, errors included"},
    {"progress", OPTION_FLAG, offsetof(struct cli_settings, progress), .fallback = "true",
     .help = "show progress on a terminal; --no-progress turns it off"},
};

static const char about[] =
    "Replicates volumes of pages, lazily: commits locally, pushes exactly once, learns what changed without "
    "downloading it, and fetches only the pages that are read.";

static const char exit_codes[] =
    "\nExit codes: 0 done, 1 failed, 2 usage, 3 conflict or rejected, 4 unreachable.\n";

static void print_commands(FILE *to)
{
    fprintf(to, "\nCommands:\n");
    for (const struct cli_command *const *command = cli_commands; *command; command++) {
        char usage[64];
        snprintf(usage, sizeof usage, "%s %s", (*command)->name, (*command)->arguments);
        fprintf(to, "  %-30s %s\n", usage, (*command)->summary);
    }
    fprintf(to, "\n`graft COMMAND --help` says more about each.\n%s", exit_codes);
}

// Finds the command named by the first word or two; *ret_words says how many.
static const struct cli_command *find_command(char **words, int count, int *ret_words)
{
    for (const struct cli_command *const *command = cli_commands; *command; command++) {
        const char *name = (*command)->name;
        const char *space = strchr(name, ' ');
        size_t first_size = space ? (size_t)(space - name) : strlen(name);
        if (strlen(words[0]) != first_size || strncmp(words[0], name, first_size) != 0)
            continue;
        if (!space) {
            *ret_words = 1;
            return *command;
        }
        if (count > 1 && strcmp(words[1], space + 1) == 0) {
            *ret_words = 2;
            return *command;
        }
    }
    return NULL;
}

static enum exit_code usage_error(const char *program, const struct graft_error *err)
{
    fprintf(stderr, "graft: %s\nTry: %s --help\n", err->message, program);
    return EXIT_USAGE;
}

static enum exit_code run_command(const struct cli_command *command, int argc, char **argv)
{
    struct option_spec specs[SPECS_MAX];
    memcpy(specs, global_specs, sizeof global_specs);
    if (command->spec_count)
        memcpy(specs + ARRAY_COUNT(global_specs), command->specs, command->spec_count * sizeof *specs);
    char program[64];
    snprintf(program, sizeof program, "graft %s", command->name);
    struct option_table table = {
        .program = program,
        .synopsis = command->arguments,
        .about = command->about,
        .specs = specs,
        .count = ARRAY_COUNT(global_specs) + command->spec_count,
        .permute = true,
    };
    struct cli cli = {0};
    struct options options = {0};
    struct graft_error err;
    int rest;
    bool help, version;
    if (options_parse(&table, argc, argv, &cli.settings, &options, &rest, &help, &version, &err) != GRAFT_OK)
        return usage_error(program, &err);
    enum exit_code code;
    if (help) {
        options_print_help(&table, stdout);
        fputs(exit_codes, stdout);
        code = EXIT_DONE;
    } else if (argc - rest < command->argument_min ||
               (command->argument_max >= 0 && argc - rest > command->argument_max)) {
        fprintf(stderr, "graft: usage: %s %s\nTry: %s --help\n", program, command->arguments, program);
        code = EXIT_USAGE;
    } else {
        code = command->run(&cli, argv + rest, argc - rest);
    }
    graft_close(cli.client);
    options_release(&options);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == EXIT_DONE) {
        fprintf(stderr, "graft: the answer could not be written to stdout: %s\n", strerror(errno));
        code = EXIT_FAILED;
    }
    return code;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    struct option_table table = {.program = "graft",
                                 .synopsis = "[options] COMMAND ...",
                                 .about = about,
                                 .specs = global_specs,
                                 .count = ARRAY_COUNT(global_specs)};
    struct cli_settings settings;
    struct options options = {0};
    struct graft_error err;
    int rest;
    bool help, version;
    if (options_parse(&table, argc, argv, &settings, &options, &rest, &help, &version, &err) != GRAFT_OK)
        return usage_error("graft", &err);
    options_release(&options);
    if (version) {
        printf("graft %s\n", graft_version());
        return EXIT_DONE;
    }
    if (help || rest == argc) {
        options_print_help(&table, help ? stdout : stderr);
        print_commands(help ? stdout : stderr);
        return help ? EXIT_DONE : EXIT_USAGE;
    }
    int words;
    const struct cli_command *command = find_command(argv + rest, argc - rest, &words);
    if (!command) {
        fprintf(stderr, "graft: there is no command \"%s\"\n", argv[rest]);
        print_commands(stderr);
        return EXIT_USAGE;
    }
    // What stays are the program's name, the options in front of the command, and everything behind it.
    memmove(argv + rest, argv + rest + words, (size_t)(argc - rest - words + 1) * sizeof *argv);
    return run_command(command, argc - words, argv);
}
