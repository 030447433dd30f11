// SPDX-License-Identifier: Apache-2.0
//
// export: the volume's bytes into a file, written beside and renamed, or to stdout. Missing pages are asked for two
// windows ahead of the one that is written.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "client/page_one.h"
#include "common/base/error.h"
#include "common/base/files.h"
#include "common/base/random.h"

#define WINDOW_SIZE (4 * 1024 * 1024)

struct target {
    const char *path;
    char temporary[4096]; // empty: stdout
    int fd;
};

static void target_close(struct target *target)
{
    if (target->temporary[0]) {
        if (target->fd >= 0)
            close(target->fd);
        unlink(target->temporary);
    }
}

static enum graft_status target_open(const char *path, struct target *target, struct graft_error *err)
{
    target->path = path;
    if (strcmp(path, "-") == 0) {
        target->fd = STDOUT_FILENO;
        return GRAFT_OK;
    }
    uint32_t random;
    random_bytes(&random, sizeof random);
    int size = snprintf(target->temporary, sizeof target->temporary, "%s.%08" PRIx32 ".part", path, random);
    if (size < 0 || (size_t)size >= sizeof target->temporary) {
        target->temporary[0] = 0;
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "the path is too long: %s", path);
    }
    target->fd = open(target->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (target->fd < 0) {
        int saved = errno;
        target->temporary[0] = 0;
        return error_from_errno(err, saved, "writing beside %s", path);
    }
    return GRAFT_OK;
}

static enum graft_status target_write(struct target *target, const void *data, size_t size,
                                      struct graft_error *err)
{
    while (size > 0) {
        ssize_t written = write(target->fd, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return error_from_errno(err, errno, "writing %s",
                                    target->temporary[0] ? target->path : "to stdout");
        data = (const char *)data + written;
        size -= (size_t)written;
    }
    return GRAFT_OK;
}

static enum graft_status target_finish(struct target *target, struct graft_error *err)
{
    if (!target->temporary[0])
        return GRAFT_OK;
    int fd = target->fd;
    target->fd = -1;
    if (fsync(fd) != 0 || close(fd) != 0)
        return error_from_errno(err, errno, "syncing %s", target->temporary);
    if (rename(target->temporary, target->path) != 0)
        return error_from_errno(err, errno, "renaming %s to %s", target->temporary, target->path);
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", target->path);
    target->temporary[0] = 0;
    return files_sync_folder(dirname(folder), err);
}

static enum graft_status ask_ahead(struct graft_snapshot *snapshot, uint64_t first, uint32_t window,
                                   struct graft_error *err)
{
    uint32_t page_count = graft_snapshot_page_count(snapshot);
    if (first > page_count)
        return GRAFT_OK;
    struct graft_page_range range = {(uint32_t)first, MIN(window, page_count - (uint32_t)first + 1)};
    return graft_prefetch(snapshot, &range, 1, err);
}

// What SQLite writes into page 1 at every commit is left out where the database is a volume, and put back here.
static void finish_first_page(unsigned char *page, size_t size, uint32_t page_count)
{
    if (size >= PAGE_ONE_HEADER && page_one_is_canonical(page))
        page_one_export(page, page_count);
}

static enum graft_status export_pages(struct cli *cli, struct graft_snapshot *snapshot, uint32_t page_size,
                                      struct target *target, uint64_t *ret_size, struct graft_error *err)
{
    uint32_t page_count = graft_snapshot_page_count(snapshot);
    uint32_t window = WINDOW_SIZE / page_size;
    unsigned char *pages = malloc(WINDOW_SIZE);
    if (!pages)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to export");
    struct progress progress;
    progress_begin(&progress, cli, "exporting", (uint64_t)page_count * page_size, true);
    uint64_t total = 0;
    enum graft_status status = ask_ahead(snapshot, 1, window, err);
    for (uint64_t first = 1; status == GRAFT_OK && first <= page_count; first += window) {
        size_t filled = 0;
        status = ask_ahead(snapshot, first + window, window, err);
        for (uint64_t pageidx = first;
             status == GRAFT_OK && pageidx < first + window && pageidx <= page_count; pageidx++) {
            size_t size;
            status = graft_snapshot_read(snapshot, (uint32_t)pageidx, pages + filled, page_size, &size, err);
            if (status == GRAFT_OK && pageidx == 1)
                finish_first_page(pages, size, page_count);
            if (status == GRAFT_OK)
                filled += size;
        }
        if (status == GRAFT_OK)
            status = target_write(target, pages, filled, err);
        total += filled;
        progress_show(&progress, total);
    }
    progress_end(&progress);
    free(pages);
    *ret_size = total;
    return status;
}

static enum exit_code run_export(struct cli *cli, char **arguments, int argument_count)
{
    _cleanup_(target_close) struct target target = {.fd = -1};
    _cleanup_(graft_volume_close_p) struct graft_volume *volume = NULL;
    _cleanup_(graft_snapshot_release_p) struct graft_snapshot *snapshot = NULL;
    struct graft_volume_info info;
    struct graft_error err;
    uint64_t size = 0;
    enum graft_status status = cli_volume(cli, arguments[0], &volume, &err);
    if (status == GRAFT_OK)
        status = graft_volume_info(volume, &info, &err);
    if (status == GRAFT_OK)
        status = cli->settings.lsn ? graft_snapshot_open_remote(volume, cli->settings.lsn, &snapshot, &err)
                                   : graft_snapshot_open(volume, &snapshot, &err);
    if (status == GRAFT_OK)
        status = target_open(arguments[1], &target, &err);
    if (status == GRAFT_OK)
        status = export_pages(cli, snapshot, info.page_size, &target, &size, &err);
    if (status == GRAFT_OK)
        status = target_finish(&target, &err);
    if (status != GRAFT_OK) {
        error_context(&err, status, "exporting %s", arguments[0]);
        return cli_fail(cli, &err);
    }
    if (target.fd == STDOUT_FILENO)
        return EXIT_DONE;
    return cli_answer(cli,
                      json_pack("{s:s, s:s, s:I, s:I}", "vid", info.vid, "file", arguments[1], "size",
                                (json_int_t)size, "page_count",
                                (json_int_t)graft_snapshot_page_count(snapshot)),
                      "wrote %s: %" PRIu64 " bytes", arguments[1], size);
}

static const struct option_spec export_specs[] = {
    {"lsn", OPTION_NUMBER, offsetof(struct cli_settings, lsn), .metavar = "N",
     .help = "the servers' commit N instead of the local head", .min = 1},
};

const struct cli_command command_export = {
    .name = "export",
    .arguments = "VID FILE",
    .summary = "the volume's bytes into a file, or - for stdout",
    .about =
        "Writes the volume as it is at the local head, fetching what is missing. The file appears when it is whole.",
    .specs = export_specs,
    .spec_count = ARRAY_COUNT(export_specs),
    .argument_min = 2,
    .argument_max = 2,
    .run = run_export,
};
