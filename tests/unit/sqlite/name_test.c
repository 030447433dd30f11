// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>

#include "client/include/graft.h"
#include "sqlite/name.h"

Test(name, kinds)
{
    char vid[GRAFT_VID_SIZE];

    graft_vid_make(vid);
    cr_assert_eq(name_kind_of(vid), NAME_VID);
    cr_assert_eq(name_kind_of("random"), NAME_RANDOM);
    cr_assert_eq(name_kind_of("main"), NAME_TAG);
    cr_assert_eq(name_kind_of("app.db"), NAME_TAG);
    cr_assert_eq(name_kind_of("./app.db"), NAME_PATH);
    cr_assert_eq(name_kind_of("/"), NAME_PATH);
    cr_assert_eq(name_kind_of(""), NAME_BAD);
    cr_assert_eq(name_kind_of(".hidden"), NAME_BAD);
    cr_assert_eq(name_kind_of("with space"), NAME_BAD);
}

Test(name, tags)
{
    char vid[GRAFT_VID_SIZE], name[66];

    graft_vid_make(vid);
    cr_assert_not(graft_tag_is_name(vid));
    vid[21] = '\0'; // one character short of a VID
    cr_assert(graft_tag_is_name(vid));
    memset(name, 'a', sizeof name);
    name[64] = '\0';
    cr_assert(graft_tag_is_name(name));
    name[64] = 'a';
    name[65] = '\0';
    cr_assert_not(graft_tag_is_name(name));
    cr_assert_not(graft_tag_is_name("random"));
    cr_assert_not(graft_tag_is_name(".."));
    cr_assert_not(graft_tag_is_name("a/b"));
    cr_assert_not(graft_tag_is_name("-x"));
    cr_assert_not(graft_tag_is_name("\xc3\xa4"));
}

Test(name, names_in_the_folder)
{
    cr_assert_str_eq(name_in_folder("/data/sqlite/main", "/data/sqlite"), "main");
    cr_assert_null(name_in_folder("/data/sqlite", "/data/sqlite"));
    cr_assert_null(name_in_folder("/data/sqlite/", "/data/sqlite"));
    cr_assert_null(name_in_folder("/data/sqlite/a/b", "/data/sqlite"));
    cr_assert_null(name_in_folder("/data/sqlite2/main", "/data/sqlite"));
    cr_assert_null(name_in_folder("/data/sqlite/random", "/data/sqlite"));
    cr_assert_null(name_in_folder("main", "/data/sqlite"));
}
