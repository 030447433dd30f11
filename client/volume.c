// SPDX-License-Identifier: Apache-2.0
//
// Volume handles. All handles of one VID are one object, so that their readers share what is fetched and
// their pushes take turns.
#include <stdatomic.h>
#include <stdlib.h>

#include "client/client.h"
#include "client/sync.h"
#include "common/base/check.h"
#include "common/base/clock.h"

// ---- what the fetcher sees ----------------------------------------------------------------------

static struct graft_volume *volume_of(struct fetch_source *source)
{
    return CONTAINER_OF(source, struct graft_volume, source);
}

static struct fetch_item item_of(const struct store_page *page)
{
    return (struct fetch_item){page->pageidx, page->mark_lsn, page->ask.lsn, page->ask.chain};
}

#define MISSING_CHUNK 64u

static enum graft_status source_missing(struct fetch_source *source, void *view, const struct pageset *pages,
                                        uint32_t *cursor, struct fetch_item *to, size_t to_max,
                                        size_t *ret_count, struct graft_error *err)
{
    struct store_page found[MISSING_CHUNK];
    size_t count;

    enum graft_status status =
        store_missing(view, pages, cursor, found, MIN(to_max, (size_t)MISSING_CHUNK), &count, err);
    if (status != GRAFT_OK)
        return status;
    for (size_t i = 0; i < count; i++)
        to[i] = item_of(&found[i]);
    *ret_count = count;
    return GRAFT_OK;
}

static enum graft_status source_put(struct fetch_source *source, uint32_t pageidx, uint64_t mark,
                                    const struct bytes *data, struct graft_error *err)
{
    struct store_arrivals *arrivals = volume_of(source)->arrivals;

    if (!data)
        return store_arrivals_add_empty(arrivals, pageidx, mark, err);
    return store_arrivals_add(arrivals, pageidx, mark, data->data, data->size, err);
}

static enum graft_status source_flush(struct fetch_source *source, struct graft_error *err)
{
    return store_arrivals_flush(volume_of(source)->arrivals, err);
}

static const struct fetch_source_ops source_ops = {source_missing, source_put, source_flush};

enum graft_status volume_fetch(struct graft_volume *volume, struct store_pin *pin,
                               const struct store_page *page, struct graft_error *err)
{
    struct fetch_item item = item_of(page);

    CHECK(page->state == STORE_PAGE_PENDING);
    enum graft_status status = fetch_page(volume->client->fetcher, &volume->source, pin, &item, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "fetching page %u", page->pageidx);
    return GRAFT_OK;
}

size_t volume_fill_empty(const struct graft_volume *volume, uint32_t pageidx, uint32_t page_count, void *to)
{
    if (volume->source.variable || pageidx > page_count)
        return 0;
    memset(to, 0, volume->source.page_size);
    return volume->source.page_size;
}

enum graft_status volume_check_page(const struct graft_volume *volume, uint32_t pageidx, size_t to_size,
                                    struct graft_error *err)
{
    if (pageidx == 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "pages are numbered from 1: there is no page 0");
    if (to_size < volume->source.page_size)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "room for %zu bytes is not enough for a page of volume %s, which has up to %u",
                         to_size, gid_format(&volume->source.vid).text, volume->source.page_size);
    return GRAFT_OK;
}

// ---- handles ------------------------------------------------------------------------------------

static struct graft_volume *find_locked(struct graft *client, const struct gid *vid)
{
    struct graft_volume *volume;

    mutex_assert_held(&client->lock);
    LIST_FOREACH(volume, &client->volumes, link)
    {
        if (gid_equal(&volume->source.vid, vid))
            return volume;
    }
    return NULL;
}

// Makes the shared object; owns `store` from then on, whatever the answer.
static enum graft_status volume_new(struct graft *client, struct store_volume *store,
                                    struct graft_volume **ret_volume, struct graft_error *err)
{
    _cleanup_(store_volume_close_p) struct store_volume *owned = store;
    _cleanup_(free_p) struct graft_volume *volume = calloc(1, sizeof *volume);
    if (!volume)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to open a volume");
    struct graft_fetch_counts tally;
    enum graft_status status = store_tally_read(store, &tally, err);
    if (status == GRAFT_OK)
        status = store_arrivals_new(store, &volume->arrivals, err);
    if (status != GRAFT_OK)
        return status;
    volume->client = client;
    volume->store = TAKE(owned);
    volume->refs = 1;
    fetch_source_init(&volume->source, &source_ops, store_volume_vid(store), store_volume_page_size(store),
                      store_volume_kind(store) == GRAFT_VARIABLE);
    fetch_source_set_tally(&volume->source, &tally);
    mutex_init(&volume->turn_lock, RANK_TURN);
    cond_init(&volume->turn_over);
    *ret_volume = TAKE(volume);
    return GRAFT_OK;
}

enum graft_status volume_acquire(struct graft *client, const struct gid *vid,
                                 struct graft_volume **ret_volume, struct graft_error *err)
{
    struct store_volume *store;

    LOCK_GUARD(&client->lock);
    struct graft_volume *volume = find_locked(client, vid);
    if (volume) {
        volume->refs++;
        *ret_volume = volume;
        return GRAFT_OK;
    }
    enum graft_status status = store_volume_open(client->store, vid, &store, err);
    if (status == GRAFT_OK)
        status = volume_new(client, store, &volume, err);
    if (status != GRAFT_OK)
        return status;
    LIST_INSERT_HEAD(&client->volumes, volume, link);
    client->volume_count++;
    *ret_volume = volume;
    return GRAFT_OK;
}

void graft_vid_make(char ret_vid[GRAFT_VID_SIZE])
{
    struct gid vid = gid_make(GID_VOLUME, clock_wall_ms(clock_system()));
    memcpy(ret_vid, gid_format(&vid).text, GRAFT_VID_SIZE);
}

enum graft_status graft_volume_create_as(struct graft *client, const char *vid_text, uint32_t page_size,
                                         enum graft_volume_kind kind, struct graft_volume **ret_volume,
                                         struct graft_error *err)
{
    struct store_volume *store;
    struct gid vid;

    REQUIRE(client);
    REQUIRE(vid_text);
    REQUIRE(ret_volume);
    enum graft_status status = store_check_fork(client->store, err);
    if (status == GRAFT_OK)
        status = gid_parse(vid_text, GID_VOLUME, &vid, err);
    if (status != GRAFT_OK)
        return status;
    if (kind != GRAFT_FIXED && kind != GRAFT_VARIABLE)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "a volume's kind is GRAFT_FIXED or GRAFT_VARIABLE, not %d", (int)kind);
    status = store_volume_create(client->store, &vid, page_size ? page_size : PAGE_SIZE_DEFAULT, kind, &store,
                                 err);
    if (status != GRAFT_OK)
        return status;
    // The store's own handle keeps the volume in place until the shared object holds it.
    _cleanup_(store_volume_close_p) struct store_volume *held = store;
    return volume_acquire(client, &vid, ret_volume, err);
}

enum graft_status graft_volume_create(struct graft *client, uint32_t page_size, enum graft_volume_kind kind,
                                      struct graft_volume **ret_volume, struct graft_error *err)
{
    char vid[GRAFT_VID_SIZE];

    graft_vid_make(vid);
    return graft_volume_create_as(client, vid, page_size, kind, ret_volume, err);
}

enum graft_status graft_volume_open(struct graft *client, const char *vid_text,
                                    struct graft_volume **ret_volume, struct graft_error *err)
{
    struct gid vid;

    REQUIRE(client);
    REQUIRE(vid_text);
    REQUIRE(ret_volume);
    enum graft_status status = store_check_fork(client->store, err);
    if (status == GRAFT_OK)
        status = gid_parse(vid_text, GID_VOLUME, &vid, err);
    if (status != GRAFT_OK)
        return status;
    return volume_acquire(client, &vid, ret_volume, err);
}

// Makes the local replica of a volume of the servers.
static enum graft_status attach(struct graft *client, const struct gid *vid, struct store_volume **ret_store,
                                struct graft_error *err)
{
    struct snapshot head;

    enum graft_status status = remote_live_snapshot(&client->remote, vid, 0, &head, err);
    if (status != GRAFT_OK)
        return status;
    struct store_remote remote = {head.lsn, head.chain, head.page_count};
    return store_volume_clone(client->store, vid, head.page_size,
                              head.variable ? GRAFT_VARIABLE : GRAFT_FIXED, &remote, ret_store, err);
}

enum graft_status graft_volume_clone(struct graft *client, const char *vid_text,
                                     struct graft_volume **ret_volume, struct graft_error *err)
{
    struct graft_error why;
    struct gid vid;
    _cleanup_(store_volume_close_p) struct store_volume *held = NULL;

    REQUIRE(client);
    REQUIRE(vid_text);
    REQUIRE(ret_volume);
    enum graft_status status = store_check_fork(client->store, err);
    if (status == GRAFT_OK)
        status = gid_parse(vid_text, GID_VOLUME, &vid, err);
    if (status != GRAFT_OK)
        return status;
    status = volume_acquire(client, &vid, ret_volume, &why);
    if (status != GRAFT_NOT_FOUND)
        return status == GRAFT_OK ? status : error_copy(err, &why);
    status = attach(client, &vid, &held, &why);
    // Another thread may have cloned it meanwhile, which is as good.
    if (status != GRAFT_OK && why.detail != GRAFT_DETAIL_EXISTS) {
        error_copy(err, &why);
        return error_context(err, status, "cloning volume %s", vid_text);
    }
    return volume_acquire(client, &vid, ret_volume, err);
}

void graft_volume_close(struct graft_volume *volume)
{
    if (!volume || client_is_forked(volume->client))
        return;
    struct graft *client = volume->client;
    mutex_lock(&client->lock);
    unsigned left = --volume->refs;
    if (left == 0)
        LIST_REMOVE(volume, link);
    mutex_unlock(&client->lock);
    if (left > 0)
        return;
    sync_remove(client, volume);
    fetch_source_drain(client->fetcher, &volume->source);
    store_arrivals_free(volume->arrivals);
    struct graft_fetch_counts tally = fetch_source_tally(&volume->source);
    if (tally.requests != volume->source.tallied)
        store_tally_write(volume->store, &tally, NULL); // losing it loses a figure
    store_volume_close(volume->store);
    cond_release(&volume->turn_over);
    mutex_release(&volume->turn_lock);
    free(volume);
    client_volume_gone(client);
}

void volume_turn_take(struct graft_volume *volume)
{
    LOCK_GUARD(&volume->turn_lock);
    while (volume->turn_taken)
        cond_wait(&volume->turn_over, &volume->turn_lock);
    volume->turn_taken = true;
}

bool volume_turn_try(struct graft_volume *volume)
{
    LOCK_GUARD(&volume->turn_lock);
    bool mine = !volume->turn_taken;
    volume->turn_taken = true;
    return mine;
}

void volume_turn_give(struct graft_volume *volume)
{
    mutex_lock(&volume->turn_lock);
    CHECK(volume->turn_taken);
    volume->turn_taken = false;
    mutex_unlock(&volume->turn_lock);
    cond_signal(&volume->turn_over);
}

enum graft_status graft_volume_head(struct graft_volume *volume, struct graft_volume_head *ret_head,
                                    struct graft_error *err)
{
    struct store_state state;

    REQUIRE(volume);
    REQUIRE(ret_head);
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status != GRAFT_OK)
        return status;
    store_volume_state(volume->store, &state);
    *ret_head = (struct graft_volume_head){
        .page_size = state.page_size,
        .kind = state.kind,
        .page_count = state.page_count,
        .local_lsn = state.local_lsn,
        .status = state.status,
        .status_error = state.status_error,
    };
    return GRAFT_OK;
}

enum graft_status graft_volume_info(struct graft_volume *volume, struct graft_volume_info *ret_info,
                                    struct graft_error *err)
{
    struct store_state state;
    struct store_counts counts;

    REQUIRE(volume);
    REQUIRE(ret_info);
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status == GRAFT_OK)
        status = store_volume_counts(volume->store, &counts, err);
    if (status != GRAFT_OK)
        return status;
    store_volume_state(volume->store, &state);
    struct graft_volume_info info = {
        .page_size = state.page_size,
        .kind = state.kind,
        .page_count = state.page_count,
        .local_lsn = state.local_lsn,
        .remote_lsn = state.remote.lsn,
        .remote_seen_lsn = state.remote_seen_lsn,
        .pending_commits = state.local_lsn - state.mapped_lsn,
        .status = state.status,
        .status_error = state.status_error,
        .pages_available = counts.available,
        .pages_pending = counts.pending,
        .fetch = fetch_source_tally(&volume->source),
    };
    memcpy(info.vid, gid_format(&state.vid).text, sizeof info.vid);
    if (info.status == GRAFT_VOLUME_OK && state.push.sent) {
        info.status = GRAFT_VOLUME_UNKNOWN;
        error_set(&info.status_error, GRAFT_UNKNOWN, GRAFT_DETAIL_PUSH_PENDING,
                  "a push on LSN %llu has no answer yet; pushing again goes on with it",
                  (unsigned long long)state.push.base.lsn);
    }
    *ret_info = info;
    return GRAFT_OK;
}
