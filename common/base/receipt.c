// SPDX-License-Identifier: Apache-2.0
#include "common/base/receipt.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/files.h"

#define KEY_DIGITS (2 * CLUSTER_KEY_SIZE)

static const char receipt_magic[8] = "GRFTRCP1";

static void sodium_start(void)
{
    CHECK(sodium_init() >= 0);
}

static void sodium_ready(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, sodium_start);
}

static enum graft_status check_mode(const char *path, struct graft_error *err)
{
    struct stat file;
    if (stat(path, &file) != 0)
        return error_from_errno(err, errno, "reading the cluster key %s", path);
    if ((file.st_mode & 0077) != 0)
        return error_set(err, GRAFT_DENIED, GRAFT_DETAIL_NONE,
                         "others may read the cluster key %s (mode %03o): chmod 600 it", path,
                         (unsigned)file.st_mode & 0777);
    return GRAFT_OK;
}

static int digit_value(uint8_t digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

static enum graft_status parse_key(const char *path, struct bytes text, struct cluster_key *ret_key,
                                   struct graft_error *err)
{
    if (text.size > 0 && text.data[text.size - 1] == '\n')
        text.size--;
    if (text.size != KEY_DIGITS)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "the cluster key %s has %zu characters: it must have %d hex digits", path, text.size,
                         KEY_DIGITS);
    for (size_t i = 0; i < CLUSTER_KEY_SIZE; i++) {
        int high = digit_value(text.data[2 * i]), low = digit_value(text.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                             "the cluster key %s has something other than hex digits near character %zu",
                             path, 2 * i + 1);
        ret_key->bytes[i] = (uint8_t)(high << 4 | low);
    }
    return GRAFT_OK;
}

enum graft_status cluster_key_load(const char *path, struct cluster_key *ret_key, struct graft_error *err)
{
    enum graft_status status = check_mode(path, err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(buffer_release) struct buffer text = BUFFER_INIT(4096);
    status = files_read(path, &text, err);
    if (status == GRAFT_LIMIT)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "the cluster key %s is longer than %d hex digits", path, KEY_DIGITS);
    if (status != GRAFT_OK)
        return error_context(err, status, "loading the cluster key");

    struct cluster_key key;
    status = parse_key(path, buffer_bytes(&text), &key, err);
    if (status == GRAFT_OK)
        *ret_key = key;
    sodium_memzero(&key, sizeof key);
    if (text.size > 0)
        sodium_memzero(text.data, text.size);
    return status;
}

static void hash_sized(crypto_generichash_state *state, struct bytes bytes)
{
    uint8_t size[4];
    CHECK(bytes.size <= UINT32_MAX);
    put_le32(size, (uint32_t)bytes.size);
    crypto_generichash_update(state, size, sizeof size);
    if (bytes.size > 0)
        crypto_generichash_update(state, bytes.data, bytes.size);
}

struct receipt receipt_make(const struct cluster_key *key, const struct receipt_claim *claim)
{
    sodium_ready();
    uint8_t head[8 + GID_SIZE + GID_SIZE + 8 + 8 + 4 + 8];
    memcpy(head, receipt_magic, 8);
    memcpy(head + 8, claim->sid.bytes, GID_SIZE);
    memcpy(head + 24, claim->owner.bytes, GID_SIZE);
    put_le64(head + 40, claim->object_size);
    put_le64(head + 48, claim->index_offset);
    put_le32(head + 56, claim->index_size);
    put_le64(head + 60, claim->expires_ms);

    struct receipt receipt;
    crypto_generichash_state state;
    CHECK(crypto_generichash_init(&state, key->bytes, CLUSTER_KEY_SIZE, RECEIPT_SIZE) == 0);
    crypto_generichash_update(&state, head, sizeof head);
    hash_sized(&state, claim->pages);
    hash_sized(&state, claim->structural);
    crypto_generichash_final(&state, receipt.bytes, RECEIPT_SIZE);
    return receipt;
}

bool receipt_verify(const struct cluster_key *key, const struct receipt_claim *claim,
                    const struct receipt *receipt)
{
    struct receipt expected = receipt_make(key, claim);
    return sodium_memcmp(expected.bytes, receipt->bytes, RECEIPT_SIZE) == 0;
}
