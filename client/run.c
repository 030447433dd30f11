// SPDX-License-Identifier: Apache-2.0
#include "client/run.h"

#include "client/extents.h"
#include "common/base/check.h"
#include "common/base/checksum.h"
#include "common/base/compiler.h"

static const uint8_t magic[8] = "GRFTRUN1";

enum header_offset {
    AT_CHECKSUM = 8,
    AT_STORE = 16, // the checksum covers everything from here on
    AT_CHAIN = 24,
    AT_CHAIN_BEFORE = 32, // the chain, from here on
    AT_EPOCH = 40,
    AT_SEQ = 48,
    AT_SYNCED = 56,
    AT_KIND = 64,
    AT_FLAGS = 65,
    AT_GROUP_INDEX = 66,
    AT_GROUP_COUNT = 68,
    AT_COUNT = 72,
    AT_SIZE = 76,
    AT_NUMBER = 80,
    AT_LSN = 88,
    AT_PART = 96,
    AT_PAGE_COUNT = 100,
    AT_CUT = 104,
    AT_ZEROS = 108,
};

#define FLAG_COMPLETE 1u
#define FLAG_FIRST 2u

static uint32_t align(uint32_t value, uint32_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

uint32_t run_header_size(uint32_t count)
{
    return RUN_FIXED_SIZE + count * RUN_ENTRY_SIZE;
}

uint32_t run_page_offset(uint32_t end, uint32_t size)
{
    if (size == 0)
        return end;
    return align(end, size % RUN_ALIGNMENT == 0 ? RUN_ALIGNMENT : 8);
}

// The size of a run of the first `count` pages; 0 if that is more than `room`.
static uint32_t size_of_run(uint32_t (*size_at)(const void *, uint32_t), const void *context, uint32_t count,
                            uint32_t room)
{
    uint32_t end = run_header_size(count);
    for (uint32_t i = 0; i < count && end <= room; i++) {
        uint32_t size = size_at(context, i);
        CHECK(size <= PAGE_SIZE_MAX);
        end = run_page_offset(end, size) + size;
    }
    end = align(end, RUN_ALIGNMENT);
    return end <= room ? end : 0;
}

uint32_t run_fit(uint32_t (*size_at)(const void *context, uint32_t index), const void *context,
                 uint32_t count, uint32_t room, uint32_t *ret_size)
{
    CHECK(room <= EXTENT_SIZE);
    uint32_t fits = 0, too_many = MIN(count, RUN_PAGES_MAX) + 1;
    for (uint32_t guess = too_many - 1; too_many - fits > 1; guess = fits + (too_many - fits) / 2) {
        uint32_t size = size_of_run(size_at, context, guess, room);
        if (size == 0) {
            too_many = guess;
        } else {
            fits = guess;
            *ret_size = size;
        }
    }
    return fits;
}

static uint32_t entry_size_at(const void *context, uint32_t index)
{
    return get_le32((const uint8_t *)context + run_header_size(index) + 20);
}

static void encode_entry(const struct run_entry *entry, uint8_t *to)
{
    put_le64(to, entry->number);
    put_le64(to + 8, entry->lsn);
    put_le32(to + 16, entry->pageidx);
    put_le32(to + 20, entry->size);
    put_le64(to + 24, entry->checksum);
}

struct run_entry run_entry_at(struct bytes header_bytes, uint32_t index)
{
    const uint8_t *from = header_bytes.data + run_header_size(index);
    CHECK(header_bytes.size >= run_header_size(index + 1));
    return (struct run_entry){.number = get_le64(from),
                              .lsn = get_le64(from + 8),
                              .pageidx = get_le32(from + 16),
                              .size = get_le32(from + 20),
                              .checksum = get_le64(from + 24)};
}

static bool kind_known(uint8_t kind)
{
    return kind >= RUN_COMMIT && kind <= RUN_VOID;
}

static bool group_sound(uint16_t index, uint16_t count)
{
    return count <= 1 ? index == 0 : index < count;
}

void run_encode(struct run_header *header, const struct run_entry *entries, uint8_t *to)
{
    CHECK(header->count <= RUN_PAGES_MAX && kind_known(header->kind));
    CHECK(group_sound(header->group_index, header->group_count));
    uint32_t size = run_header_size(header->count);
    for (uint32_t i = 0; i < header->count; i++)
        encode_entry(&entries[i], to + run_header_size(i));
    header->size = size_of_run(entry_size_at, to, header->count, EXTENT_SIZE);
    CHECK(header->size > 0);

    memset(to, 0, RUN_FIXED_SIZE);
    memcpy(to, magic, sizeof magic);
    put_le64(to + AT_STORE, header->store);
    put_le64(to + AT_CHAIN_BEFORE, header->chain_before);
    put_le64(to + AT_EPOCH, header->epoch);
    put_le64(to + AT_SEQ, header->seq);
    put_le64(to + AT_SYNCED, header->synced);
    to[AT_KIND] = (uint8_t)header->kind;
    to[AT_FLAGS] = (uint8_t)((header->complete ? FLAG_COMPLETE : 0) | (header->first ? FLAG_FIRST : 0));
    put_le16(to + AT_GROUP_INDEX, header->group_index);
    put_le16(to + AT_GROUP_COUNT, header->group_count);
    put_le32(to + AT_COUNT, header->count);
    put_le32(to + AT_SIZE, header->size);
    put_le64(to + AT_NUMBER, header->number);
    put_le64(to + AT_LSN, header->lsn);
    put_le32(to + AT_PART, header->part);
    put_le32(to + AT_PAGE_COUNT, header->page_count);
    put_le32(to + AT_CUT, header->cut);
    if (header->kind != RUN_VOID)
        header->chain = checksum64(to + AT_CHAIN_BEFORE, size - AT_CHAIN_BEFORE);
    put_le64(to + AT_CHAIN, header->chain);
    put_le64(to + AT_CHECKSUM, checksum64(to + AT_STORE, size - AT_STORE));
}

void run_make_void(uint8_t *bytes, uint32_t count)
{
    CHECK(memcmp(bytes, magic, sizeof magic) == 0 && get_le32(bytes + AT_COUNT) == count);
    bytes[AT_KIND] = RUN_VOID;
    put_le64(bytes + AT_CHECKSUM, checksum64(bytes + AT_STORE, run_header_size(count) - AT_STORE));
}

static bool all_zero(const uint8_t *from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (from[i] != 0)
            return false;
    return true;
}

static struct run_header decode_fixed(const uint8_t *from)
{
    return (struct run_header){
        .kind = from[AT_KIND],
        .complete = from[AT_FLAGS] & FLAG_COMPLETE,
        .first = from[AT_FLAGS] & FLAG_FIRST,
        .store = get_le64(from + AT_STORE),
        .epoch = get_le64(from + AT_EPOCH),
        .seq = get_le64(from + AT_SEQ),
        .synced = get_le64(from + AT_SYNCED),
        .chain_before = get_le64(from + AT_CHAIN_BEFORE),
        .chain = get_le64(from + AT_CHAIN),
        .count = get_le32(from + AT_COUNT),
        .size = get_le32(from + AT_SIZE),
        .number = get_le64(from + AT_NUMBER),
        .lsn = get_le64(from + AT_LSN),
        .part = get_le32(from + AT_PART),
        .page_count = get_le32(from + AT_PAGE_COUNT),
        .cut = get_le32(from + AT_CUT),
        .group_index = get_le16(from + AT_GROUP_INDEX),
        .group_count = get_le16(from + AT_GROUP_COUNT),
    };
}

static bool sizes_sound(struct bytes bytes, const struct run_header *header, uint32_t room)
{
    for (uint32_t i = 0; i < header->count; i++)
        if (entry_size_at(bytes.data, i) > PAGE_SIZE_MAX)
            return false;
    return header->size == size_of_run(entry_size_at, bytes.data, header->count, room) && header->size > 0;
}

bool run_decode(struct bytes bytes, uint64_t store, uint32_t room, struct run_header *ret_header,
                uint32_t *ret_needed)
{
    uint32_t unasked;
    uint32_t *needed = ret_needed ? ret_needed : &unasked;
    *needed = 0;
    room = MIN(room, EXTENT_SIZE);
    if (memcmp(bytes.data, magic, MIN(bytes.size, sizeof magic)) != 0 || room < RUN_FIXED_SIZE)
        return false;
    *needed = RUN_FIXED_SIZE;
    if (bytes.size < RUN_FIXED_SIZE)
        return false;

    struct run_header header = decode_fixed(bytes.data);
    *needed = 0;
    if (header.count > RUN_PAGES_MAX || run_header_size(header.count) > room)
        return false;
    uint32_t size = run_header_size(header.count);
    *needed = size;
    if (bytes.size < size)
        return false;
    const uint8_t *from = bytes.data;
    if (!checksum_matches(get_le64(from + AT_CHECKSUM), checksum64(from + AT_STORE, size - AT_STORE)))
        return false;
    if (header.kind != RUN_VOID &&
        !checksum_matches(header.chain, checksum64(from + AT_CHAIN_BEFORE, size - AT_CHAIN_BEFORE)))
        return false;
    if (header.store != store || !kind_known(from[AT_KIND]) ||
        from[AT_FLAGS] > (FLAG_COMPLETE | FLAG_FIRST) ||
        !group_sound(header.group_index, header.group_count) || get_le16(from + AT_GROUP_COUNT + 2) != 0 ||
        !all_zero(from + AT_ZEROS, RUN_FIXED_SIZE - AT_ZEROS) || !sizes_sound(bytes, &header, room))
        return false;
    *ret_header = header;
    return true;
}
