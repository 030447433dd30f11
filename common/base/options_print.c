// SPDX-License-Identifier: Apache-2.0
//
// What a table of options says to people: --help and the sample file.
#include <string.h>

#include "common/base/options.h"

#define HELP_COLUMN 30
#define HELP_WIDTH 78

// Prints text in lines of at most HELP_WIDTH, each but the first behind `indent` spaces.
static void print_wrapped(const char *text, int indent, int column, FILE *to)
{
    while (*text) {
        int size = (int)strcspn(text, " ");
        if (column > indent && column + 1 + size > HELP_WIDTH) {
            fprintf(to, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', to);
            column++;
        }
        fprintf(to, "%.*s", size, text);
        column += size;
        text += size;
        text += strspn(text, " ");
    }
    fputc('\n', to);
}

static const char *metavar_of(const struct option_spec *spec)
{
    static const char *const by_type[] = {
        [OPTION_FLAG] = "",     [OPTION_STRING] = "TEXT",   [OPTION_NUMBER] = "NUMBER",
        [OPTION_SIZE] = "SIZE", [OPTION_DURATION] = "TIME",
    };
    return spec->metavar && spec->type != OPTION_FLAG ? spec->metavar : by_type[spec->type];
}

static void print_option(char letter, const char *name, const char *metavar, const char *help, FILE *to)
{
    char head[80];
    const char short_form[] = {letter ? '-' : ' ', letter ? letter : ' ', letter ? ',' : ' ', '\0'};
    int size = snprintf(head, sizeof head, "  %s --%s%s%s", short_form, name, metavar[0] ? " " : "", metavar);
    fputs(head, to);
    if (size >= HELP_COLUMN - 1)
        fprintf(to, "\n%*s", HELP_COLUMN, "");
    else
        fprintf(to, "%*s", HELP_COLUMN - size, "");
    print_wrapped(help, HELP_COLUMN, HELP_COLUMN, to);
}

void options_print_help(const struct option_table *table, FILE *to)
{
    fprintf(to, "Usage: %s %s\n\n", table->program, table->synopsis);
    print_wrapped(table->about, 0, 0, to);
    fputs("\nOptions:\n", to);
    for (size_t i = 0; i < table->count; i++) {
        const struct option_spec *spec = &table->specs[i];
        char help[512], extra[192] = "";
        bool flag = spec->type == OPTION_FLAG;
        const char *fallback =
            spec->fallback && !(flag && strcmp(spec->fallback, "false") == 0) ? spec->fallback : NULL;
        if (fallback || spec->env)
            snprintf(extra, sizeof extra, " (%s%s%s%s%s)", fallback ? "default " : "",
                     fallback ? fallback : "", fallback && spec->env ? ", " : "",
                     spec->env ? "environment " : "", spec->env ? spec->env : "");
        snprintf(help, sizeof help, "%s%s", spec->help, extra);
        print_option(spec->letter, spec->name, metavar_of(spec), help, to);
    }
    if (table->config_file)
        print_option(0, "config", "FILE", "read options from FILE, one \"name = value\" a line", to);
    print_option(0, "help", "", "print this and exit", to);
    print_option(0, "version", "", "print the version and exit", to);
}

void options_print_sample(const struct option_table *table, FILE *to)
{
    fprintf(to, "# Configuration of %s: name = value, one a line.\n", table->program);
    fputs("# The command line comes first, then the environment, then this file.\n", to);
    for (size_t i = 0; i < table->count; i++) {
        const struct option_spec *spec = &table->specs[i];
        if (spec->command_line_only)
            continue;
        fprintf(to, "\n# %s%s%s\n", spec->help, spec->env ? "; environment " : "",
                spec->env ? spec->env : "");
        if (spec->fallback || spec->type == OPTION_FLAG)
            fprintf(to, "#%s = %s\n", spec->name, spec->fallback ? spec->fallback : "false");
        else
            fprintf(to, "#%s = %s\n", spec->name, metavar_of(spec));
    }
}
