// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/receipt.h"

static const struct cluster_key key = {{1, 2, 3}};

static struct receipt_claim sample_claim(void)
{
    return (struct receipt_claim){
        .sid = {{0x82, 1}},
        .owner = {{0x81, 2}},
        .object_size = 0x0102030405060708,
        .index_offset = 0x1112131415161718,
        .index_size = 0x21222324,
        .expires_ms = 0x3132333435363738,
        .pages = {(const uint8_t *)"\x00\x05", 2},
        .structural = {(const uint8_t *)"\x01\x01", 2},
    };
}

Test(receipt, is_keyed_blake2b_over_fixed_width_fields)
{
    struct receipt_claim claim = sample_claim();
    uint8_t whole[8 + 16 + 16 + 8 + 8 + 4 + 8 + 4 + 2 + 4 + 2];
    uint8_t *to = whole;
    memcpy(to, "GRFTRCP1", 8);
    memcpy(to + 8, claim.sid.bytes, 16);
    memcpy(to + 24, claim.owner.bytes, 16);
    put_le64(to + 40, claim.object_size);
    put_le64(to + 48, claim.index_offset);
    put_le32(to + 56, claim.index_size);
    put_le64(to + 60, claim.expires_ms);
    memcpy(to + 68, "\x02\x00\x00\x00\x00\x05\x02\x00\x00\x00\x01\x01", 12);
    uint8_t expected[RECEIPT_SIZE];
    cr_assert_eq(
        crypto_generichash(expected, sizeof expected, whole, sizeof whole, key.bytes, CLUSTER_KEY_SIZE), 0);
    struct receipt receipt = receipt_make(&key, &claim);
    cr_assert_arr_eq(receipt.bytes, expected, RECEIPT_SIZE);
    cr_assert(receipt_verify(&key, &claim, &receipt));
}

#define CHANGED(change)                              \
    ({                                               \
        struct receipt_claim claim = sample_claim(); \
        change;                                      \
        receipt_verify(&key, &claim, &receipt);      \
    })

Test(receipt, any_change_of_the_claim_is_noticed)
{
    struct receipt_claim original = sample_claim();
    struct receipt receipt = receipt_make(&key, &original);
    cr_assert(CHANGED(claim.sid.bytes[0] = 0x82)); // which it is already
    cr_assert_not(CHANGED(claim.sid.bytes[15] ^= 1));
    cr_assert_not(CHANGED(claim.owner.bytes[15] ^= 1));
    cr_assert_not(CHANGED(claim.object_size++));
    cr_assert_not(CHANGED(claim.index_offset++));
    cr_assert_not(CHANGED(claim.index_size++));
    cr_assert_not(CHANGED(claim.expires_ms++));
    cr_assert_not(CHANGED(claim.pages.data = (const uint8_t *)"\x00\x06"));
    cr_assert_not(CHANGED(claim.pages.size--));
    cr_assert_not(CHANGED(claim.structural.size = 0));
    cr_assert_not(CHANGED(claim.structural.data = (const uint8_t *)"\x02\x01"));
}

Test(receipt, bytes_do_not_move_between_the_two_page_sets)
{
    struct receipt_claim claim = sample_claim(), shifted = sample_claim();
    claim.pages = (struct bytes){(const uint8_t *)"\x00\x05\x01\x01", 4};
    claim.structural = (struct bytes){NULL, 0};
    shifted.pages = (struct bytes){NULL, 0};
    shifted.structural = claim.pages;
    struct receipt receipt = receipt_make(&key, &claim);
    cr_assert(receipt_verify(&key, &claim, &receipt));
    cr_assert_not(receipt_verify(&key, &shifted, &receipt));
}

Test(receipt, every_bit_of_receipt_and_key_counts)
{
    struct receipt_claim claim = sample_claim();
    struct receipt receipt = receipt_make(&key, &claim);
    for (int bit = 0; bit < 8 * RECEIPT_SIZE; bit++) {
        struct receipt forged = receipt;
        struct cluster_key other = key;
        forged.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        other.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_assert_not(receipt_verify(&key, &claim, &forged));
        cr_assert_not(receipt_verify(&other, &claim, &receipt));
    }
}

static enum graft_status load(const char *text, size_t size, mode_t mode, struct cluster_key *ret_key,
                              struct graft_error *err)
{
    char path[] = "/tmp/graft-key-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_eq(write(fd, text, size), (ssize_t)size);
    cr_assert_eq(fchmod(fd, mode), 0);
    close(fd);
    enum graft_status status = cluster_key_load(path, ret_key, err);
    unlink(path);
    return status;
}

static const char digits[] = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

Test(receipt, a_key_file_holds_64_hex_digits)
{
    struct cluster_key loaded;
    for (int newline = 0; newline < 2; newline++) {
        char text[66];
        snprintf(text, sizeof text, "%s\n", digits);
        memset(&loaded, 0xff, sizeof loaded);
        cr_assert_eq(load(text, 64 + (size_t)newline, 0600, &loaded, NULL), GRAFT_OK);
        for (int i = 0; i < CLUSTER_KEY_SIZE; i++)
            cr_assert_eq(loaded.bytes[i], i);
    }
    cr_assert_eq(load(digits, 64, 0400, &loaded, NULL), GRAFT_OK);
}

Test(receipt, a_key_that_others_may_read_is_refused)
{
    struct cluster_key loaded;
    struct graft_error err;
    static const mode_t modes[] = {0640, 0604, 0601, 0660};
    for (int i = 0; i < 4; i++)
        cr_assert_eq(load(digits, 64, modes[i], &loaded, &err), GRAFT_DENIED);
    cr_assert(strstr(err.message, "chmod 600"), "%s", err.message);
}

Test(receipt, malformed_keys_are_refused)
{
    struct cluster_key loaded = key;
    struct graft_error err;
    char text[5000];
    memset(text, 'a', sizeof text);
    cr_assert_eq(load(text, 0, 0600, &loaded, &err), GRAFT_INVALID);
    cr_assert_eq(load(text, 63, 0600, &loaded, &err), GRAFT_INVALID);
    cr_assert(strstr(err.message, "63 characters"), "%s", err.message);
    cr_assert_eq(load(text, 65, 0600, &loaded, &err), GRAFT_INVALID);
    cr_assert_eq(load(text, sizeof text, 0600, &loaded, &err), GRAFT_INVALID);
    static const char bad[] = {'g', '/', ':', '@', 'G', '`', ' ', '\0'};
    for (size_t i = 0; i < sizeof bad; i++) {
        text[40] = bad[i];
        cr_assert_eq(load(text, 64, 0600, &loaded, &err), GRAFT_INVALID, "character %d", bad[i]);
    }
    cr_assert_arr_eq(loaded.bytes, key.bytes, CLUSTER_KEY_SIZE);
    cr_assert_eq(cluster_key_load("/nonexistent", &loaded, &err), GRAFT_NOT_FOUND);
}
