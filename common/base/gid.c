// SPDX-License-Identifier: Apache-2.0
#include "common/base/gid.h"

#include <stdio.h>

#include "common/base/check.h"
#include "common/base/random.h"

#define TIME_SIZE 6
#define TEXT_QUOTED_MAX 40 // of a bad identifier in a message

static const char alphabet[] = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

static const char *kind_name(enum gid_kind kind)
{
    switch (kind) {
    case GID_VOLUME:
        return "volume";
    case GID_SEGMENT:
        return "segment";
    case GID_CLIENT:
        return "client";
    }
    return "unknown";
}

struct gid gid_make(enum gid_kind kind, uint64_t wall_ms)
{
    CHECK(kind >= GID_VOLUME && kind <= GID_CLIENT);
    struct gid gid;
    uint8_t time[8];
    put_be64(time, wall_ms);
    gid.bytes[0] = (uint8_t)kind;
    memcpy(gid.bytes + 1, time + sizeof time - TIME_SIZE, TIME_SIZE);
    random_bytes(gid.bytes + 1 + TIME_SIZE, GID_SIZE - 1 - TIME_SIZE);
    return gid;
}

bool gid_is_kind(const struct gid *gid, enum gid_kind kind)
{
    return gid->bytes[0] == (uint8_t)kind;
}

uint64_t gid_time_ms(const struct gid *gid)
{
    uint8_t time[8] = {0};
    memcpy(time + sizeof time - TIME_SIZE, gid->bytes + 1, TIME_SIZE);
    return get_be64(time);
}

#define TEN_DIGITS 430804206899405824ull // 58^10

struct gid_text gid_format(const struct gid *gid)
{
    struct gid_text text = {0};
    unsigned __int128 value = (unsigned __int128)get_be64(gid->bytes) << 64 | get_be64(gid->bytes + 8);
    // Ten digits at a time, so that most divisions are of 64 bits: a volume's id is in every key of its log.
    for (int place = GID_TEXT_SIZE; place > 0;) {
        uint64_t digits = (uint64_t)(value % TEN_DIGITS);
        value /= TEN_DIGITS;
        for (int i = 0; i < 10 && place > 0; i++, digits /= 58)
            text.text[--place] = alphabet[digits % 58];
    }
    return text;
}

static enum graft_status refuse(struct graft_error *err, const char *text, enum gid_kind kind,
                                const char *reason)
{
    size_t length = strnlen(text, TEXT_QUOTED_MAX + 1);
    bool cut = length > TEXT_QUOTED_MAX;
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "'%.*s%s' is no %s id: %s",
                     (int)MIN(length, (size_t)TEXT_QUOTED_MAX), text, cut ? "…" : "", kind_name(kind),
                     reason);
}

enum graft_status gid_parse(const char *text, enum gid_kind kind, struct gid *ret_gid,
                            struct graft_error *err)
{
    if (strnlen(text, GID_TEXT_SIZE + 1) != GID_TEXT_SIZE)
        return refuse(err, text, kind, "it must have 22 characters");

    unsigned __int128 value = 0;
    const unsigned __int128 value_max = ~(unsigned __int128)0;
    for (int i = 0; i < GID_TEXT_SIZE; i++) {
        const char *place = memchr(alphabet, text[i], sizeof alphabet - 1);
        if (!place)
            return refuse(err, text, kind, "it has a character that is not base58");
        unsigned digit = (unsigned)(place - alphabet);
        if (value > (value_max - digit) / 58)
            return refuse(err, text, kind, "it stands for a number beyond 128 bits");
        value = value * 58 + digit;
    }

    struct gid gid;
    put_be64(gid.bytes, (uint64_t)(value >> 64));
    put_be64(gid.bytes + 8, (uint64_t)value);
    if (!gid_is_kind(&gid, GID_VOLUME) && !gid_is_kind(&gid, GID_SEGMENT) && !gid_is_kind(&gid, GID_CLIENT))
        return refuse(err, text, kind, "it is no identifier of any kind");
    if (!gid_is_kind(&gid, kind)) {
        char reason[48];
        snprintf(reason, sizeof reason, "it is a %s id", kind_name(gid.bytes[0]));
        return refuse(err, text, kind, reason);
    }
    *ret_gid = gid;
    return GRAFT_OK;
}

enum graft_status gid_from_bytes(struct bytes bytes, enum gid_kind kind, const char *field,
                                 struct gid *ret_gid, struct graft_error *err)
{
    if (bytes.size != GID_SIZE)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "%s: a %s id has %d bytes, not %zu",
                         field, kind_name(kind), GID_SIZE, bytes.size);
    if (bytes.data[0] != (uint8_t)kind)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "%s: no %s id: the first byte is 0x%02x where 0x%02x must stand", field,
                         kind_name(kind), bytes.data[0], (unsigned)kind);
    memcpy(ret_gid->bytes, bytes.data, GID_SIZE);
    return GRAFT_OK;
}
