// SPDX-License-Identifier: Apache-2.0
//
// GIDs: 16-byte identifiers of volumes, segments and clients, sorted by time of birth.
//
//     byte 0      kind, top bit set
//     bytes 1..6  milliseconds since 1970, big-endian
//     bytes 7..15 random
//
// The text form is base58 in the Bitcoin alphabet and always GID_TEXT_SIZE characters: the top bit of byte 0 keeps the
// number within what 22 digits hold and 21 do not.
#ifndef COMMON_BASE_GID_H
#define COMMON_BASE_GID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/error.h"

#define GID_SIZE 16
#define GID_TEXT_SIZE 22 // characters, without the NUL

enum gid_kind {
    GID_VOLUME = 0x81,
    GID_SEGMENT = 0x82,
    GID_CLIENT = 0x83,
};

struct gid {
    uint8_t bytes[GID_SIZE];
};

struct gid_text {
    char text[GID_TEXT_SIZE + 1];
};

struct gid gid_make(enum gid_kind kind, uint64_t wall_ms);

static inline bool gid_equal(const struct gid *a, const struct gid *b)
{
    return memcmp(a->bytes, b->bytes, GID_SIZE) == 0;
}

static inline int gid_compare(const struct gid *a, const struct gid *b)
{
    return memcmp(a->bytes, b->bytes, GID_SIZE);
}

bool gid_is_kind(const struct gid *gid, enum gid_kind kind);
uint64_t gid_time_ms(const struct gid *gid);

// By value, so that it can stand in an argument list: gid_format(&vid).text
struct gid_text gid_format(const struct gid *gid);

// INVALID / BAD_ARGUMENT for wrong length, alphabet, range or kind; the message quotes at most 40 characters of `text`
// and names `kind` as a user would.
enum graft_status gid_parse(const char *text, enum gid_kind kind, struct gid *ret_gid,
                            struct graft_error *err);

// From a message's `bytes` field; `field` names it in the error.
enum graft_status gid_from_bytes(struct bytes bytes, enum gid_kind kind, const char *field,
                                 struct gid *ret_gid, struct graft_error *err);

#endif
