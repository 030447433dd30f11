// SPDX-License-Identifier: Apache-2.0
//
// When the power fails, and what happens then: a child takes over the lists, the process is killed as it stands, and once
// it is gone the child makes of the folder what the disk could hold, reports and ends.
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/powerloss/layer.h"

struct layer_settings layer;

static uint64_t calls;
static uint64_t random_state;
static int report_fd = -1;

void layer_die(const char *format, ...)
{
    char text[512] = "powerloss: ";
    size_t size = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    int more = vsnprintf(text + size, sizeof text - size - 1, format, arguments);
    va_end(arguments);
    size += more > 0 && (size_t)more < sizeof text - size - 1 ? (size_t)more : sizeof text - size - 2;
    text[size++] = '\n';
    syscall(SYS_write, STDERR_FILENO, text, size);
    signal(SIGABRT, SIG_DFL);
    abort();
}

// SplitMix64.
uint64_t chance(uint64_t below)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

static uint64_t number_of(const char *name)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : 0;
}

void loss_begin(void)
{
    const char *root = getenv("POWERLOSS_ROOT");
    if (!root || root[0] != '/')
        return;
    char *grave = NULL;
    if (asprintf(&grave, "%s.grave", root) < 0)
        layer_die("no memory");
    names_begin(grave);
    layer.at = number_of("POWERLOSS_AT");
    layer.fail_sync = number_of("POWERLOSS_FAIL_SYNC");
    layer.at_exit = number_of("POWERLOSS_AT_EXIT") != 0;
    layer.lie = number_of("POWERLOSS_LIE") != 0;
    random_state = number_of("POWERLOSS_SEED");
    report_fd = getenv("POWERLOSS_REPORT_FD") ? (int)number_of("POWERLOSS_REPORT_FD") : -1;
    layer.root = strdup(root);
    layer.root_size = strlen(root);
}

bool loss_is_due(void)
{
    return ++calls == layer.at;
}

// The child must not keep what others wait to see closed or unlocked.
static void close_others(void)
{
    DIR *folder = opendir("/proc/self/fd");
    if (!folder)
        layer_die("listing open files: %s", strerror(errno));
    for (struct dirent *entry; (entry = readdir(folder));) {
        int fd = atoi(entry->d_name);
        bool ours = fd == report_fd || fd == STDERR_FILENO || fd == dirfd(folder);
        if (entry->d_name[0] != '.' && !ours && !inode_owns(fd))
            syscall(SYS_close, fd);
    }
    closedir(folder);
}

static void report(const char *call, const struct losses *losses)
{
    char text[512];
    int size = snprintf(text, sizeof text,
                        "{\"call\": \"%s\", \"number\": %llu, \"changes\": %llu, \"sectors_kept\": %llu, "
                        "\"sectors_lost\": %llu, \"torn\": %llu, \"sizes_lost\": %llu, \"names\": %llu, "
                        "\"names_lost\": %llu, \"renames_lost\": %llu}\n",
                        call, (unsigned long long)calls, (unsigned long long)losses->changes,
                        (unsigned long long)losses->sectors_kept, (unsigned long long)losses->sectors_lost,
                        (unsigned long long)losses->torn, (unsigned long long)losses->sizes_lost,
                        (unsigned long long)losses->names, (unsigned long long)losses->names_lost,
                        (unsigned long long)losses->renames_lost);
    if (report_fd >= 0 && syscall(SYS_write, report_fd, text, size) != size)
        layer_die("reporting: %s", strerror(errno));
}

void lose(const char *call)
{
    int parent = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (parent < 0)
        layer_die("opening the own process: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0)
        layer_die("forking: %s", strerror(errno));
    if (child > 0) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    struct pollfd gone = {.fd = parent, .events = POLLIN};
    while (poll(&gone, 1, -1) < 0 && errno == EINTR) {
    }
    close_others();
    struct losses losses = {0};
    inodes_lose(&losses);
    names_lose(&losses);
    report(call, &losses);
    _exit(0);
}
