// SPDX-License-Identifier: Apache-2.0
//
// Runs: what an extent is filled with, one behind the other from its start. A header names the pages that follow it.
//
//     magic "GRFTRUN1" 8 ‖ XXH3-64 of the rest of the header 8 ‖ store 8 ‖ chain 8 ‖ chain before 8 ‖ epoch 8 ‖ seq 8 ‖
//     synced 8 ‖ kind 1 ‖ flags 1 (1: complete, 2: first) ‖ group index 2 ‖ group count 2 ‖ 0 2 ‖ count 4 ‖ size 4 ‖ number 8 ‖
//     LSN 8 ‖ part 4 ‖ page_count 4 ‖ cut 4 ‖ 0 up to 128
//     then for each page: number 8 ‖ LSN 8 ‖ pageidx 4 ‖ size 4 ‖ page checksum 8
//
// All integers little-endian. The pages follow in that order; one whose size is a multiple of 4,096 starts at the next
// multiple of 4,096 in the run, any other at the next multiple of 8; an empty one takes no room. What lies between them
// is zero. A run's size is a multiple of 4,096. `store` is the XXH3-64 of the client's CID. chain = XXH3-64 of the header
// from `chain before` on, with the entries; that of a run taken back (VOID) stays the one that it had, for the next run
// was chained to it.
//
// This is the codec: no I/O. Any bytes are taken: what is no run is not one.
#ifndef CLIENT_RUN_H
#define CLIENT_RUN_H

#include "common/base/bytes.h"
#include "common/base/error.h"

#define RUN_ALIGNMENT 4096u
#define RUN_PAGES_MAX 1023u
#define RUN_FIXED_SIZE 128u
#define RUN_ENTRY_SIZE 32u
#define RUN_HEADER_SIZE_MAX (RUN_FIXED_SIZE + RUN_PAGES_MAX * RUN_ENTRY_SIZE)

enum run_kind {
    RUN_COMMIT = 1, // pages of a local commit; replayed
    RUN_MOVED = 2, // pages that the cleaner copied: where they came from holds until the index says otherwise
    RUN_FETCHED = 3, // in the cache; `lsn` of an entry is its mark's
    RUN_VOID = 4,    // a commit's run that was taken back; all else in it as it was
};

struct run_entry {
    uint64_t number; // of the volume
    uint64_t lsn;    // local LSN of the version
    uint64_t checksum;
    uint32_t pageidx;
    uint32_t size;
};

struct run_header {
    enum run_kind kind;
    bool complete; // COMMIT: the last run of its commit
    bool first;    // of what was appended together; set by the log
    uint64_t store;
    uint64_t epoch, seq;
    uint64_t synced;              // the log was known to be on the disk up to this seq
    uint64_t chain_before, chain; // set by run_encode()
    uint32_t count;               // of pages
    uint32_t size;                // of the run, header and padding included; set by run_encode()
    // COMMIT:
    uint64_t number, lsn;
    uint32_t part;       // from 0
    uint32_t page_count; // complete: after the commit
    uint32_t cut; // the lowest page_count since the part before; pages of earlier parts above it are gone.
                  // UINT32_MAX: it was not cut
    uint16_t group_index, group_count; // commits of several volumes that land together; 0 of 1: alone
};

// Where the pages go: the offset in the run of page `size` behind `end`, the end of what is before it.
uint32_t run_page_offset(uint32_t end, uint32_t size);
// The size of the header with its entries, unpadded: where the first page's run_page_offset() starts from.
uint32_t run_header_size(uint32_t count);
// How many of the pages (at most RUN_PAGES_MAX) fit into a run of at most `room` bytes; *ret_size is that run's size. 0 if
// not even one does. `size_at` tells a page's size.
uint32_t run_fit(uint32_t (*size_at)(const void *context, uint32_t index), const void *context,
                 uint32_t count, uint32_t room, uint32_t *ret_size);

// Fills in chain and size (and leaves those of a VOID as they are); `to` has room for run_header_size(header->count).
void run_encode(struct run_header *header, const struct run_entry *entries, uint8_t *to);
// True if the bytes start with a header of this store: its checksum is right and all fields are within their ranges, the
// run is no larger than `room`. Otherwise false, and *ret_header is anything. `bytes` may be shorter than the header: *ret_needed, if not NULL, then
// says how much there must be for an answer (0: no header, whatever follows).
bool run_decode(struct bytes bytes, uint64_t store, uint32_t room, struct run_header *ret_header,
                uint32_t *ret_needed);
// Takes a run back: only its first sector changes, so that a disk has the old header or the new one. `bytes` are the header with its entries, of a run that was decoded.
#define RUN_SECTOR_SIZE 512u
void run_make_void(uint8_t *bytes, uint32_t count);
struct run_entry run_entry_at(struct bytes header_bytes, uint32_t index); // of a header that was decoded

#endif
