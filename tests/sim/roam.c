// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/roam.h"

#include <stdio.h>
#include <string.h>

#define SEEN_MAX 64u

struct seen {
    char (*vids)[GRAFT_VID_SIZE];
    size_t count, max;
};

static bool see(void *context, const char *vid)
{
    struct seen *seen = context;

    if (seen->count < seen->max)
        snprintf(seen->vids[seen->count++], GRAFT_VID_SIZE, "%s", vid);
    return seen->count < seen->max;
}

static bool see_head(void *context, const struct graft_remote_head *head)
{
    return see(context, head->vid);
}

enum graft_status roam_list(struct sim *sim, char (*vids)[GRAFT_VID_SIZE], size_t max, size_t *ret_count,
                            struct graft_error *err)
{
    struct seen seen = {.vids = vids, .max = max};

    enum graft_status status = graft_volume_list(sim->client, see, &seen, err);
    if (status == GRAFT_OK)
        *ret_count = seen.count;
    return status;
}

static enum graft_status list_remote(struct sim *sim, char (*vids)[GRAFT_VID_SIZE], size_t max,
                                     size_t *ret_count, struct graft_error *err)
{
    struct seen seen = {.vids = vids, .max = max};

    enum graft_status status = graft_remote_list(sim->client, see_head, &seen, err);
    if (status == GRAFT_OK)
        *ret_count = seen.count;
    else
        sim_note_failure(sim, err);
    return status;
}

static void leave(struct sim *sim)
{
    graft_volume_close(sim->volume);
    sim->volume = NULL;
}

enum graft_status roam_fork(struct sim *sim, struct graft_error *err)
{
    char vids[SEEN_MAX][GRAFT_VID_SIZE];
    struct graft_volume *fork = NULL;
    struct line line;
    size_t count;

    enum graft_status status = list_remote(sim, vids, SEEN_MAX, &count, err);
    if (status != GRAFT_OK || count >= ROAM_VOLUMES_MAX)
        return status;
    uint64_t id = sim_invoke(sim, "fork");
    status = graft_fork(sim->volume, &fork, err);
    line_begin(&line, line_event_of(status), "fork", id);
    line_add_state(&line, sim->volume);
    if (status == GRAFT_OK) {
        line_add(&line, ",\"fork\":\"%s\"", gid_format(&fork->source.vid).text);
    } else {
        line_add_error(&line, err);
        sim_note_failure(sim, err);
    }
    line_write(&line);
    graft_volume_close(fork);
    return status;
}

enum graft_status roam_delete(struct sim *sim, struct graft_error *err)
{
    const struct gid_text vid = gid_format(&sim->volume->source.vid);

    if (strcmp(vid.text, sim->vid) == 0)
        return GRAFT_OK;
    uint64_t id = sim_invoke(sim, "delete");
    return sim_complete(sim, "delete", id, graft_remote_delete(sim->client, vid.text, err), err);
}

enum graft_status roam_forget(struct sim *sim, struct graft_error *err)
{
    const struct gid_text vid = gid_format(&sim->volume->source.vid);
    struct line line;

    if (strcmp(vid.text, sim->vid) == 0)
        return GRAFT_OK;
    uint64_t id = sim_invoke(sim, "forget");
    leave(sim);
    enum graft_status status = graft_volume_delete(sim->client, vid.text, err);
    line_begin(&line, line_event_of(status), "forget", id);
    line_add(&line, ",\"vid\":\"%s\"", vid.text);
    if (status != GRAFT_OK) {
        line_add_error(&line, err);
        sim_note_failure(sim, err);
    }
    line_write(&line);
    struct graft_error why;
    enum graft_status back = sim_open_volume(sim, sim->vid, &why);
    return status == GRAFT_OK && back != GRAFT_OK ? error_copy(err, &why) : status;
}

enum graft_status roam_visit(struct sim *sim, struct graft_error *err)
{
    char vids[SEEN_MAX][GRAFT_VID_SIZE];
    size_t count = 0;

    enum graft_status status = GRAFT_UNAVAILABLE;
    if (rng_below(&sim->rng, 2) == 0)
        status = list_remote(sim, vids, SEEN_MAX, &count, err);
    if (status != GRAFT_OK)
        status = roam_list(sim, vids, SEEN_MAX, &count, err);
    if (status != GRAFT_OK || count == 0)
        return status;
    leave(sim);
    status = sim_open_volume(sim, vids[rng_below(&sim->rng, count)], err);
    if (status != GRAFT_OK)
        status = sim_open_volume(sim, sim->vid, err);
    return status == GRAFT_OK ? sim_read(sim, false, err) : status;
}
