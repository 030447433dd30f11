// SPDX-License-Identifier: Apache-2.0
//
// The keys and values that the local store keeps in RocksDB, and nothing else: no I/O here.
//
// Database `local`, beside the page files in DIR/pages (extents.h, run.h), where the bytes of local commits are:
//
//     family      key                                         value
//     volumes     'V' ‖ VID                                   volume record, below
//                 'R' ‖ number 8                              the CommitRequest of the push under way
//                 'F' ‖ number 8                              the CommitRequest of its fence (FENCING)
//                 'K' ‖ number 8                              VID of a fork that was begun 16 ‖ its base: LSN 8, chain 16
//                 'S' ‖ number 8                              what is staged: local LSN 8 ‖ runs in the log 4 ‖
//                                                             the last one's seq 8 ‖ lowest page_count 4
//                 'M' ‖ number 8                              VID of the volume 16
//                 'X' ‖ number 8                              empty: a deleted volume, parts of which may be there
//                 'N'                                         the next volume's number 8
//                 'L'                                         the page log's claims (page_log.h)
//     index       number 8 ‖ pageidx 4 ‖ ~local LSN 8         1 ‖ size 4 ‖ place 8 ‖ page checksum 8: available
//                                                             2 ‖ remote LSN 8: pending
//     extents     extent 4                                    live bytes 8, of versions in the index; merges add
//     commits     number 8 ‖ local LSN 8 ‖ part 4             part 0: page_count 4 ‖ cut 4 ‖ page set
//                                                             part 1…: page set, what was staged
//     superseded  number 8 ‖ 0 ‖ by local LSN 8 ‖ pageidx 4   local LSN 8 ‖ kind 1 (3: of the floor)
//                 number 8 ‖ 1 ‖ by local LSN 8 ‖ cut 4       page_count before 4
//     cuts        common/store/cut_index.h, prefix: number 8
//
// Database `fetched`, beside the page cache in DIR/cache (never synced, neither of them):
//
//     arrived     number 8 ‖ pageidx 4 ‖ mark's local LSN 8   kind 1 (1: bytes, 2: never written) ‖
//                                                             remote LSN 8 ‖ place 8 ‖ size 4 ‖ page checksum 8
//     extents     extent 4                                    live bytes 8, of what arrived; merges add
//                 extent 4 ‖ 1                                its age 8 (page_cache.h)
//     tallies     number 8                                    requests 8 ‖ pages 8 ‖ bytes 8
//
// Integers in keys are big-endian, in values little-endian. `number` is the volume's in this store: never
// used again, so that what is left of a deleted volume cannot be taken for a later clone's.
//
// Volume record: "GRFTVOL1" 8 ‖ number 8 ‖ VID 16 ‖ page_size 4 ‖ kind 1 ‖ status 1 ‖ phase 1 ‖ sent 1 ‖
// local LSN 8 ‖ page_count 4 ‖ remote (LSN 8, chain 16, page_count 4) ‖ mapped LSN 8 ‖ seen LSN 8 ‖ floor
// (mark LSN 8, remote LSN 8, page_count 4) ‖ cuts (last LSN 8, lowest 4) ‖ push (token 16, base 28, from 8,
// to 8, page_count 4, cut 4, digest 16) ‖ why: status 4, detail 4, size 2, message ‖ XXH3-64 of all before.
#ifndef CLIENT_STORE_RECORD_H
#define CLIENT_STORE_RECORD_H

#include "client/store.h"
#include "common/base/bytes.h"

// Pages without a version in the index: those up to page_count are pending at remote_lsn since mark_lsn, the
// others were never written. A clone makes it, cuts lower it.
struct store_floor {
    uint64_t mark_lsn;
    uint64_t remote_lsn;
    uint32_t page_count; // 0: no floor
};

// Which cuts may still hide versions that are there. Older ones hide nothing: what they cut off was removed.
struct store_cuts {
    uint64_t last_lsn; // 0: none
    uint32_t lowest;   // among them; UINT32_MAX: none
};

struct store_record {
    uint64_t number;
    struct store_state state;
    struct store_floor floor;
    struct store_cuts cuts;
};

// ---- keys

#define STORE_KEY_SIZE_MAX 24

struct store_key {
    uint8_t bytes[STORE_KEY_SIZE_MAX];
    size_t size;
};

static inline struct bytes store_key_bytes(const struct store_key *key)
{
    return (struct bytes){key->bytes, key->size};
}

struct store_key store_key_next_number(void);
struct store_key store_key_volume(const struct gid *vid);
struct store_key store_key_request(uint64_t number);
struct store_key store_key_fence(uint64_t number);
struct store_key store_key_fork(uint64_t number);
struct store_key store_key_staging(uint64_t number);
struct store_key store_key_extent(uint32_t extent);
struct store_key store_key_extent_age(uint32_t extent);
struct store_key store_key_vid(uint64_t number);
struct store_key store_key_deleted(uint64_t number);
struct store_key store_key_claims(void);
struct store_key store_key_number(uint64_t number); // the prefix of a volume's keys in the other families
struct store_key store_key_version(uint64_t number, uint32_t pageidx, uint64_t lsn);
struct store_key store_key_commit(uint64_t number, uint64_t lsn, uint32_t part);
struct store_key store_key_superseded(uint64_t number, uint64_t by_lsn, uint32_t pageidx);
struct store_key store_key_cut(uint64_t number, uint64_t by_lsn, uint32_t cut);
struct store_key store_key_fetched(uint64_t number, uint32_t pageidx, uint64_t mark_lsn);

// Each is false for bytes that are no such key.
bool store_key_parse_vid(struct bytes key, struct gid *ret_vid);
bool store_key_parse_staging(struct bytes key, uint64_t *ret_number);
bool store_key_parse_extent(struct bytes key, uint32_t *ret_extent);
bool store_key_parse_extent_age(struct bytes key, uint32_t *ret_extent);
bool store_key_parse_deleted(struct bytes key, uint64_t *ret_number);
bool store_key_parse_version(struct bytes key, uint32_t *ret_pageidx, uint64_t *ret_lsn);
bool store_key_parse_fetched(struct bytes key, uint32_t *ret_pageidx, uint64_t *ret_mark_lsn);
bool store_key_parse_commit(struct bytes key, uint64_t *ret_lsn, uint32_t *ret_part);
// Of both kinds of superseded keys: pageidx is the cut in those of a cut.
bool store_key_parse_superseded(struct bytes key, uint64_t *ret_by_lsn, uint32_t *ret_pageidx);

// ---- values

#define STORE_RECORD_SIZE_MAX (320 + GRAFT_ERROR_MESSAGE_SIZE)

// Returns the size.
size_t store_record_encode(const struct store_record *record, uint8_t to[STORE_RECORD_SIZE_MAX]);
// CORRUPT / BAD_CHECKSUM or BAD_MESSAGE naming the volume: every field is checked against its range and the
// others.
enum graft_status store_record_decode(struct bytes value, const struct gid *vid,
                                      struct store_record *ret_record, struct graft_error *err);
// CHECKs what must hold of every record: run before each write and after each read.
void store_record_check(const struct store_record *record);

enum store_version_kind {
    STORE_VERSION_AVAILABLE = 1,
    STORE_VERSION_PENDING = 2,
    STORE_VERSION_FLOOR = 3, // only in `superseded`
};

struct store_version {
    enum store_version_kind kind;
    uint32_t size;       // AVAILABLE, and the next two
    uint64_t place;      // in DIR/pages; nothing is there if size is 0
    uint64_t checksum;   // page_checksum()
    uint64_t remote_lsn; // PENDING
};

#define STORE_VERSION_SIZE_MAX 21
size_t store_version_encode(const struct store_version *version, uint8_t to[STORE_VERSION_SIZE_MAX]);
bool store_version_decode(struct bytes value, struct store_version *ret_version);

#define STORE_SUPERSEDED_SIZE 9
void store_superseded_encode(uint64_t lsn, enum store_version_kind kind, uint8_t to[STORE_SUPERSEDED_SIZE]);
bool store_superseded_decode(struct bytes value, uint64_t *ret_lsn, enum store_version_kind *ret_kind);

// What 'S' says of the versions above a head.
struct store_staging {
    uint64_t lsn;
    uint32_t runs; // of the commit, in the page log; 0 for a pull's marks
    uint64_t seq;  // of the last of them
    uint32_t cut;  // the lowest page_count so far
};
#define STORE_STAGING_SIZE 24
void store_staging_encode(const struct store_staging *staging, uint8_t to[STORE_STAGING_SIZE]);
bool store_staging_decode(struct bytes value, struct store_staging *ret_staging);

// A page that arrived.
struct store_arrived {
    bool empty; // it was never written: the rest but remote_lsn is zero
    uint32_t size;
    uint64_t remote_lsn;
    uint64_t place; // in the page cache; nothing is there if size is 0
    uint64_t checksum;
};
#define STORE_ARRIVED_SIZE 29
void store_arrived_encode(const struct store_arrived *arrived, uint8_t to[STORE_ARRIVED_SIZE]);
bool store_arrived_decode(struct bytes value, struct store_arrived *ret_arrived);

#define STORE_COMMIT_HEADER_SIZE 8
#define STORE_PART_SIZE_MAX (1 * MIB) // a value in `commits`

// The file DIR/client: "GRFTCLI1" 8 ‖ format 4 ‖ CID 16 ‖ XXH3-64 of all before.
#define STORE_FORMAT 2u
#define STORE_CLIENT_FILE_SIZE 36
void store_client_encode(const struct gid *cid, uint8_t to[STORE_CLIENT_FILE_SIZE]);
// CORRUPT; INVALID / BAD_ARGUMENT for a format of another version.
enum graft_status store_client_decode(struct bytes file, const char *path, struct gid *ret_cid,
                                      struct graft_error *err);

#endif
