// SPDX-License-Identifier: Apache-2.0
#include "pagestore/volume_info.h"

#include <stdlib.h>
#include <uthash.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/mutex.h"

#define QUERY_THREADS 4u // each may stand still for as long as the metastore's deadline
#define QUERIES_MAX 4096u

struct entry {
    struct gid vid;
    struct volume_info info;
    UT_hash_handle hh; // in order of use, the oldest first
};

struct volume_infos {
    volume_info_fetch_fn *fetch;
    void *context;
    unsigned volumes_max;
    struct pool *pool;
    struct mutex lock;
    struct entry *entries; // lock
};

enum graft_status volume_info_fetch(void *context, const struct gid *vid, struct volume_info *ret_info,
                                    struct graft_error *err)
{
    const struct rpc_target *metastore = context;
    Graft__SnapshotRequest request = GRAFT__SNAPSHOT_REQUEST__INIT;
    request.vid = binary_of(vid->bytes, GID_SIZE);
    ProtobufCMessage *answer;
    enum graft_status status = rpc_call(metastore, "snapshot", &request.base,
                                        &graft__snapshot_response__descriptor, &answer, NULL, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "asking for the page size of volume %s", gid_format(vid).text);

    const Graft__SnapshotResponse *response = (const Graft__SnapshotResponse *)answer;
    struct snapshot snapshot;
    if (!response->snapshot)
        status = error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                           "the metastore's answer for volume %s has no snapshot", gid_format(vid).text);
    else
        status = snapshot_from_message(response->snapshot, &snapshot, err);
    if (status == GRAFT_OK && !gid_equal(&snapshot.vid, vid))
        status = error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                           "the metastore answered for another volume than %s", gid_format(vid).text);
    if (status == GRAFT_OK)
        *ret_info = (struct volume_info){snapshot.page_size, snapshot.variable};
    message_free(answer);
    return status;
}

enum graft_status volume_infos_new(volume_info_fetch_fn *fetch, void *context, unsigned volumes_max,
                                   struct volume_infos **ret_infos, struct graft_error *err)
{
    CHECK(volumes_max > 0);
    struct volume_infos *infos = calloc(1, sizeof *infos);
    if (!infos)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the cache of volumes");
    infos->fetch = fetch;
    infos->context = context;
    infos->volumes_max = volumes_max;
    mutex_init(&infos->lock, RANK_LEAF);
    enum graft_status status = pool_new("volume-info", QUERY_THREADS, QUERIES_MAX, &infos->pool, err);
    if (status != GRAFT_OK) {
        volume_infos_free(infos);
        return status;
    }
    *ret_infos = infos;
    return GRAFT_OK;
}

void volume_infos_free(struct volume_infos *infos)
{
    if (!infos)
        return;
    pool_free(infos->pool);
    struct entry *entry, *next;
    HASH_ITER (hh, infos->entries, entry, next) {
        HASH_DEL(infos->entries, entry);
        free(entry);
    }
    mutex_release(&infos->lock);
    free(infos);
}

bool volume_infos_get(struct volume_infos *infos, const struct gid *vid, struct volume_info *ret_info)
{
    LOCK_GUARD(&infos->lock);
    struct entry *entry;
    HASH_FIND(hh, infos->entries, vid, sizeof *vid, entry);
    if (!entry)
        return false;
    HASH_DEL(infos->entries, entry);
    HASH_ADD(hh, infos->entries, vid, sizeof entry->vid, entry);
    *ret_info = entry->info;
    return true;
}

static void remember(struct volume_infos *infos, const struct gid *vid, const struct volume_info *info)
{
    struct entry *fresh = malloc(sizeof *fresh);
    if (!fresh)
        return; // asked again next time
    *fresh = (struct entry){.vid = *vid, .info = *info};
    struct entry *dropped;
    {
        LOCK_GUARD(&infos->lock);
        HASH_FIND(hh, infos->entries, vid, sizeof *vid, dropped);
        if (!dropped && HASH_COUNT(infos->entries) >= infos->volumes_max)
            dropped = infos->entries;
        if (dropped)
            HASH_DEL(infos->entries, dropped);
        HASH_ADD(hh, infos->entries, vid, sizeof fresh->vid, fresh);
    }
    free(dropped);
}

enum graft_status volume_infos_wait(struct volume_infos *infos, const struct gid *vid,
                                    struct volume_info *ret_info, struct graft_error *err)
{
    if (volume_infos_get(infos, vid, ret_info))
        return GRAFT_OK;
    FAILPOINT("volume_info.fetch");
    enum graft_status status = infos->fetch(infos->context, vid, ret_info, err);
    FAILPOINT("volume_info.fetched");
    if (status == GRAFT_OK)
        remember(infos, vid, ret_info);
    return status;
}

static void query_run(struct job *job)
{
    struct volume_query *query = CONTAINER_OF(job, struct volume_query, job);
    struct volume_info info = {0};
    struct graft_error error = {0};
    (void)volume_infos_wait(query->infos, &query->vid, &info, &error);
    query->done(query, &info, &error);
}

enum graft_status volume_infos_ask(struct volume_infos *infos, struct volume_query *query,
                                   struct graft_error *err)
{
    query->infos = infos;
    query->job.run = query_run;
    if (pool_submit(infos->pool, &query->job, err) == GRAFT_OK)
        return GRAFT_OK;
    return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED,
                     "too many requests wait for the metastore to say what their volumes are");
}
