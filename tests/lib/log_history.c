// SPDX-License-Identifier: Apache-2.0
#include "tests/lib/log_history.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/page_log.h"
#include "common/base/checksum.h"
#include "common/base/files.h"
#include "common/base/random.h"

#define STORE 12
#define KEPT 24u
#define PAGES_MAX 300u

struct commit {
    uint64_t number;
    uint32_t count;
    uint64_t places[PAGES_MAX];
};

// The index file: the claims, how many commits were told, and those of them that are live. Little else than the memory of one
// machine: it is read by the program that wrote it.
struct index {
    uint64_t told;
    uint64_t claims_size;
    uint8_t claims[PAGE_LOG_CLAIMS_SIZE_MAX];
    struct commit commits[KEPT]; // by number % KEPT
    uint64_t checksum;           // of all before
};

static struct {
    char index_path[1024];
    uint64_t seed;
    struct index *index;
    struct extents *extents;
    struct page_log *log;
    uint64_t epoch;
    uint64_t kept; // told when the index was written last
    struct commit found;
    bool fail_next_write;
} history;

_noreturn_ static void anomaly(const char *what, uint64_t number)
{
    log_history_wrong(what, number);
    abort();
}

static void need(enum graft_status status, const struct graft_error *err)
{
    if (status == GRAFT_OK)
        return;
    log_history_failed(err);
    abort();
}
#define NEED(call)                                \
    do {                                          \
        struct graft_error err = {.message = ""}; \
        need((call), &err);                       \
    } while (0)

// ---- what a commit has, by its number

static uint64_t draw(uint64_t number, uint64_t what, uint64_t below)
{
    struct rng rng;
    rng_seed(&rng, history.seed * 1000003 + number * 31 + what);
    return rng_below(&rng, below);
}

static uint32_t count_of(uint64_t number)
{
    uint64_t dice = draw(number, 0, 30);
    return dice == 0   ? 0
           : dice < 27 ? (uint32_t)draw(number, 1, 9) + 1
                       : (uint32_t)draw(number, 1, PAGES_MAX) + 1;
}

static uint32_t size_of(uint64_t number)
{
    static const uint32_t sizes[] = {4096, 4096, 512, 8192, 777};
    return sizes[draw(number, 2, 5)];
}

// An odd commit may take the next along.
static bool is_pair(uint64_t number)
{
    return number % 2 == 1 && draw(number, 3, 5) == 0;
}

static void fill(uint64_t number, uint32_t page, uint8_t *to)
{
    struct rng rng;
    rng_seed(&rng, history.seed ^ number << 20 ^ page);
    for (uint32_t at = 0; at < size_of(number); at++)
        to[at] = (uint8_t)(at % 8 == 0 ? rng_next(&rng) : to[at - 1] * 5u + 1u);
}

// ---- the index

static void account(const struct commit *commit, bool live)
{
    struct extent_changes changes = {0};
    int64_t size = size_of(commit->number);
    for (uint32_t i = 0; i < commit->count; i++)
        extent_changes_add(&changes, commit->places[i], live ? size : -size);
    extents_apply(history.extents, &changes);
    extent_changes_release(&changes);
}

// Told of the next commit, and that the oldest is not needed any more.
static void tell(const struct commit *commit)
{
    struct commit *slot = &history.index->commits[commit->number % KEPT];
    account(commit, true);
    if (slot->number != 0)
        account(slot, false);
    *slot = *commit;
    history.index->told = commit->number;
}

static enum graft_status write_index(const struct page_log_claims *claims, struct graft_error *err)
{
    struct index *index = history.index;
    index->claims_size = page_log_claims_encode(claims, index->claims);
    index->checksum = checksum64(index, offsetof(struct index, checksum));
    enum graft_status status = files_replace(history.index_path, index, sizeof *index, err);
    history.kept = index->told;
    return status;
}

static enum graft_status keep_claims(void *context, const struct page_log_claims *claims,
                                     struct graft_error *err)
{
    uint64_t began = extents_settle_begin(history.extents);
    enum graft_status status =
        page_log_sync(history.log, err); // so that the index has nothing that is not on the disk
    if (status == GRAFT_OK)
        status = write_index(claims, err);
    if (status == GRAFT_OK)
        extents_settle_end(history.extents, began);
    return status;
}

static bool read_index(void)
{
    _cleanup_(buffer_release) struct buffer bytes = BUFFER_INIT(sizeof(struct index));
    if (access(history.index_path, F_OK) != 0)
        return false;
    NEED(files_read(history.index_path, &bytes, &err));
    if (bytes.size != sizeof(struct index))
        anomaly("the index has another size", bytes.size);
    memcpy(history.index, bytes.data, bytes.size);
    if (history.index->checksum != checksum64(history.index, offsetof(struct index, checksum)))
        anomaly("the index is torn", 0);
    return true;
}

// ---- opening

static bool verify(void *context, const struct run_entry *entry, const void *data)
{
    return checksum64(data, entry->size) == entry->checksum;
}

static enum graft_status visit(void *context, const struct page_log_run *run, struct graft_error *err)
{
    const struct run_header *header = &run->header;
    if (header->lsn <= history.index->told || header->kind == RUN_VOID)
        return GRAFT_OK;
    if (!run->whole || header->kind != RUN_COMMIT || header->lsn != history.index->told + 1)
        anomaly("a run that cannot be", header->lsn);
    if (header->part == 0)
        history.found = (struct commit){.number = header->lsn};
    uint32_t end = run_header_size(header->count);
    for (uint32_t i = 0; i < header->count; i++) {
        struct run_entry entry = run_entry_at(run->bytes, i);
        if (entry.pageidx != history.found.count + 1 || entry.size != size_of(header->lsn))
            anomaly("a page that is not the commit's", header->lsn);
        end = run_page_offset(end, entry.size);
        history.found.places[history.found.count++] = run->place + end;
        end += entry.size;
    }
    if (!header->complete)
        return GRAFT_OK;
    if (history.found.count != count_of(header->lsn))
        anomaly("a commit that is complete and is not", header->lsn);
    tell(&history.found);
    return GRAFT_OK;
}

static void damaged(void *context, const struct page_log_run *run, uint64_t from, uint64_t to,
                    const char *where)
{
    anomaly("damage", from);
}

static void check_commit(const struct commit *commit)
{
    uint8_t expected[8192], bytes[8192];
    for (uint32_t i = 0; i < commit->count; i++) {
        NEED(extents_read(history.extents, commit->places[i], bytes, size_of(commit->number), &err));
        fill(commit->number, i, expected);
        if (memcmp(bytes, expected, size_of(commit->number)) != 0)
            anomaly("a page reads as it was not written", commit->number);
    }
}

static void set_live(void)
{
    uint32_t end = extents_end(history.extents);
    uint64_t *live = calloc(end + 1, sizeof *live);
    for (unsigned i = 0; i < KEPT; i++) {
        const struct commit *commit = &history.index->commits[i];
        for (uint32_t page = 0; page < commit->count; page++) {
            if (place_extent(commit->places[page]) >= end)
                anomaly("an extent is missing", commit->number);
            live[place_extent(commit->places[page])] += size_of(commit->number);
        }
    }
    for (uint32_t i = 0; i < end; i++)
        NEED(extents_set_live(history.extents, i, live[i], &err));
    free(live);
}

static void replay_claims(void)
{
    static struct page_log_claims claims;
    NEED(page_log_claims_decode((struct bytes){history.index->claims, history.index->claims_size}, &claims,
                                &err));
    struct page_log_replay replay = {
        .store = STORE, .claims = &claims, .verify = verify, .visit = visit, .damaged = damaged};
    NEED(page_log_replay(history.extents, &replay, &err));
}

// Writes, and says that it did not, once: what must be taken back.
static ssize_t write_or_fail(int fd, const struct iovec *from, int count, off_t offset)
{
    ssize_t written = pwritev(fd, from, count, offset);
    if (!history.fail_next_write)
        return written;
    history.fail_next_write = false;
    errno = ENOSPC;
    return -1;
}

uint64_t log_history_open(const char *directory, uint64_t seed, uint64_t done)
{
    history.seed = seed;
    history.index = calloc(1, sizeof *history.index);
    char path[1024];
    NEED(files_make_folder(directory, &err));
    snprintf(history.index_path, sizeof history.index_path, "%s/index", directory);
    snprintf(path, sizeof path, "%s/pages", directory);
    bool there = read_index();
    if (!there && done > 0)
        anomaly("the index is gone", done);
    struct extents_settings settings = {
        .directory = path, .durable = true, .open_files_max = 2, .pwritev = write_or_fail};
    NEED(extents_open(&settings, &history.extents, &err));
    set_live();
    if (there)
        replay_claims();
    uint64_t told = history.index->told;
    if (told < done || (told > 0 && is_pair(told)))
        anomaly("the last commit that is there", told);
    for (unsigned i = 0; i < KEPT; i++)
        check_commit(&history.index->commits[i]);

    random_bytes(&history.epoch, sizeof history.epoch);
    static struct page_log_claims none;
    none = (struct page_log_claims){.epoch = history.epoch, .seq = 1};
    NEED(write_index(&none, &err));
    extents_start(history.extents);
    struct page_log_settings log_settings = {
        .extents = history.extents, .store = STORE, .epoch = history.epoch, .keep_claims = keep_claims};
    NEED(page_log_new(&log_settings, &history.log, &err));
    return told;
}

// ---- going on

static void make(uint64_t number, struct page_log_append *append, struct page_log_page *pages, uint8_t *bytes)
{
    uint32_t size = size_of(number), count = count_of(number);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *data = bytes + (size_t)i * size;
        fill(number, i, data);
        pages[i] = (struct page_log_page){.entry = {.number = 3,
                                                    .lsn = number,
                                                    .checksum = checksum64(data, size),
                                                    .pageidx = i + 1,
                                                    .size = size},
                                          .data = data};
    }
    *append = (struct page_log_append){
        .header = {.kind = RUN_COMMIT, .complete = true, .number = 3, .lsn = number, .cut = UINT32_MAX},
        .pages = pages,
        .page_count = count};
}

static void append(struct page_log_append *appends, unsigned count, bool sync)
{
    NEED(page_log_append(history.log, appends, count, sync, &err));
}

// Appended, and taken back as if the index could not be told.
static void append_in_vain(struct page_log_append *appends, unsigned count)
{
    append(appends, count, true);
    NEED(page_log_void(history.log, &appends[count - 1], &err));
    for (unsigned i = 0; i + 1 < count; i++)
        page_log_applied(history.log, &appends[i]);
}

static void append_to_full_disk(struct page_log_append *appends, unsigned count)
{
    struct graft_error failure;
    NEED(page_log_claim_ahead(history.log, 2, &err)); // so that the next write is the append's
    history.fail_next_write = true;
    enum graft_status status = page_log_append(history.log, appends, count, true, &failure);
    if (status == GRAFT_OK)
        anomaly("a failed write went unnoticed", appends->header.lsn);
    if (failure.detail != GRAFT_DETAIL_NO_SPACE || history.fail_next_write)
        need(status, &failure);
}

uint64_t log_history_commit(uint64_t number)
{
    static struct page_log_page pages[2][PAGES_MAX];
    static uint8_t bytes[2][PAGES_MAX * 8192];
    struct page_log_append appends[2];
    unsigned count = is_pair(number) ? 2 : 1;
    for (unsigned i = 0; i < count; i++) {
        make(number + i, &appends[i], pages[i], bytes[i]);
        appends[i].header.group_index = (uint16_t)i;
        appends[i].header.group_count = (uint16_t)count;
    }
    if (draw(number, 5, 8) == 0)
        append_in_vain(appends, count);
    if (draw(number, 6, 8) == 0)
        append_to_full_disk(appends, count);
    bool sync = draw(number, 4, 3) > 0;
    append(appends, count, sync);
    if (sync)
        log_history_acknowledged(number + count - 1);
    for (unsigned i = 0; i < count; i++) {
        struct commit told = {.number = number + i, .count = appends[i].page_count};
        for (uint32_t page = 0; page < told.count; page++)
            told.places[page] = pages[i][page].place;
        tell(&told);
    }
    for (unsigned i = 0; i < count; i++)
        page_log_applied(history.log, &appends[i]);
    if (draw(number, 7, 8) == 0)
        NEED(page_log_claim_ahead(history.log, 3, &err));
    return number + count - 1;
}

void log_history_resize(void)
{
    NEED(extents_grow(history.extents, 2 * EXTENTS_PER_FILE, &err));
    NEED(extents_shrink(history.extents, 0, &err));
}

void log_history_close(void)
{
    NEED(page_log_sync(history.log, &err));
    log_history_acknowledged(history.index->told);
    page_log_free(history.log);
    extents_close(history.extents);
    free(history.index);
}
