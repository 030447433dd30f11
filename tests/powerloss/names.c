// SPDX-License-Identifier: Apache-2.0
//
// What was done to names since their folders were synced. Each change that may have to be taken back, or made again, holds a
// link to the file in the grave.
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/powerloss/layer.h"

struct name_change {
    enum name_kind kind;
    char *path, *to;               // to: of a move
    struct stat folder, folder_to; // where they are
    bool kept_link;                // the grave has the file that was made, removed or replaced
    uint64_t number;               // of that link
    mode_t mode;                   // of a folder
    bool lost;
    TAILQ_ENTRY(name_change) link;
};

static TAILQ_HEAD(name_changes, name_change) changes = TAILQ_HEAD_INITIALIZER(changes);
static const char *grave_path;
static uint64_t last_number;

static int empty_grave_of(const char *path, const struct stat *info, int type, struct FTW *at)
{
    if (at->level > 0)
        syscall(SYS_unlinkat, AT_FDCWD, path, type == FTW_DP ? AT_REMOVEDIR : 0);
    return 0;
}

static void empty_grave(void)
{
    nftw(grave_path, empty_grave_of, 16, FTW_DEPTH | FTW_PHYS);
}

void names_begin(const char *grave)
{
    grave_path = grave;
    if (syscall(SYS_mkdirat, AT_FDCWD, grave, 0700) != 0 && errno != EEXIST)
        layer_die("making %s: %s", grave, strerror(errno));
    empty_grave();
}

static void grave_name(const struct name_change *change, char to[LAYER_PATH_MAX])
{
    snprintf(to, LAYER_PATH_MAX, "%s/%llu", grave_path, (unsigned long long)change->number);
}

static void must(long result, const char *what, const char *path)
{
    if (result != 0)
        layer_die("%s %s: %s", what, path, strerror(errno));
}

static void make_link(const char *from, const char *to)
{
    must(syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0), "linking", from);
}

static void move(const char *from, const char *to)
{
    must(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0), "moving", from);
}

static void remove_name(const char *path, int flags)
{
    must(syscall(SYS_unlinkat, AT_FDCWD, path, flags), "removing", path);
}

static void bury(struct name_change *change, const char *path)
{
    char to[LAYER_PATH_MAX];
    change->number = ++last_number;
    grave_name(change, to);
    make_link(path, to);
    change->kept_link = true;
}

static void folder_of(const char *path, struct stat *ret_folder)
{
    char folder[LAYER_PATH_MAX];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    if (stat(folder, ret_folder) != 0)
        memset(ret_folder, 0, sizeof *ret_folder); // the call will fail
}

struct name_change *name_changing(enum name_kind kind, const char *path, const char *to)
{
    struct stat info;
    struct name_change *change = calloc(1, sizeof *change);
    if (!change || !(change->path = strdup(path)) || (to && !(change->to = strdup(to))))
        layer_die("no memory");
    change->kind = kind;
    folder_of(path, &change->folder);
    if (to)
        folder_of(to, &change->folder_to);
    if (kind == NAME_REMOVE && lstat(path, &info) == 0 && S_ISREG(info.st_mode))
        bury(change, path);
    if (kind == NAME_MOVE && lstat(to, &info) == 0 && S_ISREG(info.st_mode))
        bury(change, to);
    if (kind == NAME_REMOVE_FOLDER && lstat(path, &info) == 0)
        change->mode = info.st_mode & 07777;
    return change;
}

static void free_change(struct name_change *change)
{
    char name[LAYER_PATH_MAX];
    if (change->kept_link) {
        grave_name(change, name);
        remove_name(name, 0);
    }
    free(change->path);
    free(change->to);
    free(change);
}

void name_unchanged(struct name_change *change)
{
    int reason = errno;
    free_change(change);
    errno = reason;
}

void name_changed(struct name_change *change)
{
    if (change->kind == NAME_MAKE)
        bury(change, change->path);
    else if (change->kind == NAME_MAKE_FOLDER)
        change->number = ++last_number;
    TAILQ_INSERT_TAIL(&changes, change, link);
}

// ---- syncing

static bool same_place(const char *a, const char *b)
{
    size_t a_size = strlen(a), b_size = strlen(b), size = a_size < b_size ? a_size : b_size;
    return memcmp(a, b, size) == 0 && (a[size] == '\0' || a[size] == '/') &&
           (b[size] == '\0' || b[size] == '/');
}

// Is one of the names the other's, or in the other, if that is a folder?
static bool touch(const struct name_change *a, const struct name_change *b)
{
    const char *first[] = {a->path, a->to}, *second[] = {b->path, b->to};
    for (size_t i = 0; i < 2; i++) {
        for (size_t j = 0; j < 2; j++) {
            if (first[i] && second[j] && same_place(first[i], second[j]))
                return true;
        }
    }
    return false;
}

static bool is_in(const struct stat *a, const struct stat *folder)
{
    return a->st_ino == folder->st_ino && a->st_dev == folder->st_dev;
}

static bool concerns(const struct name_change *change, const struct stat *folder)
{
    return !folder || is_in(&change->folder, folder) || (change->to && is_in(&change->folder_to, folder));
}

// Is the same name, not the folder around it, changed by both?
static bool same_name(const struct name_change *a, const struct name_change *b)
{
    const char *first[] = {a->path, a->to}, *second[] = {b->path, b->to};
    for (size_t i = 0; i < 2; i++) {
        for (size_t j = 0; j < 2; j++) {
            if (first[i] && second[j] && strcmp(first[i], second[j]) == 0)
                return true;
        }
    }
    return false;
}

// What a change of a name follows from becomes durable with it. That the folder around it is does not follow.
static void make_durable(struct name_change *change)
{
    for (struct name_change *earlier = TAILQ_FIRST(&changes), *next; earlier != change; earlier = next) {
        next = TAILQ_NEXT(earlier, link);
        // A folder that is gone for good takes with it whatever was done in it.
        if (!same_name(earlier, change) && !(change->kind == NAME_REMOVE_FOLDER && touch(earlier, change)))
            continue;
        make_durable(earlier);
        next = TAILQ_FIRST(&changes);
    }
    TAILQ_REMOVE(&changes, change, link);
    free_change(change);
}

void names_synced(const struct stat *folder)
{
    for (struct name_change *change = TAILQ_FIRST(&changes), *next; change; change = next) {
        next = TAILQ_NEXT(change, link);
        if (!concerns(change, folder))
            continue;
        make_durable(change);
        next = TAILQ_FIRST(&changes);
    }
}

// ---- the loss

static void take_back(struct name_change *change)
{
    char buried[LAYER_PATH_MAX];
    grave_name(change, buried);
    switch (change->kind) {
    case NAME_MAKE:
        remove_name(change->path, 0);
        break;
    case NAME_REMOVE:
        make_link(buried, change->path);
        break;
    case NAME_MOVE:
        move(change->to, change->path);
        if (change->kept_link)
            make_link(buried, change->to);
        break;
    case NAME_MAKE_FOLDER:
        move(change->path, buried);
        break;
    case NAME_REMOVE_FOLDER:
        must(syscall(SYS_mkdirat, AT_FDCWD, change->path, change->mode), "making", change->path);
        break;
    }
}

static void make_again(struct name_change *change)
{
    char buried[LAYER_PATH_MAX];
    grave_name(change, buried);
    switch (change->kind) {
    case NAME_MAKE:
        make_link(buried, change->path);
        break;
    case NAME_REMOVE:
        remove_name(change->path, 0);
        break;
    case NAME_MOVE:
        move(change->path, change->to);
        break;
    case NAME_MAKE_FOLDER:
        move(buried, change->path);
        break;
    case NAME_REMOVE_FOLDER:
        remove_name(change->path, AT_REMOVEDIR);
        break;
    }
}

static bool share_folder(const struct name_change *a, const struct name_change *b)
{
    return concerns(a, &b->folder) || (b->to && concerns(a, &b->folder_to));
}

static bool rests_on_lost(const struct name_change *change, bool one_journal)
{
    struct name_change *earlier;
    TAILQ_FOREACH (earlier, &changes, link) {
        if (earlier == change)
            return false;
        if (earlier->lost && (one_journal || share_folder(earlier, change) || touch(earlier, change)))
            return true;
    }
    return false;
}

void names_lose(struct losses *losses)
{
    struct name_change *change;
    TAILQ_FOREACH_REVERSE(change, &changes, name_changes, link)
    take_back(change);
    bool one_journal = chance(2) == 0;
    uint64_t loses = chance(9);
    TAILQ_FOREACH (change, &changes, link) {
        change->lost = rests_on_lost(change, one_journal) || chance(8) < loses;
        if (!change->lost)
            make_again(change);
        losses->names++;
        losses->names_lost += change->lost;
        losses->renames_lost += change->lost && change->kind == NAME_MOVE;
    }
    empty_grave();
}
