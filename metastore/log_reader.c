// SPDX-License-Identifier: Apache-2.0
//
// Invariants:
//   1. Frames come out in order of LSN, without a gap, and each commit follows the one before it by its
//      chain.
//   2. While a pack is open, pack_lsn ≤ next_lsn; records below next_lsn are parsed over.
#include "metastore/log_reader.h"

#include "common/base/check.h"
#include "common/base/limits.h"
#include "metastore/fetch.h"
#include "metastore/keys.h"

// Fewer commits than this are read one by one rather than by their pack.
#define PACK_WORTH_COMMITS 16u

// CommitsFrame.commit: field 1, length-delimited.
#define FRAME_COMMIT_TAG 0x0a

void log_reader_init(struct log_reader *reader, struct objstore *store, const struct gid *vid,
                     uint64_t first_lsn, uint64_t last_lsn)
{
    CHECK(first_lsn > 0);
    *reader = (struct log_reader){.store = store, .vid = *vid, .next_lsn = first_lsn, .last_lsn = last_lsn};
    buffer_init(&reader->pending, COMMIT_RECORD_SIZE_MAX + LOG_PIECE_SIZE);
}

void log_reader_release(struct log_reader *reader)
{
    buffer_release(&reader->pending);
}

static enum graft_status append_frame(struct bytes commit, struct buffer *to, struct graft_error *err)
{
    uint8_t head[2 * VARINT_SIZE_MAX + 1];
    size_t inner_size = 1 + varint_size(commit.size) + commit.size;
    size_t size = varint_put(head, inner_size);
    head[size++] = FRAME_COMMIT_TAG;
    size += varint_put(head + size, commit.size);
    enum graft_status status = buffer_reserve(to, size + commit.size, err);
    if (status == GRAFT_OK)
        status = buffer_append(to, head, size, err);
    if (status == GRAFT_OK)
        status = buffer_append(to, commit.data, commit.size, err);
    return status;
}

// Checks the record of next_lsn and sends it on.
static enum graft_status emit(struct log_reader *reader, struct bytes record, struct buffer *to,
                              struct graft_error *err)
{
    struct commit_facts facts;
    struct bytes message;
    enum graft_status status =
        commit_record_decode(record, &reader->vid, reader->next_lsn, &facts, NULL, err);
    if (status == GRAFT_OK && reader->has_chain && !hash_equal(&facts.base_chain, &reader->chain))
        status = error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                           "commit %llu of volume %s does not follow the one before it",
                           (unsigned long long)facts.lsn, gid_format(&reader->vid).text);
    if (status == GRAFT_OK)
        status = record_verify(record, RECORD_COMMIT, &message, err);
    if (status == GRAFT_OK)
        status = append_frame(message, to, err);
    if (status != GRAFT_OK)
        return status;
    reader->chain = facts.chain;
    reader->has_chain = true;
    reader->next_lsn++;
    return GRAFT_OK;
}

// ---- from a pack

static void close_pack(struct log_reader *reader)
{
    reader->span = 0;
    buffer_clear(&reader->pending);
}

static struct object_key pack_key(const struct log_reader *reader)
{
    return key_pack(&reader->vid, reader->span, (reader->pack_lsn - 1) / reader->span);
}

// More bytes of the open pack. *ret_found false: there is none, or no more of it.
static enum graft_status read_pack(struct log_reader *reader, bool *ret_found, struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer piece = BUFFER_INIT(LOG_PIECE_SIZE);
    struct graft_error local;
    enum graft_status status = objstore_get_wait(reader->store, pack_key(reader).text, reader->pack_offset,
                                                 LOG_PIECE_SIZE, &piece, &local);
    if (status != GRAFT_OK && status != GRAFT_NOT_FOUND)
        return error_copy(err, &local);
    *ret_found = piece.size > 0;
    reader->pack_offset += piece.size;
    return buffer_append(&reader->pending, piece.data, piece.size, err);
}

static bool try_span(struct log_reader *reader, uint32_t span)
{
    uint64_t window = (reader->next_lsn - 1) / span;
    uint64_t end = MIN((window + 1) * span, reader->last_lsn);
    // A large pack has no index, so it serves only who wants it from its start.
    bool from_start = reader->next_lsn == window * span + 1;
    bool whole = reader->last_lsn >= (window + 1) * span;
    if (span == SUMMARY_LARGE ? !(from_start && whole) : end - reader->next_lsn + 1 < PACK_WORTH_COMMITS)
        return false;
    reader->span = span;
    reader->pack_offset = 0;
    reader->pack_lsn = window * span + 1;
    return true;
}

// Opens the best pack for next_lsn that exists. *ret_open false: none does.
static enum graft_status open_pack(struct log_reader *reader, bool *ret_open, struct graft_error *err)
{
    static const uint32_t spans[] = {SUMMARY_LARGE, SUMMARY_SMALL};
    *ret_open = false;
    for (size_t i = 0; i < ARRAY_COUNT(spans) && !*ret_open; i++) {
        if (!try_span(reader, spans[i]))
            continue;
        enum graft_status status = read_pack(reader, ret_open, err);
        if (status != GRAFT_OK)
            return status;
        if (!*ret_open)
            close_pack(reader);
    }
    return GRAFT_OK;
}

// Sends on the whole records that are pending. What is left of `pending` begins with a record that is not
// whole.
static enum graft_status drain_pending(struct log_reader *reader, struct buffer *to, struct graft_error *err)
{
    struct bytes rest = buffer_bytes(&reader->pending);
    enum graft_status status = GRAFT_OK;
    uint64_t window_end = ((reader->pack_lsn - 1) / reader->span + 1) * reader->span;
    bool closed = false;
    while (!closed) {
        size_t size;
        status = record_size(rest, &size, err);
        if (status == GRAFT_OK && size > COMMIT_RECORD_SIZE_MAX)
            status = error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_TOO_LARGE, "a commit in it claims %zu bytes",
                               size);
        if (status != GRAFT_OK || size == 0 || size > rest.size)
            break;
        if (reader->pack_lsn == reader->next_lsn)
            status = emit(reader, (struct bytes){rest.data, size}, to, err);
        if (status != GRAFT_OK)
            break;
        rest = (struct bytes){rest.data + size, rest.size - size};
        closed = reader->pack_lsn == window_end || reader->next_lsn > reader->last_lsn;
        reader->pack_lsn++;
    }
    if (closed)
        close_pack(reader);
    else
        buffer_consume(&reader->pending, reader->pending.size - rest.size);
    return status;
}

static enum graft_status next_of_pack(struct log_reader *reader, struct buffer *to, struct graft_error *err)
{
    struct object_key key = pack_key(reader);
    uint64_t before = reader->next_lsn;
    enum graft_status status = drain_pending(reader, to, err);
    while (status == GRAFT_OK && reader->next_lsn == before) {
        bool more = false;
        status = read_pack(reader, &more, err);
        if (status == GRAFT_OK && !more)
            status = error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_TRUNCATED, "it ends before commit %llu",
                               (unsigned long long)reader->pack_lsn);
        if (status == GRAFT_OK)
            status = drain_pending(reader, to, err);
    }
    return status == GRAFT_OK ? status : error_context(err, status, "pack %s", key.text);
}

// ---- one by one

struct singles {
    struct log_reader *reader;
    struct buffer *to;
    uint64_t first;
    bool full;
};

static struct object_key single_key(void *context, size_t place)
{
    const struct singles *singles = context;
    return key_commit(&singles->reader->vid, singles->first + place);
}

static enum graft_status visit_single(void *context, size_t place, struct bytes record,
                                      struct graft_error *err)
{
    struct singles *singles = context;
    struct log_reader *reader = singles->reader;
    // What was read ahead of a full piece is read again by the next.
    if (singles->full)
        return GRAFT_OK;
    if (!record.data)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE, "commit %llu of volume %s is missing",
                         (unsigned long long)reader->next_lsn, gid_format(&reader->vid).text);
    enum graft_status status = emit(reader, record, singles->to, err);
    singles->full = singles->to->size >= LOG_PIECE_SIZE;
    return status;
}

static enum graft_status next_singles(struct log_reader *reader, struct buffer *to, struct graft_error *err)
{
    struct singles singles = {.reader = reader, .to = to, .first = reader->next_lsn};
    // Up to the next window, where a pack may serve better.
    uint64_t window_end = ((reader->next_lsn - 1) / SUMMARY_SMALL + 1) * SUMMARY_SMALL;
    uint64_t end = MIN(window_end, reader->last_lsn);
    end = MIN(end, reader->next_lsn + FETCH_WINDOW - 1);
    const struct fetch_spec commits = {.count = end - reader->next_lsn + 1,
                                       .key = single_key,
                                       .visit = visit_single,
                                       .context = &singles,
                                       .object_size_max = COMMIT_RECORD_SIZE_MAX};
    return fetch_all(reader->store, &commits, err);
}

enum graft_status log_reader_next(struct log_reader *reader, struct buffer *to, uint64_t *ret_count,
                                  struct graft_error *err)
{
    CHECK(!log_reader_is_done(reader));
    uint64_t before = reader->next_lsn;
    bool in_pack = reader->span != 0;
    enum graft_status status = GRAFT_OK;
    if (!in_pack)
        status = open_pack(reader, &in_pack, err);
    if (status == GRAFT_OK)
        status = in_pack ? next_of_pack(reader, to, err) : next_singles(reader, to, err);
    if (status == GRAFT_OK)
        *ret_count = reader->next_lsn - before;
    return status;
}
