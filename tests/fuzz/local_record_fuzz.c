// SPDX-License-Identifier: Apache-2.0
//
// What the local store reads from its directory. The first byte chooses the decoder. Whatever is taken is written back to
// the same bytes; a volume's record satisfies what the store checks before it writes one.
#include "client/store_record.h"
#include "common/base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_record(struct bytes value)
{
    // The key says whose record it is: here, whatever the record says.
    struct gid vid = {.bytes = {GID_VOLUME}};
    if (value.size >= 32)
        memcpy(vid.bytes, value.data + 16, GID_SIZE);
    struct store_record record;
    struct graft_error err;
    enum graft_status status = store_record_decode(value, &vid, &record, &err);
    if (status != GRAFT_OK) {
        CHECK(status == GRAFT_CORRUPT);
        return;
    }
    store_record_check(&record);
    uint8_t again[STORE_RECORD_SIZE_MAX];
    CHECK(store_record_encode(&record, again) == value.size);
    CHECK(memcmp(again, value.data, value.size - 8) ==
          0); // but for the checksum, which fuzz builds do not compare
}

static void fuzz_version(struct bytes value)
{
    struct store_version version;
    if (!store_version_decode(value, &version))
        return;
    uint8_t again[STORE_VERSION_SIZE_MAX];
    CHECK(store_version_encode(&version, again) == value.size);
    CHECK(memcmp(again, value.data, value.size) == 0);
}

static void fuzz_superseded(struct bytes value)
{
    uint64_t lsn;
    enum store_version_kind kind;
    if (!store_superseded_decode(value, &lsn, &kind))
        return;
    uint8_t again[STORE_SUPERSEDED_SIZE];
    store_superseded_encode(lsn, kind, again);
    CHECK(memcmp(again, value.data, value.size) == 0);
}

static void fuzz_arrived(struct bytes value)
{
    struct store_arrived arrived;
    if (!store_arrived_decode(value, &arrived))
        return;
    uint8_t again[STORE_ARRIVED_SIZE];
    store_arrived_encode(&arrived, again);
    CHECK(memcmp(again, value.data, sizeof again) == 0);
}

static void fuzz_client(struct bytes value)
{
    struct gid cid;
    struct graft_error err;
    if (store_client_decode(value, "client", &cid, &err) != GRAFT_OK)
        return;
    uint8_t again[STORE_CLIENT_FILE_SIZE];
    store_client_encode(&cid, again);
    CHECK(memcmp(again, value.data, sizeof again - 8) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[])(struct bytes) = {fuzz_record, fuzz_version, fuzz_superseded, fuzz_arrived,
                                                    fuzz_client};
    if (size > 0)
        targets[data[0] % ARRAY_COUNT(targets)]((struct bytes){data + 1, size - 1});
    return 0;
}
