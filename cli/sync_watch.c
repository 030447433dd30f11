// SPDX-License-Identifier: Apache-2.0
//
// sync --watch: background sync in the foreground, a line for each event, until a signal comes.
//
// Lines are printed by the library's threads as things happen; the main thread only waits for the signal.
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"

struct followed {
    const struct cli *cli;
    struct graft_volume *volume;
    char vid[GRAFT_VID_SIZE];
    // What the last line said: an attempt that changed nothing gets none.
    bool told;
    enum graft_status status;
    enum graft_detail detail;
    enum graft_volume_status volume_status;
    uint64_t remote_lsn, pending_commits;
};

struct follower {
    struct cli *cli;
    struct followed **volumes;
    size_t count;
    struct graft_error err;
};

static bool is_news(struct followed *followed, const struct graft_error *outcome,
                    const struct graft_volume_info *info)
{
    bool same = followed->told && followed->status == outcome->status &&
                followed->detail == outcome->detail && followed->volume_status == info->status &&
                followed->remote_lsn == info->remote_lsn &&
                followed->pending_commits == info->pending_commits;
    followed->told = true;
    followed->status = outcome->status;
    followed->detail = outcome->detail;
    followed->volume_status = info->status;
    followed->remote_lsn = info->remote_lsn;
    followed->pending_commits = info->pending_commits;
    return !same;
}

static json_t *event_json(const struct graft_error *outcome, const struct graft_volume_info *info)
{
    json_t *event = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I}", "vid", info->vid, "status", graft_volume_status_text(info->status),
        "remote_lsn", (json_int_t)info->remote_lsn, "local_lsn", (json_int_t)info->local_lsn, "page_count",
        (json_int_t)info->page_count, "pending_commits", (json_int_t)info->pending_commits);
    if (outcome->status != GRAFT_OK)
        json_object_set_new(event, "error",
                            json_pack("{s:s, s:s, s:s}", "status", graft_status_text(outcome->status),
                                      "detail", graft_detail_text(outcome->detail), "message",
                                      outcome->message));
    return event;
}

static void tell(struct followed *followed, const struct graft_error *outcome)
{
    struct graft_volume_info info;
    struct graft_error why = *outcome;
    if (graft_volume_info(followed->volume, &info, &why) != GRAFT_OK) {
        info = (struct graft_volume_info){.status = GRAFT_VOLUME_OK};
        memcpy(info.vid, followed->vid, sizeof info.vid);
    }
    if (!is_news(followed, &why, &info))
        return;
    if (followed->cli->settings.json) {
        json_t *event = event_json(&why, &info);
        char *line = json_dumps(event, JSON_COMPACT | JSON_ENSURE_ASCII);
        if (line)
            puts(line);
        free(line);
        json_decref(event);
    } else if (why.status != GRAFT_OK) {
        printf("%s  %s\n", info.vid, why.message);
    } else {
        printf("%s  in step: remote LSN %" PRIu64 ", %" PRIu32 " pages\n", info.vid, info.remote_lsn,
               info.page_count);
    }
    // Nobody reads on: the same as an interruption.
    if (fflush(stdout) != 0)
        kill(getpid(), SIGTERM);
}

static void on_event(void *context, const char *vid, const struct graft_error *outcome)
{
    (void)vid;
    tell(context, outcome);
}

static bool follow(struct follower *follower, const char *vid)
{
    struct followed *followed = calloc(1, sizeof *followed);
    struct followed **volumes =
        reallocarray(follower->volumes, follower->count + 1, sizeof(struct followed *));
    if (volumes)
        follower->volumes = volumes;
    if (!followed || !volumes) {
        free(followed);
        follower->err =
            (struct graft_error){GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for another volume"};
        return false;
    }
    followed->cli = follower->cli;
    if (cli_volume(follower->cli, vid, &followed->volume, &follower->err) != GRAFT_OK) {
        free(followed);
        return false;
    }
    snprintf(followed->vid, sizeof followed->vid, "%s", vid);
    follower->volumes[follower->count++] = followed;
    return true;
}

static bool follow_listed(void *context, const char *vid)
{
    return follow(context, vid);
}

// Opens what is to be followed and starts; on failure the reason is in follower->err.
static bool start(struct follower *follower, char **arguments, int argument_count)
{
    struct cli *cli = follower->cli;
    bool good = true;
    if (argument_count == 0)
        good = cli_client(cli, &follower->err) == GRAFT_OK &&
               graft_volume_list(cli->client, follow_listed, follower, &follower->err) == GRAFT_OK &&
               follower->err.status == GRAFT_OK;
    for (int i = 0; i < argument_count && good; i++)
        good = follow(follower, arguments[i]);
    for (size_t i = 0; i < follower->count && good; i++) {
        struct graft_sync_settings settings = {
            .push = true, .pull = true, .on_event = on_event, .context = follower->volumes[i]};
        good = graft_sync_start(follower->volumes[i]->volume, &settings, &follower->err) == GRAFT_OK;
    }
    return good;
}

enum exit_code cli_sync_watch(struct cli *cli, char **arguments, int argument_count)
{
    struct follower follower = {.cli = cli};
    enum exit_code code = EXIT_DONE;
    sigset_t signals;
    int signal;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (!start(&follower, arguments, argument_count))
        code = cli_fail(cli, &follower.err);
    else if (follower.count == 0)
        code = cli_fail_with(cli, GRAFT_NOT_FOUND, GRAFT_DETAIL_NO_SUCH_VOLUME,
                             "the data directory has no volume to keep in step");
    else
        sigwait(&signals, &signal);
    // The client first, which ends what is waiting for a server.
    graft_close(cli->client);
    cli->client = NULL;
    for (size_t i = 0; i < follower.count; i++) {
        graft_volume_close(follower.volumes[i]->volume);
        free(follower.volumes[i]);
    }
    free(follower.volumes);
    return code;
}
