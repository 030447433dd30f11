// SPDX-License-Identifier: Apache-2.0
#include "metastore/record.h"

#include "common/base/check.h"
#include "common/base/limits.h"

static const char record_magic[8] = "GRFTREC1";

// A decoded commit of 8,192 segments, or a summary's page set, and then some.
#define RECORD_MEMORY_MAX (RECORD_SIZE_MAX + 16 * MIB)

enum graft_status record_encode(enum record_type type, const ProtobufCMessage *message, struct buffer *to,
                                struct graft_error *err)
{
    size_t start = to->size;
    size_t size = protobuf_c_message_get_packed_size(message);
    if (size > RECORD_SIZE_MAX - RECORD_OVERHEAD)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "a record of %zu bytes; the limit is %llu",
                         size, RECORD_SIZE_MAX - RECORD_OVERHEAD);
    enum graft_status status = buffer_reserve(to, size + RECORD_OVERHEAD, err);
    if (status != GRAFT_OK)
        return status;
    uint8_t *record = to->data + start;
    memcpy(record, record_magic, sizeof record_magic);
    put_le32(record + 8, type);
    put_le32(record + 12, (uint32_t)size);
    CHECK(protobuf_c_message_pack(message, record + RECORD_HEADER_SIZE) == size);
    put_le64(record + RECORD_HEADER_SIZE + size, checksum64(record, RECORD_HEADER_SIZE + size));
    to->size += size + RECORD_OVERHEAD;
    return GRAFT_OK;
}

enum graft_status record_size(struct bytes from, size_t *ret_size, struct graft_error *err)
{
    if (from.size < RECORD_HEADER_SIZE) {
        *ret_size = 0;
        return GRAFT_OK;
    }
    if (memcmp(from.data, record_magic, sizeof record_magic) != 0)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "no record of this format begins here");
    uint32_t size = get_le32(from.data + 12);
    if (size > RECORD_SIZE_MAX - RECORD_OVERHEAD)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_TOO_LARGE,
                         "a record claims %u bytes; the limit is %llu", size,
                         RECORD_SIZE_MAX - RECORD_OVERHEAD);
    *ret_size = size + RECORD_OVERHEAD;
    return GRAFT_OK;
}

enum graft_status record_verify(struct bytes record, enum record_type type, struct bytes *ret_message,
                                struct graft_error *err)
{
    size_t size = 0;
    enum graft_status status = record_size(record, &size, err);
    if (status != GRAFT_OK)
        return status;
    if (size == 0 || size != record.size)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_TRUNCATED,
                         "a record has %zu bytes where %zu are due", record.size,
                         size == 0 ? (size_t)RECORD_OVERHEAD : size);
    if (get_le32(record.data + 8) != type)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, "a record has type %u instead of %u",
                         get_le32(record.data + 8), type);
    if (!checksum_matches(get_le64(record.data + size - 8), checksum64(record.data, size - 8)))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
                         "a record of %zu bytes does not match its checksum", size);
    *ret_message = (struct bytes){record.data + RECORD_HEADER_SIZE, size - RECORD_OVERHEAD};
    return GRAFT_OK;
}

// What fails in bytes that we once wrote is damage, whatever the decoder calls it.
static enum graft_status corrupt(struct graft_error *err)
{
    if (err && err->status != GRAFT_INTERNAL)
        err->status = GRAFT_CORRUPT;
    return err ? err->status : GRAFT_CORRUPT;
}

static enum graft_status decode(struct bytes record, enum record_type type,
                                const ProtobufCMessageDescriptor *descriptor, ProtobufCMessage **ret_message,
                                struct graft_error *err)
{
    struct graft_error local;
    struct bytes wire;
    enum graft_status status = record_verify(record, type, &wire, err);
    if (status != GRAFT_OK)
        return status;
    if (message_decode(descriptor, wire, RECORD_MEMORY_MAX, ret_message, &local) == GRAFT_OK)
        return GRAFT_OK;
    corrupt(&local);
    return error_copy(err, &local);
}

static enum graft_status unite(struct bytes wire, struct pageset *pages, struct graft_error *err)
{
    _cleanup_(pageset_free_p) struct pageset *decoded = NULL;
    struct graft_error local;
    if (pageset_decode(wire, PAGESET_RUNS_MAX, "pages", &decoded, &local) != GRAFT_OK) {
        corrupt(&local);
        return error_copy(err, &local);
    }
    pageset_union(pages, decoded);
    return GRAFT_OK;
}

// ---- volume records

enum graft_status volume_record_encode(const struct volume_record *volume, struct buffer *to,
                                       struct graft_error *err)
{
    Graft__VolumeRecord message = GRAFT__VOLUME_RECORD__INIT;
    message.vid = binary_of(volume->vid.bytes, GID_SIZE);
    message.page_size = volume->page_size;
    message.kind = volume->variable ? GRAFT__VOLUME_KIND__VOLUME_VARIABLE : GRAFT__VOLUME_KIND__VOLUME_FIXED;
    message.created_ms = volume->created_ms;
    Graft__VolumeOrigin origin = GRAFT__VOLUME_ORIGIN__INIT;
    if (volume->origin.lsn > 0) {
        CHECK(volume->origin.fork_lsn > 0);
        origin.vid = binary_of(volume->origin.vid.bytes, GID_SIZE);
        origin.lsn = volume->origin.lsn;
        origin.chain = binary_of(volume->origin.chain.bytes, HASH_SIZE);
        origin.fork_lsn = volume->origin.fork_lsn;
        message.origin = &origin;
    }
    return record_encode(RECORD_VOLUME, &message.base, to, err);
}

static enum graft_status origin_from(const Graft__VolumeOrigin *message, struct volume_origin *ret_origin,
                                     struct graft_error *err)
{
    struct volume_origin origin = {.lsn = message->lsn, .fork_lsn = message->fork_lsn};
    if (gid_from_bytes(bytes_of(&message->vid), GID_VOLUME, "origin.vid", &origin.vid, err) != GRAFT_OK ||
        hash_from_bytes(bytes_of(&message->chain), "origin.chain", &origin.chain, err) != GRAFT_OK)
        return corrupt(err);
    if (origin.lsn == 0 || origin.fork_lsn == 0)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "a fork's record names LSN %llu of its origin and %llu of its own",
                         (unsigned long long)origin.lsn, (unsigned long long)origin.fork_lsn);
    *ret_origin = origin;
    return GRAFT_OK;
}

enum graft_status volume_record_decode(struct bytes record, const struct gid *vid,
                                       struct volume_record *ret_volume, struct graft_error *err)
{
    _cleanup_(message_free_p) ProtobufCMessage *decoded = NULL;
    enum graft_status status =
        decode(record, RECORD_VOLUME, &graft__volume_record__descriptor, &decoded, err);
    if (status != GRAFT_OK)
        return status;
    const Graft__VolumeRecord *message = (const Graft__VolumeRecord *)decoded;
    if (message->vid.len != GID_SIZE || memcmp(message->vid.data, vid->bytes, GID_SIZE) != 0)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "the volume record of %s names another volume", gid_format(vid).text);
    bool variable = message->kind == GRAFT__VOLUME_KIND__VOLUME_VARIABLE;
    if ((!variable && message->kind != GRAFT__VOLUME_KIND__VOLUME_FIXED) ||
        message->page_size < PAGE_SIZE_MIN || message->page_size > PAGE_SIZE_MAX)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "the volume record of %s has page size %u and kind %d", gid_format(vid).text,
                         message->page_size, (int)message->kind);
    struct volume_origin origin = {0};
    if (message->origin && (status = origin_from(message->origin, &origin, err)) != GRAFT_OK)
        return status;
    *ret_volume = (struct volume_record){.vid = *vid,
                                         .page_size = message->page_size,
                                         .variable = variable,
                                         .created_ms = message->created_ms,
                                         .origin = origin};
    return GRAFT_OK;
}

// ---- commits

enum graft_status commit_record_encode(const struct commit_facts *facts, const struct gid *cid,
                                       Graft__SegmentRef **segments, size_t segment_count, struct buffer *to,
                                       struct graft_error *err)
{
    CHECK(facts->lsn > 0 && facts->base_lsn < facts->lsn && facts->cut <= facts->page_count);
    Graft__Commit message = GRAFT__COMMIT__INIT;
    message.vid = binary_of(facts->vid.bytes, GID_SIZE);
    message.lsn = facts->lsn;
    message.base_lsn = facts->base_lsn;
    message.base_chain = binary_of(facts->base_chain.bytes, HASH_SIZE);
    message.token = binary_of(facts->token.bytes, TOKEN_SIZE);
    message.digest = binary_of(facts->digest.bytes, HASH_SIZE);
    if (cid)
        message.cid = binary_of(cid->bytes, GID_SIZE);
    message.page_count = facts->page_count;
    message.cut = facts->cut;
    message.time_ms = facts->time_ms;
    message.n_segments = segment_count;
    message.segments = segments;
    message.chain = binary_of(facts->chain.bytes, HASH_SIZE);
    message.deleted = facts->deleted;
    return record_encode(RECORD_COMMIT, &message.base, to, err);
}

static enum graft_status commit_facts_from(const Graft__Commit *message, struct commit_facts *ret_facts,
                                           struct graft_error *err)
{
    struct commit_facts facts = {.lsn = message->lsn,
                                 .base_lsn = message->base_lsn,
                                 .page_count = message->page_count,
                                 .cut = message->cut,
                                 .time_ms = message->time_ms,
                                 .deleted = message->deleted};
    enum graft_status status = gid_from_bytes(bytes_of(&message->vid), GID_VOLUME, "vid", &facts.vid, err);
    if (status == GRAFT_OK)
        status = hash_from_bytes(bytes_of(&message->base_chain), "base_chain", &facts.base_chain, err);
    if (status == GRAFT_OK)
        status = token_from_bytes(bytes_of(&message->token), "token", &facts.token, err);
    if (status == GRAFT_OK)
        status = hash_from_bytes(bytes_of(&message->digest), "digest", &facts.digest, err);
    if (status == GRAFT_OK)
        status = hash_from_bytes(bytes_of(&message->chain), "chain", &facts.chain, err);
    if (status == GRAFT_OK && (facts.base_lsn >= facts.lsn || facts.cut > facts.page_count))
        status =
            error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, "base %llu, cut %u and page count %u",
                      (unsigned long long)facts.base_lsn, facts.cut, facts.page_count);
    if (status != GRAFT_OK)
        return status;
    struct hash128 chain =
        chain_next(&facts.base_chain, &facts.vid, facts.lsn, &facts.token, &facts.digest, facts.page_count);
    if (!hash_equal(&chain, &facts.chain))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                         "its chain does not follow from its fields");
    *ret_facts = facts;
    return GRAFT_OK;
}

// Says which commit is damaged.
static enum graft_status damaged_commit(struct graft_error *local, const struct gid *vid, uint64_t lsn,
                                        struct graft_error *err)
{
    error_context(local, corrupt(local), "commit %llu of volume %s", (unsigned long long)lsn,
                  gid_format(vid).text);
    return error_copy(err, local);
}

enum graft_status commit_record_open(struct bytes record, const struct gid *vid, uint64_t lsn,
                                     struct commit_facts *ret_facts, Graft__Commit **ret_commit,
                                     struct graft_error *err)
{
    _cleanup_(message_free_p) ProtobufCMessage *decoded = NULL;
    struct commit_facts facts;
    struct graft_error local = {0};
    enum graft_status status = decode(record, RECORD_COMMIT, &graft__commit__descriptor, &decoded, &local);
    if (status == GRAFT_OK)
        status = commit_facts_from((const Graft__Commit *)decoded, &facts, &local);
    if (status == GRAFT_OK && (!gid_equal(&facts.vid, vid) || facts.lsn != lsn))
        status = error_set(&local, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                           "it calls itself LSN %llu of volume %s", (unsigned long long)facts.lsn,
                           gid_format(&facts.vid).text);
    if (status != GRAFT_OK)
        return damaged_commit(&local, vid, lsn, err);
    *ret_facts = facts;
    *ret_commit = (Graft__Commit *)TAKE(decoded);
    return GRAFT_OK;
}

enum graft_status commit_record_decode(struct bytes record, const struct gid *vid, uint64_t lsn,
                                       struct commit_facts *ret_facts, struct pageset *pages,
                                       struct graft_error *err)
{
    Graft__Commit *message;
    struct commit_facts facts;
    enum graft_status status = commit_record_open(record, vid, lsn, &facts, &message, err);
    if (status != GRAFT_OK)
        return status;
    struct graft_error local = {0};
    for (size_t i = 0; status == GRAFT_OK && pages && i < message->n_segments; i++)
        status = unite(bytes_of(&message->segments[i]->pages), pages, &local);
    message_free(&message->base);
    if (status != GRAFT_OK)
        return damaged_commit(&local, vid, lsn, err);
    *ret_facts = facts;
    return GRAFT_OK;
}

// ---- summaries

enum graft_status summary_encode(const struct summary *summary, const struct pageset *pages,
                                 struct buffer *to, struct graft_error *err)
{
    CHECK(summary->first_lsn > 0 && summary->first_lsn <= summary->last_lsn);
    _cleanup_(buffer_release) struct buffer wire = BUFFER_INIT(RECORD_SIZE_MAX);
    enum graft_status status = pageset_encode(pages, &wire, err);
    if (status != GRAFT_OK)
        return status;
    Graft__Summary message = GRAFT__SUMMARY__INIT;
    message.vid = binary_of(summary->vid.bytes, GID_SIZE);
    message.first_lsn = summary->first_lsn;
    message.last_lsn = summary->last_lsn;
    message.pages = binary_of(wire.data, wire.size);
    message.cut = summary->cut;
    message.chain = binary_of(summary->chain.bytes, HASH_SIZE);
    return record_encode(RECORD_SUMMARY, &message.base, to, err);
}

enum graft_status summary_decode(struct bytes record, const struct gid *vid, struct summary *ret_summary,
                                 struct pageset *pages, struct graft_error *err)
{
    _cleanup_(message_free_p) ProtobufCMessage *decoded = NULL;
    struct graft_error local = {0};
    struct summary summary = {0};
    enum graft_status status = decode(record, RECORD_SUMMARY, &graft__summary__descriptor, &decoded, &local);
    const Graft__Summary *message = (const Graft__Summary *)decoded;
    if (status == GRAFT_OK)
        status = gid_from_bytes(bytes_of(&message->vid), GID_VOLUME, "vid", &summary.vid, &local);
    if (status == GRAFT_OK)
        status = hash_from_bytes(bytes_of(&message->chain), "chain", &summary.chain, &local);
    if (status == GRAFT_OK &&
        (!gid_equal(&summary.vid, vid) || message->first_lsn == 0 || message->first_lsn > message->last_lsn))
        status = error_set(&local, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                           "it covers LSN %llu to %llu of volume %s", (unsigned long long)message->first_lsn,
                           (unsigned long long)message->last_lsn, gid_format(&summary.vid).text);
    if (status == GRAFT_OK && pages)
        status = unite(bytes_of(&message->pages), pages, &local);
    if (status != GRAFT_OK) {
        error_context(&local, corrupt(&local), "a summary of volume %s", gid_format(vid).text);
        return error_copy(err, &local);
    }
    summary.first_lsn = message->first_lsn;
    summary.last_lsn = message->last_lsn;
    summary.cut = message->cut;
    *ret_summary = summary;
    return GRAFT_OK;
}
