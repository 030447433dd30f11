// SPDX-License-Identifier: Apache-2.0
//
// What the workload's clients did, as the checker reads it (tests/sim/recorder.h): a line when an operation is invoked, one
// when it completes.
//
//     uint64_t id = journal_invoke(client, "pull", vid);
//     status = graft_pull(volume, NULL, &err);
//     journal_complete("pull", id, volume, status, &err);
#ifndef TESTS_SWEEP_JOURNAL_H
#define TESTS_SWEEP_JOURNAL_H

#include "graft.h"
#include "tests/sim/recorder.h"

#define JOURNAL_PAGES_MAX 13000u

void journal_open(const char *path);

// Whatever the client's library does from now on is this client's, too. `vid` NULL: not known yet.
uint64_t journal_invoke(unsigned client, const char *op, const char *vid);
// `volume` NULL: there is none.
void journal_complete(const char *op, uint64_t id, struct graft_volume *volume, enum graft_status status,
                      const struct graft_error *err);
// The fork of `volume` is `fork`.
void journal_complete_fork(uint64_t id, struct graft_volume *volume, const char *fork,
                           enum graft_status status, const struct graft_error *err);
// For operations that need no volume to be open.
void journal_complete_of(const char *op, uint64_t id, const char *vid, enum graft_status status,
                         const struct graft_error *err);

// A list of pages: what a commit writes, what a read sees.
struct journal_pages {
    uint32_t count;
    struct journal_page {
        uint32_t pageidx, size;
        struct hash128 hash;
    } pages[JOURNAL_PAGES_MAX];
};
void journal_note_page(struct journal_pages *pages, uint32_t pageidx, const void *page, size_t size);

// Commits what `writer` has: `pages`, on `base_count` pages of which it kept at least `cut`.
enum graft_status journal_commit(unsigned client, struct graft_volume *volume, struct graft_writer *writer,
                                 const struct journal_pages *pages, uint32_t cut, struct graft_error *err);
// The same for one that takes several calls.
uint64_t journal_invoke_commit(unsigned client, struct graft_volume *volume,
                               const struct graft_writer *writer, const struct journal_pages *pages,
                               uint32_t cut);
void journal_complete_commit(uint64_t id, struct graft_volume *volume, uint64_t lsn, enum graft_status status,
                             const struct graft_error *err);
void journal_complete_read(uint64_t id, const char *vid, const struct graft_snapshot *snapshot,
                           const struct journal_pages *pages);

#endif
