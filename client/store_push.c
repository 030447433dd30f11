// SPDX-License-Identifier: Apache-2.0
//
// The push state machine as the store keeps it: the diagram is in store.h. Each arrow is one synced batch
// with the volume's record; the frozen range stays readable because its last LSN is pinned, also by a store
// that is opened anew.
#include "client/store_internal.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"

// ---- local commits

static enum graft_status bad_commit(const struct store_volume *volume, struct graft_error *err)
{
    return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                     "volume %s: the list of local commits is damaged", gid_format(&volume->vid).text);
}

static enum graft_status add_commit_part(struct store_volume *volume, uint32_t part, struct bytes value,
                                         bool roll_up, struct pageset *pages, uint32_t *lowest_cut,
                                         struct graft_error *err)
{
    if (part == 0) {
        if (value.size < STORE_COMMIT_HEADER_SIZE)
            return bad_commit(volume, err);
        uint32_t cut = get_le32(value.data + 4);
        *lowest_cut = MIN(*lowest_cut, cut);
        if (roll_up)
            pageset_remove_above(pages, cut);
        value.data += STORE_COMMIT_HEADER_SIZE;
        value.size -= STORE_COMMIT_HEADER_SIZE;
    }
    _cleanup_(pageset_free_p) struct pageset *wrote = NULL;
    if (pageset_decode(value, PAGESET_RUNS_MAX, "pages", &wrote, err) != GRAFT_OK)
        return bad_commit(volume, err);
    pageset_union(pages, wrote);
    return GRAFT_OK;
}

enum graft_status store_commits_union(struct store_volume *volume, uint64_t from, uint64_t to, bool roll_up,
                                      struct pageset *pages, uint32_t *ret_lowest_cut,
                                      struct graft_error *err)
{
    struct store_key prefix = store_key_number(volume->number);
    struct store_key first = store_key_commit(volume->number, from + 1, 0);
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan =
        store_scan(volume->store->local, FAMILY_COMMITS, &prefix);
    store_scan_seek(scan, &first);
    uint32_t lowest = UINT32_MAX;
    uint64_t last = from;
    for (; rocksdb_iter_valid(scan->iterator); rocksdb_iter_next(scan->iterator)) {
        uint64_t lsn;
        uint32_t part;
        if (!store_key_parse_commit(rocks_iter_key(scan->iterator), &lsn, &part))
            return bad_commit(volume, err);
        if (lsn > to)
            break;
        // Part 0 comes first of each commit, and there is one of every LSN.
        if (part == 0 ? lsn != last + 1 : lsn != last)
            return bad_commit(volume, err);
        last = lsn;
        enum graft_status status =
            add_commit_part(volume, part, rocks_iter_value(scan->iterator), roll_up, pages, &lowest, err);
        if (status != GRAFT_OK)
            return status;
    }
    enum graft_status status = rocks_iter_status(scan->iterator, "reading the local commits", err);
    if (status != GRAFT_OK)
        return status;
    if (last != to)
        return bad_commit(volume, err);
    *ret_lowest_cut = lowest;
    return GRAFT_OK;
}

// Few go one by one, for range deletes weigh on later scans; many by range, for a batch has a bound.
enum graft_status store_commits_forget(struct store_volume *volume, rocksdb_writebatch_t *batch,
                                       uint64_t from, uint64_t to, struct graft_error *err)
{
    struct rocks *local = volume->store->local;
    struct store_key prefix = store_key_number(volume->number);
    struct store_key first = store_key_commit(volume->number, from + 1, 0);
    struct store_key end = store_key_commit(volume->number, to + 1, 0);
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = store_scan(local, FAMILY_COMMITS, &prefix);
    store_scan_seek(scan, &first);
    unsigned count = 0;
    for (; rocksdb_iter_valid(scan->iterator); rocksdb_iter_next(scan->iterator)) {
        struct bytes key = rocks_iter_key(scan->iterator);
        if (key.size != end.size || memcmp(key.data, end.bytes, end.size) >= 0)
            break;
        if (count++ == volume->store->batch_entries) {
            rocksdb_writebatch_delete_range_cf(batch, local->families[FAMILY_COMMITS], (char *)first.bytes,
                                               first.size, (char *)end.bytes, end.size);
            return GRAFT_OK;
        }
        rocks_batch_delete(batch, local->families[FAMILY_COMMITS], key);
    }
    return rocks_iter_status(scan->iterator, "reading the local commits", err);
}

// ---- arrows

static void pin_push(struct store_volume *volume, uint64_t lsn)
{
    LOCK_GUARD(&volume->store->lock);
    store_pins_add_locked(volume, lsn);
}

static void unpin_push(struct store_volume *volume, uint64_t lsn)
{
    mutex_lock(&volume->store->lock);
    struct pinned_lsn *node = store_pins_find_locked(volume, lsn);
    CHECK(node);
    store_pins_remove_locked(volume, node);
    mutex_unlock(&volume->store->lock);
    store_sweep(volume, volume->store->batch_entries);
}

enum graft_status store_push_begin(struct store_volume *volume, const struct token *token,
                                   struct store_push *ret_push, struct graft_error *err)
{
    LOCK_GUARD(&volume->commit_lock);
    struct store_record next = store_volume_record(volume);
    struct store_state *state = &next.state;
    CHECK(state->push.phase == STORE_PUSH_IDLE);
    if (state->local_lsn == state->mapped_lsn)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "volume %s has nothing to push",
                         gid_format(&volume->vid).text);
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    uint32_t cut;
    enum graft_status status =
        store_commits_union(volume, state->mapped_lsn, state->local_lsn, true, pages, &cut, err);
    if (status != GRAFT_OK)
        return status;
    // Each commit's cut includes the count that it started from, the first one's that of the mapping.
    state->push = (struct store_push){
        .phase = STORE_PUSH_UPLOADING,
        .token = *token,
        .base = state->remote,
        .from_lsn = state->mapped_lsn,
        .to_lsn = state->local_lsn,
        .page_count = state->page_count,
        .cut = cut,
    };
    pin_push(volume, state->push.to_lsn);
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    status = FAILPOINT_ERROR("push.begin.before", err);
    if (status == GRAFT_OK)
        status = store_publish_locked(volume, batch, &next, true, err);
    FAILPOINT("push.begin.after");
    if (status == GRAFT_OK)
        *ret_push = state->push;
    else
        unpin_push(volume, state->push.to_lsn);
    return status;
}

enum graft_status store_push_pages(struct store_volume *volume, struct pageset **ret_pages,
                                   struct graft_error *err)
{
    enum graft_status status = store_check_usable(volume->store, err);
    if (status != GRAFT_OK)
        return status;
    struct store_push push = store_volume_record(volume).state.push;
    CHECK(push.phase != STORE_PUSH_IDLE);
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    uint32_t cut;
    status = store_commits_union(volume, push.from_lsn, push.to_lsn, true, pages, &cut, err);
    if (status == GRAFT_OK)
        *ret_pages = TAKE(pages);
    return status;
}

enum graft_status store_push_committing(struct store_volume *volume, const struct hash128 *digest,
                                        struct bytes request, struct graft_error *err)
{
    if (request.size > COMMIT_REQUEST_SIZE_MAX)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "volume %s: the commit request has %zu bytes and at most %llu are taken; push more "
                         "often",
                         gid_format(&volume->vid).text, request.size,
                         (unsigned long long)COMMIT_REQUEST_SIZE_MAX);
    LOCK_GUARD(&volume->commit_lock);
    struct store_record next = store_volume_record(volume);
    struct store_push *push = &next.state.push;
    CHECK(push->phase == STORE_PUSH_UPLOADING);
    if (push->sent && !hash_equal(&push->digest, digest))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
                         "volume %s: the local commits up to LSN %llu changed since they were first sent",
                         gid_format(&volume->vid).text, (unsigned long long)push->to_lsn);
    push->phase = STORE_PUSH_COMMITTING;
    push->sent = true;
    push->digest = *digest;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    struct store_key key = store_key_request(volume->number);
    store_put(volume->store->local, batch, FAMILY_VOLUMES, &key, request);
    enum graft_status status = FAILPOINT_ERROR("push.committing.before", err);
    if (status == GRAFT_OK)
        status = store_publish_locked(volume, batch, &next, true, err);
    FAILPOINT("push.committing.after");
    return status;
}

static enum graft_status read_request(struct store_volume *volume, const struct store_key *key,
                                      struct buffer *to, struct graft_error *err)
{
    enum graft_status status = store_check_usable(volume->store, err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    status = store_get(volume->store->local, FAMILY_VOLUMES, key, &slice, err);
    if (status != GRAFT_OK)
        return status;
    if (!slice)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "volume %s: the commit request of the push under way is missing",
                         gid_format(&volume->vid).text);
    struct bytes request = rocks_slice(slice);
    return buffer_append(to, request.data, request.size, err);
}

enum graft_status store_push_request(struct store_volume *volume, struct buffer *to, struct graft_error *err)
{
    CHECK(store_volume_record(volume).state.push.phase >= STORE_PUSH_COMMITTING);
    struct store_key key = store_key_request(volume->number);
    return read_request(volume, &key, to, err);
}

enum graft_status store_push_fence_request(struct store_volume *volume, struct buffer *to,
                                           struct graft_error *err)
{
    CHECK(store_volume_record(volume).state.push.phase == STORE_PUSH_FENCING);
    struct store_key key = store_key_fence(volume->number);
    return read_request(volume, &key, to, err);
}

enum graft_status store_push_retreat(struct store_volume *volume, struct graft_error *err)
{
    LOCK_GUARD(&volume->commit_lock);
    struct store_record next = store_volume_record(volume);
    CHECK(next.state.push.phase == STORE_PUSH_COMMITTING);
    next.state.push.phase = STORE_PUSH_UPLOADING;
    // The request stays until another takes its place: a fence asks about the token by it.
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    enum graft_status status = FAILPOINT_ERROR("push.retreat.before", err);
    if (status == GRAFT_OK)
        status = store_publish_locked(volume, batch, &next, true, err);
    FAILPOINT("push.retreat.after");
    return status;
}

enum graft_status store_push_fence(struct store_volume *volume, struct bytes request, struct graft_error *err)
{
    LOCK_GUARD(&volume->commit_lock);
    struct store_record next = store_volume_record(volume);
    struct store_push *push = &next.state.push;
    CHECK(push->sent && (push->phase == STORE_PUSH_UPLOADING || push->phase == STORE_PUSH_COMMITTING));
    push->phase = STORE_PUSH_FENCING;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    struct store_key key = store_key_fence(volume->number);
    store_put(volume->store->local, batch, FAMILY_VOLUMES, &key, request);
    enum graft_status status = FAILPOINT_ERROR("push.fence.before", err);
    if (status == GRAFT_OK)
        status = store_publish_locked(volume, batch, &next, true, err);
    FAILPOINT("push.fence.after");
    return status;
}

enum graft_status store_push_unfence(struct store_volume *volume, struct graft_error *err)
{
    LOCK_GUARD(&volume->commit_lock);
    struct store_record next = store_volume_record(volume);
    CHECK(next.state.push.phase == STORE_PUSH_FENCING);
    next.state.push.phase = STORE_PUSH_COMMITTING;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    struct store_key key = store_key_fence(volume->number);
    store_delete(volume->store->local, batch, FAMILY_VOLUMES, &key);
    enum graft_status status = FAILPOINT_ERROR("push.unfence.before", err);
    if (status == GRAFT_OK)
        status = store_publish_locked(volume, batch, &next, true, err);
    FAILPOINT("push.unfence.after");
    return status;
}

// Publishes `next` with the push over: its requests and its pin go.
static enum graft_status end_push_locked(struct store_volume *volume, struct store_record *next,
                                         rocksdb_writebatch_t *batch, struct graft_error *err)
{
    uint64_t to_lsn = next->state.push.to_lsn;
    next->state.push = (struct store_push){.phase = STORE_PUSH_IDLE};
    struct store_key keys[] = {store_key_request(volume->number), store_key_fence(volume->number)};
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
        store_delete(volume->store->local, batch, FAMILY_VOLUMES, &keys[i]);
    enum graft_status status = FAILPOINT_ERROR("push.end.before", err);
    if (status == GRAFT_OK)
        status = store_publish_locked(volume, batch, next, true, err);
    FAILPOINT("push.end.after");
    if (status == GRAFT_OK)
        unpin_push(volume, to_lsn);
    return status;
}

enum graft_status store_push_settle(struct store_volume *volume, const struct store_remote *remote,
                                    struct graft_error *err)
{
    LOCK_GUARD(&volume->commit_lock);
    struct store_record next = store_volume_record(volume);
    const struct store_push push = next.state.push;
    CHECK(push.phase >= STORE_PUSH_COMMITTING && remote->lsn > push.base.lsn);
    next.state.remote = *remote;
    next.state.mapped_lsn = push.to_lsn;
    next.state.remote_seen_lsn = MAX(next.state.remote_seen_lsn, remote->lsn);
    next.state.status = GRAFT_VOLUME_OK;
    next.state.status_error = (struct graft_error){.status = GRAFT_OK};
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    enum graft_status status = store_commits_forget(volume, batch, push.from_lsn, push.to_lsn, err);
    if (status != GRAFT_OK)
        return status;
    FAILPOINT("push.settled");
    return end_push_locked(volume, &next, batch, err);
}

enum graft_status store_push_reject(struct store_volume *volume, const struct graft_error *why,
                                    struct graft_error *err)
{
    return store_push_give_up(volume, GRAFT_VOLUME_REJECTED, why, err);
}

enum graft_status store_push_give_up(struct store_volume *volume, enum graft_volume_status status,
                                     const struct graft_error *why, struct graft_error *err)
{
    LOCK_GUARD(&volume->commit_lock);
    struct store_record next = store_volume_record(volume);
    CHECK(next.state.push.phase >= STORE_PUSH_COMMITTING);
    FAILPOINT("push.rejected");
    next.state.status = status;
    next.state.status_error = *why;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    return end_push_locked(volume, &next, batch, err);
}

enum graft_status store_push_abandon(struct store_volume *volume, struct graft_error *err)
{
    LOCK_GUARD(&volume->commit_lock);
    struct store_record next = store_volume_record(volume);
    CHECK(next.state.push.phase == STORE_PUSH_UPLOADING);
    if (next.state.push.sent)
        return error_set(err, GRAFT_BUSY, GRAFT_DETAIL_PUSH_PENDING,
                         "volume %s: the servers may know of the push under way; push again to learn",
                         gid_format(&volume->vid).text);
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    return end_push_locked(volume, &next, batch, err);
}
