// SPDX-License-Identifier: Apache-2.0
#include "client/store_record.h"

#include "common/base/check.h"
#include "common/base/checksum.h"

#define TAG_VOLUME 'V'
#define TAG_REQUEST 'R'
#define TAG_FENCE 'F'
#define TAG_FORK 'K'
#define TAG_STAGING 'S'
#define TAG_NEXT_NUMBER 'N'
#define EXTENT_AGE 1
#define TAG_VID 'M'
#define TAG_DELETED 'X'
#define TAG_CLAIMS 'L'
#define SUPERSEDED_VERSION 0
#define SUPERSEDED_CUT 1

// ---- keys

static void key_add_byte(struct store_key *key, uint8_t value)
{
    key->bytes[key->size++] = value;
}

static void key_add_32(struct store_key *key, uint32_t value)
{
    put_be32(key->bytes + key->size, value);
    key->size += 4;
}

static void key_add_64(struct store_key *key, uint64_t value)
{
    put_be64(key->bytes + key->size, value);
    key->size += 8;
}

struct store_key store_key_next_number(void)
{
    struct store_key key = {.size = 0};
    key_add_byte(&key, TAG_NEXT_NUMBER);
    return key;
}

struct store_key store_key_volume(const struct gid *vid)
{
    struct store_key key = {.size = 0};
    key_add_byte(&key, TAG_VOLUME);
    memcpy(key.bytes + key.size, vid->bytes, GID_SIZE);
    key.size += GID_SIZE;
    return key;
}

static struct store_key tagged_number(uint8_t tag, uint64_t number)
{
    struct store_key key = {.size = 0};
    key_add_byte(&key, tag);
    key_add_64(&key, number);
    return key;
}

struct store_key store_key_request(uint64_t number)
{
    return tagged_number(TAG_REQUEST, number);
}

struct store_key store_key_fence(uint64_t number)
{
    return tagged_number(TAG_FENCE, number);
}

struct store_key store_key_fork(uint64_t number)
{
    return tagged_number(TAG_FORK, number);
}

struct store_key store_key_staging(uint64_t number)
{
    return tagged_number(TAG_STAGING, number);
}

struct store_key store_key_vid(uint64_t number)
{
    return tagged_number(TAG_VID, number);
}

struct store_key store_key_deleted(uint64_t number)
{
    return tagged_number(TAG_DELETED, number);
}

struct store_key store_key_claims(void)
{
    struct store_key key = {.size = 0};
    key_add_byte(&key, TAG_CLAIMS);
    return key;
}

struct store_key store_key_extent(uint32_t extent)
{
    struct store_key key = {.size = 0};
    key_add_32(&key, extent);
    return key;
}

struct store_key store_key_extent_age(uint32_t extent)
{
    struct store_key key = store_key_extent(extent);
    key_add_byte(&key, EXTENT_AGE);
    return key;
}

struct store_key store_key_number(uint64_t number)
{
    struct store_key key = {.size = 0};
    key_add_64(&key, number);
    return key;
}

struct store_key store_key_version(uint64_t number, uint32_t pageidx, uint64_t lsn)
{
    struct store_key key = store_key_number(number);
    key_add_32(&key, pageidx);
    key_add_64(&key, ~lsn);
    return key;
}

struct store_key store_key_commit(uint64_t number, uint64_t lsn, uint32_t part)
{
    struct store_key key = store_key_number(number);
    key_add_64(&key, lsn);
    key_add_32(&key, part);
    return key;
}

static struct store_key superseded_key(uint64_t number, uint8_t type, uint64_t by_lsn, uint32_t last)
{
    struct store_key key = store_key_number(number);
    key_add_byte(&key, type);
    key_add_64(&key, by_lsn);
    key_add_32(&key, last);
    return key;
}

struct store_key store_key_superseded(uint64_t number, uint64_t by_lsn, uint32_t pageidx)
{
    return superseded_key(number, SUPERSEDED_VERSION, by_lsn, pageidx);
}

struct store_key store_key_cut(uint64_t number, uint64_t by_lsn, uint32_t cut)
{
    return superseded_key(number, SUPERSEDED_CUT, by_lsn, cut);
}

struct store_key store_key_fetched(uint64_t number, uint32_t pageidx, uint64_t mark_lsn)
{
    struct store_key key = store_key_number(number);
    key_add_32(&key, pageidx);
    key_add_64(&key, mark_lsn);
    return key;
}

bool store_key_parse_vid(struct bytes key, struct gid *ret_vid)
{
    if (key.size != 1 + GID_SIZE || key.data[0] != TAG_VOLUME)
        return false;
    return gid_from_bytes((struct bytes){key.data + 1, GID_SIZE}, GID_VOLUME, "vid", ret_vid, NULL) ==
           GRAFT_OK;
}

static bool parse_tagged_number(struct bytes key, uint8_t tag, uint64_t *ret_number)
{
    if (key.size != 9 || key.data[0] != tag)
        return false;
    *ret_number = get_be64(key.data + 1);
    return true;
}

bool store_key_parse_staging(struct bytes key, uint64_t *ret_number)
{
    return parse_tagged_number(key, TAG_STAGING, ret_number);
}

bool store_key_parse_deleted(struct bytes key, uint64_t *ret_number)
{
    return parse_tagged_number(key, TAG_DELETED, ret_number);
}

bool store_key_parse_extent(struct bytes key, uint32_t *ret_extent)
{
    if (key.size != 4)
        return false;
    *ret_extent = get_be32(key.data);
    return true;
}

bool store_key_parse_extent_age(struct bytes key, uint32_t *ret_extent)
{
    if (key.size != 5 || key.data[4] != EXTENT_AGE)
        return false;
    *ret_extent = get_be32(key.data);
    return true;
}

bool store_key_parse_version(struct bytes key, uint32_t *ret_pageidx, uint64_t *ret_lsn)
{
    if (key.size != 20)
        return false;
    *ret_pageidx = get_be32(key.data + 8);
    *ret_lsn = ~get_be64(key.data + 12);
    return true;
}

bool store_key_parse_fetched(struct bytes key, uint32_t *ret_pageidx, uint64_t *ret_mark_lsn)
{
    if (key.size != 20)
        return false;
    *ret_pageidx = get_be32(key.data + 8);
    *ret_mark_lsn = get_be64(key.data + 12);
    return true;
}

bool store_key_parse_commit(struct bytes key, uint64_t *ret_lsn, uint32_t *ret_part)
{
    if (key.size != 20)
        return false;
    *ret_lsn = get_be64(key.data + 8);
    *ret_part = get_be32(key.data + 16);
    return true;
}

bool store_key_parse_superseded(struct bytes key, uint64_t *ret_by_lsn, uint32_t *ret_pageidx)
{
    if (key.size != 21)
        return false;
    *ret_by_lsn = get_be64(key.data + 9);
    *ret_pageidx = get_be32(key.data + 17);
    return true;
}

// ---- the volume record

static const char record_magic[8] = {'G', 'R', 'F', 'T', 'V', 'O', 'L', '1'};

// A place in a record's bytes, moved along by each field. Reading checks the size once, before: all but the
// message is of fixed width.
struct place {
    uint8_t *at;
};

struct source {
    const uint8_t *at;
};

static void put_8(struct place *to, uint8_t value)
{
    *to->at++ = value;
}

static void put_16(struct place *to, uint16_t value)
{
    put_le16(to->at, value);
    to->at += 2;
}

static void put_32(struct place *to, uint32_t value)
{
    put_le32(to->at, value);
    to->at += 4;
}

static void put_64(struct place *to, uint64_t value)
{
    put_le64(to->at, value);
    to->at += 8;
}

static void put_bytes(struct place *to, const void *data, size_t size)
{
    memcpy(to->at, data, size);
    to->at += size;
}

static void put_remote(struct place *to, const struct store_remote *remote)
{
    put_64(to, remote->lsn);
    put_bytes(to, remote->chain.bytes, HASH_SIZE);
    put_32(to, remote->page_count);
}

static uint8_t take_8(struct source *from)
{
    return *from->at++;
}

static uint16_t take_16(struct source *from)
{
    from->at += 2;
    return get_le16(from->at - 2);
}

static uint32_t take_32(struct source *from)
{
    from->at += 4;
    return get_le32(from->at - 4);
}

static uint64_t take_64(struct source *from)
{
    from->at += 8;
    return get_le64(from->at - 8);
}

static void take_bytes(struct source *from, void *to, size_t size)
{
    memcpy(to, from->at, size);
    from->at += size;
}

static void take_remote(struct source *from, struct store_remote *remote)
{
    remote->lsn = take_64(from);
    take_bytes(from, remote->chain.bytes, HASH_SIZE);
    remote->page_count = take_32(from);
}

#define REMOTE_SIZE (8 + HASH_SIZE + 4)
#define PUSH_SIZE (TOKEN_SIZE + REMOTE_SIZE + 8 + 8 + 4 + 4 + HASH_SIZE)
// All but the message.
#define RECORD_FIXED_SIZE \
    (8 + 8 + GID_SIZE + 4 + 4 + 8 + 4 + REMOTE_SIZE + 8 + 8 + 20 + 12 + PUSH_SIZE + 4 + 4 + 2 + 8)

size_t store_record_encode(const struct store_record *record, uint8_t to[STORE_RECORD_SIZE_MAX])
{
    const struct store_state *state = &record->state;
    const struct store_push *push = &state->push;
    struct place place = {to};
    put_bytes(&place, record_magic, sizeof record_magic);
    put_64(&place, record->number);
    put_bytes(&place, state->vid.bytes, GID_SIZE);
    put_32(&place, state->page_size);
    put_8(&place, (uint8_t)state->kind);
    put_8(&place, (uint8_t)state->status);
    put_8(&place, (uint8_t)push->phase);
    put_8(&place, push->sent);
    put_64(&place, state->local_lsn);
    put_32(&place, state->page_count);
    put_remote(&place, &state->remote);
    put_64(&place, state->mapped_lsn);
    put_64(&place, state->remote_seen_lsn);
    put_64(&place, record->floor.mark_lsn);
    put_64(&place, record->floor.remote_lsn);
    put_32(&place, record->floor.page_count);
    put_64(&place, record->cuts.last_lsn);
    put_32(&place, record->cuts.lowest);
    put_bytes(&place, push->token.bytes, TOKEN_SIZE);
    put_remote(&place, &push->base);
    put_64(&place, push->from_lsn);
    put_64(&place, push->to_lsn);
    put_32(&place, push->page_count);
    put_32(&place, push->cut);
    put_bytes(&place, push->digest.bytes, HASH_SIZE);
    const struct graft_error *why = &state->status_error;
    size_t message_size = strnlen(why->message, sizeof why->message - 1);
    put_32(&place, (uint32_t)why->status);
    put_32(&place, (uint32_t)why->detail);
    put_16(&place, (uint16_t)message_size);
    put_bytes(&place, why->message, message_size);
    put_64(&place, checksum64(to, (size_t)(place.at - to)));
    size_t size = (size_t)(place.at - to);
    CHECK(size == RECORD_FIXED_SIZE + message_size && size <= STORE_RECORD_SIZE_MAX);
    return size;
}

static void take_push(struct source *from, struct store_push *push)
{
    take_bytes(from, push->token.bytes, TOKEN_SIZE);
    take_remote(from, &push->base);
    push->from_lsn = take_64(from);
    push->to_lsn = take_64(from);
    push->page_count = take_32(from);
    push->cut = take_32(from);
    take_bytes(from, push->digest.bytes, HASH_SIZE);
}

static bool page_size_is_valid(uint32_t page_size)
{
    return page_size >= PAGE_SIZE_MIN && page_size <= PAGE_SIZE_MAX && (page_size & (page_size - 1)) == 0;
}

// What is wrong with the record, or NULL.
static const char *record_fault(const struct store_record *record)
{
    const struct store_state *state = &record->state;
    const struct store_push *push = &state->push;
    if (record->number == 0)
        return "number";
    if (!page_size_is_valid(state->page_size))
        return "page_size";
    if (state->kind != GRAFT_FIXED && state->kind != GRAFT_VARIABLE)
        return "kind";
    if (state->status > GRAFT_VOLUME_CORRUPT)
        return "status";
    if (push->phase > STORE_PUSH_FENCING)
        return "phase";
    if (state->mapped_lsn > state->local_lsn)
        return "mapped LSN";
    if (state->remote_seen_lsn < state->remote.lsn)
        return "seen LSN";
    if (record->floor.mark_lsn > state->local_lsn || record->floor.page_count > state->page_count)
        return "floor";
    if (record->cuts.last_lsn > state->local_lsn)
        return "cuts";
    bool pushing = push->phase != STORE_PUSH_IDLE;
    if (pushing && (push->from_lsn != state->mapped_lsn || push->to_lsn <= push->from_lsn ||
                    push->to_lsn > state->local_lsn || push->base.lsn != state->remote.lsn))
        return "push";
    if (push->phase >= STORE_PUSH_COMMITTING && !push->sent)
        return "sent";
    return NULL;
}

void store_record_check(const struct store_record *record)
{
    CHECK(record_fault(record) == NULL);
}

static enum graft_status bad_record(const struct gid *vid, enum graft_detail detail, const char *what,
                                    struct graft_error *err)
{
    return error_set(err, GRAFT_CORRUPT, detail,
                     "the local record of volume %s is damaged (%s); clone it into another data directory",
                     gid_format(vid).text, what);
}

enum graft_status store_record_decode(struct bytes value, const struct gid *vid,
                                      struct store_record *ret_record, struct graft_error *err)
{
    if (value.size < RECORD_FIXED_SIZE || value.size > STORE_RECORD_SIZE_MAX)
        return bad_record(vid, GRAFT_DETAIL_BAD_MESSAGE, "size", err);
    if (memcmp(value.data, record_magic, sizeof record_magic) != 0)
        return bad_record(vid, GRAFT_DETAIL_BAD_MESSAGE, "magic", err);
    size_t checked = value.size - 8;
    if (!checksum_matches(get_le64(value.data + checked), checksum64(value.data, checked)))
        return bad_record(vid, GRAFT_DETAIL_BAD_CHECKSUM, "checksum", err);

    struct store_record record = {.number = 0};
    struct store_state *state = &record.state;
    struct source from = {value.data + sizeof record_magic};
    record.number = take_64(&from);
    take_bytes(&from, state->vid.bytes, GID_SIZE);
    state->page_size = take_32(&from);
    state->kind = take_8(&from);
    state->status = take_8(&from);
    state->push.phase = take_8(&from);
    uint8_t sent = take_8(&from);
    state->push.sent = sent == 1;
    state->local_lsn = take_64(&from);
    state->page_count = take_32(&from);
    take_remote(&from, &state->remote);
    state->mapped_lsn = take_64(&from);
    state->remote_seen_lsn = take_64(&from);
    record.floor.mark_lsn = take_64(&from);
    record.floor.remote_lsn = take_64(&from);
    record.floor.page_count = take_32(&from);
    record.cuts.last_lsn = take_64(&from);
    record.cuts.lowest = take_32(&from);
    take_push(&from, &state->push);
    state->status_error.status = take_32(&from);
    state->status_error.detail = take_32(&from);
    size_t message_size = take_16(&from);
    if (message_size != value.size - RECORD_FIXED_SIZE || message_size >= GRAFT_ERROR_MESSAGE_SIZE)
        return bad_record(vid, GRAFT_DETAIL_BAD_MESSAGE, "message size", err);
    take_bytes(&from, state->status_error.message, message_size);
    if (strnlen(state->status_error.message, message_size) != message_size)
        return bad_record(vid, GRAFT_DETAIL_BAD_MESSAGE, "message", err);

    const char *fault = sent > 1 ? "sent" : !gid_equal(&state->vid, vid) ? "vid" : record_fault(&record);
    if (fault)
        return bad_record(vid, GRAFT_DETAIL_BAD_MESSAGE, fault, err);
    *ret_record = record;
    return GRAFT_OK;
}

// ---- small values

size_t store_version_encode(const struct store_version *version, uint8_t to[STORE_VERSION_SIZE_MAX])
{
    to[0] = (uint8_t)version->kind;
    if (version->kind == STORE_VERSION_AVAILABLE) {
        put_le32(to + 1, version->size);
        put_le64(to + 5, version->place);
        put_le64(to + 13, version->checksum);
        return 21;
    }
    CHECK(version->kind == STORE_VERSION_PENDING);
    put_le64(to + 1, version->remote_lsn);
    return 9;
}

bool store_version_decode(struct bytes value, struct store_version *ret_version)
{
    if (value.size == 21 && value.data[0] == STORE_VERSION_AVAILABLE) {
        *ret_version = (struct store_version){
            .kind = STORE_VERSION_AVAILABLE,
            .size = get_le32(value.data + 1),
            .place = get_le64(value.data + 5),
            .checksum = get_le64(value.data + 13),
        };
        return ret_version->size <= PAGE_SIZE_MAX;
    }
    if (value.size == 9 && value.data[0] == STORE_VERSION_PENDING) {
        *ret_version =
            (struct store_version){.kind = STORE_VERSION_PENDING, .remote_lsn = get_le64(value.data + 1)};
        return ret_version->remote_lsn > 0;
    }
    return false;
}

void store_superseded_encode(uint64_t lsn, enum store_version_kind kind, uint8_t to[STORE_SUPERSEDED_SIZE])
{
    put_le64(to, lsn);
    to[8] = (uint8_t)kind;
}

bool store_superseded_decode(struct bytes value, uint64_t *ret_lsn, enum store_version_kind *ret_kind)
{
    if (value.size != STORE_SUPERSEDED_SIZE || value.data[8] < STORE_VERSION_AVAILABLE ||
        value.data[8] > STORE_VERSION_FLOOR)
        return false;
    *ret_lsn = get_le64(value.data);
    *ret_kind = value.data[8];
    return true;
}

void store_staging_encode(const struct store_staging *staging, uint8_t to[STORE_STAGING_SIZE])
{
    put_le64(to, staging->lsn);
    put_le32(to + 8, staging->runs);
    put_le64(to + 12, staging->seq);
    put_le32(to + 20, staging->cut);
}

bool store_staging_decode(struct bytes value, struct store_staging *ret_staging)
{
    if (value.size != STORE_STAGING_SIZE)
        return false;
    *ret_staging = (struct store_staging){
        .lsn = get_le64(value.data),
        .runs = get_le32(value.data + 8),
        .seq = get_le64(value.data + 12),
        .cut = get_le32(value.data + 20),
    };
    return true;
}

#define ARRIVED_BYTES 1
#define ARRIVED_EMPTY 2

void store_arrived_encode(const struct store_arrived *arrived, uint8_t to[STORE_ARRIVED_SIZE])
{
    CHECK(!arrived->empty || (arrived->size == 0 && arrived->place == 0 && arrived->checksum == 0));
    to[0] = arrived->empty ? ARRIVED_EMPTY : ARRIVED_BYTES;
    put_le64(to + 1, arrived->remote_lsn);
    put_le64(to + 9, arrived->place);
    put_le32(to + 17, arrived->size);
    put_le64(to + 21, arrived->checksum);
}

bool store_arrived_decode(struct bytes value, struct store_arrived *ret_arrived)
{
    if (value.size != STORE_ARRIVED_SIZE || value.data[0] < ARRIVED_BYTES || value.data[0] > ARRIVED_EMPTY)
        return false;
    *ret_arrived = (struct store_arrived){
        .empty = value.data[0] == ARRIVED_EMPTY,
        .remote_lsn = get_le64(value.data + 1),
        .place = get_le64(value.data + 9),
        .size = get_le32(value.data + 17),
        .checksum = get_le64(value.data + 21),
    };
    if (ret_arrived->empty)
        return ret_arrived->size == 0 && ret_arrived->place == 0 && ret_arrived->checksum == 0;
    return ret_arrived->size <= PAGE_SIZE_MAX;
}

// ---- DIR/client

static const char client_magic[8] = {'G', 'R', 'F', 'T', 'C', 'L', 'I', '1'};

void store_client_encode(const struct gid *cid, uint8_t to[STORE_CLIENT_FILE_SIZE])
{
    struct place place = {to};
    put_bytes(&place, client_magic, sizeof client_magic);
    put_32(&place, STORE_FORMAT);
    put_bytes(&place, cid->bytes, GID_SIZE);
    put_64(&place, checksum64(to, (size_t)(place.at - to)));
}

enum graft_status store_client_decode(struct bytes file, const char *path, struct gid *ret_cid,
                                      struct graft_error *err)
{
    if (file.size < 12 || memcmp(file.data, client_magic, sizeof client_magic) != 0)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "%s does not belong to a data directory of graft", path);
    uint32_t format = get_le32(file.data + 8);
    if (format != STORE_FORMAT)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "%s: this data directory has format %u and this library reads format %u; use the "
                         "version of graft that made it, or clone its volumes into a new one",
                         path, format, STORE_FORMAT);
    if (file.size != STORE_CLIENT_FILE_SIZE ||
        !checksum_matches(get_le64(file.data + STORE_CLIENT_FILE_SIZE - 8),
                          checksum64(file.data, STORE_CLIENT_FILE_SIZE - 8)))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM, "%s is damaged", path);
    return gid_from_bytes((struct bytes){file.data + 12, GID_SIZE}, GID_CLIENT, "cid", ret_cid, err);
}
