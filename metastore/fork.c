// SPDX-License-Identifier: Apache-2.0
//
//     fork_volume ─▶ the VID is taken ─▶ by this fork: its snapshot; by another volume: CONFLICT
//                └─▶ it is free ─▶ the origin's commit ─▶ live_references ─▶ a commit whenever one is full
//                                                                     └─▶ the last commit ─▶ the catalog
#include "metastore/fork.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "metastore/fetch.h"
#include "metastore/live_references.h"
#include "metastore/volume.h"

#define SEGMENT_OVERHEAD 6 // of a reference in its commit's message: tag and length

// A reference of the commit being filled, with bytes of its own.
struct copied {
    Graft__SegmentRef message;
    uint8_t sid[GID_SIZE], owner[GID_SIZE];
    struct buffer pages, structural;
};

struct forking {
    const struct fork_request *request;
    struct volume_record volume;
    uint32_t page_count;
    struct commit_facts last; // the commit made last; LSN 0: none yet

    struct copied *copied; // COMMIT_SEGMENTS_MAX of them
    Graft__SegmentRef **messages;
    size_t count;
    size_t size; // of their messages
};

static void forking_clear(struct forking *forking)
{
    for (size_t i = 0; i < forking->count; i++) {
        buffer_release(&forking->copied[i].pages);
        buffer_release(&forking->copied[i].structural);
    }
    forking->count = forking->size = 0;
}

static void forking_release(struct forking *forking)
{
    forking_clear(forking);
    free(forking->copied);
    free(forking->messages);
}

// ---- commits

// The same for every try: it names the fork and the commit's place in it.
static struct token token_for(const struct fork_request *request, uint64_t lsn)
{
    uint8_t input[8 + GID_SIZE + 8 + HASH_SIZE + GID_SIZE + 8];
    struct token token;
    memcpy(input, "GRFTFORK", 8);
    memcpy(input + 8, request->origin.vid.bytes, GID_SIZE);
    put_le64(input + 24, request->origin.lsn);
    memcpy(input + 32, request->origin.chain.bytes, HASH_SIZE);
    memcpy(input + 48, request->vid.bytes, GID_SIZE);
    put_le64(input + 64, lsn);
    struct hash128 hash = hash128(input, sizeof input);
    _Static_assert(TOKEN_SIZE == HASH_SIZE, "a token is as long as a hash");
    memcpy(token.bytes, hash.bytes, TOKEN_SIZE);
    return token;
}

// A client's digest names the bytes of pages, which are not at hand here: this one names the references.
static struct hash128 digest_of(const struct forking *forking)
{
    size_t each = GID_SIZE + GID_SIZE + HASH_SIZE;
    _cleanup_(free_p) uint8_t *input = malloc(forking->count * each + 1);
    CHECK(input);
    for (size_t i = 0; i < forking->count; i++) {
        const struct copied *copied = &forking->copied[i];
        struct hash128 pages = hash128(copied->pages.data, copied->pages.size);
        memcpy(input + i * each, copied->sid, GID_SIZE);
        memcpy(input + i * each + GID_SIZE, copied->owner, GID_SIZE);
        memcpy(input + i * each + 2 * GID_SIZE, pages.bytes, HASH_SIZE);
    }
    return hash128(input, forking->count * each);
}

static enum graft_status in_the_way(const struct gid *vid, struct graft_error *err)
{
    return error_set(err, GRAFT_CONFLICT, GRAFT_DETAIL_EXISTS,
                     "volume %s exists already, or was begun as another fork; choose another VID",
                     gid_format(vid).text);
}

// Creates the object; where one is there already, or nobody can tell, what counts is what is there:
// *ret_existing holds it, or is empty if it is ours.
static enum graft_status create_once(struct objstore *store, const char *key, struct bytes record,
                                     struct buffer *ret_existing, struct graft_error *err)
{
    struct graft_error why;
    enum graft_status status = objstore_create_wait(store, key, record, &why);
    if (status != GRAFT_CONFLICT && status != GRAFT_UNKNOWN)
        return status == GRAFT_OK ? status : error_copy(err, &why);
    bool found;
    enum graft_status read = fetch_one(store, key, &found, ret_existing, err);
    if (read == GRAFT_OK && !found)
        return error_copy(err, &why);
    return read;
}

static enum graft_status flush_commit(struct forking *forking, struct graft_error *err)
{
    const struct fork_request *request = forking->request;
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(COMMIT_RECORD_SIZE_MAX);
    _cleanup_(buffer_release) struct buffer existing = BUFFER_INIT(RECORD_SIZE_MAX);
    uint64_t lsn = forking->last.lsn + 1;
    struct commit_facts commit = {.vid = request->vid,
                                  .lsn = lsn,
                                  .base_lsn = lsn - 1,
                                  .base_chain = forking->last.chain,
                                  .token = token_for(request, lsn),
                                  .digest = digest_of(forking),
                                  .page_count = forking->page_count,
                                  .cut = lsn == 1 ? 0 : forking->page_count,
                                  .time_ms = clock_wall_ms(request->clock)};
    commit.chain =
        chain_next(&commit.base_chain, &commit.vid, lsn, &commit.token, &commit.digest, commit.page_count);
    enum graft_status status =
        commit_record_encode(&commit, NULL, forking->messages, forking->count, &record, err);
    FAILPOINT("fork.commit.before");
    if (status == GRAFT_OK)
        status = create_once(request->store, key_commit(&request->vid, lsn).text, buffer_bytes(&record),
                             &existing, err);
    if (status == GRAFT_OK && existing.size > 0) {
        struct commit_facts there;
        status = commit_record_decode(buffer_bytes(&existing), &request->vid, lsn, &there, NULL, err);
        if (status == GRAFT_OK && !hash_equal(&there.chain, &commit.chain))
            status = in_the_way(&request->vid, err);
        if (status == GRAFT_OK)
            commit = there; // with its own time
    }
    if (status != GRAFT_OK)
        return status;
    FAILPOINT("fork.commit.after");
    forking->last = commit;
    forking_clear(forking);
    return GRAFT_OK;
}

static enum graft_status copy_reference(void *context, const struct live_reference *reference,
                                        struct graft_error *err)
{
    struct forking *forking = context;
    struct gid sid, owner;
    const Graft__SegmentRef *segment = reference->segment;
    if (gid_from_bytes(bytes_of(&segment->sid), GID_SEGMENT, "sid", &sid, err) != GRAFT_OK ||
        gid_from_bytes(bytes_of(&segment->owner), GID_VOLUME, "owner", &owner, err) != GRAFT_OK)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, "a reference names no segment");
    _cleanup_(buffer_release) struct buffer pages = BUFFER_INIT(COMMIT_REQUEST_SIZE_MAX);
    _cleanup_(buffer_release) struct buffer structural = BUFFER_INIT(COMMIT_REQUEST_SIZE_MAX);
    enum graft_status status = pageset_encode(reference->pages, &pages, err);
    if (status == GRAFT_OK)
        status = pageset_encode(reference->structural, &structural, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "the live pages of segment %s", gid_format(&sid).text);
    // Generous: the fields beside the page sets take less than 100 bytes.
    size_t size = pages.size + structural.size + 100 + SEGMENT_OVERHEAD;
    if (forking->count == COMMIT_SEGMENTS_MAX ||
        (forking->count > 0 && forking->size + size > COMMIT_REQUEST_SIZE_MAX))
        status = flush_commit(forking, err);
    if (status != GRAFT_OK)
        return status;
    struct copied *copied = &forking->copied[forking->count];
    graft__segment_ref__init(&copied->message);
    memcpy(copied->sid, sid.bytes, GID_SIZE);
    memcpy(copied->owner, owner.bytes, GID_SIZE);
    copied->pages = buffer_take(&pages);
    copied->structural = buffer_take(&structural);
    copied->message.sid = binary_of(copied->sid, GID_SIZE);
    copied->message.owner = binary_of(copied->owner, GID_SIZE);
    copied->message.pages = binary_of(copied->pages.data, copied->pages.size);
    copied->message.structural = binary_of(copied->structural.data, copied->structural.size);
    copied->message.object_size = segment->object_size;
    copied->message.index_offset = segment->index_offset;
    copied->message.index_size = segment->index_size;
    forking->messages[forking->count++] = &copied->message;
    forking->size += size;
    return GRAFT_OK;
}

// ---- the origin

static enum graft_status check_origin(const struct fork_request *request, struct graft_error *err)
{
    const struct volume_state *state = &request->state;
    const struct volume_origin *origin = &request->origin;
    struct gid_text vid = gid_format(&origin->vid);
    unsigned long long lsn = (unsigned long long)origin->lsn;
    if (request->state_error.status != GRAFT_OK)
        return error_copy(err, &request->state_error);
    if (state->head.deleted)
        return error_set(err, GRAFT_GONE, GRAFT_DETAIL_DELETED, "volume %s was deleted at LSN %llu", vid.text,
                         (unsigned long long)state->head.lsn);
    if (origin->lsn > state->head.lsn)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_BEYOND_HEAD,
                         "LSN %llu of volume %s is beyond its head, %llu", lsn, vid.text,
                         (unsigned long long)state->head.lsn);
    if (origin->lsn <= state->retired_lsn)
        return error_set(err, GRAFT_GONE, GRAFT_DETAIL_RETIRED,
                         "LSN %llu of volume %s is no longer kept; history begins at %llu", lsn, vid.text,
                         (unsigned long long)state->retired_lsn + 1);
    return GRAFT_OK;
}

static enum graft_status read_commit(struct objstore *store, const struct gid *vid, uint64_t lsn,
                                     struct commit_facts *ret_commit, struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(RECORD_SIZE_MAX);
    bool found;
    enum graft_status status = fetch_one(store, key_commit(vid, lsn).text, &found, &record, err);
    if (status == GRAFT_OK && !found)
        status = error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE, "commit %llu of volume %s is missing",
                           (unsigned long long)lsn, gid_format(vid).text);
    if (status == GRAFT_OK)
        status = commit_record_decode(buffer_bytes(&record), vid, lsn, ret_commit, NULL, err);
    return status;
}

static enum graft_status find_origin(const struct fork_request *request, struct commit_facts *ret_at,
                                     struct graft_error *err)
{
    enum graft_status status = check_origin(request, err);
    if (status == GRAFT_OK)
        status = read_commit(request->store, &request->origin.vid, request->origin.lsn, ret_at, err);
    if (status == GRAFT_OK && !hash_equal(&ret_at->chain, &request->origin.chain))
        status = volume_other_history(&request->state, request->origin.lsn, err);
    return status;
}

// ---- the fork

// The catalog has the VID: by this very fork, or by anything else.
static enum graft_status answer_existing(const struct fork_request *request, struct bytes record,
                                         struct snapshot *ret_snapshot, struct graft_error *err)
{
    struct volume_record volume;
    struct commit_facts commit;
    enum graft_status status = volume_record_decode(record, &request->vid, &volume, err);
    if (status != GRAFT_OK)
        return status;
    const struct volume_origin *origin = &volume.origin;
    if (origin->lsn != request->origin.lsn || !gid_equal(&origin->vid, &request->origin.vid) ||
        !hash_equal(&origin->chain, &request->origin.chain))
        return in_the_way(&request->vid, err);
    status = read_commit(request->store, &request->vid, origin->fork_lsn, &commit, err);
    if (status == GRAFT_OK)
        *ret_snapshot = snapshot_of(&volume, &commit);
    return status;
}

static enum graft_status make_commits(struct forking *forking, const struct commit_facts *at,
                                      struct graft_error *err)
{
    const struct fork_request *request = forking->request;
    const struct live_references_spec spec = {.store = request->store,
                                              .state = &request->state,
                                              .at = at,
                                              .stop = request->stop,
                                              .visit = copy_reference,
                                              .context = forking};
    enum graft_status status = live_references(&spec, err);
    if (status == GRAFT_OK && (forking->count > 0 || forking->last.lsn == 0))
        status = flush_commit(forking, err);
    return status;
}

static enum graft_status make_volume(struct forking *forking, struct snapshot *ret_snapshot,
                                     struct graft_error *err)
{
    const struct fork_request *request = forking->request;
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(UNARY_REQUEST_SIZE_MAX);
    _cleanup_(buffer_release) struct buffer existing = BUFFER_INIT(RECORD_SIZE_MAX);
    forking->volume = (struct volume_record){.vid = request->vid,
                                             .page_size = request->state.record.page_size,
                                             .variable = request->state.record.variable,
                                             .created_ms = clock_wall_ms(request->clock),
                                             .origin = request->origin};
    forking->volume.origin.fork_lsn = forking->last.lsn;
    enum graft_status status = volume_record_encode(&forking->volume, &record, err);
    if (status == GRAFT_OK)
        status = create_once(request->store, key_catalog(&request->vid).text, buffer_bytes(&record),
                             &existing, err);
    if (status != GRAFT_OK)
        return status;
    FAILPOINT("fork.volume.after");
    if (existing.size > 0)
        return answer_existing(request, buffer_bytes(&existing), ret_snapshot, err);
    *ret_snapshot = snapshot_of(&forking->volume, &forking->last);
    return GRAFT_OK;
}

static enum graft_status make_fork(const struct fork_request *request, struct snapshot *ret_snapshot,
                                   struct graft_error *err)
{
    struct commit_facts at;
    enum graft_status status = find_origin(request, &at, err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(forking_release) struct forking forking = {
        .request = request,
        .page_count = at.page_count,
        .copied = calloc(COMMIT_SEGMENTS_MAX, sizeof *forking.copied),
        .messages = calloc(COMMIT_SEGMENTS_MAX, sizeof *forking.messages)};
    if (!forking.copied || !forking.messages)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to copy references");
    status = make_commits(&forking, &at, err);
    return status == GRAFT_OK ? make_volume(&forking, ret_snapshot, err) : status;
}

enum graft_status fork_volume(const struct fork_request *request, struct snapshot *ret_snapshot,
                              struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(RECORD_SIZE_MAX);
    bool found;
    enum graft_status status =
        fetch_one(request->store, key_catalog(&request->vid).text, &found, &record, err);
    if (status == GRAFT_OK)
        status = found ? answer_existing(request, buffer_bytes(&record), ret_snapshot, err)
                       : make_fork(request, ret_snapshot, err);
    return status == GRAFT_OK ? status
                              : error_context(err, status, "forking LSN %llu of volume %s",
                                              (unsigned long long)request->origin.lsn,
                                              gid_format(&request->origin.vid).text);
}
