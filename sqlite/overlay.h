// SPDX-License-Identifier: Apache-2.0
//
// What a transaction has written and not committed: pages over a snapshot, seen by its own connection and nobody else.
// Pages are kept in memory up to OVERLAY_MEMORY_MAX and beyond it in a file without a name; of each, 8 to 16 bytes
// stay in memory. One thread at a time.
#ifndef SQLITE_OVERLAY_H
#define SQLITE_OVERLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/compiler.h"
#include "common/base/error.h"

struct overlay;

// Over a snapshot of `page_count` pages. `folder` is where it spills to; it is copied. NULL: no memory.
struct overlay *overlay_new(uint32_t page_size, uint32_t page_count, const char *folder,
                            uint64_t memory_size);
void overlay_free(struct overlay *overlay); // NULL is fine
DEFINE_CLEANUP(struct overlay, overlay_free)

// Keeps a copy of a whole page, in place of what it had of it. The volume grows to hold it.
enum graft_status overlay_put(struct overlay *overlay, uint32_t pageidx, const void *data,
                              struct graft_error *err);
// *ret_found says whether it has the page; if so its bytes are in `to`.
enum graft_status overlay_get(struct overlay *overlay, uint32_t pageidx, void *to, bool *ret_found,
                              struct graft_error *err);
enum graft_status overlay_truncate(struct overlay *overlay, uint32_t page_count, struct graft_error *err);

uint32_t overlay_page_count(const struct overlay *overlay);
// The lowest page_count so far: pages of the snapshot above it are gone, also where the volume grew again.
uint32_t overlay_cut(const struct overlay *overlay);
bool overlay_has_spilled(const struct overlay *overlay);

// The numbers of its pages, ascending; *ret_pages is the caller's to free() (NULL if there are none).
enum graft_status overlay_pages(const struct overlay *overlay, uint32_t **ret_pages, size_t *ret_count,
                                struct graft_error *err);

#endif
