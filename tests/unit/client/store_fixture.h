// SPDX-License-Identifier: Apache-2.0
//
// A local store in a folder of its own, for one test.
#ifndef TESTS_UNIT_CLIENT_STORE_FIXTURE_H
#define TESTS_UNIT_CLIENT_STORE_FIXTURE_H

#include "client/store.h"
#include "client/store_record.h"

struct store_fixture {
    char directory[64];
    struct store *store;
    struct store_settings settings; // for the next opening
};

void fixture_begin(struct store_fixture *fixture); // makes the folder and opens a store in it
void fixture_end(struct store_fixture *fixture);   // closes and removes
void fixture_open(struct store_fixture *fixture);
void fixture_close(struct store_fixture *fixture);

// Fails the test, with the message, unless the status is this.
void expect_status_(enum graft_status expected, enum graft_status status, const struct graft_error *err,
                    const char *file, int line);
#define expect_status(expected, call)                                \
    do {                                                             \
        struct graft_error err = {.message = ""};                    \
        enum graft_status status_ = (call);                          \
        expect_status_(expected, status_, &err, __FILE__, __LINE__); \
    } while (0)
#define expect_ok(call) expect_status(GRAFT_OK, call)
// Both the status and its detail.
#define expect_error(expected, expected_detail, call)                                             \
    do {                                                                                          \
        struct graft_error err = {.message = ""};                                                 \
        enum graft_status status_ = (call);                                                       \
        expect_status_(expected, status_, &err, __FILE__, __LINE__);                              \
        cr_assert_eq(err.detail, expected_detail, "detail %s: %s", graft_detail_name(err.detail), \
                     err.message);                                                                \
    } while (0)

struct gid fixture_vid(unsigned number);
// Bytes that depend on all three.
void fixture_fill(uint8_t *to, size_t size, uint32_t pageidx, uint32_t tag);
struct store_remote fixture_remote(uint64_t lsn, uint32_t page_count);

struct store_volume *fixture_create(struct store_fixture *fixture, unsigned number, uint32_t page_size);
// One commit that writes the pages [first, first + count) with a tag; the new LSN.
uint64_t fixture_commit(struct store_volume *volume, uint32_t first, uint32_t count, uint32_t tag);
// Fetched pages of a clone, as fixture_fill() makes them with tag 1.
enum graft_status fixture_arrive(struct store_volume *volume, uint32_t first, uint32_t count,
                                 struct graft_error *err);
// What the head shows: a page's tag as fixture_fill() wrote it is checked; EMPTY and PENDING by their state.
void expect_page(struct store_pin *pin, uint32_t pageidx, uint32_t tag);
void expect_state(struct store_pin *pin, uint32_t pageidx, enum store_page_state state);
// Where the bytes of a local version are; changes one of them in its file, behind the store's back.
struct store_version fixture_version(struct store_volume *volume, uint32_t pageidx, uint64_t lsn);
void fixture_flip_byte(const struct store_fixture *fixture, uint64_t place);
void fixture_flip_page(const struct store_fixture *fixture, struct store_volume *volume, uint32_t pageidx,
                       uint64_t lsn, uint32_t offset);
// Is what `extents` says, in the index and in memory, the sum of the sizes of all versions?
void expect_exact_accounts(const struct store_fixture *fixture);
// Bytes in the folder.
uint64_t fixture_disk_size(const struct store_fixture *fixture);

#endif
