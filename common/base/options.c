// SPDX-License-Identifier: Apache-2.0
//
// Each option has one given text, from the strongest source that names it; texts are gathered from the
// command line, then the environment, then the file, then the table, and turned into values once, at the end.
#include "common/base/options.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/files.h"

#define CONFIG_FILE_SIZE_MAX (64 * 1024)
#define SOURCE_SIZE 128

// Where a text came from, for messages.
enum given_source {
    GIVEN_NOWHERE,
    GIVEN_COMMAND_LINE,
    GIVEN_ENVIRONMENT,
    GIVEN_FILE,
    GIVEN_TABLE,
};

struct given {
    enum given_source source;
    const char *text; // borrowed from argv, the environment, the file's bytes or the table
    unsigned line;    // of the file
};

struct parse {
    const struct option_table *table;
    struct given *given; // one for each of the table's options
    const char *config_path;
    struct buffer config; // the file's bytes, cut into strings in place
};

static void parse_release(struct parse *parse)
{
    free(parse->given);
    buffer_release(&parse->config);
}

static bool number_parse(const char *text, uint64_t *ret_number, const char **ret_rest)
{
    uint64_t number = 0;
    const char *place = text;
    for (; *place >= '0' && *place <= '9'; place++) {
        uint64_t digit = (uint64_t)(*place - '0');
        if (number > (UINT64_MAX - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    if (place == text)
        return false;
    *ret_number = number;
    *ret_rest = place;
    return true;
}

static bool scale(uint64_t number, uint64_t by, uint64_t *ret_product)
{
    if (number > UINT64_MAX / by)
        return false;
    *ret_product = number * by;
    return true;
}

bool size_parse(const char *text, uint64_t *ret_size)
{
    static const char suffixes[] = "KMGT";
    uint64_t number;
    const char *rest;
    if (!number_parse(text, &number, &rest))
        return false;
    if (*rest == '\0') {
        *ret_size = number;
        return true;
    }
    const char *suffix = strchr(suffixes, *rest);
    return suffix && rest[1] == '\0' && scale(number, 1ull << (10 * (suffix - suffixes + 1)), ret_size);
}

bool duration_parse(const char *text, uint64_t *ret_ms)
{
    static const struct {
        const char *suffix;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}};
    uint64_t number;
    const char *rest;
    if (!number_parse(text, &number, &rest))
        return false;
    if (*rest == '\0' && number == 0) { // nothing is nothing in every unit
        *ret_ms = 0;
        return true;
    }
    for (size_t i = 0; i < ARRAY_COUNT(units); i++) {
        if (strcmp(rest, units[i].suffix) == 0)
            return scale(number, units[i].ms, ret_ms);
    }
    return false;
}

static const char *wanted_form(enum option_type type)
{
    switch (type) {
    case OPTION_FLAG:
        return "true or false";
    case OPTION_STRING:
        return "text";
    case OPTION_NUMBER:
        return "a number";
    case OPTION_SIZE:
        return "a size such as 4096, 64K, 16M or 2G";
    case OPTION_DURATION:
        return "a time such as 250ms, 5s, 2m or 1h";
    }
    return "?";
}

static bool unsigned_parse(enum option_type type, const char *text, uint64_t *ret_value)
{
    const char *rest;
    switch (type) {
    case OPTION_SIZE:
        return size_parse(text, ret_value);
    case OPTION_DURATION:
        return duration_parse(text, ret_value);
    default:
        return number_parse(text, ret_value, &rest) && *rest == '\0';
    }
}

static void describe_source(const struct parse *parse, size_t index, char to[SOURCE_SIZE])
{
    const struct option_spec *spec = &parse->table->specs[index];
    const struct given *given = &parse->given[index];
    if (given->source == GIVEN_ENVIRONMENT)
        snprintf(to, SOURCE_SIZE, "environment variable %s", spec->env);
    else if (given->source == GIVEN_FILE)
        snprintf(to, SOURCE_SIZE, "%.90s:%u: %s", parse->config_path, given->line, spec->name);
    else
        snprintf(to, SOURCE_SIZE, "--%s", spec->name);
}

static enum graft_status refuse_range(const struct option_spec *spec, const char *source, const char *text,
                                      struct graft_error *err)
{
    const char *unit = spec->type == OPTION_SIZE ? " bytes" : spec->type == OPTION_DURATION ? " ms" : "";
    if (spec->max == 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "%s: '%.60s' is too small: at least %" PRIu64 "%s", source, text, spec->min, unit);
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                     "%s: '%.60s' is out of range: from %" PRIu64 " to %" PRIu64 "%s", source, text,
                     spec->min, spec->max, unit);
}

static bool flag_parse(const char *text, bool *ret_value)
{
    *ret_value = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    return *ret_value || strcmp(text, "false") == 0 || strcmp(text, "0") == 0;
}

// Checks one option's text and stores what it means; strings go to *memory, which moves on.
static enum graft_status store_value(const struct parse *parse, size_t index, void *settings, char **memory,
                                     struct graft_error *err)
{
    const struct option_spec *spec = &parse->table->specs[index];
    const char *text = parse->given[index].text;
    void *field = (char *)settings + spec->offset;
    char source[SOURCE_SIZE];
    bool flag = false;
    uint64_t number = 0;

    describe_source(parse, index, source);
    if (text) {
        bool fits =
            spec->type == OPTION_STRING ||
            (spec->type == OPTION_FLAG ? flag_parse(text, &flag) : unsigned_parse(spec->type, text, &number));
        if (!fits)
            return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "%s: '%.60s' is not %s", source,
                             text, wanted_form(spec->type));
        bool bounded = spec->type != OPTION_STRING && spec->type != OPTION_FLAG;
        if (bounded && (number < spec->min || (spec->max != 0 && number > spec->max)))
            return refuse_range(spec, source, text, err);
    }
    if (spec->type == OPTION_FLAG) {
        *(bool *)field = flag;
    } else if (spec->type == OPTION_STRING) {
        *(const char **)field = text ? *memory : NULL;
        if (text)
            *memory = stpcpy(*memory, text) + 1;
    } else {
        *(uint64_t *)field = number;
    }
    return GRAFT_OK;
}

static enum graft_status store_values(const struct parse *parse, void *settings, struct options *ret_options,
                                      struct graft_error *err)
{
    size_t size = 1;
    for (size_t i = 0; i < parse->table->count; i++) {
        if (parse->table->specs[i].type == OPTION_STRING && parse->given[i].text)
            size += strlen(parse->given[i].text) + 1;
    }
    _cleanup_(free_p) char *memory = malloc(size);
    if (!memory)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the options");
    char *place = memory;
    for (size_t i = 0; i < parse->table->count; i++) {
        enum graft_status status = store_value(parse, i, settings, &place, err);
        CHECK(status == GRAFT_OK || parse->given[i].source != GIVEN_TABLE);
        if (status != GRAFT_OK)
            return status;
    }
    ret_options->memory = TAKE(memory);
    return GRAFT_OK;
}

static const struct option_spec *find_name(const struct option_table *table, const char *name, size_t size)
{
    for (size_t i = 0; i < table->count; i++) {
        if (strlen(table->specs[i].name) == size && memcmp(table->specs[i].name, name, size) == 0)
            return &table->specs[i];
    }
    return NULL;
}

static const struct option_spec *find_letter(const struct option_table *table, char letter)
{
    for (size_t i = 0; i < table->count; i++) {
        if (table->specs[i].letter == letter)
            return &table->specs[i];
    }
    return NULL;
}

static struct given *given_of(struct parse *parse, const struct option_spec *spec)
{
    return &parse->given[spec - parse->table->specs];
}

static enum graft_status refuse_word(struct graft_error *err, const char *word, const char *reason)
{
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "%.60s: %s; see --help", word, reason);
}

// Takes the word at argv[*at], and the next one where the option's value stands there.
static enum graft_status take_word(struct parse *parse, int argc, char **argv, int *at,
                                   struct graft_error *err)
{
    const char *word = argv[(*at)++];
    const struct option_spec *spec;
    const char *value = NULL, *flag = "true";
    bool is_config = false;
    if (word[1] == '-') {
        const char *name = word + 2;
        size_t size = strcspn(name, "=");
        value = name[size] == '=' ? name + size + 1 : NULL;
        spec = find_name(parse->table, name, size);
        is_config = !spec && parse->table->config_file && size == 6 && memcmp(name, "config", 6) == 0;
        if (!spec && strncmp(name, "no-", 3) == 0) {
            spec = find_name(parse->table, name + 3, size - 3);
            spec = spec && spec->type == OPTION_FLAG ? spec : NULL;
            flag = "false";
        }
    } else {
        spec = find_letter(parse->table, word[1]);
        value = word[2] != '\0' ? word + 2 : NULL;
    }
    if (!spec && !is_config)
        return refuse_word(err, word, "no such option");
    if (spec && spec->type == OPTION_FLAG) {
        if (value)
            return refuse_word(err, word, "this option takes no value");
        value = flag;
    }
    if (!value && *at == argc)
        return refuse_word(err, word, "this option needs a value");
    if (!value)
        value = argv[(*at)++];
    if (is_config)
        parse->config_path = value;
    else
        *given_of(parse, spec) = (struct given){GIVEN_COMMAND_LINE, value, 0};
    return GRAFT_OK;
}

// Moves the words argv[from..from + count) behind the `shift` arguments that follow them.
static void move_behind(char **argv, int from, int count, int shift)
{
    for (int i = 0; i < shift; i++) {
        char *option = argv[from + count + i];
        memmove(argv + from + i + 1, argv + from + i, (size_t)count * sizeof *argv);
        argv[from + i] = option;
    }
}

static enum graft_status take_command_line(struct parse *parse, int argc, char **argv, int *ret_rest,
                                           bool *ret_help, bool *ret_version, struct graft_error *err)
{
    int at = 1, words = 0; // argv[at - words..at) are words met so far
    while (at < argc) {
        const char *word = argv[at];
        if (word[0] != '-' || word[1] == '\0') {
            if (!parse->table->permute)
                break;
            at++;
            words++;
            continue;
        }
        bool end = strcmp(word, "--") == 0;
        *ret_help =
            strcmp(word, "--help") == 0 || (strcmp(word, "-h") == 0 && !find_letter(parse->table, 'h'));
        *ret_version = strcmp(word, "--version") == 0;
        if (*ret_help || *ret_version)
            break;
        int first = at;
        enum graft_status status = GRAFT_OK;
        if (end)
            at++;
        else
            status = take_word(parse, argc, argv, &at, err);
        if (status != GRAFT_OK)
            return status;
        move_behind(argv, first - words, words, at - first);
        if (end)
            break;
    }
    *ret_rest = at - words;
    return GRAFT_OK;
}

// An environment variable that is set to nothing counts as not set.
static void take_environment(struct parse *parse)
{
    for (size_t i = 0; i < parse->table->count; i++) {
        const char *name = parse->table->specs[i].env;
        const char *text = name ? getenv(name) : NULL;
        if (parse->given[i].source == GIVEN_NOWHERE && text && text[0] != '\0')
            parse->given[i] = (struct given){GIVEN_ENVIRONMENT, text, 0};
    }
}

static char *trim(char *text)
{
    text += strspn(text, " \t\r");
    size_t size = strlen(text);
    while (size > 0 && strchr(" \t\r", text[size - 1]))
        text[--size] = '\0';
    return text;
}

// One line of the file. `seen` holds the line that set each option, 0: none.
static enum graft_status take_line(struct parse *parse, char *line, unsigned number, unsigned *seen,
                                   struct graft_error *err)
{
    line = trim(line);
    if (line[0] == '\0' || line[0] == '#')
        return GRAFT_OK;
    char *equals = strchr(line, '=');
    if (!equals)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "%.90s:%u: '%.60s' is not of the form name = value", parse->config_path, number,
                         line);
    *equals = '\0';
    const char *name = trim(line), *value = trim(equals + 1);
    const struct option_spec *spec = find_name(parse->table, name, strlen(name));
    if (!spec || spec->command_line_only)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "%.90s:%u: no such option: '%.60s'; --help lists them", parse->config_path, number,
                         name);
    unsigned *first = &seen[spec - parse->table->specs];
    if (*first != 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "%.90s:%u: %s is set in line %u already", parse->config_path, number, name, *first);
    *first = number;
    struct given *given = given_of(parse, spec);
    if (given->source == GIVEN_NOWHERE)
        *given = (struct given){GIVEN_FILE, value, number};
    return GRAFT_OK;
}

static enum graft_status take_file(struct parse *parse, struct graft_error *err)
{
    enum graft_status status = files_read(parse->config_path, &parse->config, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "--config");
    if (parse->config.size > 0 && memchr(parse->config.data, '\0', parse->config.size))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "--config: %.90s is no text file",
                         parse->config_path);
    status = buffer_append(&parse->config, "", 1, err);
    _cleanup_(free_p) unsigned *seen = calloc(parse->table->count + 1, sizeof *seen);
    CHECK(seen);
    char *rest = (char *)parse->config.data;
    for (unsigned number = 1; status == GRAFT_OK && rest; number++) {
        char *line = strsep(&rest, "\n");
        status = take_line(parse, line, number, seen, err);
    }
    return status;
}

static void take_fallbacks(struct parse *parse)
{
    for (size_t i = 0; i < parse->table->count; i++) {
        if (parse->given[i].source == GIVEN_NOWHERE && parse->table->specs[i].fallback)
            parse->given[i] = (struct given){GIVEN_TABLE, parse->table->specs[i].fallback, 0};
    }
}

enum graft_status options_parse(const struct option_table *table, int argc, char **argv, void *settings,
                                struct options *ret_options, int *ret_rest, bool *ret_help, bool *ret_version,
                                struct graft_error *err)
{
    _cleanup_(parse_release) struct parse parse = {.table = table,
                                                   .config = BUFFER_INIT(CONFIG_FILE_SIZE_MAX)};
    parse.given = calloc(table->count + 1, sizeof parse.given[0]);
    if (!parse.given)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the options");

    int rest = argc;
    bool help = false, version = false;
    enum graft_status status = take_command_line(&parse, argc, argv, &rest, &help, &version, err);
    if (status == GRAFT_OK && !help && !version) {
        take_environment(&parse);
        if (parse.config_path)
            status = take_file(&parse, err);
        take_fallbacks(&parse);
        if (status == GRAFT_OK)
            status = store_values(&parse, settings, ret_options, err);
    }
    if (status != GRAFT_OK)
        return status;
    if (help || version)
        ret_options->memory = NULL;
    *ret_rest = rest;
    *ret_help = help;
    *ret_version = version;
    return GRAFT_OK;
}

void options_release(struct options *options)
{
    free(TAKE(options->memory));
}
