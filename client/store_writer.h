// SPDX-License-Identifier: Apache-2.0
//
// What writers (store_writer.c) and their commits (store_commit.c) share.
#ifndef CLIENT_STORE_WRITER_H
#define CLIENT_STORE_WRITER_H

#include "client/store_internal.h"

// A page that a writer has in memory.
struct own_page {
    UT_hash_handle hh;
    uint32_t pageidx;
    uint32_t size;
    uint8_t data[];
};

struct store_writer {
    struct store_volume *volume;
    struct store_pin *base;
    uint32_t page_count;
    uint32_t cut;     // the lowest page_count so far
    uint32_t run_cut; // the lowest since the last run in the log
    struct own_page *pages;
    size_t pages_size; // memory of pages
    struct store_staged staged;
    struct graft_error failure; // commit_lock; OK, or why nothing can be staged or committed any more
    atomic_bool doomed;         // set under the commit lock
};

static inline uint64_t store_writer_lsn(const struct store_writer *writer)
{
    return writer->base->lsn + 1;
}

// CONFLICT / NOT_HEAD if the head moved since the writer began.
enum graft_status store_writer_check_locked(const struct store_writer *writer, struct graft_error *err);
// Before the append: lists the pages in memory, ascending, and notes whom they supersede.
enum graft_status store_writer_prepare(struct store_writer *writer, struct store_change *change,
                                       struct pageset *list, struct graft_error *err);
// The append of the pages in memory; store_append_release() frees what it points to.
enum graft_status store_writer_fill_append(struct store_writer *writer, bool complete,
                                           struct page_log_append *append, struct graft_error *err);
void store_append_release(struct page_log_append *append);
// After it: puts their versions into the change. places_lock is held until that is written.
enum graft_status store_writer_index_locked(struct store_writer *writer, struct store_change *change,
                                            const struct page_log_append *append, struct graft_error *err);
// Nobody can come to what it staged any more.
enum graft_status store_writer_drop_staged_locked(struct store_writer *writer, struct graft_error *err);
void store_writer_free(struct store_writer *writer); // without dropping anything

#endif
