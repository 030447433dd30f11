// SPDX-License-Identifier: Apache-2.0
#include "tests/sweep/ledger.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"

#define STEPS_MAX 4096u

static struct step steps[STEPS_MAX];
static unsigned next_step;
static bool resumed, resuming_told;
static int fd = -1;

static void append(const char *line, int size)
{
    // The test kills processes, not machines: what was written is kept.
    CHECK(size > 0 && write(fd, line, (size_t)size) == size);
}

void ledger_open(const char *path)
{
    FILE *file = fopen(path, "re");
    char line[128], kind[16], text[32];
    unsigned number;
    while (file && fgets(line, sizeof line, file)) {
        int fields = sscanf(line, "%u %15s %31s", &number, kind, text);
        if (fields < 2)
            continue;
        CHECK(number < STEPS_MAX);
        struct step *step = &steps[number];
        resumed = true;
        step->begun = true;
        step->done |= strcmp(kind, "done") == 0;
        if (strcmp(kind, "begin") == 0)
            step->fact = strtoull(text, NULL, 10);
        else if (fields == 3)
            memcpy(step->text, text, sizeof step->text);
    }
    if (file)
        fclose(file);
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
}

const struct step *ledger_peek(void)
{
    return &steps[next_step];
}

bool ledger_resuming(void)
{
    if (!resumed || resuming_told || steps[next_step].done)
        return false;
    resuming_told = true;
    return true;
}

struct step *ledger_begin(uint64_t fact)
{
    CHECK(next_step < STEPS_MAX);
    struct step *step = &steps[next_step];
    step->number = next_step++;
    step->doubtful = step->begun && !step->done;
    if (step->begun)
        return step;
    step->begun = true;
    step->fact = fact;
    char line[64];
    append(line, snprintf(line, sizeof line, "%u begin %" PRIu64 "\n", step->number, fact));
    return step;
}

void ledger_done(struct step *step, const char *text)
{
    char line[96];
    append(line, snprintf(line, sizeof line, "%u done %s\n", step->number, text));
    step->done = true;
    snprintf(step->text, sizeof step->text, "%s", text);
}

void ledger_fail(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "step %u: ", next_step ? next_step - 1 : 0);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(code);
}
