// SPDX-License-Identifier: Apache-2.0
//
// push, pull, sync, reset, clone.
#include <inttypes.h>
#include <stdio.h>

#include "cli/commands.h"

static enum exit_code run_push(struct cli *cli, char **arguments, int argument_count)
{
    _cleanup_(graft_volume_close_p) struct graft_volume *volume = NULL;
    struct graft_volume_info before, after;
    struct graft_error err;
    uint64_t lsn = 0;
    if (cli_volume(cli, arguments[0], &volume, &err) != GRAFT_OK ||
        graft_volume_info(volume, &before, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    // The first may only finish what an earlier one began.
    do {
        if (graft_push(volume, &lsn, &err) != GRAFT_OK || graft_volume_info(volume, &after, &err) != GRAFT_OK)
            return cli_fail(cli, &err);
    } while (after.pending_commits > 0);
    json_t *answer = json_pack("{s:s, s:I, s:I}", "vid", before.vid, "remote_lsn", (json_int_t)lsn,
                               "pushed_commits", (json_int_t)before.pending_commits);
    if (before.pending_commits == 0)
        return cli_answer(cli, answer, "nothing to push: %s is at remote LSN %" PRIu64, before.vid, lsn);
    return cli_answer(cli, answer, "pushed %" PRIu64 " local commit%s of %s as remote LSN %" PRIu64,
                      before.pending_commits, before.pending_commits == 1 ? "" : "s", before.vid, lsn);
}

const struct cli_command command_push = {
    .name = "push",
    .arguments = "VID",
    .summary = "send the local commits to the servers, as one commit",
    .about =
        "Pushes all local commits as one commit of the servers, exactly once however often it is repeated. A push "
        "that was interrupted, or that never got its answer, is finished first; what was committed since follows as a "
        "commit of its own. Exit code 3: another commit came first; the local ones are kept: `reset` drops them, `fork` "
        "takes them into a new volume. Exit code 4: no answer; the push stays pending and lands at most once.",
    .argument_min = 1,
    .argument_max = 1,
    .run = run_push,
};

static enum exit_code answer_head(struct cli *cli, struct graft_volume *volume, const char *done,
                                  uint64_t changed)
{
    struct graft_volume_info info;
    struct graft_error err;
    if (graft_volume_info(volume, &info, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    return cli_answer(cli,
                      json_pack("{s:s, s:I, s:I, s:I}", "vid", info.vid, "remote_lsn",
                                (json_int_t)info.remote_lsn, "page_count", (json_int_t)info.page_count,
                                "pages_changed", (json_int_t)changed),
                      "%s %s: remote LSN %" PRIu64 ", %" PRIu32 " pages, %" PRIu64 " changed", done, info.vid,
                      info.remote_lsn, info.page_count, changed);
}

static enum exit_code run_pull(struct cli *cli, char **arguments, int argument_count)
{
    _cleanup_(graft_volume_close_p) struct graft_volume *volume = NULL;
    struct graft_error err;
    uint64_t changed = 0;
    if (cli_volume(cli, arguments[0], &volume, &err) != GRAFT_OK ||
        graft_pull(volume, &changed, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    return answer_head(cli, volume, "pulled", changed);
}

const struct cli_command command_pull = {
    .name = "pull",
    .arguments = "VID",
    .summary = "take over what others pushed, without downloading pages",
    .about =
        "Moves the replica to the servers' head. Changed pages are marked and fetched when they are read. Exit "
        "code 3: local commits that were not pushed are in the way.",
    .argument_min = 1,
    .argument_max = 1,
    .run = run_pull,
};

static enum exit_code run_sync(struct cli *cli, char **arguments, int argument_count)
{
    _cleanup_(graft_volume_close_p) struct graft_volume *volume = NULL;
    struct graft_volume_info info;
    struct graft_error err;
    if (cli->settings.watch)
        return cli_sync_watch(cli, arguments, argument_count);
    if (argument_count != 1) {
        fprintf(stderr, "graft: sync takes one VID, or --watch\nTry: graft sync --help\n");
        return EXIT_USAGE;
    }
    if (cli_volume(cli, arguments[0], &volume, &err) != GRAFT_OK || graft_sync(volume, &err) != GRAFT_OK ||
        graft_volume_info(volume, &info, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    return cli_answer(cli,
                      json_pack("{s:s, s:I, s:I}", "vid", info.vid, "remote_lsn", (json_int_t)info.remote_lsn,
                                "page_count", (json_int_t)info.page_count),
                      "in step: %s is at remote LSN %" PRIu64 ", %" PRIu32 " pages", info.vid,
                      info.remote_lsn, info.page_count);
}

static const struct option_spec sync_specs[] = {
    {"watch", OPTION_FLAG, offsetof(struct cli_settings, watch),
     .help = "stay in step with the servers until interrupted; of all volumes if none is named"},
};

const struct cli_command command_sync = {
    .name = "sync",
    .arguments = "VID | --watch [VID...]",
    .summary = "push if there is something to push, then pull",
    .about =
        "Pushes what was committed here, then takes over what others pushed. With --watch it goes on: it follows the "
        "servers' heads (polling where they cannot be watched), tries again with growing pauses what failed, and "
        "prints a line whenever something changed (with --json an object a line), until it is interrupted. The data "
        "directory belongs to it meanwhile.",
    .specs = sync_specs,
    .spec_count = ARRAY_COUNT(sync_specs),
    .argument_max = -1,
    .run = run_sync,
};

static enum exit_code run_reset(struct cli *cli, char **arguments, int argument_count)
{
    _cleanup_(graft_volume_close_p) struct graft_volume *volume = NULL;
    struct graft_volume_info info;
    struct graft_error err;
    uint64_t dropped;
    if (cli_volume(cli, arguments[0], &volume, &err) != GRAFT_OK ||
        graft_discard(volume, cli->settings.reattach ? GRAFT_DISCARD_REATTACH : 0, &dropped, &err) !=
            GRAFT_OK ||
        graft_volume_info(volume, &info, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    return cli_answer(cli,
                      json_pack("{s:s, s:I, s:I}", "vid", info.vid, "remote_lsn", (json_int_t)info.remote_lsn,
                                "dropped_commits", (json_int_t)dropped),
                      "reset %s to remote LSN %" PRIu64 ": %" PRIu64 " local commit%s dropped", info.vid,
                      info.remote_lsn, dropped, dropped == 1 ? "" : "s");
}

static const struct option_spec reset_specs[] = {
    {"reattach", OPTION_FLAG, offsetof(struct cli_settings, reattach),
     .help = "take the servers' history as it is, also of a `corrupt` volume"},
};

const struct cli_command command_reset = {
    .name = "reset",
    .arguments = "VID [--reattach]",
    .summary = "drop the local commits and follow the servers again",
    .about =
        "Drops every local commit that was not pushed and moves the replica to the servers' head. A push that has no "
        "answer yet is settled first, if need be by a void commit in its place, so that nothing dropped comes back; "
        "without the servers this is refused. A `corrupt` volume, whose history is not the servers', is left by "
        "--reattach: it becomes what a new clone would be.",
    .specs = reset_specs,
    .spec_count = ARRAY_COUNT(reset_specs),
    .argument_min = 1,
    .argument_max = 1,
    .run = run_reset,
};

static enum exit_code run_fork(struct cli *cli, char **arguments, int argument_count)
{
    _cleanup_(graft_volume_close_p) struct graft_volume *volume = NULL, *fork = NULL;
    struct graft_volume_info info;
    struct graft_error err;
    if (cli_volume(cli, arguments[0], &volume, &err) != GRAFT_OK ||
        graft_fork(volume, &fork, &err) != GRAFT_OK || graft_volume_info(fork, &info, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    return cli_answer(cli,
                      json_pack("{s:s, s:s, s:I, s:I, s:I}", "vid", info.vid, "forked_from", arguments[0],
                                "remote_lsn", (json_int_t)info.remote_lsn, "page_count",
                                (json_int_t)info.page_count, "pending_commits",
                                (json_int_t)info.pending_commits),
                      "%s", info.vid);
}

const struct cli_command command_fork = {
    .name = "fork",
    .arguments = "VID",
    .summary = "a new volume that is what this one is now; prints its VID",
    .about =
        "Makes a new volume with the state of this one, local commits included, and prints its VID. The servers fork "
        "what they have of it, so nothing is uploaded or downloaded; what was not pushed is one local commit of the "
        "new volume. The old one stays as it is until `reset`. A push that has no answer yet is settled first.",
    .argument_min = 1,
    .argument_max = 1,
    .run = run_fork,
};

static enum exit_code run_clone(struct cli *cli, char **arguments, int argument_count)
{
    _cleanup_(graft_volume_close_p) struct graft_volume *volume = NULL;
    struct graft_volume_info info;
    struct graft_error err;
    if (cli_client(cli, &err) != GRAFT_OK ||
        graft_volume_clone(cli->client, arguments[0], &volume, &err) != GRAFT_OK ||
        graft_volume_info(volume, &info, &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    return cli_answer(cli,
                      json_pack("{s:s, s:I, s:I, s:I}", "vid", info.vid, "remote_lsn",
                                (json_int_t)info.remote_lsn, "page_count", (json_int_t)info.page_count,
                                "page_size", (json_int_t)info.page_size),
                      "cloned %s: remote LSN %" PRIu64 ", %" PRIu32 " pages of %" PRIu32
                      " bytes, fetched when they are read",
                      info.vid, info.remote_lsn, info.page_count, info.page_size);
}

const struct cli_command command_clone = {
    .name = "clone",
    .arguments = "VID",
    .summary = "attach to a volume of the servers; downloads no page",
    .about = "Makes a local replica of a volume of the servers. Its pages are fetched when they are read.",
    .argument_min = 1,
    .argument_max = 1,
    .run = run_clone,
};
