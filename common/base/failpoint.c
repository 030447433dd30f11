// SPDX-License-Identifier: Apache-2.0
#include "common/base/failpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"

#define DELAY_MAX_MS 600000u
#define EXIT_USAGE 2

extern struct failpoint *__start_graft_failpoints[] __attribute__((weak, visibility("hidden")));
extern struct failpoint *__stop_graft_failpoints[] __attribute__((weak, visibility("hidden")));

static const char *const action_names[] = {"reached", "exit", "error", "delay", "pause"};

bool failpoints_active;
static int report_fd = -1;
static const char *pause_path; // while it exists, who is paused waits; NULL: nothing may pause

static size_t failpoint_count(void)
{
    return (size_t)(__stop_graft_failpoints - __start_graft_failpoints);
}

// ---- settings

// "exit", "delay:50"
static bool parse_action(const char *text, struct failpoint *ret_armed)
{
    if (strncmp(text, "delay:", 6) == 0) {
        char *end;
        errno = 0;
        unsigned long ms = strtoul(text + 6, &end, 10);
        if (text[6] < '0' || text[6] > '9' || *end || errno || ms > DELAY_MAX_MS)
            return false;
        ret_armed->action = FAILPOINT_DELAY;
        ret_armed->delay_ms = (unsigned)ms;
        return true;
    }
    ret_armed->action = strcmp(text, "exit") == 0    ? FAILPOINT_EXIT
                        : strcmp(text, "error") == 0 ? FAILPOINT_FAIL
                        : strcmp(text, "pause") == 0 ? FAILPOINT_PAUSE
                                                     : FAILPOINT_NONE;
    return ret_armed->action != FAILPOINT_NONE;
}

static bool parse_count(const char *text, unsigned *ret_count)
{
    char *end;
    errno = 0;
    unsigned long count = strtoul(text, &end, 10);
    if (*text < '1' || *text > '9' || *end || errno || count > UINT32_MAX)
        return false;
    *ret_count = (unsigned)count;
    return true;
}

static enum graft_status malformed(const char *entry, const char *why, struct graft_error *err)
{
    return error_set(
        err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
        "GRAFT_FAILPOINTS: \"%.60s\" %s; it is NAME=ACTION[@N], where ACTION is exit, error, delay:MS or pause",
        entry, why);
}

// Cuts `entry`, which is of the caller's copy, into its parts. `armed` gets everything but the place.
static enum graft_status parse_entry(char *entry, struct failpoint *ret_armed, struct graft_error *err)
{
    char whole[64];
    snprintf(whole, sizeof whole, "%s", entry);
    char *action = strchr(entry, '=');
    if (!action || action == entry)
        return malformed(whole, "names no action", err);
    *action++ = '\0';
    if (entry[strspn(entry, "abcdefghijklmnopqrstuvwxyz0123456789_.")] != '\0')
        return malformed(whole, "is no failpoint's name", err);
    *ret_armed = (struct failpoint){.name = entry, .at = 1};
    char *count = strchr(action, '@');
    if (count) {
        *count++ = '\0';
        if (!parse_count(count, &ret_armed->at))
            return malformed(whole, "counts from 1", err);
    }
    if (!parse_action(action, ret_armed))
        return malformed(whole, "has an unknown action", err);
    if (ret_armed->action == FAILPOINT_PAUSE && !pause_path)
        return malformed(whole, "needs GRAFT_FAILPOINTS_PAUSE", err);
    return GRAFT_OK;
}

static enum graft_status arm_entry(char *entry, bool dry, struct graft_error *err)
{
    struct failpoint armed = {0};
    enum graft_status status = parse_entry(entry, &armed, err);
    for (size_t i = 0; status == GRAFT_OK && i < failpoint_count(); i++) {
        struct failpoint *failpoint = __start_graft_failpoints[i];
        if (strcmp(failpoint->name, armed.name) != 0)
            continue;
        if (armed.action == FAILPOINT_FAIL && !failpoint->can_fail)
            return malformed(armed.name, "is a place that cannot fail", err);
        if (dry)
            continue;
        failpoint->action = armed.action;
        failpoint->at = armed.at;
        failpoint->delay_ms = armed.delay_ms;
        failpoints_active = true;
    }
    return status;
}

enum graft_status failpoints_arm(const char *setting, struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;
    for (int dry = 1; dry >= 0 && status == GRAFT_OK; dry--) {
        _cleanup_(free_p) char *copy = strdup(setting);
        CHECK(copy);
        char *rest = copy;
        for (char *entry; status == GRAFT_OK && (entry = strsep(&rest, ";"));) {
            if (*entry)
                status = arm_entry(entry, dry, err);
        }
    }
    return status;
}

// ---- reaching one

static void report(const struct failpoint *failpoint, enum failpoint_action action, unsigned count)
{
    char line[256];
    if (report_fd < 0)
        return;
    int size = snprintf(line, sizeof line, "%s %d %s %s %u\n", program_invocation_short_name, (int)getpid(),
                        action_names[action], failpoint->name, count);
    CHECK(size > 0 && (size_t)size < sizeof line);
    // One write on a descriptor that appends: lines of several processes do not mix.
    CHECK(write(report_fd, line, (size_t)size) == size);
}

// Until the file is gone. The watch stands before each look, so that no removal is missed.
static void wait_while_file_exists(const char *path)
{
    int events = inotify_init1(IN_CLOEXEC);
    CHECK(events >= 0);
    while (inotify_add_watch(events, path, IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF) >= 0 &&
           access(path, F_OK) == 0) {
        char buffer[sizeof(struct inotify_event) + 256];
        if (read(events, buffer, sizeof buffer) < 0)
            CHECK(errno == EINTR);
    }
    close(events);
}

static void sleep_ms(unsigned ms)
{
    struct timespec left = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0)
        CHECK(errno == EINTR);
}

enum graft_status failpoint_reach(struct failpoint *failpoint, struct graft_error *err)
{
    unsigned count = atomic_fetch_add(&failpoint->reached, 1) + 1;
    if (count <= FAILPOINT_REPORTS_MAX)
        report(failpoint, FAILPOINT_NONE, count);
    if (failpoint->action == FAILPOINT_NONE || count != failpoint->at)
        return GRAFT_OK;
    report(failpoint, failpoint->action, count);
    switch (failpoint->action) {
    case FAILPOINT_EXIT:
        _exit(FAILPOINT_EXIT_CODE);
    case FAILPOINT_FAIL:
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_IO, "the failpoint %s fails", failpoint->name);
    case FAILPOINT_DELAY:
        sleep_ms(failpoint->delay_ms);
        return GRAFT_OK;
    case FAILPOINT_PAUSE:
        wait_while_file_exists(pause_path);
        return GRAFT_OK;
    case FAILPOINT_NONE:
        break;
    }
    return GRAFT_OK;
}

// ---- before main()

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(struct failpoint *const *)a)->name, (*(struct failpoint *const *)b)->name);
}

void failpoints_print(FILE *to)
{
    size_t count = failpoint_count();
    _cleanup_(free_p) struct failpoint **sorted = calloc(count + 1, sizeof *sorted);
    CHECK(sorted);
    memcpy(sorted, __start_graft_failpoints, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_names);
    for (size_t i = 0; i < count; i++)
        fprintf(to, "%-32s %-5s %s\n", sorted[i]->name, sorted[i]->can_fail ? "error" : "-",
                sorted[i]->place);
}

static _noreturn_ void refuse(const char *message)
{
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, message);
    exit(EXIT_USAGE);
}

// Here and not in each main(): a program that links with the library has no other place where it could be refused.
__attribute__((constructor(1000))) static void failpoints_begin(int argc, char **argv)
{
    struct graft_error err;
    const char *setting = getenv("GRAFT_FAILPOINTS");
    const char *report_path = getenv("GRAFT_FAILPOINTS_REPORT");
    pause_path = getenv("GRAFT_FAILPOINTS_PAUSE");
    if (setting && failpoints_arm(setting, &err) != GRAFT_OK)
        refuse(err.message);
    if (report_path && *report_path) {
        report_fd = open(report_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (report_fd < 0) {
            error_from_errno(&err, errno, "GRAFT_FAILPOINTS_REPORT: opening %s", report_path);
            refuse(err.message);
        }
        failpoints_active = true;
    }
    if (argc == 2 && strcmp(argv[1], "--failpoints") == 0) {
        failpoints_print(stdout);
        exit(EXIT_SUCCESS);
    }
}
