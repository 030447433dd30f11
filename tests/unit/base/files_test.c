// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/files.h"

static char folder[] = "/tmp/graft-files-XXXXXX";

static void setup(void)
{
    cr_assert_not_null(mkdtemp(folder));
}

static void teardown(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(files, .init = setup, .fini = teardown);

// By value, so that it can stand in an argument list.
struct path {
    char text[64];
};

static struct path in_folder(const char *name)
{
    struct path path;
    snprintf(path.text, sizeof path.text, "%s/%s", folder, name);
    return path;
}

static mode_t mode_of(const char *path)
{
    struct stat file;
    cr_assert_eq(stat(path, &file), 0);
    return file.st_mode & 07777;
}

Test(files, folders_are_made_with_their_parents)
{
    struct path path = in_folder("a/b//c/");
    cr_assert_eq(files_make_folder(path.text, NULL), GRAFT_OK);
    cr_assert_eq(files_make_folder(path.text, NULL), GRAFT_OK); // there already
    cr_assert_eq(mode_of(in_folder("a/b/c").text), 0700);
    cr_assert_eq(mode_of(in_folder("a").text), 0700);
    cr_assert_eq(chdir(folder), 0);
    cr_assert_eq(files_make_folder("relative/path", NULL), GRAFT_OK);
    cr_assert_eq(mode_of(in_folder("relative/path").text), 0700);
    cr_assert_eq(files_make_folder("/", NULL), GRAFT_OK);
}

Test(files, a_file_in_the_way_of_a_folder_is_an_error)
{
    struct graft_error err;
    cr_assert_eq(files_replace(in_folder("f").text, "x", 1, NULL), GRAFT_OK);
    cr_assert_neq(files_make_folder(in_folder("f").text, &err), GRAFT_OK);
    cr_assert(strstr(err.message, in_folder("f").text), "%s", err.message);
    cr_assert_neq(files_make_folder(in_folder("f/g").text, &err), GRAFT_OK);
    cr_assert_neq(files_make_folder("", &err), GRAFT_OK);
}

Test(files, paths_that_are_too_long_are_refused)
{
    char path[6000];
    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = '\0';
    cr_assert_eq(files_make_folder(path, NULL), GRAFT_INVALID);
    cr_assert_eq(files_replace(path, "x", 1, NULL), GRAFT_INVALID);
    path[4095] = '\0'; // fits, but not with what the file beside it is called
    cr_assert_neq(files_replace(path, "x", 1, NULL), GRAFT_OK);
}

Test(files, replace_and_read_come_back)
{
    struct path path = in_folder("f");
    _cleanup_(buffer_release) struct buffer text = BUFFER_INIT(100000);
    static uint8_t large[50000];
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (uint8_t)(i * 7);
    cr_assert_eq(files_replace(path.text, large, sizeof large, NULL), GRAFT_OK);
    cr_assert_eq(files_read(path.text, &text, NULL), GRAFT_OK);
    cr_assert_eq(text.size, sizeof large);
    cr_assert_arr_eq(text.data, large, sizeof large);

    cr_assert_eq(files_replace(path.text, "ab", 2, NULL), GRAFT_OK);
    cr_assert_eq(files_replace(in_folder("empty").text, NULL, 0, NULL), GRAFT_OK);
    buffer_clear(&text);
    cr_assert_eq(files_read(path.text, &text, NULL), GRAFT_OK);
    cr_assert_eq(files_read(in_folder("empty").text, &text, NULL), GRAFT_OK);
    cr_assert_eq(text.size, 2); // appended
    cr_assert_eq(access(in_folder("f.new").text, F_OK), -1);
}

Test(files, read_is_bounded_and_leaves_the_buffer_as_it_was)
{
    struct graft_error err;
    _cleanup_(buffer_release) struct buffer text = BUFFER_INIT(10000);
    buffer_append(&text, "ab", 2, NULL);
    static char large[10000];
    cr_assert_eq(files_replace(in_folder("f").text, large, 9999, NULL), GRAFT_OK);
    cr_assert_eq(files_read(in_folder("f").text, &text, &err), GRAFT_LIMIT);
    cr_assert(strstr(err.message, in_folder("f").text), "%s", err.message);
    cr_assert_eq(text.size, 2);
    cr_assert_eq(files_read(in_folder("missing").text, &text, &err), GRAFT_NOT_FOUND);
    cr_assert_neq(files_read(folder, &text, &err), GRAFT_OK);
    cr_assert_eq(text.size, 2);
}

Test(files, replace_that_fails_leaves_nothing_behind)
{
    struct graft_error err;
    cr_assert_eq(files_replace(in_folder("no/such").text, "x", 1, &err), GRAFT_NOT_FOUND);
    cr_assert_eq(files_make_folder(in_folder("taken/full").text, NULL), GRAFT_OK);
    cr_assert_neq(files_replace(in_folder("taken").text, "x", 1, &err), GRAFT_OK); // a folder has the name
    cr_assert_eq(access(in_folder("taken.new").text, F_OK), -1);
}

Test(files, positioned_reads_end_with_the_file)
{
    struct path path = in_folder("f");
    int fd = open(path.text, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    char back[10] = {0};
    size_t size;
    cr_assert_eq(files_pwrite_all(fd, "abcdef", 6, 2, path.text, NULL), GRAFT_OK);
    cr_assert_eq(files_pread_all(fd, back, 4, 3, path.text, &size, NULL), GRAFT_OK);
    cr_assert_eq(size, 4);
    cr_assert_arr_eq(back, "bcde", 4);
    cr_assert_eq(files_pread_all(fd, back, 10, 0, path.text, &size, NULL), GRAFT_OK);
    cr_assert_eq(size, 8);
    cr_assert_eq(files_pread_all(fd, back, 10, 100, path.text, &size, NULL), GRAFT_OK);
    cr_assert_eq(size, 0);
    close(fd);
}

Test(files, a_full_disk_is_no_space)
{
    struct graft_error err;
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    cr_assert_eq(files_pwrite_all(fd, "x", 1, 0, "/dev/full", &err), GRAFT_INTERNAL);
    cr_assert_eq(err.detail, GRAFT_DETAIL_NO_SPACE);
    cr_assert(strstr(err.message, "/dev/full"), "%s", err.message);
    close(fd);
}

Test(files, a_lock_names_its_holder_and_ends_with_its_descriptor)
{
    struct path path = in_folder("lock");
    struct graft_error err;
    int first, second;
    char pid[24];
    cr_assert_eq(files_lock(path.text, &first, &err), GRAFT_OK);
    cr_assert_eq(files_lock(path.text, &second, &err), GRAFT_BUSY);
    cr_assert_eq(err.detail, GRAFT_DETAIL_LOCKED);
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    cr_assert(strstr(err.message, pid) && strstr(err.message, path.text), "%s", err.message);

    // Somebody else in the process opens and closes the file: a POSIX lock would be lost here.
    close(open(path.text, O_RDWR | O_CLOEXEC));
    cr_assert_eq(files_lock(path.text, &second, &err), GRAFT_BUSY);
    close(first);
    cr_assert_eq(files_lock(path.text, &second, &err), GRAFT_OK);
    close(second);
    cr_assert_eq(files_lock(in_folder("no/lock").text, &second, &err), GRAFT_NOT_FOUND);
}

Test(files, free_space_is_asked_for)
{
    uint64_t bytes = 0;
    cr_assert_eq(files_free_space(folder, &bytes, NULL), GRAFT_OK);
    cr_assert_gt(bytes, 0);
    cr_assert_eq(files_free_space(in_folder("missing").text, &bytes, NULL), GRAFT_NOT_FOUND);
    cr_assert_eq(files_sync_folder(folder, NULL), GRAFT_OK);
    cr_assert_eq(files_sync_folder(in_folder("missing").text, NULL), GRAFT_NOT_FOUND);
}
