// SPDX-License-Identifier: Apache-2.0
//
// The metastore's records: any bytes as a pack of commits of one volume, as a summary and as a volume's
// record. Whatever is accepted is encoded again and must come out the same.
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "metastore/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// The volume that the corpus is about.
static const struct gid vid = {{0x81, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8, 9}};

static void decode_pack(struct bytes rest)
{
    struct graft_error error;
    size_t size = 0;
    for (uint64_t lsn = 1; record_size(rest, &size, &error) == GRAFT_OK && size > 0 && size <= rest.size;
         lsn++) {
        _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
        struct commit_facts facts;
        if (commit_record_decode((struct bytes){rest.data, size}, &vid, lsn, &facts, pages, &error) ==
            GRAFT_OK)
            CHECK(facts.lsn == lsn && facts.cut <= facts.page_count && !pageset_contains(pages, 0));
        else
            CHECK(error.status == GRAFT_CORRUPT || error.status == GRAFT_INTERNAL);
        rest = (struct bytes){rest.data + size, rest.size - size};
    }
}

static void decode_summary(struct bytes record)
{
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new(), *again = pageset_new();
    _cleanup_(buffer_release) struct buffer encoded = BUFFER_INIT(RECORD_SIZE_MAX);
    struct summary summary, found;
    if (summary_decode(record, &vid, &summary, pages, NULL) != GRAFT_OK)
        return;
    CHECK(summary_encode(&summary, pages, &encoded, NULL) == GRAFT_OK);
    CHECK(summary_decode(buffer_bytes(&encoded), &vid, &found, again, NULL) == GRAFT_OK);
    CHECK(found.first_lsn == summary.first_lsn && found.last_lsn == summary.last_lsn &&
          found.cut == summary.cut);
    CHECK(pageset_equal(pages, again));
}

static void decode_volume(struct bytes record)
{
    _cleanup_(buffer_release) struct buffer encoded = BUFFER_INIT(RECORD_SIZE_MAX);
    struct volume_record volume, found;
    if (volume_record_decode(record, &vid, &volume, NULL) != GRAFT_OK)
        return;
    CHECK(volume_record_encode(&volume, &encoded, NULL) == GRAFT_OK);
    CHECK(volume_record_decode(buffer_bytes(&encoded), &vid, &found, NULL) == GRAFT_OK);
    CHECK(found.page_size == volume.page_size && found.variable == volume.variable);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bytes bytes = {data, size};
    decode_pack(bytes);
    decode_summary(bytes);
    decode_volume(bytes);
    return 0;
}
