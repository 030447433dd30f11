// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/options.h"

struct settings {
    const char *listen;
    uint64_t limit;
    uint64_t cache_size;
    uint64_t linger_ms;
    bool insecure;
    bool color;
    const char *name;
    const char *ready_file;
};

static const struct option_spec specs[] = {
    {"listen", OPTION_STRING, offsetof(struct settings, listen), 'l', "ADDR:PORT", "GRAFT_TEST_LISTEN",
     "127.0.0.1:3001", "where to listen"},
    {"limit", OPTION_NUMBER, offsetof(struct settings, limit), 'n', .env = "GRAFT_TEST_LIMIT",
     .fallback = "7", .help = "how many", .min = 2, .max = 100},
    {"cache-size", OPTION_SIZE, offsetof(struct settings, cache_size), .fallback = "16M",
     .help = "of the cache", .min = 4096},
    {"linger", OPTION_DURATION, offsetof(struct settings, linger_ms), .env = "GRAFT_TEST_LINGER",
     .help = "how long to wait"},
    {"insecure", OPTION_FLAG, offsetof(struct settings, insecure), 'k', .env = "GRAFT_TEST_INSECURE",
     .help = "without TLS"},
    {"color", OPTION_FLAG, offsetof(struct settings, color), .fallback = "true", .help = "with colors"},
    {"name", OPTION_STRING, offsetof(struct settings, name), .metavar = "NAME", .help = "a name"},
    {"ready-file", OPTION_STRING, offsetof(struct settings, ready_file), .metavar = "PATH",
     .help = "written once ready", .command_line_only = true},
};

static struct option_table table = {
    .program = "graft-test",
    .synopsis = "[options]",
    .about = "Tests options.",
    .specs = specs,
    .count = ARRAY_COUNT(specs),
    .config_file = true,
};

#define WORDS_MAX 16

// What one parse gave. The words are borrowed from the caller.
struct parsed {
    enum graft_status status;
    struct settings settings;
    struct options options;
    int argc, rest;
    char *argv[WORDS_MAX + 2];
    bool help, version;
    struct graft_error err;
};

static void parsed_release(struct parsed *parsed)
{
    options_release(&parsed->options);
}

// Parses a line of words with single spaces between them.
static struct parsed parse(const char *line)
{
    static char words[512];
    struct parsed parsed = {.argc = 1, .argv = {(char *)"graft-test"}, .rest = -1};
    snprintf(words, sizeof words, "%s", line);
    char *rest = words;
    while (words[0] && rest && parsed.argc < WORDS_MAX)
        parsed.argv[parsed.argc++] = strsep(&rest, " ");
    parsed.status = options_parse(&table, parsed.argc, parsed.argv, &parsed.settings, &parsed.options,
                                  &parsed.rest, &parsed.help, &parsed.version, &parsed.err);
    return parsed;
}

#define PARSE(variable, line) _cleanup_(parsed_release) struct parsed variable = parse(line)

static void assert_refused(const char *line, const char *says)
{
    PARSE(parsed, line);
    cr_assert_eq(parsed.status, GRAFT_INVALID, "%s", line);
    cr_assert_eq(parsed.err.detail, GRAFT_DETAIL_BAD_ARGUMENT);
    cr_assert(strstr(parsed.err.message, says), "%s: %s", line, parsed.err.message);
    cr_assert_null(parsed.options.memory);
}

static const char *config_path(const char *text, size_t size)
{
    static char path[] = "/tmp/graft-options-test-XXXXXX";
    strcpy(path + sizeof path - 7, "XXXXXX");
    int fd = mkstemp(path);
    cr_assert_eq(write(fd, text, size), (ssize_t)size);
    close(fd);
    return path;
}

// Parses `--config FILE` before the other words, FILE holding the text.
static struct parsed parse_with_file(const char *text, const char *line)
{
    char whole[400];
    const char *path = config_path(text, strlen(text));
    snprintf(whole, sizeof whole, "--config %s%s%s", path, line[0] ? " " : "", line);
    struct parsed parsed = parse(whole);
    unlink(path);
    return parsed;
}

Test(options, defaults_stand_where_nothing_is_said)
{
    PARSE(parsed, "");
    cr_assert_eq(parsed.status, GRAFT_OK);
    cr_assert_str_eq(parsed.settings.listen, "127.0.0.1:3001");
    cr_assert_eq(parsed.settings.limit, 7);
    cr_assert_eq(parsed.settings.cache_size, 16 << 20);
    cr_assert_eq(parsed.settings.linger_ms, 0);
    cr_assert_not(parsed.settings.insecure);
    cr_assert(parsed.settings.color);
    cr_assert_null(parsed.settings.name);
    cr_assert_eq(parsed.rest, 1);
    cr_assert_not(parsed.help || parsed.version);
}

Test(options, every_form_of_the_command_line_is_taken)
{
    PARSE(parsed, "--listen=a:1 --limit 9 --cache-size=64K --linger 5s -k --no-color --name= --ready-file f");
    cr_assert_eq(parsed.status, GRAFT_OK, "%s", parsed.err.message);
    cr_assert_str_eq(parsed.settings.listen, "a:1");
    cr_assert_eq(parsed.settings.limit, 9);
    cr_assert_eq(parsed.settings.cache_size, 65536);
    cr_assert_eq(parsed.settings.linger_ms, 5000);
    cr_assert(parsed.settings.insecure);
    cr_assert_not(parsed.settings.color);
    cr_assert_str_eq(parsed.settings.name, "");
    cr_assert_str_eq(parsed.settings.ready_file, "f");
    cr_assert_eq(parsed.rest, parsed.argc);
}

Test(options, letters_take_values_beside_or_behind)
{
    PARSE(beside, "-l a:1 -n 9");
    cr_assert_str_eq(beside.settings.listen, "a:1");
    PARSE(behind, "-la:2 -n9");
    cr_assert_str_eq(behind.settings.listen, "a:2");
    cr_assert_eq(behind.settings.limit, 9);
}

Test(options, the_last_word_on_a_matter_counts)
{
    PARSE(parsed, "--limit 9 --limit 10 --insecure --no-insecure --listen --limit");
    cr_assert_eq(parsed.settings.limit, 10);
    cr_assert_not(parsed.settings.insecure);
    cr_assert_str_eq(parsed.settings.listen, "--limit"); // a value may look like an option
}

Test(options, parsing_stops_at_a_word_and_after_two_dashes)
{
    PARSE(word, "--limit 9 file --limit 10");
    cr_assert_eq(word.rest, 3);
    cr_assert_eq(word.settings.limit, 9);
    PARSE(dashes, "--limit 9 -- --limit 10");
    cr_assert_eq(dashes.rest, 4);
    cr_assert_eq(dashes.settings.limit, 9);
    PARSE(dash, "-"); // stdin, to many programs
    cr_assert_eq(dash.rest, 1);
}

Test(options, permuted_words_keep_their_order_behind_the_options)
{
    table.permute = true;
    PARSE(parsed, "one --limit 9 two -k three -- --limit four");
    cr_assert_eq(parsed.status, GRAFT_OK);
    cr_assert_eq(parsed.settings.limit, 9);
    cr_assert(parsed.settings.insecure);
    static const char *const expected[] = {"one", "two", "three", "--limit", "four"};
    cr_assert_eq(parsed.argc - parsed.rest, 5);
    for (int i = 0; i < 5; i++)
        cr_assert_str_eq(parsed.argv[parsed.rest + i], expected[i]);
    cr_assert_str_eq(parsed.argv[0], "graft-test");
    table.permute = false;
}

Test(options, help_and_version_end_the_parsing)
{
    PARSE(help, "--limit 9 --help --bogus");
    cr_assert(help.status == GRAFT_OK && help.help && !help.version);
    PARSE(letter, "-h");
    cr_assert(letter.status == GRAFT_OK && letter.help);
    PARSE(version, "--version --bogus");
    cr_assert(version.status == GRAFT_OK && version.version && !version.help);
}

Test(options, bad_words_are_refused_by_name)
{
    assert_refused("--bogus", "--bogus");
    assert_refused("--bogus=1", "no such option");
    assert_refused("-z", "-z");
    assert_refused("--limi 5", "no such option"); // no abbreviations
    assert_refused("--no-listen", "no such option");
    assert_refused("--no-", "no such option");
    assert_refused("--limit", "needs a value");
    assert_refused("-n", "needs a value");
    assert_refused("--config", "needs a value");
    assert_refused("--insecure=true", "takes no value");
    assert_refused("--no-insecure=1", "takes no value");
    assert_refused("-kn", "takes no value");
}

Test(options, bad_values_are_refused_with_their_source)
{
    assert_refused("--limit 5x", "--limit: '5x' is not a number");
    assert_refused("--limit=", "is not a number");
    assert_refused("--limit -5", "is not a number");
    assert_refused("--limit 99999999999999999999", "is not a number");
    assert_refused("--limit 1", "from 2 to 100");
    assert_refused("--limit 101", "from 2 to 100");
    assert_refused("--cache-size 4095", "at least 4096 bytes");
    assert_refused("--cache-size 5Q", "a size such as");
    assert_refused("--linger 5", "a time such as");
    PARSE(edges, "--limit 2 --cache-size 4096");
    cr_assert_eq(edges.status, GRAFT_OK);
    PARSE(edge, "--limit 100 --cache-size 100G");
    cr_assert_eq(edge.status, GRAFT_OK);
}

Test(options, the_environment_is_weaker_than_the_command_line)
{
    setenv("GRAFT_TEST_LIMIT", "50", 1);
    setenv("GRAFT_TEST_LISTEN", "env:1", 1);
    setenv("GRAFT_TEST_INSECURE", "true", 1);
    PARSE(parsed, "--limit 60");
    cr_assert_eq(parsed.settings.limit, 60);
    cr_assert_str_eq(parsed.settings.listen, "env:1");
    cr_assert(parsed.settings.insecure);
    setenv("GRAFT_TEST_LISTEN", "changed", 1);
    cr_assert_str_eq(parsed.settings.listen, "env:1"); // the options keep their own

    setenv("GRAFT_TEST_LISTEN", "", 1);
    PARSE(empty, "");
    cr_assert_str_eq(empty.settings.listen, "127.0.0.1:3001");
    setenv("GRAFT_TEST_LIMIT", "x", 1);
    assert_refused("", "environment variable GRAFT_TEST_LIMIT");
    setenv("GRAFT_TEST_LIMIT", "5", 1);
    setenv("GRAFT_TEST_INSECURE", "yes", 1);
    assert_refused("", "environment variable GRAFT_TEST_INSECURE: 'yes' is not true or false");
    PARSE(overruled, "--no-insecure");
    cr_assert(overruled.status == GRAFT_OK && !overruled.settings.insecure);
}

Test(options, a_file_is_weaker_than_the_environment)
{
    setenv("GRAFT_TEST_LIMIT", "50", 1);
    _cleanup_(parsed_release) struct parsed parsed = parse_with_file("# a comment\n"
                                                                     "\n"
                                                                     "  limit =  40 \r\n"
                                                                     "listen = file:1\n"
                                                                     "insecure=true\n"
                                                                     "color = false\n"
                                                                     "name = two words # and = all of it",
                                                                     "--listen word:1");
    cr_assert_eq(parsed.status, GRAFT_OK, "%s", parsed.err.message);
    cr_assert_eq(parsed.settings.limit, 50);
    cr_assert_str_eq(parsed.settings.listen, "word:1");
    cr_assert(parsed.settings.insecure);
    cr_assert_not(parsed.settings.color);
    cr_assert_str_eq(parsed.settings.name, "two words # and = all of it");
    cr_assert_eq(parsed.settings.cache_size, 16 << 20);
}

Test(options, bad_files_are_refused_by_line)
{
    static const char *const cases[][2] = {
        {"limit = 5\nbogus = 1\n", ":2: no such option: 'bogus'"},
        {"\n\nlimit\n", ":3: 'limit' is not of the form name = value"},
        {"= 5\n", ":1: no such option: ''"},
        {"limit = 5\nlimit = 6\n", ":2: limit is set in line 1 already"},
        {"limit = 500\n", ":1: limit: '500' is out of range"},
        {"limit =\n", ":1: limit: '' is not a number"},
        {"insecure = maybe\n", ":1: insecure: 'maybe' is not true or false"},
        {"ready-file = x\n", ":1: no such option: 'ready-file'"},
        {"help = true\n", ":1: no such option"},
        {"config = x\n", ":1: no such option"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct parsed parsed = parse_with_file(cases[i][0], "");
        cr_assert_eq(parsed.status, GRAFT_INVALID, "%s", cases[i][0]);
        cr_assert(strstr(parsed.err.message, cases[i][1]), "%s", parsed.err.message);
    }
}

Test(options, files_that_are_no_configuration_are_refused)
{
    PARSE(missing, "--config /nonexistent/file");
    cr_assert_eq(missing.status, GRAFT_NOT_FOUND);
    cr_assert(strstr(missing.err.message, "--config: ") && strstr(missing.err.message, "/nonexistent/file"));

    char line[100];
    snprintf(line, sizeof line, "--config %s", config_path("limit = 5\n\0", 11));
    assert_refused(line, "no text file");
    unlink(line + 9);

    static char large[70000];
    memset(large, '#', sizeof large);
    snprintf(line, sizeof line, "--config %s", config_path(large, sizeof large));
    PARSE(too_large, line);
    cr_assert_eq(too_large.status, GRAFT_LIMIT);
    unlink(line + 9);

    table.config_file = false;
    assert_refused("--config x", "no such option");
    table.config_file = true;
}

Test(options, sizes_are_parsed_to_64_bits_and_not_beyond)
{
    uint64_t size = 1;
    cr_assert(size_parse("0", &size) && size == 0);
    cr_assert(size_parse("64K", &size) && size == 65536);
    cr_assert(size_parse("2G", &size) && size == 2ull << 30);
    cr_assert(size_parse("18446744073709551615", &size) && size == UINT64_MAX);
    cr_assert(size_parse("17179869183G", &size) && size == UINT64_MAX - (1 << 30) + 1);
    static const char *const bad[] = {"",
                                      "K",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1k",
                                      "1KK",
                                      "1.5M",
                                      "0x10",
                                      "18446744073709551616",
                                      "17179869184G",
                                      "16777216T"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        size = 42;
        cr_assert(!size_parse(bad[i], &size) && size == 42, "%s", bad[i]);
    }
}

Test(options, durations_have_units)
{
    uint64_t ms = 1;
    cr_assert(duration_parse("250ms", &ms) && ms == 250);
    cr_assert(duration_parse("5s", &ms) && ms == 5000);
    cr_assert(duration_parse("2m", &ms) && ms == 120000);
    cr_assert(duration_parse("1h", &ms) && ms == 3600000);
    cr_assert(duration_parse("0", &ms) && ms == 0);
    static const char *const bad[] = {"", "s", "5", "5S", "5 s", "-5s", "5sec", "1.5s", "5124095576030432h"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        ms = 42;
        cr_assert(!duration_parse(bad[i], &ms) && ms == 42, "%s", bad[i]);
    }
}

static const char *text_of(void (*print)(const struct option_table *, FILE *))
{
    static char text[8192];
    FILE *to = fmemopen(text, sizeof text, "w");
    print(&table, to);
    fclose(to);
    return text;
}

Test(options, help_names_every_option)
{
    const char *help = text_of(options_print_help);
    cr_assert(strstr(help, "Usage: graft-test [options]\n\nTests options.\n"));
    for (size_t i = 0; i < ARRAY_COUNT(specs); i++)
        cr_assert(strstr(help, specs[i].name) && strstr(help, specs[i].help), "%s", specs[i].name);
    cr_assert(strstr(help, "-l, --listen ADDR:PORT"));
    cr_assert(strstr(help, "(default 7, environment") && strstr(help, "GRAFT_TEST_LIMIT)"));
    cr_assert(strstr(help, "--config FILE") && strstr(help, "--help") && strstr(help, "--version"));
}

Test(options, the_sample_is_a_file_that_changes_nothing)
{
    const char *sample = text_of(options_print_sample);
    cr_assert(
        strstr(sample, "\n# where to listen; environment GRAFT_TEST_LISTEN\n#listen = 127.0.0.1:3001\n"));
    cr_assert(strstr(sample, "\n#insecure = false\n") && strstr(sample, "\n#name = NAME\n"));
    cr_assert_null(strstr(sample, "ready-file"));
    _cleanup_(parsed_release) struct parsed parsed = parse_with_file(sample, "");
    cr_assert_eq(parsed.status, GRAFT_OK, "%s", parsed.err.message);
    cr_assert_eq(parsed.settings.limit, 7);
}

Test(options, the_sample_uncommented_is_a_configuration)
{
    char live[8192];
    size_t size = 0;
    const char *from = text_of(options_print_sample);
    for (; *from; from++) {
        bool comments_out = *from == '#' && from[1] != ' ';
        if (!comments_out)
            live[size++] = *from;
    }
    live[size] = '\0';
    // linger has no default and so only its metavar, which is no time.
    char *linger = strstr(live, "linger = TIME");
    cr_assert_not_null(linger);
    memcpy(linger, "linger =   5s", 13);
    _cleanup_(parsed_release) struct parsed parsed = parse_with_file(live, "");
    cr_assert_eq(parsed.status, GRAFT_OK, "%s", parsed.err.message);
    cr_assert_eq(parsed.settings.linger_ms, 5000);
    cr_assert_str_eq(parsed.settings.name, "NAME");
}

Test(options, a_default_that_is_wrong_aborts, .signal = SIGABRT)
{
    static const struct option_spec wrong[] = {{"limit", OPTION_NUMBER, 0, .fallback = "seven", .help = "x"}};
    table.specs = wrong;
    table.count = 1;
    parse("");
}
