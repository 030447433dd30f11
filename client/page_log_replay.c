// SPDX-License-Identifier: Apache-2.0
//
// The claims' codec, the replay, and walking an extent: the page log as it is read.
#include <stdlib.h>
#include <string.h>

#include "client/page_log.h"
#include "common/base/check.h"
#include "common/base/checksum.h"
#include "common/base/failpoint.h"

// ---- claims

static const uint8_t claims_magic[8] = "GRFTCLM1";
#define CLAIMS_FIXED_SIZE 36u

size_t page_log_claims_encode(const struct page_log_claims *claims, uint8_t to[PAGE_LOG_CLAIMS_SIZE_MAX])
{
    CHECK(claims->count <= PAGE_LOG_CLAIMS_MAX);
    memcpy(to, claims_magic, sizeof claims_magic);
    put_le64(to + 8, claims->epoch);
    put_le64(to + 16, claims->seq);
    put_le64(to + 24, claims->chain);
    put_le32(to + 32, claims->count);
    size_t size = CLAIMS_FIXED_SIZE;
    for (uint32_t i = 0; i < claims->count; i++, size += 4)
        put_le32(to + size, claims->extents[i]);
    put_le64(to + size, checksum64(to, size));
    return size + 8;
}

static int compare_extents(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

// Each extent once, all within what there can be.
static bool extents_sound(const struct page_log_claims *claims)
{
    uint32_t sorted[PAGE_LOG_CLAIMS_MAX];
    memcpy(sorted, claims->extents, claims->count * sizeof sorted[0]);
    qsort(sorted, claims->count, sizeof sorted[0], compare_extents);
    for (uint32_t i = 0; i < claims->count; i++)
        if (sorted[i] >= EXTENTS_MAX || (i > 0 && sorted[i] == sorted[i - 1]))
            return false;
    return true;
}

enum graft_status page_log_claims_decode(struct bytes value, struct page_log_claims *ret_claims,
                                         struct graft_error *err)
{
    uint32_t count = value.size >= CLAIMS_FIXED_SIZE + 8 ? get_le32(value.data + 32) : UINT32_MAX;
    if (count > PAGE_LOG_CLAIMS_MAX || value.size != CLAIMS_FIXED_SIZE + 4ull * count + 8 ||
        memcmp(value.data, claims_magic, sizeof claims_magic) != 0)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "the record of the extents being filled is none: it has %zu bytes", value.size);
    if (!checksum_matches(get_le64(value.data + value.size - 8), checksum64(value.data, value.size - 8)))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
                         "the record of the extents being filled does not match its checksum");
    struct page_log_claims claims = {.epoch = get_le64(value.data + 8),
                                     .seq = get_le64(value.data + 16),
                                     .chain = get_le64(value.data + 24),
                                     .count = count};
    for (uint32_t i = 0; i < count; i++)
        claims.extents[i] = get_le32(value.data + CLAIMS_FIXED_SIZE + 4ull * i);
    if (!extents_sound(&claims))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "the record of the extents being filled names one twice, or one that cannot be");
    *ret_claims = claims;
    return GRAFT_OK;
}

// ---- replay

// Reads claimed extents, one at a time in memory.
struct walker {
    struct extents *extents;
    const struct page_log_replay *replay;
    uint8_t *block;  // EXTENT_SIZE: the extent at `loaded`
    uint32_t loaded; // index in the claims; UINT32_MAX: none
};

// Where the next run must be, and which.
struct position {
    uint32_t index;  // in the claims
    uint32_t offset; // in the extent
    uint64_t seq;
    uint64_t chain; // before it
};

static enum graft_status load(struct walker *walker, uint32_t index, struct graft_error *err)
{
    if (walker->loaded == index)
        return GRAFT_OK;
    walker->loaded = UINT32_MAX;
    uint64_t place = place_make(walker->replay->claims->extents[index], 0);
    enum graft_status status = extents_read(walker->extents, place, walker->block, EXTENT_SIZE, err);
    if (status == GRAFT_CORRUPT) { // it is not there: claimed but never kept, or lost with its file
        memset(walker->block, 0, EXTENT_SIZE);
        status = GRAFT_OK;
    }
    if (status == GRAFT_OK)
        walker->loaded = index;
    return status;
}

// A run of the claims' epoch at the offset of the loaded extent.
static bool decode_at(const struct walker *walker, uint32_t offset, struct run_header *ret_header)
{
    struct bytes rest = {walker->block + offset, EXTENT_SIZE - offset};
    return run_decode(rest, walker->replay->store, EXTENT_SIZE - offset, ret_header, NULL) &&
           ret_header->epoch == walker->replay->claims->epoch;
}

static bool is_next(const struct run_header *header, const struct position *position)
{
    return header->seq == position->seq && header->chain_before == position->chain;
}

// Loads the extent of the run that must come next and moves the position to it: it is here, or at the start of the next
// extent.
static enum graft_status find_next(struct walker *walker, struct position *position,
                                   struct run_header *ret_header, bool *ret_found, struct graft_error *err)
{
    struct position at = *position;
    *ret_found = false;
    for (unsigned tries = 0; tries < 2 && at.index < walker->replay->claims->count; tries++) {
        enum graft_status status = load(walker, at.index, err);
        if (status != GRAFT_OK)
            return status;
        if (at.offset < EXTENT_SIZE && decode_at(walker, at.offset, ret_header) && is_next(ret_header, &at)) {
            *position = at;
            *ret_found = true;
            return GRAFT_OK;
        }
        if (at.offset == 0)
            return GRAFT_OK;
        at.index++;
        at.offset = 0;
    }
    return GRAFT_OK;
}

static void step_over(struct position *position, const struct run_header *header)
{
    position->offset += header->size;
    position->seq = header->seq + 1;
    position->chain = header->chain;
}

// What lies behind a place where something is wrong.
struct beyond {
    uint64_t synced; // the highest number that a header there knows to be synced
    bool
        found; // a run that can be read, with a number above the position's: the lowest, the last if there are two
    struct position first;
};

static enum graft_status look_beyond(struct walker *walker, const struct position *from,
                                     struct beyond *ret_beyond, struct graft_error *err)
{
    struct beyond beyond = {0};
    *ret_beyond = beyond;
    uint32_t offset = from->offset;
    for (uint32_t index = from->index; index < walker->replay->claims->count; index++, offset = 0) {
        enum graft_status status = load(walker, index, err);
        if (status != GRAFT_OK)
            return status;
        while (offset < EXTENT_SIZE) {
            struct run_header header;
            if (!decode_at(walker, offset, &header)) {
                offset += RUN_ALIGNMENT;
                continue;
            }
            beyond.synced = MAX(beyond.synced, header.synced);
            if (header.seq > from->seq && (!beyond.found || header.seq <= beyond.first.seq)) {
                beyond.found = true;
                beyond.first = (struct position){index, offset, header.seq, header.chain_before};
            }
            offset += header.size;
        }
    }
    *ret_beyond = beyond;
    return GRAFT_OK;
}

static bool is_whole(const struct walker *walker, const struct run_header *header, uint32_t offset)
{
    if (header->kind == RUN_VOID)
        return true;
    struct bytes run = {walker->block + offset, header->size};
    uint32_t end = run_header_size(header->count);
    for (uint32_t i = 0; i < header->count; i++) {
        struct run_entry entry = run_entry_at(run, i);
        uint32_t at = run_page_offset(end, entry.size);
        if (!walker->replay->verify(walker->replay->context, &entry, run.data + at))
            return false;
        end = at + entry.size;
    }
    return true;
}

// Whether a run that can be read, but is not whole, was synced: then it is damage, and otherwise the torn tail.
static enum graft_status was_synced(struct walker *walker, const struct position *position,
                                    const struct run_header *header, bool *ret_synced,
                                    struct graft_error *err)
{
    struct position behind = *position;
    struct beyond beyond;
    step_over(&behind, header);
    enum graft_status status = look_beyond(walker, &behind, &beyond, err);
    if (status == GRAFT_OK)
        *ret_synced = beyond.synced >= header->seq;
    return status;
}

enum group {
    GROUP_WHOLE,
    GROUP_VOIDED,
    GROUP_TORN, // the log ends in it
};

// True if the run follows in the group, of which the member before it is `last`, complete or not.
static bool follows_in_group(const struct run_header *header, const struct run_header *last)
{
    return header->group_count == last->group_count &&
           header->group_index == last->group_index + last->complete;
}

// Looks ahead from the first run of a group; *ret_end is behind its last one, or where it was damaged.
static enum graft_status look_at_group(struct walker *walker, const struct position *first,
                                       enum group *ret_group, struct position *ret_end,
                                       struct graft_error *err)
{
    struct position position = *first;
    struct run_header header, last = {0};
    enum group group = GROUP_WHOLE;
    for (bool found, synced; !last.complete || last.group_index + 1 < last.group_count; last = header) {
        enum graft_status status = find_next(walker, &position, &header, &found, err);
        if (status == GRAFT_OK && !found) {
            struct beyond beyond;
            status = look_beyond(walker, &position, &beyond, err);
            if (beyond.synced < position.seq)
                group = GROUP_TORN;
            *ret_group = group;
            *ret_end = position;
            return status;
        }
        if (status != GRAFT_OK)
            return status;
        if (last.group_count > 0 && !follows_in_group(&header, &last)) {
            group = GROUP_VOIDED; // it was never whole, and what follows is something else
            break;
        }
        synced = is_whole(walker, &header, position.offset);
        if (!synced)
            status = was_synced(walker, &position, &header, &synced, err);
        if (status != GRAFT_OK)
            return status;
        if (!synced) {
            group = GROUP_TORN;
            break;
        }
        if (header.kind == RUN_VOID)
            group = GROUP_VOIDED;
        step_over(&position, &header);
    }
    *ret_group = group;
    *ret_end = position;
    return GRAFT_OK;
}

// There is no run where one must be: the end of the log, or damage, behind which *position is then.
static enum graft_status step_over_gap(struct walker *walker, struct position *position, bool *ret_end,
                                       struct graft_error *err)
{
    struct beyond beyond;
    enum graft_status status = look_beyond(walker, position, &beyond, err);
    if (status != GRAFT_OK)
        return status;
    *ret_end = !beyond.found || beyond.first.seq - 1 > beyond.synced;
    if (!beyond.found || beyond.synced < position->seq)
        return GRAFT_OK;
    const struct page_log_replay *replay = walker->replay;
    char where[EXTENTS_PLACE_TEXT_SIZE];
    extents_place_text(walker->extents,
                       place_make(replay->claims->extents[position->index], position->offset), where);
    replay->damaged(replay->context, NULL, position->seq, MIN(beyond.first.seq - 1, beyond.synced), where);
    *position = beyond.first;
    return GRAFT_OK;
}

static enum graft_status visit_run(struct walker *walker, const struct position *position,
                                   const struct run_header *header, bool *ret_end, struct graft_error *err)
{
    const struct page_log_replay *replay = walker->replay;
    bool whole = is_whole(walker, header, position->offset), synced = true;
    enum graft_status status = GRAFT_OK;
    if (!whole)
        status = was_synced(walker, position, header, &synced, err);
    if (status == GRAFT_OK)
        status = load(walker, position->index, err);
    if (status != GRAFT_OK)
        return status;
    *ret_end = !synced;
    if (*ret_end)
        return GRAFT_OK;
    struct page_log_run run = {.header = *header,
                               .bytes = {walker->block + position->offset, header->size},
                               .place =
                                   place_make(replay->claims->extents[position->index], position->offset),
                               .whole = whole};
    if (!whole) {
        char where[EXTENTS_PLACE_TEXT_SIZE];
        extents_place_text(walker->extents, run.place, where);
        replay->damaged(replay->context, &run, header->seq, header->seq, where);
    }
    FAILPOINT("replay.run");
    return replay->visit(replay->context, &run, err);
}

static bool begins_group(const struct run_header *header)
{
    return header->group_count > 1 && (header->kind == RUN_COMMIT || header->kind == RUN_VOID);
}

static enum graft_status walk_claims(struct walker *walker, struct graft_error *err)
{
    const struct page_log_claims *claims = walker->replay->claims;
    struct position position = {.seq = claims->seq, .chain = claims->chain};
    uint64_t group_end = 0;                       // runs below it are of a group that is there
    bool end = claims->count == 0, midway = true; // in what was appended together
    enum graft_status status = GRAFT_OK;
    while (!end && status == GRAFT_OK) {
        struct run_header header;
        bool found;
        status = find_next(walker, &position, &header, &found, err);
        if (status == GRAFT_OK && !found)
            status = step_over_gap(walker, &position, &end, err);
        midway = midway && found && !header.first;
        if (status != GRAFT_OK || !found)
            continue;
        if (midway) { // what was before it left the claims, so all of it was applied, or was taken back
            step_over(&position, &header);
            continue;
        }
        if (begins_group(&header) && position.seq >= group_end) {
            enum group group;
            struct position behind;
            status = look_at_group(walker, &position, &group, &behind, err);
            if (status != GRAFT_OK)
                continue;
            end = group == GROUP_TORN;
            if (end)
                continue;
            group_end = behind.seq;
            if (group == GROUP_VOIDED) {
                position = behind;
                continue;
            }
            status = load(walker, position.index, err);
        }
        if (status == GRAFT_OK)
            status = visit_run(walker, &position, &header, &end, err);
        step_over(&position, &header);
    }
    return status;
}

enum graft_status page_log_replay(struct extents *extents, const struct page_log_replay *replay,
                                  struct graft_error *err)
{
    _cleanup_(free_p) uint8_t *block = malloc(EXTENT_SIZE);
    if (!block)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to replay the page log");
    struct walker walker = {.extents = extents, .replay = replay, .block = block, .loaded = UINT32_MAX};
    return walk_claims(&walker, err);
}

// ---- one extent

enum graft_status page_log_walk(struct extents *extents, uint64_t store, uint32_t extent, void *context,
                                enum graft_status (*visit)(void *context, const struct page_log_run *run,
                                                           struct graft_error *err),
                                struct graft_error *err)
{
    _cleanup_(free_p) uint8_t *block = malloc(EXTENT_SIZE);
    if (!block)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to walk an extent");
    enum graft_status status = extents_read(extents, place_make(extent, 0), block, EXTENT_SIZE, err);
    bool any = false;
    uint64_t epoch = 0, seq = 0;
    for (uint32_t offset = 0; status == GRAFT_OK && offset < EXTENT_SIZE;) {
        struct run_header header;
        if (!run_decode((struct bytes){block + offset, EXTENT_SIZE - offset}, store, EXTENT_SIZE - offset,
                        &header, NULL)) {
            offset += RUN_ALIGNMENT;
            continue;
        }
        if (any && (header.epoch != epoch || header.seq <= seq))
            break;
        any = true;
        epoch = header.epoch;
        seq = header.seq;
        struct page_log_run run = {
            .header = header, .bytes = {block + offset, header.size}, .place = place_make(extent, offset)};
        status = visit(context, &run, err);
        offset += header.size;
    }
    return status;
}
