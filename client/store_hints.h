// SPDX-License-Identifier: Apache-2.0
//
// Where the newest versions of recently read pages are: saves a warm read its seek in the index. A hint says
// "version `lsn` of this page is its newest at every snapshot in [lsn, upto], and no cut in between removed
// it". History below a published head never changes, so a hint is never wrong, however old: commits need not
// know of it. A fixed number of places; a page's hint takes the place of another's. Any number of threads.
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
    uint32_t pageidx;
};

struct store_hints;

struct store_hints *store_hints_new(size_t memory_size); // NULL without memory
void store_hints_free(struct store_hints *hints);        // NULL is fine

void store_hints_put(struct store_hints *hints, const struct store_hint *hint);
// A hint that holds at snapshot `lsn`.
bool store_hints_get(struct store_hints *hints, uint64_t number, uint32_t pageidx, uint64_t lsn,
                     struct store_hint *ret_hint);

#endif
