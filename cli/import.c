// SPDX-License-Identifier: Apache-2.0
//
// import: a file's bytes as one local commit. What export writes later is equal to the file, whatever its size: a size
// that is no multiple of the page size makes a variable volume, whose last page is short.
//
// Into an existing volume only pages that differ are committed, so those that are not here are fetched to compare.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"
#include "common/base/error.h"
#include "common/base/files.h"

#define CHUNK_SIZE (1024 * 1024)
#define SQLITE_HEADER_SIZE 100

struct source {
    const char *path;
    int fd;
    struct stat stat;
};

static void source_close(struct source *source)
{
    if (source->fd >= 0)
        close(source->fd);
}

static enum graft_status source_open(const char *path, struct source *source, struct graft_error *err)
{
    source->path = path;
    source->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (source->fd < 0 || fstat(source->fd, &source->stat) != 0)
        return error_from_errno(err, errno, "opening %s", path);
    if (!S_ISREG(source->stat.st_mode))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "%s is not a regular file", path);
    return GRAFT_OK;
}

// A journal that is not empty means that the file alone is not the database.
static enum graft_status check_journals(const struct source *source, struct graft_error *err)
{
    static const char *const suffixes[] = {"-wal", "-journal"};
    for (size_t i = 0; i < ARRAY_COUNT(suffixes); i++) {
        char path[4096];
        struct stat stat_buffer;
        int size = snprintf(path, sizeof path, "%s%s", source->path, suffixes[i]);
        if (size < 0 || (size_t)size >= sizeof path)
            return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "the path is too long: %s",
                             source->path);
        if (stat(path, &stat_buffer) == 0 && stat_buffer.st_size > 0)
            return error_set(
                err, GRAFT_INVALID, GRAFT_DETAIL_HOT_JOURNAL,
                "%s lies beside it: the database is open, or was not closed cleanly, and the file alone "
                "is not all of it; close its users, or run: sqlite3 FILE 'PRAGMA "
                "wal_checkpoint(TRUNCATE)'",
                path);
    }
    return GRAFT_OK;
}

// Of a SQLite database, its own page size; else the default.
static enum graft_status guess_page_size(const struct source *source, uint32_t *ret_page_size,
                                         struct graft_error *err)
{
    unsigned char header[SQLITE_HEADER_SIZE];
    size_t size;
    enum graft_status status =
        files_pread_all(source->fd, header, sizeof header, 0, source->path, &size, err);
    if (status != GRAFT_OK)
        return status;
    *ret_page_size = 4096;
    if (size < sizeof header || memcmp(header, "SQLite format 3", 16) != 0)
        return GRAFT_OK;
    uint32_t page_size = (uint32_t)header[16] << 8 | header[17];
    if (page_size == 1)
        page_size = 65536;
    if (page_size >= 512 && page_size <= 65536 && (page_size & (page_size - 1)) == 0)
        *ret_page_size = page_size;
    return check_journals(source, err);
}

static enum graft_status make_volume(struct cli *cli, const struct source *source,
                                     struct graft_volume **ret_volume, struct graft_error *err)
{
    uint32_t page_size;
    enum graft_status status = guess_page_size(source, &page_size, err);
    if (status == GRAFT_OK)
        status = cli_client(cli, err);
    if (status != GRAFT_OK)
        return status;
    if (cli->settings.page_size)
        page_size = (uint32_t)cli->settings.page_size;
    enum graft_volume_kind kind = (uint64_t)source->stat.st_size % page_size ? GRAFT_VARIABLE : GRAFT_FIXED;
    return graft_volume_create(cli->client, page_size, kind, ret_volume, err);
}

static enum graft_status open_volume(struct cli *cli, const struct source *source, const char *vid,
                                     struct graft_volume **ret_volume, struct graft_error *err)
{
    uint32_t page_size;
    enum graft_status status = guess_page_size(source, &page_size, err);
    return status == GRAFT_OK ? cli_volume(cli, vid, ret_volume, err) : status;
}

// One chunk of the file against the same pages of the volume.
struct importer {
    const struct source *source;
    struct graft_snapshot *before; // NULL in a new volume
    struct graft_writer *writer;
    uint32_t page_size;
    unsigned char *chunk; // CHUNK_SIZE
    unsigned char *page;  // page_size
    uint64_t pages_changed;
};

static enum graft_status import_page(struct importer *importer, uint32_t pageidx, const unsigned char *data,
                                     size_t size, struct graft_error *err)
{
    if (importer->before && pageidx <= graft_snapshot_page_count(importer->before)) {
        size_t old_size;
        enum graft_status status = graft_snapshot_read(importer->before, pageidx, importer->page,
                                                       importer->page_size, &old_size, err);
        if (status != GRAFT_OK)
            return status;
        if (old_size == size && memcmp(importer->page, data, size) == 0)
            return GRAFT_OK;
    }
    importer->pages_changed++;
    return graft_writer_write(importer->writer, pageidx, data, size, err);
}

static enum graft_status import_chunk(struct importer *importer, uint64_t offset, size_t size,
                                      struct graft_error *err)
{
    uint32_t first = (uint32_t)(offset / importer->page_size) + 1;
    enum graft_status status = GRAFT_OK;
    if (importer->before && first <= graft_snapshot_page_count(importer->before)) {
        struct graft_page_range range = {first,
                                         (uint32_t)((size + importer->page_size - 1) / importer->page_size)};
        status = graft_hydrate(importer->before, &range, 1, err);
    }
    for (size_t at = 0; status == GRAFT_OK && at < size; at += importer->page_size)
        status = import_page(importer, first + (uint32_t)(at / importer->page_size), importer->chunk + at,
                             MIN(size - at, (size_t)importer->page_size), err);
    return status;
}

static enum graft_status import_bytes(struct importer *importer, struct progress *progress,
                                      struct graft_error *err)
{
    const struct source *source = importer->source;
    uint64_t total = (uint64_t)source->stat.st_size;
    for (uint64_t offset = 0; offset < total;) {
        size_t wanted = (size_t)MIN((uint64_t)CHUNK_SIZE, total - offset), size;
        enum graft_status status =
            files_pread_all(source->fd, importer->chunk, wanted, offset, source->path, &size, err);
        if (status == GRAFT_OK && size < wanted)
            status = error_set(err, GRAFT_CONFLICT, GRAFT_DETAIL_NONE, "%s became shorter while it was read",
                               source->path);
        if (status == GRAFT_OK)
            status = import_chunk(importer, offset, size, err);
        if (status != GRAFT_OK)
            return status;
        offset += size;
        progress_show(progress, offset);
    }
    struct stat after;
    if (fstat(source->fd, &after) != 0)
        return error_from_errno(err, errno, "looking at %s", source->path);
    if (after.st_size != source->stat.st_size || after.st_mtim.tv_sec != source->stat.st_mtim.tv_sec ||
        after.st_mtim.tv_nsec != source->stat.st_mtim.tv_nsec)
        return error_set(err, GRAFT_CONFLICT, GRAFT_DETAIL_NONE, "%s changed while it was read",
                         source->path);
    return GRAFT_OK;
}

static enum graft_status import_into(struct cli *cli, const struct source *source,
                                     struct graft_volume *volume, const struct graft_volume_info *info,
                                     uint64_t *ret_pages_changed, struct graft_error *err)
{
    uint64_t size = (uint64_t)source->stat.st_size;
    uint64_t page_count = (size + info->page_size - 1) / info->page_size;
    if (info->kind == GRAFT_FIXED && size % info->page_size)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "%s has %" PRIu64 " bytes, no multiple of the volume's %" PRIu32
                         "-byte pages; import it as a new volume",
                         source->path, size, info->page_size);
    if (page_count > UINT32_MAX)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "%s needs more than 2^32-1 pages of %" PRIu32 " bytes", source->path,
                         info->page_size);

    _cleanup_(graft_snapshot_release_p) struct graft_snapshot *before = NULL;
    _cleanup_(graft_writer_abort_p) struct graft_writer *writer = NULL;
    enum graft_status status = graft_snapshot_open(volume, &before, err);
    if (status == GRAFT_OK)
        status = graft_writer_begin(volume, &writer, err);
    if (status != GRAFT_OK)
        return status;
    struct importer importer = {
        .source = source,
        .before = graft_snapshot_page_count(before) ? before : NULL,
        .writer = writer,
        .page_size = info->page_size,
        .chunk = malloc(CHUNK_SIZE + info->page_size),
    };
    if (!importer.chunk)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to import %s", source->path);
    importer.page = importer.chunk + CHUNK_SIZE;
    struct progress progress;
    progress_begin(&progress, cli, "importing", size, true);
    status = import_bytes(&importer, &progress, err);
    progress_end(&progress);
    free(importer.chunk);
    if (status == GRAFT_OK && graft_snapshot_page_count(before) > page_count)
        status = graft_writer_truncate(writer, (uint32_t)page_count, err);
    if (status == GRAFT_OK)
        status = graft_writer_commit(TAKE(writer), NULL, err);
    *ret_pages_changed = importer.pages_changed;
    return status;
}

static enum exit_code run_import(struct cli *cli, char **arguments, int argument_count)
{
    _cleanup_(source_close) struct source source = {.fd = -1};
    _cleanup_(graft_volume_close_p) struct graft_volume *volume = NULL;
    struct graft_volume_info info;
    struct graft_error err;
    bool existing = argument_count == 2;
    uint64_t pages_changed = 0;
    enum graft_status status = source_open(arguments[0], &source, &err);
    if (status == GRAFT_OK)
        status = existing ? open_volume(cli, &source, arguments[1], &volume, &err)
                          : make_volume(cli, &source, &volume, &err);
    if (status == GRAFT_OK)
        status = graft_volume_info(volume, &info, &err);
    if (status != GRAFT_OK)
        return cli_fail(cli, &err);
    status = import_into(cli, &source, volume, &info, &pages_changed, &err);
    if (status != GRAFT_OK) {
        if (!existing) {
            graft_volume_close(TAKE(volume));
            graft_volume_delete(cli->client, info.vid, NULL);
        }
        error_context(&err, status, "importing %s", arguments[0]);
        return cli_fail(cli, &err);
    }
    if (graft_volume_info(volume, &info, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    return cli_answer(cli,
                      json_pack("{s:s, s:I, s:I, s:I, s:I}", "vid", info.vid, "local_lsn",
                                (json_int_t)info.local_lsn, "page_size", (json_int_t)info.page_size,
                                "page_count", (json_int_t)info.page_count, "pages_changed",
                                (json_int_t)pages_changed),
                      "%s", info.vid);
}

static const struct option_spec import_specs[] = {
    {"page-size", OPTION_SIZE, offsetof(struct cli_settings, page_size), .metavar = "BYTES",
     .help =
         "of a new volume, a power of two from 512 to 65536; otherwise that of the SQLite database, or 4096",
     .min = 512, .max = 65536},
};

const struct cli_command command_import = {
    .name = "import",
    .arguments = "FILE [VID]",
    .summary = "a file's bytes as one local commit; prints the VID",
    .about =
        "Makes a new volume of the file, or changes the volume VID into it, in one local commit that holds only the "
        "pages that differ. A SQLite database gives its own page size; one with a journal beside it is refused.",
    .specs = import_specs,
    .spec_count = ARRAY_COUNT(import_specs),
    .argument_min = 1,
    .argument_max = 2,
    .run = run_import,
};
