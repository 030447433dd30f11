// SPDX-License-Identifier: Apache-2.0
//
// What the page files and the record of their claims are read as. The first byte chooses the decoder. A header that is taken
// is written back to the same bytes, but for its checksums, which fuzz builds do not compare.
#include "client/page_log.h"
#include "common/base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_run(struct bytes value)
{
    struct run_header header;
    uint32_t needed = 1;
    uint64_t store = value.size >= 24 ? get_le64(value.data + 16) : 0;
    if (!run_decode(value, store, EXTENT_SIZE, &header, &needed)) {
        CHECK(needed == 0 || needed <= RUN_HEADER_SIZE_MAX);
        return;
    }
    static struct run_entry entries[RUN_PAGES_MAX];
    static uint8_t again[RUN_HEADER_SIZE_MAX];
    uint32_t end = run_header_size(header.count), header_size = end;
    CHECK(value.size >= header_size && header.size <= EXTENT_SIZE && header.size % RUN_ALIGNMENT == 0);
    for (uint32_t i = 0; i < header.count; i++) {
        entries[i] = run_entry_at(value, i);
        end = run_page_offset(end, entries[i].size) + entries[i].size;
        CHECK(end <= header.size);
    }
    uint64_t chain = header.chain;
    uint32_t run_size = header.size;
    run_encode(&header, entries, again);
    CHECK(header.size == run_size);
    put_le64(again + 24, chain);
    memcpy(again + 8, value.data + 8, 8);
    CHECK(memcmp(again, value.data, header_size) == 0);
}

static void fuzz_claims(struct bytes value)
{
    static struct page_log_claims claims;
    struct graft_error err;
    if (page_log_claims_decode(value, &claims, &err) != GRAFT_OK) {
        CHECK(err.status == GRAFT_CORRUPT);
        return;
    }
    static uint8_t again[PAGE_LOG_CLAIMS_SIZE_MAX];
    CHECK(page_log_claims_encode(&claims, again) == value.size);
    CHECK(memcmp(again, value.data, value.size - 8) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[])(struct bytes) = {fuzz_run, fuzz_claims};
    if (size > 0)
        targets[data[0] % ARRAY_COUNT(targets)]((struct bytes){data + 1, size - 1});
    return 0;
}
