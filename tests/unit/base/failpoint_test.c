// SPDX-License-Identifier: Apache-2.0
//
// Failpoints as a build with -Dfailpoints=true has them; this program has its own, whatever the build.
#include "common/base/failpoint.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/worker.h"
#include "tests/unit/store/temp_folder.h"

static void pass_plain(void)
{
    FAILPOINT("test.plain");
}

static enum graft_status pass_failing(struct graft_error *err)
{
    return FAILPOINT_ERROR("test.failing", err);
}

static void arm(const char *setting)
{
    struct graft_error err = {0};
    cr_assert_eq(failpoints_arm(setting, &err), GRAFT_OK, "%s", err.message);
}

Test(failpoint, does_nothing_unless_armed)
{
    pass_plain();
    cr_assert_eq(pass_failing(NULL), GRAFT_OK);
}

Test(failpoint, fails_the_nth_time_and_once)
{
    struct graft_error err = {0};
    arm("test.failing=error@3");
    cr_assert_eq(pass_failing(&err), GRAFT_OK);
    cr_assert_eq(pass_failing(&err), GRAFT_OK);
    cr_assert_eq(pass_failing(&err), GRAFT_INTERNAL);
    cr_assert_eq(err.detail, GRAFT_DETAIL_IO);
    cr_assert(strstr(err.message, "test.failing"), "%s", err.message);
    cr_assert_eq(pass_failing(&err), GRAFT_OK);
}

Test(failpoint, exit_ends_the_process_at_once)
{
    pid_t child = fork();
    if (child == 0) {
        arm("test.plain=exit");
        pass_plain();
        _exit(0);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), FAILPOINT_EXIT_CODE);
}

Test(failpoint, delays)
{
    arm("test.plain=delay:20");
    uint64_t before = clock_monotonic_ms(clock_system());
    pass_plain();
    cr_assert_geq(clock_monotonic_ms(clock_system()) - before, 19);
}

static void count_failures(struct worker *worker, void *failures)
{
    (void)worker;
    for (int i = 0; i < 1000; i++)
        if (pass_failing(NULL) != GRAFT_OK)
            atomic_fetch_add((atomic_int *)failures, 1);
}

Test(failpoint, fires_for_one_of_many_threads)
{
    struct worker workers[4] = {0};
    atomic_int failures = 0;
    struct graft_error err;
    arm("test.failing=error@2000");
    for (size_t i = 0; i < ARRAY_COUNT(workers); i++)
        cr_assert_eq(worker_start(&workers[i], "failing", count_failures, &failures, &err), GRAFT_OK);
    for (size_t i = 0; i < ARRAY_COUNT(workers); i++)
        worker_join(&workers[i]);
    cr_assert_eq(failures, 1);
}

// ---- what a program makes of its environment

// Runs this program with that environment and `--failpoints`; its exit code, and what it wrote to either stream.
static int run_listing(const char *setting, char *output, size_t size)
{
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        if (setting)
            setenv("GRAFT_FAILPOINTS", setting, 1);
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        execl("/proc/self/exe", "failpoint", "--failpoints", (char *)NULL);
        _exit(99);
    }
    close(ends[1]);
    size_t have = 0;
    for (ssize_t got; have < size - 1 && (got = read(ends[0], output + have, size - 1 - have)) > 0;)
        have += (size_t)got;
    output[have] = '\0';
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

Test(failpoint, are_listed_by_name_without_being_reached)
{
    char output[4096];
    cr_assert_eq(run_listing(NULL, output, sizeof output), 0, "%s", output);
    char *failing = strstr(output, "test.failing"), *plain = strstr(output, "test.plain");
    cr_assert(failing && plain && failing < plain, "%s", output);
    cr_assert(strstr(failing, " error ") < plain, "%s", output);
    cr_assert(strstr(output, "failpoint_test.c:"), "%s", output);
}

Test(failpoint, malformed_settings_are_refused_at_start)
{
    static const char *const bad[] = {"test.plain",
                                      "=exit",
                                      "test.plain=",
                                      "test.plain=die",
                                      "test.plain=exit@0",
                                      "test.plain=exit@",
                                      "test.plain=exit@1x",
                                      "test.plain=delay",
                                      "test.plain=delay:x",
                                      "test.plain=delay:-1",
                                      "Test=exit",
                                      "test.plain=exit;what",
                                      "test.plain=error",
                                      "test.plain=pause",
                                      "test.plain=exit@99999999999"};
    char output[4096];
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        cr_assert_eq(run_listing(bad[i], output, sizeof output), 2, "%s: %s", bad[i], output);
        cr_assert(strstr(output, "GRAFT_FAILPOINTS: "), "%s: %s", bad[i], output);
    }
    cr_assert_eq(run_listing("of.another=error@7;;test.plain=exit;", output, sizeof output), 0, "%s", output);
}

Test(failpoint, pauses_until_the_file_goes_and_reports)
{
    struct temp_folder folder;
    char file[96], report[96], line[256] = "";
    temp_folder_init(&folder);
    snprintf(file, sizeof file, "%s/pause", folder.path);
    snprintf(report, sizeof report, "%s/report", folder.path);
    cr_assert_eq(close(open(file, O_CREAT | O_CLOEXEC, 0600)), 0);
    // A fresh process, for the environment is read before main(): it is see below.
    pid_t child = fork();
    if (child == 0) {
        setenv("GRAFT_FAILPOINTS", "test.plain=pause@2", 1);
        setenv("GRAFT_FAILPOINTS_PAUSE", file, 1);
        setenv("GRAFT_FAILPOINTS_REPORT", report, 1);
        setenv("PASS_TWICE", "1", 1);
        execl("/proc/self/exe", "failpoint", (char *)NULL);
        _exit(99);
    }
    int fd = -1, status;
    ssize_t got = 0;
    for (int tries = 0; tries < 1000 && (got <= 0 || !strstr(line, "pause")); tries++) {
        cr_assert_eq(waitpid(child, &status, WNOHANG), 0);
        poll(NULL, 0, 10);
        if (fd < 0)
            fd = open(report, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && (got = pread(fd, line, sizeof line - 1, 0)) >= 0)
            line[got] = '\0';
    }
    cr_assert(strstr(line, " reached test.plain 1\n"), "%s", line);
    cr_assert(strstr(line, " pause test.plain 2\n"), "%s", line);
    cr_assert_eq(waitpid(child, &status, WNOHANG), 0, "it did not wait");
    cr_assert_eq(unlink(file), 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %d", status);
    close(fd);
    temp_folder_release(&folder);
}

// After the failpoints' own constructor, which has a priority.
__attribute__((constructor)) static void pass_twice_if_asked(void)
{
    if (!getenv("PASS_TWICE"))
        return;
    pass_plain();
    pass_plain();
    _exit(7);
}
