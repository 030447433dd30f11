// SPDX-License-Identifier: Apache-2.0
#include "metastore/keys.h"

#include <stdio.h>

#include "common/base/check.h"
#include "common/base/limits.h"

static char *put_text(char *to, const char *text, size_t size)
{
    memcpy(to, text, size);
    return to + size;
}

// "volumes/<vid>/"; without printf, for every commit makes a key and its summary asks for it again.
static char *put_volume(struct object_key *key, const struct gid *vid)
{
    char *to = put_text(key->text, "volumes/", 8);
    to = put_text(to, gid_format(vid).text, GID_TEXT_SIZE);
    *to++ = '/';
    return to;
}

// The 16 digits and the end.
static void put_number(char *to, uint64_t number)
{
    static const char digits[] = "0123456789abcdef";
    for (int shift = 60; shift >= 0; shift -= 4)
        *to++ = digits[number >> shift & 15];
    *to = '\0';
}

struct object_key key_catalog(const struct gid *vid)
{
    struct object_key key;
    snprintf(key.text, sizeof key.text, KEY_CATALOG_PREFIX "%s", gid_format(vid).text);
    return key;
}

struct object_key key_commit(const struct gid *vid, uint64_t lsn)
{
    struct object_key key;
    put_number(put_text(put_volume(&key, vid), "commits/", 8), lsn);
    return key;
}

static struct object_key window_key(const struct gid *vid, const char *kind, uint32_t span, uint64_t n)
{
    CHECK(span == SUMMARY_SMALL || span == SUMMARY_LARGE);
    struct object_key key;
    snprintf(key.text, sizeof key.text, "volumes/%s/%s/%u/%016llx", gid_format(vid).text, kind, span,
             (unsigned long long)n);
    return key;
}

struct object_key key_summary(const struct gid *vid, uint32_t span, uint64_t n)
{
    return window_key(vid, "sum", span, n);
}

struct object_key key_pack(const struct gid *vid, uint32_t span, uint64_t n)
{
    return window_key(vid, "pack", span, n);
}

struct object_key key_retired(const struct gid *vid)
{
    struct object_key key;
    memcpy(put_volume(&key, vid), "retired", sizeof "retired");
    return key;
}

bool key_parse_catalog(const char *key, struct gid *ret_vid)
{
    size_t prefix_size = strlen(KEY_CATALOG_PREFIX);
    return strncmp(key, KEY_CATALOG_PREFIX, prefix_size) == 0 &&
           gid_parse(key + prefix_size, GID_VOLUME, ret_vid, NULL) == GRAFT_OK;
}
