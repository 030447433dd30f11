// SPDX-License-Identifier: Apache-2.0
#include "pagestore/segment_format.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/checksum.h"
#include "common/base/limits.h"

#define FOOTER_MAGIC "GRFTSEGF"
#define FOOTER_MAGIC_SIZE 8u

struct segment_key segment_key(const struct gid *sid)
{
    struct segment_key key;
    (void)snprintf(key.text, sizeof key.text, SEGMENT_KEY_PREFIX "%s", gid_format(sid).text);
    return key;
}

bool segment_key_parse(const char *key, struct gid *ret_sid)
{
    if (strncmp(key, SEGMENT_KEY_PREFIX, sizeof SEGMENT_KEY_PREFIX - 1) != 0)
        return false;
    return gid_parse(key + sizeof SEGMENT_KEY_PREFIX - 1, GID_SEGMENT, ret_sid, NULL) == GRAFT_OK;
}

enum graft_status segment_corrupt(struct graft_error *err, enum graft_detail detail, const struct gid *sid,
                                  const char *format, ...)
{
    char what[GRAFT_ERROR_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return error_set(err, GRAFT_CORRUPT, detail, "segment %s: %s", gid_format(sid).text, what);
}

void segment_footer_encode(uint8_t *to, const struct segment_footer *footer)
{
    memcpy(to, FOOTER_MAGIC, FOOTER_MAGIC_SIZE);
    memcpy(to + 8, footer->sid.bytes, GID_SIZE);
    put_le32(to + 24, footer->index_offset);
    put_le32(to + 28, footer->index_size);
    put_le32(to + 32, footer->index_raw_size);
    put_le32(to + 36, footer->object_size);
    put_le64(to + 40, footer->index_checksum);
    put_le16(to + 48, SEGMENT_FORMAT_VERSION);
    put_le16(to + 50, footer->volume_count);
    put_le32(to + 52, footer->page_count);
    put_le64(to + 56, checksum64(to, 56));
}

// Invariant 4 and the sizes that follow from it: nothing here can overflow once object_size is bounded.
static enum graft_status footer_check(const struct segment_footer *footer, const struct gid *sid,
                                      uint64_t object_size, struct graft_error *err)
{
    const char *field = NULL;
    if (!gid_equal(&footer->sid, sid))
        return segment_corrupt(err, GRAFT_DETAIL_BAD_MESSAGE, sid, "its footer names segment %s",
                               gid_format(&footer->sid).text);
    if (footer->object_size != object_size || object_size > SEGMENT_SIZE_MAX)
        field = "object size";
    else if (footer->index_offset < SEGMENT_MAGIC_SIZE || footer->index_offset > object_size)
        field = "index offset";
    else if ((uint64_t)footer->index_offset + footer->index_size + SEGMENT_FOOTER_SIZE != object_size)
        field = "index size";
    else if (footer->volume_count == 0)
        field = "volumes";
    else if (footer->page_count < footer->volume_count || footer->page_count > SEGMENT_PAGES_MAX)
        field = "pages";
    else if (footer->index_raw_size > SEGMENT_INDEX_SIZE_MAX ||
             footer->index_raw_size < (uint64_t)footer->volume_count * SEGMENT_VOLUME_HEAD_SIZE +
                                          (uint64_t)footer->page_count * SEGMENT_ENTRY_SIZE)
        field = "decoded index size";
    if (field)
        return segment_corrupt(err, GRAFT_DETAIL_BAD_MESSAGE, sid,
                               "its footer's %s does not fit an object of %llu bytes", field,
                               (unsigned long long)object_size);
    return GRAFT_OK;
}

enum graft_status segment_footer_decode(struct bytes from, const struct gid *sid, uint64_t object_size,
                                        struct segment_footer *ret_footer, struct graft_error *err)
{
    if (from.size != SEGMENT_FOOTER_SIZE)
        return segment_corrupt(err, GRAFT_DETAIL_TRUNCATED, sid, "%zu bytes where its footer should be",
                               from.size);
    if (memcmp(from.data, FOOTER_MAGIC, FOOTER_MAGIC_SIZE) != 0)
        return segment_corrupt(err, GRAFT_DETAIL_BAD_MESSAGE, sid,
                               "no footer: its last %u bytes lack the magic", SEGMENT_FOOTER_SIZE);
    if (!checksum_matches(get_le64(from.data + 56), checksum64(from.data, 56)))
        return segment_corrupt(err, GRAFT_DETAIL_BAD_CHECKSUM, sid, "its footer fails its checksum");
    unsigned version = get_le16(from.data + 48);
    if (version != SEGMENT_FORMAT_VERSION)
        return segment_corrupt(err, GRAFT_DETAIL_BAD_MESSAGE, sid, "format version %u, this program knows %u",
                               version, SEGMENT_FORMAT_VERSION);

    struct segment_footer footer = {
        .index_offset = get_le32(from.data + 24),
        .index_size = get_le32(from.data + 28),
        .index_raw_size = get_le32(from.data + 32),
        .object_size = get_le32(from.data + 36),
        .index_checksum = get_le64(from.data + 40),
        .volume_count = get_le16(from.data + 50),
        .page_count = get_le32(from.data + 52),
    };
    memcpy(footer.sid.bytes, from.data + 8, GID_SIZE);
    enum graft_status status = footer_check(&footer, sid, object_size, err);
    if (status == GRAFT_OK)
        *ret_footer = footer;
    return status;
}
