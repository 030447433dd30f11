// SPDX-License-Identifier: Apache-2.0
//
// The C library's calls that change files, with the layer in front. What concerns nothing under the root goes to the kernel
// as it came. What could change a followed file and is not modelled aborts.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/powerloss/layer.h"

#define EXPORT __attribute__((visibility("default")))
#define ALIAS(name) __attribute__((visibility("default"), alias(name)))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t syncs;

static void unlock(int *nothing)
{
    int reason = errno;
    pthread_mutex_unlock(&lock);
    errno = reason;
}
#define LAYER_LOCK() __attribute__((cleanup(unlock), unused)) int held = pthread_mutex_lock(&lock)

void powerloss_now(void);

static void aborted(int number)
{
    pthread_mutex_lock(&lock);
    lose("abort");
}

__attribute__((constructor)) static void begin(void)
{
    loss_begin();
    if (layer.root && layer.at_exit)
        signal(SIGABRT, aborted);
}

__attribute__((destructor)) static void end(void)
{
    if (!layer.root || !layer.at_exit)
        return;
    pthread_mutex_lock(&lock);
    lose("exit");
}

// For a program that wants to end here: weakly linked, it is there under the layer only.
EXPORT void powerloss_now(void)
{
    pthread_mutex_lock(&lock);
    lose("the program's wish");
}

// ---- paths

// The absolute path without doubled slashes; false if it is not under the root.
static bool resolve(int folder, const char *path, char to[LAYER_PATH_MAX])
{
    char joined[2 * LAYER_PATH_MAX];
    if (!layer.root || !path)
        return false;
    if (path[0] == '/') {
        snprintf(joined, sizeof joined, "%s", path);
    } else {
        char at[LAYER_PATH_MAX], link[64];
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        ssize_t size = readlink(link, at, sizeof at - 1);
        if (size < 0)
            return false;
        snprintf(joined, sizeof joined, "%.*s/%s", (int)size, at, path);
    }
    size_t size = 0;
    for (const char *from = joined; *from && size < LAYER_PATH_MAX - 1;) {
        if (from[0] == '/' && (from[1] == '/' || from[1] == '\0'))
            from++;
        else if (from[0] == '/' && from[1] == '.' && (from[2] == '/' || from[2] == '\0'))
            from += 2;
        else
            to[size++] = *from++;
    }
    to[size] = '\0';
    if (strncmp(to, layer.root, layer.root_size) != 0 || to[layer.root_size] != '/')
        return false;
    if (strstr(to, "/../"))
        layer_die("the path %s is not followed", to);
    return true;
}

// ---- opening

static int open_followed(int folder, const char *path, const char *full, int flags, mode_t mode)
{
    struct stat info;
    LAYER_LOCK();
    bool made = (flags & O_CREAT) && lstat(full, &info) != 0;
    bool writes = (flags & O_ACCMODE) != O_RDONLY;
    if (writes && (flags & (O_SYNC | O_DSYNC | O_DIRECT)))
        layer_die("%s is opened with flags %o, which are not modelled", full, flags);
    struct name_change *change = made ? name_changing(NAME_MAKE, full, NULL) : NULL;
    int fd = (int)syscall(SYS_openat, folder, path, writes ? flags & ~O_TRUNC : flags, mode);
    if (fd < 0) {
        if (made)
            name_unchanged(change);
        return fd;
    }
    if (made)
        name_changed(change);
    inode_opened(fd, made);
    if (made && loss_is_due())
        lose("open");
    struct inode *inode = writes && (flags & O_TRUNC) ? inode_of(fd) : NULL;
    if (inode) {
        inode_resize(inode, fd, 0);
        if (loss_is_due())
            lose("open with O_TRUNC");
    }
    return fd;
}

static int open_any(int folder, const char *path, int flags, mode_t mode)
{
    char full[LAYER_PATH_MAX];
    if (!(flags & O_DIRECTORY) && resolve(folder, path, full))
        return open_followed(folder, path, full, flags, mode);
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}

static mode_t mode_of(int flags, va_list arguments)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

EXPORT int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_any(AT_FDCWD, path, flags, mode);
}

EXPORT int openat(int folder, const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_any(folder, path, flags, mode);
}

EXPORT int creat(const char *path, mode_t mode)
{
    return open_any(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

// What _FORTIFY_SOURCE makes of the above.
int __open_2(const char *path, int flags);
int __openat_2(int folder, const char *path, int flags);

EXPORT int __open_2(const char *path, int flags)
{
    return open_any(AT_FDCWD, path, flags, 0);
}

EXPORT int __openat_2(int folder, const char *path, int flags)
{
    return open_any(folder, path, flags, 0);
}

ALIAS("open") int open64(const char *path, int flags, ...);
ALIAS("openat") int openat64(int folder, const char *path, int flags, ...);
ALIAS("creat") int creat64(const char *path, mode_t mode);
ALIAS("__open_2") int __open64_2(const char *path, int flags);
ALIAS("__openat_2") int __openat64_2(int folder, const char *path, int flags);

// ---- writing

// Writes `data` at `offset`, or where the file stands (-1). Under the lock.
static ssize_t write_followed(struct inode *inode, int fd, const void *data, size_t size, off_t offset)
{
    off_t at = offset;
    if (fcntl(fd, F_GETFL) & O_APPEND)
        at = inode_size(inode);
    else if (offset < 0)
        at = lseek(fd, 0, SEEK_CUR);
    ssize_t written = inode_write(inode, fd, data, size, at);
    if (written > 0 && offset < 0)
        lseek(fd, at + written, SEEK_SET);
    if (loss_is_due())
        lose("write");
    return written;
}

static ssize_t write_vector(struct inode *inode, int fd, const struct iovec *vector, int count, off_t offset)
{
    size_t size = 0, place = 0;
    for (int i = 0; i < count; i++)
        size += vector[i].iov_len;
    uint8_t *data = malloc(size ? size : 1);
    if (!data)
        layer_die("no memory");
    for (int i = 0; i < count; place += vector[i++].iov_len)
        memcpy(data + place, vector[i].iov_base, vector[i].iov_len);
    ssize_t written = write_followed(inode, fd, data, size, offset);
    free(data);
    return written;
}

EXPORT ssize_t write(int fd, const void *data, size_t size)
{
    if (layer.root) {
        LAYER_LOCK();
        struct inode *inode = inode_of(fd);
        if (inode)
            return write_followed(inode, fd, data, size, -1);
    }
    return syscall(SYS_write, fd, data, size);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    if (layer.root) {
        LAYER_LOCK();
        struct inode *inode = inode_of(fd);
        if (inode)
            return write_followed(inode, fd, data, size, offset);
    }
    return syscall(SYS_pwrite64, fd, data, size, offset);
}

EXPORT ssize_t writev(int fd, const struct iovec *vector, int count)
{
    if (layer.root) {
        LAYER_LOCK();
        struct inode *inode = inode_of(fd);
        if (inode)
            return write_vector(inode, fd, vector, count, -1);
    }
    return syscall(SYS_writev, fd, vector, count);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *vector, int count, off_t offset)
{
    if (layer.root) {
        LAYER_LOCK();
        struct inode *inode = inode_of(fd);
        if (inode)
            return write_vector(inode, fd, vector, count, offset);
    }
    return syscall(SYS_pwritev, fd, vector, count, (long)offset, 0L);
}

static int resize(int fd, off_t size)
{
    if (layer.root) {
        LAYER_LOCK();
        struct inode *inode = inode_of(fd);
        if (inode) {
            int result = inode_resize(inode, fd, size);
            if (loss_is_due())
                lose("ftruncate");
            return result;
        }
    }
    return (int)syscall(SYS_ftruncate, fd, size);
}

EXPORT int ftruncate(int fd, off_t size)
{
    return resize(fd, size);
}

EXPORT int truncate(const char *path, off_t size)
{
    char full[LAYER_PATH_MAX];
    if (!resolve(AT_FDCWD, path, full))
        return (int)syscall(SYS_truncate, path, size);
    int fd = open_any(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int result = resize(fd, size);
    int reason = errno;
    close(fd);
    errno = reason;
    return result;
}

// Room that is kept beyond the end, or given back, is no content.
EXPORT int fallocate(int fd, int mode, off_t offset, off_t size)
{
    if (layer.root) {
        LAYER_LOCK();
        struct inode *inode = inode_of(fd);
        if (inode && !(mode & FALLOC_FL_KEEP_SIZE) && mode != 0)
            layer_die("fallocate of mode %d is not modelled", mode);
        if (inode && (mode & FALLOC_FL_PUNCH_HOLE) && offset < inode_size(inode))
            layer_die("a hole within a file is not modelled");
        if (inode && mode == 0 && offset + size > inode_size(inode))
            return inode_resize(inode, fd, offset + size);
    }
    return (int)syscall(SYS_fallocate, fd, mode, offset, size);
}

EXPORT int posix_fallocate(int fd, off_t offset, off_t size)
{
    return fallocate(fd, 0, offset, size) == 0 ? 0 : errno;
}

ALIAS("pwrite") ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset);
ALIAS("pwritev") ssize_t pwritev64(int fd, const struct iovec *vector, int count, off_t offset);
ALIAS("ftruncate") int ftruncate64(int fd, off_t size);
ALIAS("truncate") int truncate64(const char *path, off_t size);
ALIAS("fallocate") int fallocate64(int fd, int mode, off_t offset, off_t size);
ALIAS("posix_fallocate") int posix_fallocate64(int fd, off_t offset, off_t size);

// ---- what is not modelled

static void refuse(int fd, const char *call)
{
    if (!layer.root)
        return;
    LAYER_LOCK();
    if (inode_of(fd))
        layer_die("%s on a followed file is not modelled", call);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *vector, int count, off_t offset, int flags)
{
    refuse(fd, "pwritev2");
    return syscall(SYS_pwritev2, fd, vector, count, (long)offset, 0L, flags);
}

EXPORT ssize_t copy_file_range(int from, off_t *from_offset, int to, off_t *to_offset, size_t size,
                               unsigned flags)
{
    refuse(to, "copy_file_range");
    return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, size, flags);
}

EXPORT ssize_t sendfile(int to, int from, off_t *offset, size_t size)
{
    refuse(to, "sendfile");
    return syscall(SYS_sendfile, to, from, offset, size);
}

EXPORT ssize_t splice(int from, off_t *from_offset, int to, off_t *to_offset, size_t size, unsigned flags)
{
    refuse(to, "splice");
    return syscall(SYS_splice, from, from_offset, to, to_offset, size, flags);
}

EXPORT void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE))
        refuse(fd, "a shared mapping for writing");
    return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}

ALIAS("sendfile") ssize_t sendfile64(int to, int from, off_t *offset, size_t size);
ALIAS("mmap") void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t offset);

// ---- syncing

static int sync_of(int fd, long number, const char *call)
{
    struct stat info;
    if (!layer.root || fstat(fd, &info) != 0)
        return (int)syscall(number, fd);
    LAYER_LOCK();
    struct inode *inode = inode_of(fd);
    if (!inode && !S_ISDIR(info.st_mode))
        return (int)syscall(number, fd);
    if (loss_is_due())
        lose(call);
    // Not of a folder: a journal that cannot be written is given up by its file system, and every later sync fails, too.
    if (inode && ++syncs == layer.fail_sync) {
        inode_sync_failed(inode);
        errno = EIO;
        return -1;
    }
    if (layer.lie)
        return 0;
    if (inode)
        inode_synced(inode);
    else
        names_synced(&info);
    return 0;
}

EXPORT int fsync(int fd)
{
    return sync_of(fd, SYS_fsync, "fsync");
}

EXPORT int fdatasync(int fd)
{
    return sync_of(fd, SYS_fdatasync, "fdatasync");
}

static void sync_all(void)
{
    LAYER_LOCK();
    if (loss_is_due())
        lose("sync");
    if (layer.lie)
        return;
    inodes_synced();
    names_synced(NULL);
}

// The test's own machine is not what loses power: its disk need not be asked.
EXPORT int syncfs(int fd)
{
    if (!layer.root)
        return (int)syscall(SYS_syncfs, fd);
    sync_all();
    return 0;
}

EXPORT void sync(void)
{
    if (layer.root)
        sync_all();
    else
        syscall(SYS_sync);
}

// ---- names

static int change_name(enum name_kind kind, const char *path, const char *to, const char *call, long number,
                       long a, long b, long c, long d, long e)
{
    LAYER_LOCK();
    struct name_change *change = name_changing(kind, path, to);
    long result = syscall(number, a, b, c, d, e);
    if (result == 0)
        name_changed(change);
    else
        name_unchanged(change);
    if (result == 0 && loss_is_due())
        lose(call);
    return (int)result;
}

EXPORT int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    char full[LAYER_PATH_MAX], full_to[LAYER_PATH_MAX];
    bool here = resolve(from_folder, from, full), there = resolve(to_folder, to, full_to);
    if (here != there || (here && (flags & ~1u /* RENAME_NOREPLACE */)))
        layer_die("renaming %s to %s is not modelled", from, to);
    if (!here)
        return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    return change_name(NAME_MOVE, full, full_to, "rename", SYS_renameat2, from_folder, (long)from, to_folder,
                       (long)to, flags);
}

EXPORT int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    return renameat2(from_folder, from, to_folder, to, 0);
}

EXPORT int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    char full[LAYER_PATH_MAX];
    if (!resolve(to_folder, to, full))
        return (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
    return change_name(NAME_MAKE, full, NULL, "link", SYS_linkat, from_folder, (long)from, to_folder,
                       (long)to, flags);
}

EXPORT int link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int symlinkat(const char *target, int folder, const char *path)
{
    char full[LAYER_PATH_MAX];
    if (resolve(folder, path, full))
        layer_die("a symbolic link is not modelled");
    return (int)syscall(SYS_symlinkat, target, folder, path);
}

EXPORT int symlink(const char *target, const char *path)
{
    return symlinkat(target, AT_FDCWD, path);
}

EXPORT int unlinkat(int folder, const char *path, int flags)
{
    char full[LAYER_PATH_MAX];
    if (!resolve(folder, path, full))
        return (int)syscall(SYS_unlinkat, folder, path, flags);
    return change_name(flags & AT_REMOVEDIR ? NAME_REMOVE_FOLDER : NAME_REMOVE, full, NULL, "unlink",
                       SYS_unlinkat, folder, (long)path, flags, 0, 0);
}

EXPORT int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

EXPORT int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

EXPORT int remove(const char *path)
{
    int result = unlink(path);
    return result != 0 && errno == EISDIR ? rmdir(path) : result;
}

EXPORT int mkdirat(int folder, const char *path, mode_t mode)
{
    char full[LAYER_PATH_MAX];
    if (!resolve(folder, path, full))
        return (int)syscall(SYS_mkdirat, folder, path, mode);
    return change_name(NAME_MAKE_FOLDER, full, NULL, "mkdir", SYS_mkdirat, folder, (long)path, (long)mode, 0,
                       0);
}

EXPORT int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}
