// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/client_fixture.h"

#include <stdio.h>

#include "common/net/http_client.h"

struct daemon *metastore, *pagestore;
static char *folder;

void cluster_begin(void)
{
    folder = test_folder_new();
    metastore = metastore_start(folder, NULL);
    pagestore = pagestore_start(folder, metastore, NULL);
}

void cluster_end(void)
{
    daemon_free(pagestore);
    daemon_free(metastore);
    test_folder_free(folder);
}

static void shell(const char *command)
{
    cr_assert_eq(system(command), 0, "%s", command);
}

static void copy_metastore(const char *from, const char *to)
{
    char command[1024];

    cr_assert_eq(daemon_stop(metastore), 0);
    snprintf(command, sizeof command, "rm -rf '%s/%s' && cp -a '%s/%s' '%s/%s'", folder, to, folder, from,
             folder, to);
    shell(command);
    daemon_restart(metastore);
}

void metastore_save(void)
{
    copy_metastore("metastore", "metastore-saved");
}

void metastore_bring_back(void)
{
    copy_metastore("metastore-saved", "metastore");
}

struct graft *open_client_hasty(const char *name, uint32_t deadline_ms)
{
    return open_client_at(name, daemon_url(metastore, "listen"), deadline_ms);
}

void copy_store(const char *from, const char *to)
{
    char command[2048];

    snprintf(command, sizeof command, "rm -rf '%s/%s' && cp -r '%s/%s' '%s/%s'", folder, to, folder, from,
             folder, to);
    cr_assert_eq(system(command), 0);
}

void copy_client(const char *from, const char *to)
{
    char from_name[64], to_name[64];

    snprintf(from_name, sizeof from_name, "client-%s", from);
    snprintf(to_name, sizeof to_name, "client-%s", to);
    copy_store(from_name, to_name);
}

struct graft *open_client_at(const char *name, const char *metastore_url, uint32_t deadline_ms)
{
    char data[512];
    struct graft *client;

    snprintf(data, sizeof data, "%s/client-%s", folder, name);
    struct graft_settings settings = {.data = data,
                                      .metastore = metastore_url,
                                      .pagestore = daemon_url(pagestore, "listen"),
                                      .deadline_ms = deadline_ms};
    expect_ok(graft_open(&settings, &client, &err));
    return client;
}

struct graft *open_client(const char *name)
{
    return open_client_hasty(name, 0);
}

struct graft_volume *create_volume(struct graft *client, uint32_t page_size, enum graft_volume_kind kind)
{
    struct graft_volume *volume;

    expect_ok(graft_volume_create(client, page_size, kind, &volume, &err));
    return volume;
}

struct graft_volume *clone_volume(struct graft *client, struct graft_volume *of)
{
    struct graft_volume *volume;

    expect_ok(graft_volume_clone(client, info_of(of).vid, &volume, &err));
    return volume;
}

struct graft_volume_info info_of(struct graft_volume *volume)
{
    struct graft_volume_info info;

    expect_ok(graft_volume_info(volume, &info, &err));
    return info;
}

void fill_page(uint8_t *page, size_t size, uint32_t pageidx, uint32_t tag)
{
    uint32_t state = pageidx * 2654435761u + tag * 40503u + 1;

    for (size_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        page[i] = tag == 0 ? 0 : (uint8_t)(state >> 24);
    }
}

uint64_t commit_pages(struct graft_volume *volume, uint32_t first, uint32_t count, uint32_t tag)
{
    struct graft_writer *writer;
    uint8_t page[65536];
    uint32_t page_size = info_of(volume).page_size;
    uint64_t lsn;

    expect_ok(graft_writer_begin(volume, &writer, &err));
    for (uint32_t i = first; i < first + count; i++) {
        fill_page(page, page_size, i, tag);
        expect_ok(graft_writer_write(writer, i, page, page_size, &err));
    }
    expect_ok(graft_writer_commit(writer, &lsn, &err));
    return lsn;
}

void commit_truncate(struct graft_volume *volume, uint32_t page_count)
{
    struct graft_writer *writer;

    expect_ok(graft_writer_begin(volume, &writer, &err));
    expect_ok(graft_writer_truncate(writer, page_count, &err));
    expect_ok(graft_writer_commit(writer, NULL, &err));
}

void expect_snapshot_page(struct graft_snapshot *snapshot, uint32_t page_size, uint32_t pageidx, uint32_t tag)
{
    uint8_t page[65536], expected[65536];
    size_t size;

    expect_ok(graft_snapshot_read(snapshot, pageidx, page, sizeof page, &size, &err));
    fill_page(expected, page_size, pageidx, tag);
    cr_assert(tag == 0 ? size == 0 || size == page_size : size == page_size);
    cr_assert_eq(memcmp(page, expected, size), 0, "page %u is not of tag %u", pageidx, tag);
}

void expect_page(struct graft_volume *volume, uint32_t pageidx, uint32_t tag)
{
    struct graft_snapshot *snapshot;

    expect_ok(graft_snapshot_open(volume, &snapshot, &err));
    expect_snapshot_page(snapshot, info_of(volume).page_size, pageidx, tag);
    graft_snapshot_release(snapshot);
}

uint64_t pagestore_counter(const char *name)
{
    struct http_client_settings settings = {0};
    struct http_client *http;
    struct http_outcome outcome;
    struct buffer body;
    char url[256], line[128];

    snprintf(url, sizeof url, "%s/metrics", daemon_url(pagestore, "listen"));
    struct http_exchange_spec spec = {.url = url, .deadline_ms = 10000, .response_max = 1 << 20};
    expect_ok(http_client_new(&settings, &http, &err));
    expect_ok(http_client_call(http, &spec, &body, &outcome, &err));
    expect_ok(buffer_append(&body, "", 1, &err));
    snprintf(line, sizeof line, "\n%s ", name);
    const char *found = strstr((const char *)body.data, line);
    cr_assert(found, "the pagestore has no counter %s", name);
    uint64_t value = strtoull(found + strlen(line), NULL, 10);
    buffer_release(&body);
    http_client_free(http);
    return value;
}
