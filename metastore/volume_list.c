// SPDX-License-Identifier: Apache-2.0
#include "metastore/volume_list.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/mutex.h"
#include "metastore/keys.h"

#define HEADS_AT_ONCE 32u

struct listing {
    struct gid *vids;
    unsigned count, limit;
    bool more;
};

static bool add_vid(void *context, const struct objstore_entry *entry)
{
    struct listing *listing = context;
    struct gid vid;
    if (!key_parse_catalog(entry->key, &vid))
        return true; // not ours
    if (listing->count == listing->limit) {
        listing->more = true;
        return false;
    }
    listing->vids[listing->count++] = vid;
    return true;
}

// ---- heads, a few at a time

struct gathering {
    struct mutex lock; // for what follows
    struct cond done;
    unsigned under_way;
    struct graft_error error; // the first
};

struct head_wait {
    struct volume_wait wait;
    struct gathering *gathering;
    struct snapshot head;
};

static void got_volume(struct volume_wait *wait, struct volume *volume, const struct graft_error *error)
{
    struct head_wait *head = CONTAINER_OF(wait, struct head_wait, wait);
    struct gathering *gathering = head->gathering;
    if (volume)
        head->head = volume_head(volume);
    volume_unref(volume);
    LOCK_GUARD(&gathering->lock); // signalled under it: the gathering lies on a stack
    if (!volume && gathering->error.status == GRAFT_OK)
        gathering->error = *error;
    gathering->under_way--;
    cond_signal(&gathering->done);
}

static void gather(struct gathering *gathering, struct volume_table *volumes, const struct gid *vids,
                   unsigned count, struct volume_list *list)
{
    struct head_wait waits[HEADS_AT_ONCE];
    CHECK(count <= HEADS_AT_ONCE);
    gathering->under_way = count;
    for (unsigned i = 0; i < count; i++) {
        waits[i] = (struct head_wait){.wait = {.ready = got_volume, .fresh = true}, .gathering = gathering};
        volume_table_get(volumes, &vids[i], &waits[i].wait);
    }
    mutex_lock(&gathering->lock);
    while (gathering->under_way > 0)
        cond_wait(&gathering->done, &gathering->lock);
    mutex_unlock(&gathering->lock);
    for (unsigned i = 0; i < count && gathering->error.status == GRAFT_OK; i++)
        if (!waits[i].head.deleted)
            list->heads[list->count++] = waits[i].head;
}

static enum graft_status read_heads(struct volume_table *volumes, const struct listing *listing,
                                    struct volume_list *list, struct graft_error *err)
{
    struct gathering gathering = {0};
    mutex_init(&gathering.lock, RANK_META_READ);
    cond_init(&gathering.done);
    for (unsigned i = 0; i < listing->count && gathering.error.status == GRAFT_OK; i += HEADS_AT_ONCE)
        gather(&gathering, volumes, listing->vids + i, MIN(listing->count - i, HEADS_AT_ONCE), list);
    cond_release(&gathering.done);
    mutex_release(&gathering.lock);
    return gathering.error.status == GRAFT_OK ? GRAFT_OK : error_copy(err, &gathering.error);
}

static void free_vids(struct gid **vids)
{
    free(*vids);
}

enum graft_status volume_list_read(struct objstore *store, struct volume_table *volumes,
                                   const struct gid *after, unsigned limit, struct volume_list *ret_list,
                                   struct graft_error *err)
{
    CHECK(limit > 0 && limit <= LIST_LIMIT_MAX);
    _cleanup_(free_vids) struct gid *vids = calloc(limit, sizeof *vids);
    _cleanup_(volume_list_release) struct volume_list list = {.heads = calloc(limit, sizeof *list.heads)};
    CHECK(vids && list.heads);
    struct listing listing = {.vids = vids, .limit = limit};
    struct object_key after_key = {0};
    if (after)
        after_key = key_catalog(after);
    enum graft_status status =
        objstore_list_wait(store, KEY_CATALOG_PREFIX, after ? after_key.text : NULL, add_vid, &listing, err);
    if (status == GRAFT_OK)
        status = read_heads(volumes, &listing, &list, err);
    if (status != GRAFT_OK)
        return status;
    list.more = listing.more;
    if (listing.count > 0)
        list.last = vids[listing.count - 1];
    *ret_list = list;
    list.heads = NULL;
    return GRAFT_OK;
}

void volume_list_release(struct volume_list *list)
{
    free(list->heads);
    list->heads = NULL;
}
