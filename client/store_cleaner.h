// SPDX-License-Identifier: Apache-2.0
//
// Moves what lives in an extent to the front of the page log. Belongs to one thread; see store_space.h.
#ifndef CLIENT_STORE_CLEANER_H
#define CLIENT_STORE_CLEANER_H

#include "client/store.h"

struct store_cleaner;

enum graft_status store_cleaner_new(struct store *store, struct store_cleaner **ret_cleaner,
                                    struct graft_error *err);
void store_cleaner_free(struct store_cleaner *cleaner); // NULL is fine

// Moves about a MiB out of the sealed extents with the least live bytes. *ret_done is false if there is none from which
// anything would be gained.
enum graft_status store_cleaner_clean(struct store_cleaner *cleaner, bool *ret_done, struct graft_error *err);
// Moves about a MiB out of the last extents, down to FREE ones below, and removes files that are free by then. *ret_done is
// false if the files are no larger than `budget` extents, or nothing can be moved.
enum graft_status store_cleaner_fold(struct store_cleaner *cleaner, uint32_t budget, bool *ret_done,
                                     struct graft_error *err);

struct store_cleaner_counts {
    uint64_t extents, pages, size; // emptied; moved
};
void store_cleaner_counts(const struct store_cleaner *cleaner, struct store_cleaner_counts *ret_counts);

#endif
