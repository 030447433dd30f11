// SPDX-License-Identifier: Apache-2.0
//
// The store's records: what is written is read, and nothing else is.
#include "client/store_record.h"

#include <criterion/criterion.h>

#include "tests/unit/client/store_fixture.h"

static struct store_record example(void)
{
    struct store_record record = {
        .number = 7,
        .state = {.vid = fixture_vid(1),
                  .page_size = 4096,
                  .kind = GRAFT_VARIABLE,
                  .local_lsn = 12,
                  .page_count = 30,
                  .remote = fixture_remote(5, 20),
                  .mapped_lsn = 9,
                  .remote_seen_lsn = 6,
                  .push = {.phase = STORE_PUSH_COMMITTING,
                           .token = {.bytes = {1, 2}},
                           .base = fixture_remote(5, 20),
                           .from_lsn = 9,
                           .to_lsn = 11,
                           .page_count = 25,
                           .cut = 20,
                           .sent = true,
                           .digest = {.bytes = {3, 4}}},
                  .status = GRAFT_VOLUME_UNKNOWN,
                  .status_error = {GRAFT_UNKNOWN, GRAFT_DETAIL_TIMEOUT, "no answer"}},
        .floor = {1, 3, 8},
        .cuts = {4, 8},
    };
    return record;
}

static void expect_refused(uint8_t *bytes, size_t size, enum graft_detail detail)
{
    struct gid vid = fixture_vid(1);
    struct store_record record;
    expect_error(GRAFT_CORRUPT, detail,
                 store_record_decode((struct bytes){bytes, size}, &vid, &record, &err));
}

static void seal(uint8_t *bytes, size_t size)
{
    put_le64(bytes + size - 8, checksum64(bytes, size - 8));
}

Test(store_record, comes_back_as_it_was)
{
    struct store_record record = example(), read;
    uint8_t bytes[STORE_RECORD_SIZE_MAX];
    size_t size = store_record_encode(&record, bytes);
    struct gid vid = fixture_vid(1);
    expect_ok(store_record_decode((struct bytes){bytes, size}, &vid, &read, &err));
    uint8_t again[STORE_RECORD_SIZE_MAX];
    cr_assert_eq(store_record_encode(&read, again), size);
    cr_assert_eq(memcmp(bytes, again, size), 0);
    cr_assert_eq(read.number, 7);
    cr_assert_eq(read.state.push.to_lsn, 11);
    cr_assert_eq(read.floor.page_count, 8);
    cr_assert_eq(read.cuts.lowest, 8);
    cr_assert_str_eq(read.state.status_error.message, "no answer");
}

Test(store_record, with_the_longest_message_fits)
{
    struct store_record record = example(), read;
    memset(record.state.status_error.message, 'x', GRAFT_ERROR_MESSAGE_SIZE - 1);
    uint8_t bytes[STORE_RECORD_SIZE_MAX];
    size_t size = store_record_encode(&record, bytes);
    struct gid vid = fixture_vid(1);
    expect_ok(store_record_decode((struct bytes){bytes, size}, &vid, &read, &err));
    cr_assert_str_eq(read.state.status_error.message, record.state.status_error.message);
}

Test(store_record, is_refused_with_any_byte_changed)
{
    struct store_record record = example();
    uint8_t bytes[STORE_RECORD_SIZE_MAX];
    size_t size = store_record_encode(&record, bytes);
    for (size_t i = 0; i < size; i++) {
        bytes[i] ^= 0x10;
        expect_refused(bytes, size, i < 8 ? GRAFT_DETAIL_BAD_MESSAGE : GRAFT_DETAIL_BAD_CHECKSUM);
        bytes[i] ^= 0x10;
    }
}

Test(store_record, is_refused_at_any_other_size)
{
    struct store_record record = example();
    uint8_t bytes[STORE_RECORD_SIZE_MAX + 1] = {0};
    size_t size = store_record_encode(&record, bytes);
    struct gid vid = fixture_vid(1);
    struct store_record read;
    for (size_t cut = 0; cut < size; cut++)
        expect_status(GRAFT_CORRUPT, store_record_decode((struct bytes){bytes, cut}, &vid, &read, &err));
    expect_status(GRAFT_CORRUPT, store_record_decode((struct bytes){bytes, sizeof bytes}, &vid, &read, &err));
}

Test(store_record, is_refused_with_fields_that_contradict_each_other)
{
    struct store_record good = example();
    uint8_t bytes[STORE_RECORD_SIZE_MAX];
    size_t size = store_record_encode(&good, bytes);
    // Each place of the layout in store_record.h, and a value that it must not have.
    static const struct {
        size_t offset;
        uint8_t value;
    } faults[] = {
        {8, 0},    // number 0
        {16, 1},   // another VID
        {32, 1},   // a page size that is no power of two
        {36, 9},   // kind
        {37, 9},   // status
        {38, 4},   // phase
        {39, 2},   // sent
        {39, 0},   // COMMITTING, but never sent
        {40, 3},   // local LSN below the mapped one
        {52, 9},   // remote LSN above the seen one
        {80, 13},  // mapped LSN above the local one
        {96, 13},  // floor above the local LSN
        {112, 31}, // floor of more pages than there are
        {116, 13}, // cuts above the local LSN
    };
    for (size_t i = 0; i < ARRAY_COUNT(faults); i++) {
        uint8_t bad[STORE_RECORD_SIZE_MAX];
        memcpy(bad, bytes, size);
        bad[faults[i].offset] = faults[i].value;
        seal(bad, size);
        expect_refused(bad, size, GRAFT_DETAIL_BAD_MESSAGE);
    }
}

Test(store_record, versions_come_back_and_others_are_refused)
{
    uint8_t bytes[STORE_VERSION_SIZE_MAX + 1] = {0};
    struct store_version version = {.kind = STORE_VERSION_AVAILABLE,
                                    .size = 4096,
                                    .place = 1ull << 40,
                                    .checksum = 77},
                         read;
    cr_assert_eq(store_version_encode(&version, bytes), 21);
    cr_assert(store_version_decode((struct bytes){bytes, 21}, &read));
    cr_assert(read.place == version.place && read.checksum == 77);
    cr_assert_eq(read.size, 4096);
    for (size_t size = 0; size < 21; size++)
        cr_assert_not(store_version_decode((struct bytes){bytes, size}, &read));
    put_le32(bytes + 1, PAGE_SIZE_MAX + 1);
    cr_assert_not(store_version_decode((struct bytes){bytes, 21}, &read));

    version = (struct store_version){.kind = STORE_VERSION_PENDING, .remote_lsn = 3};
    cr_assert_eq(store_version_encode(&version, bytes), 9);
    cr_assert(store_version_decode((struct bytes){bytes, 9}, &read));
    cr_assert_eq(read.remote_lsn, 3);
    cr_assert_not(store_version_decode((struct bytes){bytes, 8}, &read));
    cr_assert_not(store_version_decode((struct bytes){bytes, 10}, &read));
    bytes[0] = STORE_VERSION_FLOOR;
    cr_assert_not(store_version_decode((struct bytes){bytes, 9}, &read));
    bytes[0] = STORE_VERSION_PENDING;
    put_le64(bytes + 1, 0);
    cr_assert_not(store_version_decode((struct bytes){bytes, 9}, &read));
}

Test(store_record, superseded_and_fetched_come_back_and_others_are_refused)
{
    uint8_t bytes[STORE_SUPERSEDED_SIZE];
    uint64_t lsn;
    enum store_version_kind kind;
    store_superseded_encode(99, STORE_VERSION_FLOOR, bytes);
    cr_assert(store_superseded_decode((struct bytes){bytes, sizeof bytes}, &lsn, &kind));
    cr_assert(lsn == 99 && kind == STORE_VERSION_FLOOR);
    cr_assert_not(store_superseded_decode((struct bytes){bytes, sizeof bytes - 1}, &lsn, &kind));
    bytes[8] = 4;
    cr_assert_not(store_superseded_decode((struct bytes){bytes, sizeof bytes}, &lsn, &kind));

    uint8_t value[STORE_ARRIVED_SIZE];
    struct bytes whole = {value, sizeof value};
    struct store_arrived arrived = {.remote_lsn = 5, .checksum = 6, .place = 7ull << 40, .size = 4096}, read;
    store_arrived_encode(&arrived, value);
    cr_assert(store_arrived_decode(whole, &read));
    cr_assert(!read.empty && read.remote_lsn == 5 && read.checksum == 6 && read.place == 7ull << 40 &&
              read.size == 4096);
    cr_assert_not(store_arrived_decode((struct bytes){value, sizeof value - 1}, &read));
    value[0] = 2;
    cr_assert_not(store_arrived_decode(whole, &read)); // empty, with bytes
    value[0] = 3;
    cr_assert_not(store_arrived_decode(whole, &read));
    arrived.size = PAGE_SIZE_MAX + 1;
    store_arrived_encode(&arrived, value);
    cr_assert_not(store_arrived_decode(whole, &read));
    store_arrived_encode(&(struct store_arrived){.empty = true, .remote_lsn = 9}, value);
    cr_assert(store_arrived_decode(whole, &read) && read.empty && read.remote_lsn == 9);
}

Test(store_record, version_keys_sort_newest_first)
{
    struct store_key old = store_key_version(1, 5, 10), new = store_key_version(1, 5, 11);
    struct store_key next = store_key_version(1, 6, 1), other = store_key_version(2, 1, 1);
    cr_assert_lt(memcmp(new.bytes, old.bytes, new.size), 0);
    cr_assert_lt(memcmp(old.bytes, next.bytes, old.size), 0);
    cr_assert_lt(memcmp(next.bytes, other.bytes, next.size), 0);
    uint32_t pageidx;
    uint64_t lsn;
    cr_assert(store_key_parse_version(store_key_bytes(&new), &pageidx, &lsn));
    cr_assert(pageidx == 5 && lsn == 11);
}

Test(store_record, client_files_come_back_and_others_are_refused)
{
    struct gid cid = gid_make(GID_CLIENT, 1700000000000), read;
    uint8_t file[STORE_CLIENT_FILE_SIZE];
    store_client_encode(&cid, file);
    expect_ok(store_client_decode((struct bytes){file, sizeof file}, "client", &read, &err));
    cr_assert(gid_equal(&cid, &read));
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
                 store_client_decode((struct bytes){file, sizeof file - 1}, "client", &read, &err));
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                 store_client_decode((struct bytes){file, 5}, "client", &read, &err));
    file[20] ^= 1;
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
                 store_client_decode((struct bytes){file, sizeof file}, "client", &read, &err));
    put_le32(file + 8, STORE_FORMAT + 1);
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                 store_client_decode((struct bytes){file, sizeof file}, "client", &read, &err));
    file[0] ^= 1;
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                 store_client_decode((struct bytes){file, sizeof file}, "client", &read, &err));
}
