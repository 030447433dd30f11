// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/include/graft.h"

static char folder[] = "/tmp/graft-tags-XXXXXX";
static char data[64], stub[64], one[GRAFT_VID_SIZE], two[GRAFT_VID_SIZE], found[GRAFT_VID_SIZE];
static struct graft *client;
static struct graft_error err;

#define OK(call) cr_assert_eq((call), GRAFT_OK, "%s", err.message)

static int remove_one(const char *path, const struct stat *what, int kind, struct FTW *at)
{
    return remove(path);
}

static void open_client(void)
{
    struct graft_settings settings = {.data = data};
    OK(graft_open(&settings, &client, &err));
}

static void setup(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(data, sizeof data, "%s/data", folder);
    snprintf(stub, sizeof stub, "%s/stub.db", folder);
    graft_vid_make(one);
    graft_vid_make(two);
    open_client();
}

static void teardown(void)
{
    graft_close(client);
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(tags, .init = setup, .fini = teardown, .timeout = 60);

static bool append(void *context, const char *tag, const char *vid)
{
    char *text = context;
    strcat(strcat(text, tag), strcmp(vid, one) == 0 ? "=1 " : "=2 ");
    return strcmp(tag, "stop") != 0;
}

Test(tags, they_last_and_are_replaced_and_removed)
{
    cr_assert_eq(graft_tag_get(client, "main", found, &err), GRAFT_NOT_FOUND);
    OK(graft_tag_set(client, "main", one, &err));
    OK(graft_tag_set(client, "main", two, &err));
    graft_close(client);
    open_client();
    OK(graft_tag_get(client, "main", found, &err));
    cr_assert_str_eq(found, two);
    OK(graft_tag_set(client, "main", NULL, &err));
    cr_assert_eq(graft_tag_get(client, "main", found, &err), GRAFT_NOT_FOUND);
    cr_assert_eq(graft_tag_set(client, "main", NULL, &err), GRAFT_NOT_FOUND);
}

Test(tags, they_are_listed_in_order_until_told_to_stop)
{
    char text[256] = "";

    OK(graft_tag_list(client, append, text, &err));
    cr_assert_str_eq(text, "");
    OK(graft_tag_set(client, "stop", one, &err));
    OK(graft_tag_set(client, "b", two, &err));
    OK(graft_tag_set(client, "a.1", one, &err));
    OK(graft_tag_set(client, "zz", one, &err));
    OK(graft_tag_list(client, append, text, &err));
    cr_assert_str_eq(text, "a.1=1 b=2 stop=1 ");
}

Test(tags, what_cannot_be_one_is_refused)
{
    static const char *const bad[] = {"", ".", "..", "a/b", "random", "with space", "-x"};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(graft_tag_set(client, bad[i], one, &err), GRAFT_INVALID, "%s", bad[i]);
        cr_assert_eq(graft_tag_get(client, bad[i], found, &err), GRAFT_INVALID, "%s", bad[i]);
    }
    cr_assert_eq(graft_tag_set(client, one, two, &err), GRAFT_INVALID);
    cr_assert_eq(graft_tag_set(client, "main", "no VID", &err), GRAFT_INVALID);
    cr_assert_eq(graft_tag_get(client, "main", found, &err), GRAFT_NOT_FOUND, "nothing was set");
}

Test(tags, a_stub_names_its_volume_and_nothing_else_does)
{
    char text[64];

    cr_assert_eq(graft_stub_read(stub, found, &err), GRAFT_NOT_FOUND);
    OK(graft_stub_write(stub, one, &err));
    OK(graft_stub_read(stub, found, &err));
    cr_assert_str_eq(found, one);
    snprintf(text, sizeof text, "graft volume %s\n", one);
    size_t size = strlen(text);
    for (size_t at = 0; at <= size + 1; at++) {
        char other[65];
        snprintf(other, sizeof other, "%s\n", text);
        FILE *file = fopen(stub, "w");
        if (at < size)
            fwrite(other, 1, at, file);
        else
            fwrite(other, 1, size + (at > size), file);
        fclose(file);
        cr_assert_eq(graft_stub_read(stub, found, &err) == GRAFT_OK, at == size, "%zu bytes", at);
    }
    text[0] = 'G';
    FILE *file = fopen(stub, "w");
    fputs(text, file);
    fclose(file);
    cr_assert_eq(graft_stub_read(stub, found, &err), GRAFT_INVALID);
    cr_assert_eq(graft_stub_write(stub, "no VID", &err), GRAFT_INVALID);
}
