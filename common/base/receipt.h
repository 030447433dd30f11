// SPDX-License-Identifier: Apache-2.0
//
// Receipts: what lets the metastore believe a segment reference without asking the pagestore. Keyed BLAKE2b-256
// (libsodium) under the key that the daemons share, over
//
//     "GRFTRCP1" ‖ SID 16 ‖ owner VID 16 ‖ object size 8 ‖ index offset 8 ‖ index size 4 ‖ expires_ms 8 ‖
//     size of pages 4 ‖ pages ‖ size of structural 4 ‖ structural
//
// integers little-endian, page sets in wire form exactly as handed out.
#ifndef COMMON_BASE_RECEIPT_H
#define COMMON_BASE_RECEIPT_H

#include <stdbool.h>

#include "common/base/gid.h"

#define CLUSTER_KEY_SIZE 32
#define RECEIPT_SIZE 32
#define RECEIPT_LIFETIME_MS (24ull * 3600 * 1000)

struct cluster_key {
    uint8_t bytes[CLUSTER_KEY_SIZE];
};

struct receipt {
    uint8_t bytes[RECEIPT_SIZE];
};

struct receipt_claim {
    struct gid sid, owner;
    uint64_t object_size, index_offset;
    uint32_t index_size;
    uint64_t expires_ms;
    struct bytes pages, structural;
};

// The file holds 64 hex digits and perhaps a newline. INVALID says what is wrong with it; DENIED if others may read it
// (mode & 0077).
enum graft_status cluster_key_load(const char *path, struct cluster_key *ret_key, struct graft_error *err);

struct receipt receipt_make(const struct cluster_key *key, const struct receipt_claim *claim);
bool receipt_verify(const struct cluster_key *key, const struct receipt_claim *claim,
                    const struct receipt *receipt);

#endif
