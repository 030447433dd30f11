// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/workload.h"

#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"

// A page: magic 4 ‖ pageidx 4 ‖ run of the author 8 ‖ sequence 8 ‖ XXH3-64 of the rest 8 ‖ the rest
#define PAGE_MAGIC 0x474d4953u
#define PAGE_HEADER 32u

#define BULK_SPREAD 40u

#define BANK_ACCOUNTS 20u
#define BANK_LEDGER_PAGES 4u
#define BANK_PAGE_SIZE 1024u
#define BANK_OPENING 1000u
// A ledger page behind the header: rows so far in the whole ledger 8, then rows of LSN 8 ‖ token 16.
#define LEDGER_ROW 24u
#define LEDGER_ROWS ((BANK_PAGE_SIZE - PAGE_HEADER - 8) / LEDGER_ROW)

enum graft_status change_write(struct change *change, uint32_t pageidx, const void *data, size_t size,
                               struct graft_error *err)
{
    size_t at = 0;

    enum graft_status status = graft_writer_write(change->writer, pageidx, data, size, err);
    if (status != GRAFT_OK)
        return status;
    while (at < change->count && change->written[at].pageidx != pageidx)
        at++;
    CHECK(at < SIM_PAGES_MAX);
    if (at == change->count)
        change->count++;
    change->written[at] = (struct written){pageidx, (uint32_t)size, hash128(data, size)};
    if (change->page_count < pageidx)
        change->page_count = pageidx;
    return GRAFT_OK;
}

enum graft_status change_truncate(struct change *change, uint32_t page_count, struct graft_error *err)
{
    size_t kept = 0;

    enum graft_status status = graft_writer_truncate(change->writer, page_count, err);
    if (status != GRAFT_OK)
        return status;
    for (size_t at = 0; at < change->count; at++) {
        if (change->written[at].pageidx <= page_count)
            change->written[kept++] = change->written[at];
    }
    change->count = kept;
    change->page_count = page_count;
    if (change->cut > page_count)
        change->cut = page_count;
    return GRAFT_OK;
}

static void page_seal(struct author *author, uint32_t pageidx, uint8_t *page, size_t size)
{
    CHECK(size >= PAGE_HEADER);
    put_le32(page, PAGE_MAGIC);
    put_le32(page + 4, pageidx);
    put_le64(page + 8, author->run);
    put_le64(page + 16, ++author->sequence);
    put_le64(page + 24, checksum64(page + PAGE_HEADER, size - PAGE_HEADER));
}

bool workload_page_is_whole(uint32_t pageidx, const uint8_t *page, size_t size)
{
    return size >= PAGE_HEADER && get_le32(page) == PAGE_MAGIC && get_le32(page + 4) == pageidx &&
           get_le64(page + 24) == checksum64(page + PAGE_HEADER, size - PAGE_HEADER);
}

// Bytes that compress to about a half.
static void page_fill(struct author *author, uint8_t *page, size_t size)
{
    memset(page, 0, size);
    for (size_t at = 0; at + 8 <= size; at += 16)
        put_le64(page + at, rng_next(author->rng));
}

// ---- random pages -------------------------------------------------------------------------------

static enum graft_status write_random(struct author *author, struct change *change, uint32_t pageidx,
                                      struct graft_error *err)
{
    const struct workload *load = author->load;
    uint8_t page[SIM_PAGE_SIZE_MAX];
    size_t size = load->page_size;

    if (load->kind == GRAFT_VARIABLE)
        size = PAGE_HEADER + rng_below(author->rng, load->page_size - PAGE_HEADER + 1);
    page_fill(author, page, size);
    page_seal(author, pageidx, page, size);
    return change_write(change, pageidx, page, size, err);
}

static enum graft_status scatter_below(struct author *author, struct change *change, uint32_t spread,
                                       uint32_t count, struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;

    while (count-- > 0 && status == GRAFT_OK)
        status = write_random(author, change, 1 + (uint32_t)rng_below(author->rng, spread), err);
    return status;
}

static enum graft_status scatter(struct author *author, struct change *change, uint32_t count,
                                 struct graft_error *err)
{
    return scatter_below(author, change, author->load->pages, count, err);
}

static enum graft_status register_next(struct author *author, struct change *change, struct graft_error *err)
{
    return scatter(author, change, 1 + (uint32_t)rng_below(author->rng, 6), err);
}

static enum graft_status writers_next(struct author *author, struct change *change, struct graft_error *err)
{
    return scatter(author, change, 1 + (uint32_t)rng_below(author->rng, 3), err);
}

static enum graft_status grow_next(struct author *author, struct change *change, struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;

    for (uint64_t steps = 1 + rng_below(author->rng, 4); steps > 0 && status == GRAFT_OK; steps--) {
        if (rng_below(author->rng, 3) == 0)
            status = change_truncate(change, (uint32_t)rng_below(author->rng, author->load->pages + 1), err);
        else
            status = scatter(author, change, 1 + (uint32_t)rng_below(author->rng, 3), err);
    }
    // A commit that changed nothing would be none.
    if (status == GRAFT_OK && change->count == 0)
        status = scatter(author, change, 1, err);
    return status;
}

static enum graft_status bulk_next(struct author *author, struct change *change, struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;

    if (rng_below(author->rng, 8) == 0)
        status = change_truncate(change, (uint32_t)rng_below(author->rng, BULK_SPREAD), err);
    if (status == GRAFT_OK && rng_below(author->rng, 12) != 0)
        return scatter_below(author, change, BULK_SPREAD, 1 + (uint32_t)rng_below(author->rng, 8), err);
    for (uint32_t pageidx = 1; pageidx <= author->load->pages && status == GRAFT_OK; pageidx++)
        status = write_random(author, change, pageidx, err);
    return status;
}

enum graft_status workload_write_one(struct author *author, struct change *change, struct graft_error *err)
{
    return write_random(author, change, author->number, err);
}

enum graft_status workload_cut(struct author *author, struct change *change, struct graft_error *err)
{
    return change_truncate(change, author->number, err);
}

// ---- the bank -----------------------------------------------------------------------------------

static enum graft_status write_account(struct author *author, struct change *change, uint32_t account,
                                       uint64_t balance, struct graft_error *err)
{
    uint8_t page[BANK_PAGE_SIZE];

    page_fill(author, page, sizeof page);
    put_le64(page + PAGE_HEADER, balance);
    page_seal(author, account, page, sizeof page);
    return change_write(change, account, page, sizeof page, err);
}

static enum graft_status bank_first(struct author *author, struct change *change, struct graft_error *err)
{
    uint8_t page[BANK_PAGE_SIZE] = {0};
    enum graft_status status = GRAFT_OK;

    for (uint32_t account = 1; account <= BANK_ACCOUNTS && status == GRAFT_OK; account++)
        status = write_account(author, change, account, BANK_OPENING, err);
    for (uint32_t at = 1; at <= BANK_LEDGER_PAGES && status == GRAFT_OK; at++) {
        page_seal(author, BANK_ACCOUNTS + at, page, sizeof page);
        status = change_write(change, BANK_ACCOUNTS + at, page, sizeof page, err);
    }
    return status;
}

static enum graft_status read_page(struct change *change, uint32_t pageidx, uint8_t *page,
                                   struct graft_error *err)
{
    size_t size;
    enum graft_status status = graft_writer_read(change->writer, pageidx, page, BANK_PAGE_SIZE, &size, err);
    if (status == GRAFT_OK && !workload_page_is_whole(pageidx, page, size))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM, "page %u is not as anybody wrote it",
                         pageidx);
    return status;
}

// A ring over the ledger's pages; its first page says how many rows there were.
static enum graft_status bank_enter(struct author *author, struct change *change, const struct landed *landed,
                                    struct graft_error *err)
{
    uint8_t first[BANK_PAGE_SIZE], other[BANK_PAGE_SIZE];
    uint8_t *page = first;

    enum graft_status status = read_page(change, BANK_ACCOUNTS + 1, first, err);
    if (status != GRAFT_OK)
        return status;
    uint64_t row = get_le64(first + PAGE_HEADER);
    uint32_t pageidx = BANK_ACCOUNTS + 1 + (uint32_t)(row / LEDGER_ROWS % BANK_LEDGER_PAGES);
    if (pageidx != BANK_ACCOUNTS + 1) {
        page = other;
        status = read_page(change, pageidx, page, err);
        if (status != GRAFT_OK)
            return status;
    }
    uint8_t *to = page + PAGE_HEADER + 8 + row % LEDGER_ROWS * LEDGER_ROW;
    put_le64(to, landed->lsn);
    memcpy(to + 8, landed->token.bytes, TOKEN_SIZE);
    put_le64(first + PAGE_HEADER, row + 1);
    page_seal(author, BANK_ACCOUNTS + 1, first, sizeof first);
    status = change_write(change, BANK_ACCOUNTS + 1, first, sizeof first, err);
    if (status == GRAFT_OK && page == other) {
        page_seal(author, pageidx, other, sizeof other);
        status = change_write(change, pageidx, other, sizeof other, err);
    }
    return status;
}

static enum graft_status bank_next(struct author *author, struct change *change, struct graft_error *err)
{
    uint8_t page[BANK_PAGE_SIZE];
    struct landed landed = recorder_landed();
    uint32_t from = 1 + (uint32_t)rng_below(author->rng, BANK_ACCOUNTS);
    uint32_t to = 1 + (from - 1 + 1 + (uint32_t)rng_below(author->rng, BANK_ACCOUNTS - 1)) % BANK_ACCOUNTS;

    enum graft_status status = read_page(change, from, page, err);
    if (status != GRAFT_OK)
        return status;
    uint64_t have = get_le64(page + PAGE_HEADER), amount = rng_below(author->rng, have + 1);
    status = write_account(author, change, from, have - amount, err);
    if (status == GRAFT_OK)
        status = read_page(change, to, page, err);
    if (status == GRAFT_OK)
        status = write_account(author, change, to, get_le64(page + PAGE_HEADER) + amount, err);
    if (status == GRAFT_OK && landed.count != author->entered.count) {
        status = bank_enter(author, change, &landed, err);
        author->entering = landed;
    }
    return status;
}

static void bank_inspect(struct line *line, const uint8_t *pages, const size_t *sizes, uint32_t page_count)
{
    uint64_t total = 0;

    if (page_count != BANK_ACCOUNTS + BANK_LEDGER_PAGES)
        return;
    for (uint32_t account = 0; account < BANK_ACCOUNTS; account++)
        total += get_le64(pages + account * SIM_PAGE_SIZE_MAX + PAGE_HEADER);
    line_add(line, ",\"total\":%llu,\"opening\":%u", (unsigned long long)total, BANK_ACCOUNTS * BANK_OPENING);
    // The rows of one of the ledger's pages are enough a read; who reads often sees them all.
    uint64_t count = get_le64(pages + BANK_ACCOUNTS * SIM_PAGE_SIZE_MAX + PAGE_HEADER);
    uint64_t first = count > 0 ? (count - 1) / LEDGER_ROWS * LEDGER_ROWS : 0;
    const uint8_t *page =
        pages + (BANK_ACCOUNTS + first / LEDGER_ROWS % BANK_LEDGER_PAGES) * SIM_PAGE_SIZE_MAX;
    line_add(line, ",\"ledger\":[");
    for (uint64_t row = first; row < count; row++) {
        const uint8_t *at = page + PAGE_HEADER + 8 + row % LEDGER_ROWS * LEDGER_ROW;
        line_add(line, "%s[%llu,\"%s\"]", row > first ? "," : "", (unsigned long long)get_le64(at),
                 hex32(at + 8).text);
    }
    line_add(line, "]");
}

// -------------------------------------------------------------------------------------------------

static const struct workload WORKLOADS[] = {
    {.name = "bank",
     .page_size = BANK_PAGE_SIZE,
     .kind = GRAFT_FIXED,
     .pages = BANK_ACCOUNTS + BANK_LEDGER_PAGES,
     .weights = {[STEP_COMMIT] = 50, [STEP_PUSH] = 30, [STEP_PULL] = 6, [STEP_READ] = 10, [STEP_PAST] = 4},
     .first = bank_first,
     .next = bank_next,
     .inspect = bank_inspect},
    {.name = "register",
     .page_size = 2048,
     .kind = GRAFT_VARIABLE,
     .pages = 48,
     .weights = {[STEP_COMMIT] = 40, [STEP_PUSH] = 25, [STEP_PULL] = 10, [STEP_READ] = 15, [STEP_PAST] = 10},
     .first = register_next,
     .next = register_next},
    {.name = "writers",
     .page_size = 512,
     .kind = GRAFT_FIXED,
     .pages = 12,
     .weights = {[STEP_COMMIT] = 35,
                 [STEP_PUSH] = 35,
                 [STEP_PULL] = 15,
                 [STEP_READ] = 10,
                 [STEP_PAST] = 5,
                 [STEP_RESET] = 3},
     .first = writers_next,
     .next = writers_next},
    {.name = "family",
     .page_size = 512,
     .kind = GRAFT_VARIABLE,
     .pages = 16,
     .weights = {[STEP_COMMIT] = 32,
                 [STEP_PUSH] = 28,
                 [STEP_PULL] = 10,
                 [STEP_READ] = 8,
                 [STEP_PAST] = 3,
                 [STEP_RESET] = 2,
                 [STEP_FORK] = 3,
                 [STEP_DELETE] = 2,
                 [STEP_VISIT] = 10},
     .first = grow_next,
     .next = grow_next},
    {.name = "grow",
     .page_size = 1024,
     .kind = GRAFT_VARIABLE,
     .pages = 40,
     .weights = {[STEP_COMMIT] = 40, [STEP_PUSH] = 25, [STEP_PULL] = 8, [STEP_READ] = 17, [STEP_PAST] = 10},
     .first = grow_next,
     .next = grow_next},
    {.name = "bulk",
     .page_size = 4096,
     .kind = GRAFT_FIXED,
     .pages = SIM_PAGES_MAX,
     .weights = {[STEP_COMMIT] = 55, [STEP_PUSH] = 35, [STEP_PULL] = 4, [STEP_READ] = 3, [STEP_PAST] = 3},
     .first = bulk_next,
     .next = bulk_next},
};

const struct workload *workload_find(const char *name)
{
    for (size_t i = 0; i < sizeof WORKLOADS / sizeof *WORKLOADS; i++) {
        if (strcmp(WORKLOADS[i].name, name) == 0)
            return &WORKLOADS[i];
    }
    return NULL;
}
