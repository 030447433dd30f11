// SPDX-License-Identifier: Apache-2.0
//
// Steps that need no server.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/client.h"
#include "client/store_internal.h"
#include "client/store_space.h"
#include "common/base/check.h"
#include "common/base/random.h"
#include "tests/sweep/replicas.h"

static uint64_t local_lsn(unsigned client, unsigned volume)
{
    struct graft_volume *opened = replica_open(client, volume);
    uint64_t lsn = replica_info(opened).local_lsn;
    graft_volume_close(opened);
    return lsn;
}

// ---- volumes

static void create(unsigned client, uint32_t page_size, char ret_vid[GRAFT_VID_SIZE])
{
    struct graft *in = client_of(client);
    struct graft_volume *made = NULL;
    struct graft_error err;
    uint64_t id = journal_invoke(client, "open", NULL);
    enum graft_status status = graft_volume_create(in, page_size, GRAFT_FIXED, &made, &err);
    journal_complete("open", id, made, status, &err);
    if (status != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "making a volume: %s", err.message);
    memcpy(ret_vid, replica_info(made).vid, GRAFT_VID_SIZE);
    graft_volume_close(made);
}

void step_create(unsigned client, unsigned volume, uint32_t page_size)
{
    replicas_before_step(client, volume);
    struct step *step = ledger_begin(0);
    if (!step->done) {
        char vid[GRAFT_VID_SIZE];
        if (!step->doubtful || !volume_find_stranger(client, vid))
            create(client, page_size, vid);
        ledger_done(step, vid);
    }
    struct volume *of = volume_of(volume);
    memcpy(of->vid, step->text, sizeof of->vid);
    of->page_size = page_size;
    of->here[client] = true;
}

void step_forget(unsigned client, unsigned volume)
{
    struct volume *of = volume_of(volume);
    replicas_before_step(client, volume);
    struct step *step = ledger_begin(0);
    if (!step->done) {
        struct graft *in = client_of(client);
        struct graft_error err;
        uint64_t id = journal_invoke(client, "forget", of->vid);
        enum graft_status status = graft_volume_delete(in, of->vid, &err);
        if (step->doubtful && status == GRAFT_NOT_FOUND)
            status = GRAFT_OK;
        journal_complete_of("forget", id, of->vid, status, &err);
        if (status != GRAFT_OK)
            ledger_fail(LEDGER_EXIT_AGAIN, "forgetting volume %u: %s", volume, err.message);
        ledger_done(step, "-");
    }
    of->here[client] = false;
}

void step_read(unsigned client, unsigned volume)
{
    // Once is enough: what comes next was begun by a process that read here.
    if (!ledger_peek()->begun)
        replica_read(client, volume);
}

void step_tidy(unsigned client)
{
    store_space_settle(client_of(client)->store->space);
}

void step_limit(unsigned client, unsigned limit_mib)
{
    struct graft_error err;
    if (graft_cache_limit_set(client_of(client), (uint64_t)limit_mib << 20, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "setting a cache limit: %s", err.message);
}

// ---- committing

static void fill_page(const struct step *step, uint32_t pageidx, uint8_t *page, uint32_t size)
{
    struct rng rng;
    rng_seed(&rng, steps_seed() ^ (uint64_t)(step->number + 1) << 32 ^ pageidx);
    for (uint32_t at = 0; at < size; at += 8) {
        uint64_t word = rng_next(&rng);
        memcpy(page + at, &word, sizeof word);
    }
}

static void write_pages(struct graft_writer *writer, const struct step *step, uint32_t page_size,
                        uint32_t first, uint32_t count, struct journal_pages *written)
{
    static uint8_t page[PAGE_SIZE_MAX];
    struct graft_error err;
    written->count = 0;
    for (uint32_t pageidx = first; pageidx < first + count; pageidx++) {
        fill_page(step, pageidx, page, page_size);
        if (graft_writer_write(writer, pageidx, page, page_size, &err) != GRAFT_OK)
            ledger_fail(LEDGER_EXIT_AGAIN, "writing page %u: %s", pageidx, err.message);
        journal_note_page(written, pageidx, page, page_size);
    }
}

static struct graft_writer *begin_writer(struct graft_volume *volume)
{
    struct graft_writer *writer;
    struct graft_error err;
    if (graft_writer_begin(volume, &writer, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "beginning to write: %s", err.message);
    return writer;
}

static void truncate_writer(struct graft_writer *writer, uint32_t keep)
{
    struct graft_error err;
    if (graft_writer_truncate(writer, keep, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "cutting: %s", err.message);
}

static struct journal_pages written;

void step_commit(unsigned client, unsigned volume, uint32_t keep, uint32_t first, uint32_t count)
{
    replicas_before_step(client, volume);
    if (ledger_peek()->done) {
        ledger_begin(0);
        return;
    }
    uint64_t before = local_lsn(client, volume);
    struct step *step = ledger_begin(before);
    if (before == step->fact) {
        struct graft_volume *opened = replica_open(client, volume);
        struct graft_writer *writer = begin_writer(opened);
        struct graft_error err;
        uint32_t cut = MIN(keep, graft_writer_page_count(writer));
        if (keep != UINT32_MAX)
            truncate_writer(writer, keep);
        write_pages(writer, step, volume_of(volume)->page_size, first, count, &written);
        if (journal_commit(client, opened, writer, &written, cut, &err) != GRAFT_OK)
            ledger_fail(LEDGER_EXIT_AGAIN, "committing: %s", err.message);
        graft_volume_close(opened);
    }
    ledger_done(step, "-");
}

// ---- prepared commits

struct decision {
    char witness[4096], record[4096], kept[4096];
};

static void decision_begin(struct decision *decision, unsigned client, unsigned volume)
{
    const char *data = client_of(client)->data;

    snprintf(decision->witness, sizeof decision->witness, "%s/witness", data);
    snprintf(decision->record, sizeof decision->record, "%s/prepared/%s", data, volume_of(volume)->vid);
    snprintf(decision->kept, sizeof decision->kept, "%s/kept", data);
    int fd = open(decision->witness, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
}

// As if the process had ended between the decision and the commit.
static void leave_decided(const struct decision *decision, struct graft_writer *writer)
{
    unlink(decision->kept);
    CHECK(link(decision->record, decision->kept) == 0);
    graft_writer_abort(writer);
    CHECK(rename(decision->kept, decision->record) == 0);
    CHECK(unlink(decision->witness) == 0);
}

static void commit_prepared(unsigned client, unsigned volume, const struct step *step, uint32_t first,
                            uint32_t count, bool late)
{
    struct graft_volume *opened = replica_open(client, volume);
    struct graft_writer *writer = begin_writer(opened);
    struct decision decision;
    struct graft_error err;
    uint64_t lsn = 0;

    decision_begin(&decision, client, volume);
    uint32_t cut = graft_writer_page_count(writer);
    write_pages(writer, step, volume_of(volume)->page_size, first, count, &written);
    uint64_t id = journal_invoke_commit(client, opened, writer, &written, cut);
    enum graft_status status = graft_writer_prepare(writer, decision.witness, &err);
    if (status != GRAFT_OK) {
        graft_writer_abort(writer);
    } else if (late) {
        leave_decided(&decision, writer);
        graft_volume_close(opened);
        client_close(client);
        // No operation of its own in the history: it is the end of this one.
        if (graft_volume_open(client_of(client), volume_of(volume)->vid, &opened, &err) != GRAFT_OK)
            ledger_fail(LEDGER_EXIT_AGAIN, "opening what was prepared: %s", err.message);
        lsn = replica_info(opened).local_lsn;
    } else {
        CHECK(unlink(decision.witness) == 0);
        status = graft_writer_commit(writer, &lsn, &err);
    }
    journal_complete_commit(id, opened, lsn, status, &err);
    if (status != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "committing what is prepared: %s", err.message);
    graft_volume_close(opened);
}

void step_commit_prepared(unsigned client, unsigned volume, uint32_t first, uint32_t count, bool late)
{
    replicas_before_step(client, volume);
    if (ledger_peek()->done) {
        ledger_begin(0);
        return;
    }
    uint64_t before = local_lsn(client, volume);
    struct step *step = ledger_begin(before);
    if (before == step->fact)
        commit_prepared(client, volume, step, first, count, late);
    ledger_done(step, "-");
}

void step_give_up(unsigned client, unsigned volume, uint32_t pages)
{
    replicas_before_step(client, volume);
    struct step *step = ledger_begin(0);
    if (step->done)
        return;
    struct graft_volume *opened = replica_open(client, volume);
    struct graft_writer *writer = begin_writer(opened);
    write_pages(writer, step, volume_of(volume)->page_size, 1, pages, &written);
    truncate_writer(writer, pages / 2);
    graft_writer_abort(writer);
    graft_volume_close(opened);
    ledger_done(step, "-");
}
