// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>

#include "common/base/gid.h"
#include "common/base/random.h"

static struct gid gid_from(const char *bytes)
{
    struct gid gid;
    memcpy(gid.bytes, bytes, GID_SIZE);
    return gid;
}

static const struct gid first = {{0x81}};
static const struct gid last = {
    {0x83, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}};

Test(gid, text_is_base58_of_the_number)
{
    // Values from an implementation of base58 over Python's integers.
    cr_assert_str_eq(gid_format(&first).text, "Gvujk3cgA1rXWKYAZDjRaP");
    cr_assert_str_eq(gid_format(&last).text, "HJPwXZMKV7GcGAXYMq6eHc");
    struct gid mixed = gid_from("\x82\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f");
    cr_assert_str_eq(gid_format(&mixed).text, "H46mrk42z3SQX44Hm23qc2");
}

Test(gid, every_gid_comes_back_from_its_text)
{
    static const enum gid_kind kinds[] = {GID_VOLUME, GID_SEGMENT, GID_CLIENT};
    for (int i = 0; i < 3000; i++) {
        struct gid gid, back;
        random_bytes(gid.bytes, GID_SIZE);
        gid.bytes[0] = (uint8_t)kinds[i % 3];
        cr_assert_eq(gid_parse(gid_format(&gid).text, kinds[i % 3], &back, NULL), GRAFT_OK);
        cr_assert(gid_equal(&gid, &back));
    }
    struct gid back;
    cr_assert_eq(gid_parse(gid_format(&first).text, GID_VOLUME, &back, NULL), GRAFT_OK);
    cr_assert(gid_equal(&first, &back));
    cr_assert_eq(gid_parse(gid_format(&last).text, GID_CLIENT, &back, NULL), GRAFT_OK);
    cr_assert(gid_equal(&last, &back));
}

Test(gid, made_ones_sort_by_time_and_differ)
{
    struct gid a = gid_make(GID_VOLUME, 1000), b = gid_make(GID_VOLUME, 1001), c = gid_make(GID_VOLUME, 1001);
    cr_assert_lt(gid_compare(&a, &b), 0);
    cr_assert_neq(gid_compare(&b, &c), 0);
    cr_assert_eq(gid_time_ms(&a), 1000);
    cr_assert(gid_is_kind(&a, GID_VOLUME) && !gid_is_kind(&a, GID_SEGMENT));

    struct gid largest = gid_make(GID_CLIENT, (1ull << 48) - 1);
    cr_assert_eq(gid_time_ms(&largest), (1ull << 48) - 1);
}

Test(gid, malformed_text_is_refused)
{
    static const char *const bad[] = {
        "",
        "1",
        "YcVfxkQb6JRzqk5kF2tNL",   // one character short
        "GvxPQWp9pL5833YysdiJPtt", // one too many
        "YcVfxkQb6JRzqk5kF2tNLw",  // 2^128
        "pYQQho2GFKHXM4cuoFcnvK",  // 2^128 and a volume's number
        "zzzzzzzzzzzzzzzzzzzzzz",  // far beyond
        "YcVfxkQb6JRzqk5kF2tNLv",  // 2^128 - 1: no kind
        "1111111111111111111111",  // 0: no kind
        "GvxPQWp9pL5833YysdiJP0",  // 0, O, I and l are not in the alphabet
        "GvxPQWp9pL5833YysdiJPO",
        "GvxPQWp9pL5833YysdiJPI",
        "GvxPQWp9pL5833YysdiJPl",
        "GvxPQWp9pL5833YysdiJP ",
        "GvxPQWp9pL5833YysdiJ\xc3\xa9",
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct gid gid = first;
        struct graft_error err;
        cr_assert_eq(gid_parse(bad[i], GID_VOLUME, &gid, &err), GRAFT_INVALID, "%s", bad[i]);
        cr_assert_eq(err.detail, GRAFT_DETAIL_BAD_ARGUMENT);
        cr_assert(strstr(err.message, "volume"), "%s", err.message);
        cr_assert(gid_equal(&gid, &first));
    }
}

Test(gid, another_kind_is_refused_by_name)
{
    struct gid segment = gid_make(GID_SEGMENT, 5), gid;
    struct graft_error err;
    cr_assert_eq(gid_parse(gid_format(&segment).text, GID_VOLUME, &gid, &err), GRAFT_INVALID);
    cr_assert(strstr(err.message, "no volume id") && strstr(err.message, "segment id"), "%s", err.message);
}

Test(gid, a_message_quotes_at_most_forty_characters)
{
    char text[1000];
    memset(text, 'q', sizeof text);
    text[sizeof text - 1] = '\0';
    struct gid gid;
    struct graft_error err;
    cr_assert_eq(gid_parse(text, GID_VOLUME, &gid, &err), GRAFT_INVALID);
    cr_assert_eq(strspn(strchr(err.message, 'q'), "q"), 40);
}

Test(gid, fields_of_messages_are_checked)
{
    struct gid gid = gid_make(GID_VOLUME, 5), back;
    struct graft_error err;
    cr_assert_eq(gid_from_bytes((struct bytes){gid.bytes, 16}, GID_VOLUME, "vid", &back, &err), GRAFT_OK);
    cr_assert(gid_equal(&gid, &back));
    cr_assert_eq(gid_from_bytes((struct bytes){gid.bytes, 15}, GID_VOLUME, "vid", &back, &err),
                 GRAFT_INVALID);
    cr_assert(strstr(err.message, "vid") && strstr(err.message, "15"), "%s", err.message);
    cr_assert_eq(gid_from_bytes((struct bytes){NULL, 0}, GID_VOLUME, "vid", &back, &err), GRAFT_INVALID);
    cr_assert_eq(gid_from_bytes((struct bytes){gid.bytes, 16}, GID_SEGMENT, "sid", &back, &err),
                 GRAFT_INVALID);
    cr_assert(strstr(err.message, "sid"), "%s", err.message);
}
