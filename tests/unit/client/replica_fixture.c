// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/client/replica_fixture.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/client/store_fixture.h"

static void open_at(struct replica *replica, const char *url)
{
    struct graft_settings settings = {
        .data = replica->folder, .metastore = url, .pagestore = url, .deadline_ms = replica->deadline_ms};
    expect_ok(graft_open(&settings, &replica->client, &err));
    if (replica->vid[0])
        expect_ok(graft_volume_open(replica->client, replica->vid, &replica->volume, &err));
}

void replica_begin(struct replica *replica, const struct mock_servers *mock, uint32_t deadline_ms)
{
    *replica = (struct replica){.mock = mock, .deadline_ms = deadline_ms};
    strcpy(replica->folder, "/tmp/graft-replica-XXXXXX");
    cr_assert(mkdtemp(replica->folder));
    open_at(replica, mock->url);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

void replica_end(struct replica *replica)
{
    replica_close(replica);
    nftw(replica->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void replica_create(struct replica *replica)
{
    expect_ok(graft_volume_create(replica->client, MOCK_PAGE_SIZE, GRAFT_FIXED, &replica->volume, &err));
    memcpy(replica->vid, replica_info(replica).vid, sizeof replica->vid);
}

void replica_close(struct replica *replica)
{
    graft_volume_close(TAKE(replica->volume));
    graft_close(TAKE(replica->client));
}

void replica_reopen_at(struct replica *replica, const char *url)
{
    replica_close(replica);
    open_at(replica, url);
}

void replica_reopen(struct replica *replica)
{
    replica_reopen_at(replica, replica->mock->url);
}

void replica_copy(const struct replica *from, struct replica *ret_copy)
{
    char command[200];

    *ret_copy = *from;
    ret_copy->client = NULL;
    ret_copy->volume = NULL;
    strcpy(ret_copy->folder, "/tmp/graft-replica-XXXXXX");
    cr_assert(mkdtemp(ret_copy->folder));
    snprintf(command, sizeof command, "cp -r %s/. %s/", from->folder, ret_copy->folder);
    cr_assert_eq(system(command), 0);
}

struct graft_volume_info replica_info(const struct replica *replica)
{
    struct graft_volume_info info;

    expect_ok(graft_volume_info(replica->volume, &info, &err));
    return info;
}

void replica_commit(struct replica *replica, uint32_t first, uint32_t count)
{
    struct graft_writer *writer;
    uint8_t page[MOCK_PAGE_SIZE];

    expect_ok(graft_writer_begin(replica->volume, &writer, &err));
    for (uint32_t i = first; i < first + count; i++) {
        mock_page(i, page);
        expect_ok(graft_writer_write(writer, i, page, sizeof page, &err));
    }
    expect_ok(graft_writer_commit(writer, NULL, &err));
}
