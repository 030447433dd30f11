// SPDX-License-Identifier: Apache-2.0
//
// Where the newest versions of recently read pages are: saves a warm read its seek in the index. A hint says
// "version `lsn` of this page is its newest at every snapshot in [lsn, upto], and no cut in between removed
// it". History below a published head never changes, so a hint is never wrong, however old: commits need not
// know of it. A fixed number of entries; a page's hint takes the one of another's. Any number of threads.
//
// Where the bytes lie is a hint in the other sense: they may have been moved, and the checksum tells. So a warm read is a
// hint, one read of a file, and one checksum.
#ifndef CLIENT_STORE_HINTS_H
#define CLIENT_STORE_HINTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/compiler.h"

struct store_hint {
    uint64_t number; // of the volume
    uint64_t lsn;
    uint64_t upto;
    uint64_t
        remote_lsn; // 0: the bytes are a local commit's; else they were fetched for a mark at this remote LSN
    uint64_t place; // of the bytes: of a local commit's in DIR/pages, of fetched ones in DIR/cache
    uint64_t checksum;
    uint32_t size; // STORE_HINT_EMPTY: the page was never written
    uint32_t pageidx;
};
#define STORE_HINT_EMPTY UINT32_MAX

struct store_hints;

struct store_hints *store_hints_new(size_t memory_size); // NULL without memory
void store_hints_free(struct store_hints *hints);        // NULL is fine

void store_hints_put(struct store_hints *hints, const struct store_hint *hint);
// A hint that holds at snapshot `lsn`.
bool store_hints_get(struct store_hints *hints, uint64_t number, uint32_t pageidx, uint64_t lsn,
                     struct store_hint *ret_hint);
// Bytes were moved, or are gone (`to` UINT64_MAX: the hint goes). `fetched` says in which of the two folders.
void store_hints_move(struct store_hints *hints, uint64_t number, uint32_t pageidx, bool fetched,
                      uint64_t from, uint64_t to);

#endif
