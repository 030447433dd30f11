// SPDX-License-Identifier: Apache-2.0
//
// volume create, volume list, volume delete.
#include <inttypes.h>
#include <stdio.h>

#include "cli/commands.h"
#include "common/base/clock.h"

static const char *kind_text(enum graft_volume_kind kind)
{
    return kind == GRAFT_VARIABLE ? "variable" : "fixed";
}

static enum exit_code run_create(struct cli *cli, char **arguments, int argument_count)
{
    _cleanup_(graft_volume_close_p) struct graft_volume *volume = NULL;
    struct graft_volume_info info;
    struct graft_error err;
    if (cli_client(cli, &err) != GRAFT_OK ||
        graft_volume_create(cli->client, (uint32_t)cli->settings.page_size,
                            cli->settings.variable ? GRAFT_VARIABLE : GRAFT_FIXED, &volume,
                            &err) != GRAFT_OK ||
        graft_volume_info(volume, &info, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    return cli_answer(cli,
                      json_pack("{s:s, s:I, s:s}", "vid", info.vid, "page_size", (json_int_t)info.page_size,
                                "kind", kind_text(info.kind)),
                      "%s", info.vid);
}

static const struct option_spec create_specs[] = {
    {"page-size", OPTION_SIZE, offsetof(struct cli_settings, page_size), .metavar = "BYTES",
     .fallback = "4096", .help = "a power of two from 512 to 65536", .min = 512, .max = 65536},
    {"variable", OPTION_FLAG, offsetof(struct cli_settings, variable),
     .help = "pages may be shorter than the page size"},
};

const struct cli_command command_volume_create = {
    .name = "volume create",
    .arguments = "",
    .summary = "make a new volume and print its VID",
    .about =
        "Makes a new, empty volume in the data directory and prints its VID. The servers learn of it at the "
        "first push.",
    .specs = create_specs,
    .spec_count = ARRAY_COUNT(create_specs),
    .run = run_create,
};

static bool list_local(void *context, const char *vid)
{
    struct cli_list *list = context;
    if (list->cli->settings.json)
        return cli_list_add(list, json_pack("{s:s}", "vid", vid));
    return puts(vid) >= 0;
}

static bool list_remote(void *context, const struct graft_remote_head *head)
{
    struct cli_list *list = context;
    if (list->cli->settings.json)
        return cli_list_add(list, json_pack("{s:s, s:I, s:I, s:I, s:s, s:s}", "vid", head->vid, "lsn",
                                            (json_int_t)head->lsn, "page_count", (json_int_t)head->page_count,
                                            "page_size", (json_int_t)head->page_size, "kind",
                                            kind_text(head->kind), "time", clock_format(head->time_ms).text));
    return printf("%s  LSN %" PRIu64 "  %" PRIu32 " pages of %" PRIu32 " bytes, %s\n", head->vid, head->lsn,
                  head->page_count, head->page_size, kind_text(head->kind)) >= 0;
}

static enum exit_code run_list(struct cli *cli, char **arguments, int argument_count)
{
    struct cli_list list = {.cli = cli};
    struct graft_error err;
    enum graft_status status = cli_client(cli, &err);
    if (status == GRAFT_OK)
        status = cli->settings.remote ? graft_remote_list(cli->client, list_remote, &list, &err)
                                      : graft_volume_list(cli->client, list_local, &list, &err);
    return status == GRAFT_OK ? cli_list_end(&list) : cli_list_fail(&list, &err);
}

static const struct option_spec remote_specs[] = {
    {"remote", OPTION_FLAG, offsetof(struct cli_settings, remote),
     .help = "on the servers, not in the data directory"},
};

const struct cli_command command_volume_list = {
    .name = "volume list",
    .arguments = "[--remote]",
    .summary = "list the volumes of the data directory, or of the servers",
    .about =
        "Lists the VIDs of the local replicas; with --remote, all volumes of the servers with their heads.",
    .specs = remote_specs,
    .spec_count = ARRAY_COUNT(remote_specs),
    .run = run_list,
};

static enum exit_code run_delete(struct cli *cli, char **arguments, int argument_count)
{
    struct graft_error err;
    enum graft_status status = cli_client(cli, &err);
    if (status == GRAFT_OK)
        status = cli->settings.remote ? graft_remote_delete(cli->client, arguments[0], &err)
                                      : graft_volume_delete(cli->client, arguments[0], &err);
    if (status != GRAFT_OK)
        return cli_fail(cli, &err);
    return cli_answer(cli, json_pack("{s:s, s:b}", "vid", arguments[0], "remote", cli->settings.remote),
                      "deleted %s %s", arguments[0], cli->settings.remote ? "on the servers" : "here");
}

const struct cli_command command_volume_delete = {
    .name = "volume delete",
    .arguments = "VID [--remote]",
    .summary = "forget a local replica, or end a volume on the servers",
    .about =
        "Removes the local replica, with what was not pushed. With --remote the volume ends on the servers, for "
        "everybody: its last commit says so, and its VID never comes back.",
    .specs = remote_specs,
    .spec_count = ARRAY_COUNT(remote_specs),
    .argument_min = 1,
    .argument_max = 1,
    .run = run_delete,
};
