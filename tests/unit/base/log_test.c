// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <fcntl.h>
#include <regex.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"

// What the log wrote while stderr was a pipe.
static char caught[4096];
static int stderr_before, pipe_out;

static void catch_begin(void)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    stderr_before = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    pipe_out = ends[0];
}

static const char *catch_end(void)
{
    dup2(stderr_before, STDERR_FILENO);
    close(stderr_before);
    ssize_t size = read(pipe_out, caught, sizeof caught - 1);
    close(pipe_out);
    caught[size > 0 ? size : 0] = '\0';
    return caught;
}

static bool matches(const char *text, const char *pattern)
{
    regex_t regex;
    cr_assert_eq(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool result = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return result;
}

Test(log, a_line_has_time_level_event_and_fields)
{
    catch_begin();
    log_info("listening", "addr=%s", "127.0.0.1:1");
    log_warn("bare", "%s", "");
    const char *text = catch_end();
    cr_assert(matches(text,
                      "^ts=[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z level=info "
                      "event=listening addr=127\\.0\\.0\\.1:1\nts=[^ ]+ level=warn event=bare"),
              "%s", text);
}

Test(log, levels_keep_lines_out)
{
    log_set_level(LOG_WARN);
    cr_assert(log_enabled(LOG_ERROR) && log_enabled(LOG_WARN) && !log_enabled(LOG_INFO));
    catch_begin();
    log_info("no", "a=%d", 1);
    log_debug("no", "a=%d", 1);
    log_error("yes", "a=%d", 1);
    const char *text = catch_end();
    cr_assert_null(strstr(text, "event=no"));
    cr_assert_not_null(strstr(text, "level=error event=yes a=1\n"));
}

Test(log, level_names_are_parsed)
{
    enum log_level level = LOG_INFO;
    cr_assert(log_level_parse("error", &level) && level == LOG_ERROR);
    cr_assert(log_level_parse("debug", &level) && level == LOG_DEBUG);
    cr_assert_not(log_level_parse("verbose", &level));
    cr_assert_not(log_level_parse("", &level));
    cr_assert_eq(level, LOG_DEBUG);
}

Test(log, an_event_is_one_line_of_at_most_1024_bytes)
{
    char value[3000];
    memset(value, 'v', sizeof value);
    value[sizeof value - 1] = '\0';
    catch_begin();
    log_info("long", "value=%s", value);
    log_info("evil", "value=%s", "a\nts=forged\033[2J");
    const char *text = catch_end();
    const char *end = strchr(text, '\n');
    cr_assert_eq(end - text, 1023);
    cr_assert_not_null(strstr(end + 1, "value=a?ts=forged?[2J\n"));
}

Test(log, values_are_quoted_where_they_must_be)
{
    static const char *const cases[][2] = {
        {"plain-value:1", "plain-value:1"},
        {"", "\"\""},
        {"two words", "\"two words\""},
        {"a=b", "\"a=b\""},
        {"say \"hi\"", "\"say \\\"hi\\\"\""},
        {"back\\slash", "\"back\\\\slash\""},
        {"line\nbreak\ttab\x7f", "\"line\\nbreak\\x09tab\\x7f\""},
        {"grün", "grün"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        cr_assert_str_eq(log_quote(cases[i][0]).text, cases[i][1]);
}

Test(log, long_values_are_cut_within_their_quotes)
{
    char value[1000];
    memset(value, '"', sizeof value);
    value[sizeof value - 1] = '\0';
    struct log_text text = log_quote(value);
    size_t size = strlen(text.text);
    cr_assert_lt(size, sizeof text.text);
    cr_assert_gt(size, sizeof text.text - 5);
    cr_assert_eq(text.text[size - 1], '"');
    cr_assert_eq(size % 2, 0); // quotes around pairs: no escape is cut in half
}

Test(log, errors_are_formatted_whole)
{
    struct graft_error err;
    error_set(&err, GRAFT_BUSY, GRAFT_DETAIL_LOCKED, "%s is locked", "/data");
    cr_assert_str_eq(log_format_error(&err).text, "status=BUSY detail=LOCKED message=\"/data is locked\"");
    char quotes[GRAFT_ERROR_MESSAGE_SIZE];
    memset(quotes, '"', sizeof quotes);
    quotes[sizeof quotes - 1] = '\0';
    error_set(&err, GRAFT_BUSY, GRAFT_DETAIL_LOCKED, "%s", quotes);
    struct log_text text = log_format_error(&err);
    cr_assert_lt(strlen(text.text), sizeof text.text);
    cr_assert_eq(text.text[strlen(text.text) - 1], '"');
}
