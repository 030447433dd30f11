// SPDX-License-Identifier: Apache-2.0
//
// A table from page numbers to *slots*, open addressing with linear probing, and the slots: the first `kept_max` are
// pieces of memory, the others lie in the file one after another. A page keeps its slot when it is written again.
#include "sqlite/overlay.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/files.h"
#include "sqlite/spill.h"

#define TABLE_MIN 64u

struct entry {
    uint32_t pageidx; // 0: free
    uint32_t slot;
};

struct overlay {
    uint32_t page_size;
    uint32_t page_count;
    uint32_t cut;
    char *folder;
    struct entry *table;
    size_t table_size; // a power of two, at most half full
    size_t used;
    uint8_t **kept; // of slots below kept_max
    uint32_t kept_max;
    uint32_t slot_count; // handed out
    int fd;              // -1: nothing spilled
};

struct overlay *overlay_new(uint32_t page_size, uint32_t page_count, const char *folder, uint64_t memory_size)
{
    _cleanup_(overlay_free_p) struct overlay *overlay = calloc(1, sizeof *overlay);
    if (!overlay)
        return NULL;
    overlay->fd = -1;
    overlay->page_size = page_size;
    overlay->page_count = page_count;
    overlay->cut = page_count;
    overlay->folder = strdup(folder);
    overlay->kept_max = (uint32_t)MAX(memory_size / page_size, (uint64_t)1);
    overlay->kept = calloc(overlay->kept_max, sizeof *overlay->kept);
    overlay->table_size = TABLE_MIN;
    overlay->table = calloc(overlay->table_size, sizeof *overlay->table);
    if (!overlay->folder || !overlay->kept || !overlay->table)
        return NULL;
    return TAKE(overlay);
}

void overlay_free(struct overlay *overlay)
{
    if (!overlay)
        return;
    if (overlay->kept) {
        for (uint32_t i = 0; i < MIN(overlay->slot_count, overlay->kept_max); i++)
            free(overlay->kept[i]);
    }
    if (overlay->fd >= 0)
        close(overlay->fd);
    free(overlay->kept);
    free(overlay->table);
    free(overlay->folder);
    free(overlay);
}

static struct entry *find(struct entry *table, size_t table_size, uint32_t pageidx)
{
    size_t at = (pageidx * 2654435761u) & (table_size - 1);
    while (table[at].pageidx != 0 && table[at].pageidx != pageidx)
        at = (at + 1) & (table_size - 1);
    return &table[at];
}

// Moves what is at or below `page_count` into a table of this size.
static enum graft_status rehash(struct overlay *overlay, size_t table_size, uint32_t page_count,
                                struct graft_error *err)
{
    struct entry *table = calloc(table_size, sizeof *table);
    if (!table)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a transaction's pages");
    size_t used = 0;
    for (size_t i = 0; i < overlay->table_size; i++) {
        const struct entry *entry = &overlay->table[i];
        if (entry->pageidx == 0 || entry->pageidx > page_count)
            continue;
        *find(table, table_size, entry->pageidx) = *entry;
        used++;
    }
    free(overlay->table);
    overlay->table = table;
    overlay->table_size = table_size;
    overlay->used = used;
    return GRAFT_OK;
}

static uint64_t spill_offset(const struct overlay *overlay, uint32_t slot)
{
    return (uint64_t)(slot - overlay->kept_max) * overlay->page_size;
}

static enum graft_status write_slot(struct overlay *overlay, uint32_t slot, const void *data,
                                    struct graft_error *err)
{
    if (slot < overlay->kept_max) {
        if (!overlay->kept[slot])
            overlay->kept[slot] = malloc(overlay->page_size);
        if (!overlay->kept[slot])
            return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a page");
        memcpy(overlay->kept[slot], data, overlay->page_size);
        return GRAFT_OK;
    }
    if (overlay->fd < 0) {
        enum graft_status status = spill_open(overlay->folder, &overlay->fd, err);
        if (status != GRAFT_OK)
            return status;
    }
    return files_pwrite_all(overlay->fd, data, overlay->page_size, spill_offset(overlay, slot),
                            overlay->folder, err);
}

enum graft_status overlay_put(struct overlay *overlay, uint32_t pageidx, const void *data,
                              struct graft_error *err)
{
    CHECK(pageidx > 0);
    if (2 * (overlay->used + 1) > overlay->table_size) {
        enum graft_status status = rehash(overlay, 2 * overlay->table_size, UINT32_MAX, err);
        if (status != GRAFT_OK)
            return status;
    }
    struct entry *entry = find(overlay->table, overlay->table_size, pageidx);
    bool fresh = entry->pageidx == 0;
    uint32_t slot = fresh ? overlay->slot_count : entry->slot;
    enum graft_status status = write_slot(overlay, slot, data, err);
    if (fresh && slot < overlay->kept_max && overlay->kept[slot])
        overlay->slot_count = slot + 1; // also after a failure: the memory is there
    if (status != GRAFT_OK)
        return status;
    if (fresh) {
        overlay->slot_count = slot + 1;
        *entry = (struct entry){pageidx, slot};
        overlay->used++;
    }
    overlay->page_count = MAX(overlay->page_count, pageidx);
    return GRAFT_OK;
}

enum graft_status overlay_get(struct overlay *overlay, uint32_t pageidx, void *to, bool *ret_found,
                              struct graft_error *err)
{
    size_t size = 0;

    const struct entry *entry = find(overlay->table, overlay->table_size, pageidx);
    *ret_found = entry->pageidx != 0;
    if (!*ret_found)
        return GRAFT_OK;
    if (entry->slot < overlay->kept_max) {
        memcpy(to, overlay->kept[entry->slot], overlay->page_size);
        return GRAFT_OK;
    }
    enum graft_status status = files_pread_all(
        overlay->fd, to, overlay->page_size, spill_offset(overlay, entry->slot), overlay->folder, &size, err);
    if (status == GRAFT_OK && size < overlay->page_size)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_IO, "a temporary file in %s was cut short",
                         overlay->folder);
    return status;
}

enum graft_status overlay_truncate(struct overlay *overlay, uint32_t page_count, struct graft_error *err)
{
    if (page_count < overlay->page_count) {
        enum graft_status status = rehash(overlay, overlay->table_size, page_count, err);
        if (status != GRAFT_OK)
            return status;
    }
    overlay->page_count = page_count;
    overlay->cut = MIN(overlay->cut, page_count);
    return GRAFT_OK;
}

uint32_t overlay_page_count(const struct overlay *overlay)
{
    return overlay->page_count;
}

uint32_t overlay_cut(const struct overlay *overlay)
{
    return overlay->cut;
}

bool overlay_has_spilled(const struct overlay *overlay)
{
    return overlay->fd >= 0;
}

static int by_number(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

enum graft_status overlay_pages(const struct overlay *overlay, uint32_t **ret_pages, size_t *ret_count,
                                struct graft_error *err)
{
    uint32_t *pages = NULL;
    size_t count = 0;

    if (overlay->used > 0) {
        pages = calloc(overlay->used, sizeof *pages);
        if (!pages)
            return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY,
                             "no memory to commit a transaction");
        for (size_t i = 0; i < overlay->table_size; i++) {
            if (overlay->table[i].pageidx != 0)
                pages[count++] = overlay->table[i].pageidx;
        }
        CHECK(count == overlay->used);
        qsort(pages, count, sizeof *pages, by_number);
    }
    *ret_pages = pages;
    *ret_count = count;
    return GRAFT_OK;
}
