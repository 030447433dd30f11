// SPDX-License-Identifier: Apache-2.0
#include "tests/sweep/journal.h"

#include <stdio.h>

#include "common/base/check.h"

static uint64_t operation;

static void speak_for(unsigned client)
{
    char name[32];

    snprintf(name, sizeof name, "client-%u", client);
    recorder_speak_for(name);
}

void journal_open(const char *path)
{
    recorder_open(path, "nobody");
}

static void add_vid(struct line *line, const char *vid)
{
    line_add(line, ",\"vid\":\"%s\"", vid);
}

uint64_t journal_invoke(unsigned client, const char *op, const char *vid)
{
    struct line line;

    speak_for(client);
    line_begin(&line, "invoke", op, ++operation);
    if (vid)
        add_vid(&line, vid);
    line_write(&line);
    return operation;
}

static void begin_completion(struct line *line, const char *op, uint64_t id, enum graft_status status,
                             const struct graft_error *err)
{
    line_begin(line, line_event_of(status), op, id);
    if (status != GRAFT_OK)
        line_add_error(line, err);
}

void journal_complete(const char *op, uint64_t id, struct graft_volume *volume, enum graft_status status,
                      const struct graft_error *err)
{
    struct line line;

    begin_completion(&line, op, id, status, err);
    if (volume)
        line_add_state(&line, volume);
    line_write(&line);
}

void journal_complete_fork(uint64_t id, struct graft_volume *volume, const char *fork,
                           enum graft_status status, const struct graft_error *err)
{
    struct line line;

    begin_completion(&line, "fork", id, status, err);
    line_add_state(&line, volume);
    if (status == GRAFT_OK)
        line_add(&line, ",\"fork\":\"%s\"", fork);
    line_write(&line);
}

void journal_complete_of(const char *op, uint64_t id, const char *vid, enum graft_status status,
                         const struct graft_error *err)
{
    struct line line;

    begin_completion(&line, op, id, status, err);
    add_vid(&line, vid);
    line_write(&line);
}

void journal_note_page(struct journal_pages *pages, uint32_t pageidx, const void *page, size_t size)
{
    CHECK(pages->count < JOURNAL_PAGES_MAX);
    pages->pages[pages->count++] = (struct journal_page){pageidx, (uint32_t)size, hash128(page, size)};
}

static void add_pages(struct line *line, const char *key, const struct journal_pages *pages)
{
    line_add(line, ",\"%s\":[", key);
    for (uint32_t i = 0; i < pages->count; i++) {
        const struct journal_page *page = &pages->pages[i];
        line_add(line, "%s[%u,%u,\"%s\"]", i > 0 ? "," : "", page->pageidx, page->size,
                 hex32(page->hash.bytes).text);
    }
    line_add(line, "]");
}

uint64_t journal_invoke_commit(unsigned client, struct graft_volume *volume,
                               const struct graft_writer *writer, const struct journal_pages *pages,
                               uint32_t cut)
{
    struct line line;

    speak_for(client);
    line_begin(&line, "invoke", "commit", ++operation);
    line_add_vid(&line, &volume->source.vid);
    line_add(&line, ",\"base\":%llu,\"count\":%u,\"cut\":%u", (unsigned long long)writer_base_lsn(writer),
             graft_writer_page_count(writer), cut);
    add_pages(&line, "writes", pages);
    line_write(&line);
    return operation;
}

void journal_complete_commit(uint64_t id, struct graft_volume *volume, uint64_t lsn, enum graft_status status,
                             const struct graft_error *err)
{
    struct line line;

    begin_completion(&line, "commit", id, status, err);
    line_add(&line, ",\"lsn\":%llu", (unsigned long long)lsn);
    line_add_state(&line, volume);
    line_write(&line);
}

enum graft_status journal_commit(unsigned client, struct graft_volume *volume, struct graft_writer *writer,
                                 const struct journal_pages *pages, uint32_t cut, struct graft_error *err)
{
    uint64_t lsn = 0;

    uint64_t id = journal_invoke_commit(client, volume, writer, pages, cut);
    enum graft_status status = graft_writer_commit(writer, &lsn, err);
    journal_complete_commit(id, volume, lsn, status, err);
    return status;
}

void journal_complete_read(uint64_t id, const char *vid, const struct graft_snapshot *snapshot,
                           const struct journal_pages *pages)
{
    struct line line;

    line_begin(&line, "ok", "read", id);
    add_vid(&line, vid);
    line_add(&line, ",\"local\":%llu,\"remote\":%llu,\"count\":%u,\"broken\":0",
             (unsigned long long)graft_snapshot_local_lsn(snapshot),
             (unsigned long long)graft_snapshot_remote_lsn(snapshot), graft_snapshot_page_count(snapshot));
    add_pages(&line, "pages", pages);
    line_write(&line);
}
