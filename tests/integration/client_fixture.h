// SPDX-License-Identifier: Apache-2.0
//
// Both daemons and any number of clients, for tests of libgraft against the real thing.
//
//     TestSuite(client, .init = cluster_begin, .fini = cluster_end);
//     struct graft *a = open_client("a");
#ifndef TESTS_INTEGRATION_CLIENT_FIXTURE_H
#define TESTS_INTEGRATION_CLIENT_FIXTURE_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "graft.h"
#include "tests/lib/daemon.h"

extern struct daemon *metastore, *pagestore;

void cluster_begin(void);
void cluster_end(void);

// Copies the metastore's data aside, and puts the copy in the place of what it has: both stop it and start it
// again.
void metastore_save(void);
void metastore_bring_back(void);

// Runs a call with an `err` in scope and says what it answered when that is not expected.
#define expect_status(expected, call)                                                           \
    do {                                                                                        \
        struct graft_error err = {0};                                                           \
        enum graft_status status_ = (call);                                                     \
        cr_assert_eq(status_, (expected), "%s: %s / %s: %s", #call, graft_status_text(status_), \
                     graft_detail_text(err.detail), err.message);                               \
    } while (0)
#define expect_ok(call) expect_status(GRAFT_OK, call)
#define expect_detail(status, detail_, call)                                                    \
    do {                                                                                        \
        struct graft_error err = {0};                                                           \
        cr_assert_eq((call), (status), "%s: %s", #call, err.message);                           \
        cr_assert_eq(err.detail, (detail_), "%s: %s: %s", #call, graft_detail_text(err.detail), \
                     err.message);                                                              \
    } while (0)

// A client with a data directory of that name in the test's folder; again with the same name: the same
// directory.
struct graft *open_client(const char *name);
// The same with a deadline of a call.
struct graft *open_client_hasty(const char *name, uint32_t deadline_ms);
// The same with another way to the metastore.
struct graft *open_client_at(const char *name, const char *metastore_url, uint32_t deadline_ms);
// Makes `to` a copy of the data directory `from`, which is closed.
void copy_client(const char *from, const char *to);
// Makes the folder `to` (in the test's folder) what the folder `from` is, e.g. a stopped daemon's "metastore".
void copy_store(const char *from, const char *to);

struct graft_volume *create_volume(struct graft *client, uint32_t page_size, enum graft_volume_kind kind);
struct graft_volume *clone_volume(struct graft *client, struct graft_volume *of);
struct graft_volume_info info_of(struct graft_volume *volume);

// A page's bytes follow from its number and a tag.
void fill_page(uint8_t *page, size_t size, uint32_t pageidx, uint32_t tag);
// One commit that writes full pages [first, first + count).
uint64_t commit_pages(struct graft_volume *volume, uint32_t first, uint32_t count, uint32_t tag);
void commit_truncate(struct graft_volume *volume, uint32_t page_count);
// The page as a new snapshot of the volume shows it; tag 0: zeros or empty.
void expect_page(struct graft_volume *volume, uint32_t pageidx, uint32_t tag);
void expect_snapshot_page(struct graft_snapshot *snapshot, uint32_t page_size, uint32_t pageidx,
                          uint32_t tag);

// A counter of the pagestore's /metrics.
uint64_t pagestore_counter(const char *name);

#endif
