// SPDX-License-Identifier: Apache-2.0
//
// read, write: single pages.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "common/base/error.h"

#define PAGE_SIZE_LARGEST 65536

static bool parse_pageidx(const char *text, uint32_t *ret_pageidx, enum exit_code *ret_code)
{
    uint64_t number;
    if (cli_parse_number(text, UINT32_MAX, &number) && number > 0) {
        *ret_pageidx = (uint32_t)number;
        return true;
    }
    fprintf(stderr, "graft: \"%s\" is no page: pages are numbered from 1 to %" PRIu32 "\n", text, UINT32_MAX);
    *ret_code = EXIT_USAGE;
    return false;
}

static enum exit_code run_read(struct cli *cli, char **arguments, int argument_count)
{
    _cleanup_(graft_volume_close_p) struct graft_volume *volume = NULL;
    _cleanup_(graft_snapshot_release_p) struct graft_snapshot *snapshot = NULL;
    unsigned char page[PAGE_SIZE_LARGEST];
    struct graft_error err;
    uint32_t pageidx;
    size_t size;
    enum exit_code code;
    if (!parse_pageidx(arguments[1], &pageidx, &code))
        return code;
    if (cli_volume(cli, arguments[0], &volume, &err) != GRAFT_OK ||
        graft_snapshot_open(volume, &snapshot, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    if (pageidx > graft_snapshot_page_count(snapshot))
        return cli_fail_with(cli, GRAFT_NOT_FOUND, GRAFT_DETAIL_BAD_ARGUMENT,
                             "page %" PRIu32 " is beyond the end: %s has %" PRIu32 " pages", pageidx,
                             arguments[0], graft_snapshot_page_count(snapshot));
    if (graft_snapshot_read(snapshot, pageidx, page, sizeof page, &size, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    fwrite(page, 1, size, stdout);
    return EXIT_DONE;
}

const struct cli_command command_read = {
    .name = "read",
    .arguments = "VID PAGEIDX",
    .summary = "one page to stdout, fetched if it is not here",
    .about = "Writes the bytes of one page of the local head to stdout.",
    .argument_min = 2,
    .argument_max = 2,
    .run = run_read,
};

static enum exit_code run_write(struct cli *cli, char **arguments, int argument_count)
{
    _cleanup_(graft_volume_close_p) struct graft_volume *volume = NULL;
    _cleanup_(graft_writer_abort_p) struct graft_writer *writer = NULL;
    unsigned char page[PAGE_SIZE_LARGEST + 1];
    struct graft_volume_info info;
    struct graft_error err;
    uint32_t pageidx;
    uint64_t lsn;
    enum exit_code code;
    if (!parse_pageidx(arguments[1], &pageidx, &code))
        return code;
    if (cli_volume(cli, arguments[0], &volume, &err) != GRAFT_OK ||
        graft_volume_info(volume, &info, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    size_t size = fread(page, 1, sizeof page, stdin);
    if (ferror(stdin)) {
        error_from_errno(&err, errno, "reading stdin");
        return cli_fail(cli, &err);
    }
    if (size > info.page_size)
        return cli_fail_with(cli, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                             "stdin has more than the %" PRIu32 " bytes of a page of %s", info.page_size,
                             info.vid);
    if (info.kind == GRAFT_FIXED && size < info.page_size && !cli->settings.pad)
        return cli_fail_with(cli, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                             "stdin has %zu bytes and every page of %s has %" PRIu32
                             "; --pad fills it up with zeros",
                             size, info.vid, info.page_size);
    if (info.kind == GRAFT_FIXED) {
        memset(page + size, 0, info.page_size - size);
        size = info.page_size;
    }
    if (graft_writer_begin(volume, &writer, &err) != GRAFT_OK ||
        graft_writer_write(writer, pageidx, page, size, &err) != GRAFT_OK ||
        graft_writer_commit(TAKE(writer), &lsn, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    return cli_answer(cli,
                      json_pack("{s:s, s:I, s:I}", "vid", info.vid, "pageidx", (json_int_t)pageidx,
                                "local_lsn", (json_int_t)lsn),
                      "committed page %" PRIu32 " of %s as local LSN %" PRIu64, pageidx, info.vid, lsn);
}

static const struct option_spec write_specs[] = {
    {"pad", OPTION_FLAG, offsetof(struct cli_settings, pad), .help = "fill a short page up with zeros"},
};

const struct cli_command command_write = {
    .name = "write",
    .arguments = "VID PAGEIDX",
    .summary = "stdin as one page, one local commit",
    .about = "Writes stdin as one page and commits it. Pages of a fixed volume need exactly page_size bytes.",
    .specs = write_specs,
    .spec_count = ARRAY_COUNT(write_specs),
    .argument_min = 2,
    .argument_max = 2,
    .run = run_write,
};
