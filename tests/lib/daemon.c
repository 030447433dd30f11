// SPDX-License-Identifier: Apache-2.0
#include "tests/lib/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READY_TIME_MAX_MS 30000
#define EXIT_TIME_MAX_MS 20000
#define ARGUMENTS_MAX 64

struct endpoint {
    char option[32], ready[32];
    char url[96]; // "" until it is known; the address stands behind "http://"
};

struct daemon {
    char *folder, *name, *program, *ready_path, *log_path;
    char *args[ARGUMENTS_MAX];
    unsigned arg_count;
    struct endpoint endpoints[DAEMON_ENDPOINTS_MAX];
    pid_t pid; // 0: not running
    int pid_fd;
    int inotify_fd; // of the folder, opened before the start so that no ready file is missed
};

static void print_log(const struct daemon *daemon)
{
    char *text = daemon_log(daemon);
    fprintf(stderr, "---- log of %s\n%s----\n", daemon->name, text);
    free(text);
}

// A test that cannot go on: the reason and the log, then the end.
_noreturn_ _printf_(2, 3) static void give_up(const struct daemon *daemon, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    if (daemon)
        print_log(daemon);
    abort();
}

_printf_(1, 2) static char *text_new(const char *format, ...)
{
    va_list arguments;
    char *text = NULL;
    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0)
        give_up(NULL, "no memory");
    va_end(arguments);
    return text;
}

// ---- folders

static void write_cluster_key(const char *folder)
{
    uint8_t key[32];
    char text[sizeof key * 2 + 2];
    if (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key)
        give_up(NULL, "the kernel gives no random bytes");
    for (size_t i = 0; i < sizeof key; i++)
        sprintf(text + 2 * i, "%02x", key[i]);
    strcpy(text + 2 * sizeof key, "\n");
    char *path = text_new("%s/cluster.key", folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        give_up(NULL, "writing %s: %s", path, strerror(errno));
    close(fd);
    free(path);
}

char *test_folder_new(void)
{
    const char *parent = getenv("TMPDIR");
    char *folder = text_new("%s/graft-test-XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(folder))
        give_up(NULL, "making %s: %s", folder, strerror(errno));
    write_cluster_key(folder);
    return folder;
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    (void)stat, (void)type, (void)ftw;
    remove(path);
    return 0;
}

void test_folder_free(char *folder)
{
    if (!folder)
        return;
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(folder);
}

// ---- starting

static void add_argument(struct daemon *daemon, const char *argument)
{
    if (daemon->arg_count + 1 >= ARGUMENTS_MAX)
        give_up(NULL, "too many arguments for %s", daemon->name);
    daemon->args[daemon->arg_count++] = text_new("%s", argument);
}

static struct daemon *daemon_new(const struct daemon_spec *spec)
{
    struct daemon *daemon = calloc(1, sizeof *daemon);
    if (!daemon)
        give_up(NULL, "no memory");
    daemon->folder = text_new("%s", spec->folder);
    daemon->name = text_new("%s", spec->name);
    daemon->program = text_new("%s", spec->program);
    daemon->ready_path = text_new("%s/%s.ready", spec->folder, spec->name);
    daemon->log_path = text_new("%s/%s.log", spec->folder, spec->name);
    daemon->pid_fd = daemon->inotify_fd = -1;
    char *key_path = text_new("%s/cluster.key", spec->folder);
    const char *always[] = {spec->program,  "--cluster-key",    key_path,
                            "--ready-file", daemon->ready_path, NULL};
    for (const char *const *argument = always; *argument; argument++)
        add_argument(daemon, *argument);
    for (const char *const *argument = spec->args; argument && *argument; argument++)
        add_argument(daemon, *argument);
    free(key_path);
    for (unsigned i = 0; i < DAEMON_ENDPOINTS_MAX && spec->endpoints[i].option; i++) {
        struct endpoint *endpoint = &daemon->endpoints[i];
        snprintf(endpoint->option, sizeof endpoint->option, "--%s", spec->endpoints[i].option);
        snprintf(endpoint->ready, sizeof endpoint->ready, "%s", spec->endpoints[i].ready);
    }
    return daemon;
}

// In the child: only what is safe between fork and exec.
_noreturn_ static void run_program(const struct daemon *daemon, char *const *argv, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    int log = open(daemon->log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    int null = open("/dev/null", O_RDWR);
    dup2(null, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(daemon->program, argv);
    dprintf(STDERR_FILENO, "cannot run %s: %s\n", daemon->program, strerror(errno));
    _exit(127);
}

static void launch(struct daemon *daemon)
{
    unlink(daemon->ready_path);
    daemon->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (daemon->inotify_fd < 0 ||
        inotify_add_watch(daemon->inotify_fd, daemon->folder, IN_MOVED_TO | IN_CLOSE_WRITE) < 0)
        give_up(daemon, "watching %s: %s", daemon->folder, strerror(errno));

    char *argv[ARGUMENTS_MAX + 2 * DAEMON_ENDPOINTS_MAX + 1];
    unsigned count = 0;
    for (; count < daemon->arg_count; count++)
        argv[count] = daemon->args[count];
    for (unsigned i = 0; i < DAEMON_ENDPOINTS_MAX && daemon->endpoints[i].option[0]; i++) {
        const char *known = daemon->endpoints[i].url;
        argv[count++] = daemon->endpoints[i].option;
        argv[count++] = (char *)(*known ? known + strlen("http://") : "127.0.0.1:0");
    }
    argv[count] = NULL;

    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        run_program(daemon, argv, parent);
    if (pid < 0)
        give_up(daemon, "starting %s: %s", daemon->name, strerror(errno));
    daemon->pid = pid;
    daemon->pid_fd = pidfd_open(pid, 0);
    if (daemon->pid_fd < 0)
        give_up(daemon, "watching process %d: %s", (int)pid, strerror(errno));
}

struct daemon *daemon_launch(const struct daemon_spec *spec)
{
    struct daemon *daemon = daemon_new(spec);
    launch(daemon);
    return daemon;
}

static void read_endpoints(struct daemon *daemon, FILE *file)
{
    char line[256];
    while (fgets(line, sizeof line, file)) {
        char *value = strchr(line, '=');
        if (!value)
            give_up(daemon, "the ready file of %s holds the line '%s'", daemon->name, line);
        *value++ = '\0';
        value[strcspn(value, "\n")] = '\0';
        for (unsigned i = 0; i < DAEMON_ENDPOINTS_MAX; i++)
            if (strcmp(daemon->endpoints[i].ready, line) == 0)
                snprintf(daemon->endpoints[i].url, sizeof daemon->endpoints[i].url, "http://%.80s", value);
    }
    for (unsigned i = 0; i < DAEMON_ENDPOINTS_MAX && daemon->endpoints[i].option[0]; i++)
        if (!daemon->endpoints[i].url[0])
            give_up(daemon, "the ready file of %s does not name '%s'", daemon->name,
                    daemon->endpoints[i].ready);
}

static int64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool daemon_await_ready(struct daemon *daemon)
{
    int64_t deadline = monotonic_ms() + READY_TIME_MAX_MS;
    for (;;) {
        FILE *file = fopen(daemon->ready_path, "re");
        if (file) {
            read_endpoints(daemon, file);
            fclose(file);
            return true;
        }
        struct pollfd events[] = {{.fd = daemon->inotify_fd, .events = POLLIN},
                                  {.fd = daemon->pid_fd, .events = POLLIN}};
        int64_t left = deadline - monotonic_ms();
        if (left <= 0 || (poll(events, 2, (int)left) < 0 && errno != EINTR))
            give_up(daemon, "%s was not ready after %d ms", daemon->name, READY_TIME_MAX_MS);
        if (events[1].revents)
            return false;
        char drained[4096];
        while (read(daemon->inotify_fd, drained, sizeof drained) > 0)
            ;
    }
}

static void start(struct daemon *daemon)
{
    if (!daemon_await_ready(daemon))
        give_up(daemon, "%s ended (%d) instead of serving", daemon->name, daemon_wait(daemon));
}

struct daemon *daemon_start(const struct daemon_spec *spec)
{
    struct daemon *daemon = daemon_launch(spec);
    start(daemon);
    return daemon;
}

void daemon_restart(struct daemon *daemon)
{
    if (daemon->pid != 0)
        give_up(daemon, "%s still runs", daemon->name);
    launch(daemon);
    start(daemon);
}

static struct daemon *start_with(struct daemon_spec *spec, const char *const *fixed, const char *const *extra)
{
    const char *args[ARGUMENTS_MAX] = {NULL};
    unsigned count = 0;
    for (; *fixed && count + 1 < ARGUMENTS_MAX; fixed++)
        args[count++] = *fixed;
    for (; extra && *extra && count + 1 < ARGUMENTS_MAX; extra++)
        args[count++] = *extra;
    spec->args = args;
    return daemon_start(spec);
}

struct daemon *metastore_start(const char *folder, const char *const *extra)
{
    char *store = text_new("rocksdb:%s/metastore", folder);
    struct daemon_spec spec = {.folder = folder,
                               .name = "metastore",
                               .program = METASTORE_PROGRAM,
                               .endpoints = {{"listen", "listen"}, {"watch-listen", "watch"}}};
    struct daemon *daemon = start_with(&spec, (const char *[]){"--store", store, NULL}, extra);
    free(store);
    return daemon;
}

struct daemon *pagestore_start(const char *folder, const struct daemon *metastore, const char *const *extra)
{
    char *store = text_new("fs:%s/segments", folder);
    char *cache = text_new("%s/pagestore-cache", folder);
    struct daemon_spec spec = {.folder = folder,
                               .name = "pagestore",
                               .program = PAGESTORE_PROGRAM,
                               .endpoints = {{"listen", "listen"}}};
    const char *fixed[] = {"--store", store, "--cache", cache, "--metastore", daemon_url(metastore, "listen"),
                           NULL};
    struct daemon *daemon = start_with(&spec, fixed, extra);
    free(store);
    free(cache);
    return daemon;
}

// ---- a running daemon

const char *daemon_url(const struct daemon *daemon, const char *endpoint)
{
    for (unsigned i = 0; i < DAEMON_ENDPOINTS_MAX; i++)
        if (strcmp(daemon->endpoints[i].ready, endpoint) == 0)
            return daemon->endpoints[i].url;
    give_up(daemon, "%s has no endpoint '%s'", daemon->name, endpoint);
}

const char *daemon_address(const struct daemon *daemon, const char *endpoint)
{
    return daemon_url(daemon, endpoint) + strlen("http://");
}

pid_t daemon_pid(const struct daemon *daemon)
{
    return daemon->pid;
}

char *daemon_log(const struct daemon *daemon)
{
    size_t size = 0, got;
    char *text = calloc(1, 1);
    FILE *file = fopen(daemon->log_path, "re");
    char block[4096];
    while (file && (got = fread(block, 1, sizeof block, file)) > 0) {
        char *grown = realloc(text, size + got + 1);
        if (!grown)
            break;
        text = grown;
        memcpy(text + size, block, got);
        size += got;
        text[size] = '\0';
    }
    if (file)
        fclose(file);
    return text;
}

void daemon_signal(struct daemon *daemon, int signal_number)
{
    if (daemon->pid == 0 || kill(daemon->pid, signal_number) != 0)
        give_up(daemon, "%s does not run: no signal %d for it", daemon->name, signal_number);
}

int daemon_wait(struct daemon *daemon)
{
    if (daemon->pid == 0)
        give_up(daemon, "%s does not run", daemon->name);
    struct pollfd ended = {.fd = daemon->pid_fd, .events = POLLIN};
    int ready;
    do
        ready = poll(&ended, 1, EXIT_TIME_MAX_MS);
    while (ready < 0 && errno == EINTR);
    if (ready != 1) {
        kill(daemon->pid, SIGABRT);
        give_up(daemon, "%s did not end within %d ms", daemon->name, EXIT_TIME_MAX_MS);
    }
    int status = 0;
    while (waitpid(daemon->pid, &status, 0) < 0 && errno == EINTR)
        ;
    close(daemon->pid_fd);
    close(daemon->inotify_fd);
    daemon->pid = 0;
    daemon->pid_fd = daemon->inotify_fd = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int daemon_stop(struct daemon *daemon)
{
    daemon_signal(daemon, SIGTERM);
    int code = daemon_wait(daemon);
    if (code != 0)
        print_log(daemon);
    return code;
}

void daemon_kill(struct daemon *daemon)
{
    daemon_signal(daemon, SIGKILL);
    daemon_wait(daemon);
}

void daemon_free(struct daemon *daemon)
{
    if (!daemon)
        return;
    if (daemon->pid != 0)
        daemon_kill(daemon);
    for (unsigned i = 0; i < daemon->arg_count; i++)
        free(daemon->args[i]);
    free(daemon->folder);
    free(daemon->name);
    free(daemon->program);
    free(daemon->ready_path);
    free(daemon->log_path);
    free(daemon);
}
