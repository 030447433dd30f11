// SPDX-License-Identifier: Apache-2.0
//
// The page-version index against a model in memory: random commits with cuts, read at every LSN, from the history and from
// the newest versions that are remembered.
#include "pagestore/page_index.h"

#include <criterion/criterion.h>
#include <rocksdb/c.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/random.h"
#include "common/base/worker.h"
#include "common/net/message.h"
#include "tests/lib/daemon.h"

#define PAGES 150u // three chunks of remembered versions
#define LSNS 300u

// One volume's history, page by page: which segment holds a page's version at an LSN, 0: none.
struct model {
    struct gid vid, sid;
    struct hash128 chain[LSNS + 1];
    uint32_t page_count[LSNS + 1];
    uint32_t segment[LSNS + 1][PAGES + 1]; // LSN that wrote the version
};

static struct commit {
    Graft__Commit message;
    Graft__SegmentRef ref, *refs[1];
    struct buffer pages;
    struct hash128 base_chain, digest, chain;
    struct token token;
    struct gid sid;
} commit;

static void build_commit(const struct model *model, const struct hash128 *base_chain, uint64_t lsn,
                         uint32_t page_count, uint32_t cut, const struct pageset *pages)
{
    struct buffer old = commit.pages;
    struct hash128 base = *base_chain; // may lie in `commit`
    buffer_release(&old);
    commit = (struct commit){
        .message = GRAFT__COMMIT__INIT, .ref = GRAFT__SEGMENT_REF__INIT, .pages = BUFFER_INIT(4096)};
    cr_assert_eq(pageset_encode(pages, &commit.pages, NULL), GRAFT_OK);
    random_bytes(&commit.token, sizeof commit.token);
    commit.base_chain = base;
    commit.chain =
        chain_next(&commit.base_chain, &model->vid, lsn, &commit.token, &commit.digest, page_count);
    commit.sid = model->sid;
    put_be64(commit.sid.bytes + 8, lsn); // a segment for each commit
    commit.ref.sid = (ProtobufCBinaryData){GID_SIZE, commit.sid.bytes};
    commit.ref.owner = (ProtobufCBinaryData){GID_SIZE, (uint8_t *)model->vid.bytes};
    commit.ref.pages = (ProtobufCBinaryData){commit.pages.size, commit.pages.data};
    commit.refs[0] = &commit.ref;
    Graft__Commit *message = &commit.message;
    message->vid = commit.ref.owner;
    message->lsn = lsn;
    message->base_lsn = lsn - 1;
    message->base_chain = (ProtobufCBinaryData){HASH_SIZE, commit.base_chain.bytes};
    message->token = (ProtobufCBinaryData){TOKEN_SIZE, commit.token.bytes};
    message->digest = (ProtobufCBinaryData){HASH_SIZE, commit.digest.bytes};
    message->chain = (ProtobufCBinaryData){HASH_SIZE, commit.chain.bytes};
    message->page_count = page_count;
    message->cut = cut;
    message->segments = commit.refs;
    message->n_segments = pageset_is_empty(pages) ? 0 : 1;
}

// Draws the next commit, writes it down in the model, leaves it in `commit`.
static void next_commit(struct model *model, struct rng *rng, uint64_t lsn)
{
    uint32_t before = model->page_count[lsn - 1];
    uint32_t after = rng_below(rng, 4) ? MAX(before, (uint32_t)rng_below(rng, PAGES + 1))
                                       : (uint32_t)rng_below(rng, PAGES + 1);
    uint32_t cut = MIN(before, after);
    if (rng_below(rng, 6) == 0)
        cut = (uint32_t)rng_below(rng, cut + 1); // cut and grown again within the commit
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    for (uint64_t i = rng_below(rng, 12); after && i > 0; i--)
        pageset_add(pages, 1 + (uint32_t)rng_below(rng, after));
    build_commit(model, &model->chain[lsn - 1], lsn, after, cut, pages);
    for (uint32_t p = 1; p <= PAGES; p++) {
        model->segment[lsn][p] = p <= cut ? model->segment[lsn - 1][p] : 0;
        if (pageset_contains(pages, p))
            model->segment[lsn][p] = (uint32_t)lsn;
    }
    model->chain[lsn] = commit.chain;
    model->page_count[lsn] = after;
}

static void check_pages(struct page_index *index, struct index_volume *volume, const struct model *model,
                        uint64_t lsn, const struct pageset *pages)
{
    struct page_version versions[PAGES];
    struct graft_error err;
    cr_assert_eq(index_volume_resolve(volume, lsn, pages, versions, &err), GRAFT_OK, "%s", err.message);
    struct pageset_cursor cursor = pageset_cursor(pages);
    uint32_t p;
    for (size_t i = 0; pageset_next(&cursor, &p); i++) {
        cr_assert_eq(versions[i].pageidx, p);
        uint32_t wrote = 0;
        if (versions[i].segment) {
            struct segment_place place;
            cr_assert_eq(page_index_segment(index, versions[i].segment, &place, &err), GRAFT_OK);
            cr_assert(gid_equal(&place.owner, &model->vid));
            wrote = (uint32_t)get_be64(place.sid.bytes + 8);
        }
        cr_assert_eq(wrote, model->segment[lsn][p], "page %u at LSN %llu: segment %u, not %u", p,
                     (unsigned long long)lsn, wrote, model->segment[lsn][p]);
    }
}

static void check_snapshot(struct page_index *index, struct index_volume *volume, const struct model *model,
                           uint64_t lsn)
{
    _cleanup_(pageset_free_p) struct pageset *all = pageset_new();
    struct graft_error err;
    struct index_state at;
    pageset_add_run(all, 1, PAGES);
    check_pages(index, volume, model, lsn, all);
    cr_assert_eq(index_volume_commit_at(volume, lsn, &at, &err), GRAFT_OK);
    cr_assert(hash_equal(&at.chain, &model->chain[lsn]));
    cr_assert_eq(at.page_count, model->page_count[lsn]);
}

static struct model *model_new(void)
{
    struct model *model = calloc(1, sizeof *model);
    cr_assert(model);
    model->vid = gid_make(GID_VOLUME, 1);
    model->sid = gid_make(GID_SEGMENT, 1);
    return model;
}

static struct page_index *open_index_with(const char *folder, struct metrics *metrics)
{
    char path[4096];
    struct page_index *index;
    struct graft_error err;
    snprintf(path, sizeof path, "%s/index", folder);
    struct page_index_settings settings = {.path = path, .metrics = metrics};
    cr_assert_eq(page_index_open(&settings, &index, &err), GRAFT_OK, "%s", err.message);
    return index;
}

static struct page_index *open_index(const char *folder)
{
    return open_index_with(folder, NULL);
}

static struct index_volume *volume_of(struct page_index *index, const struct model *model)
{
    struct index_volume *volume;
    cr_assert_eq(page_index_volume(index, &model->vid, &volume, NULL), GRAFT_OK);
    return volume;
}

Test(page_index, equals_a_model_at_every_lsn_and_after_reopening)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct model *models[2] = {model_new(),
                               model_new()}; // two volumes, so that one's keys border the other's
    struct page_index *index = open_index(folder);
    struct rng rng;
    struct graft_error err;
    rng_seed(&rng, 7);
    for (uint64_t lsn = 1; lsn <= LSNS; lsn++) {
        for (int i = 0; i < 2; i++) {
            struct index_volume *volume = volume_of(index, models[i]);
            next_commit(models[i], &rng, lsn);
            cr_assert_eq(index_volume_apply(volume, &commit.message, &err), GRAFT_OK, "%s", err.message);
            index_volume_release(volume);
        }
        if (lsn == LSNS / 2) {
            page_index_close(index);
            index = open_index(folder);
        }
    }
    for (int i = 0; i < 2; i++) {
        struct index_volume *volume = volume_of(index, models[i]);
        cr_assert_eq(index_volume_state(volume).lsn, LSNS);
        for (uint64_t lsn = 1; lsn <= LSNS; lsn++)
            check_snapshot(index, volume, models[i], lsn);
        index_volume_release(volume);
        free(models[i]);
    }
    page_index_close(index);
}

// Some pages at the head or at any LSN before, so that what is remembered is of all ages.
static void read_somewhere(struct page_index *index, struct index_volume *volume, const struct model *model,
                           struct rng *rng)
{
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    uint64_t head = index_volume_state(volume).lsn;
    uint64_t lsn = rng_below(rng, 2) ? head : 1 + rng_below(rng, head);
    uint32_t first = 1 + (uint32_t)rng_below(rng, PAGES);
    pageset_add_run(pages, first, 1 + (uint32_t)rng_below(rng, PAGES - first + 1));
    for (int i = 0; i < 3; i++)
        pageset_add(pages, 1 + (uint32_t)rng_below(rng, PAGES));
    check_pages(index, volume, model, lsn, pages);
}

// A commit with a cut and whose last reference is no such thing: nothing of it may be met when its LSN is another one's.
static void add_malformed(struct index_volume *volume, const struct model *model, struct rng *rng)
{
    _cleanup_(free_p) struct model *scratch = malloc(sizeof *scratch);
    uint64_t lsn = index_volume_state(volume).lsn + 1;
    Graft__SegmentRef broken = GRAFT__SEGMENT_REF__INIT, *refs[] = {&commit.ref, &broken};
    *scratch = *model;
    next_commit(scratch, rng, lsn);
    commit.message.segments = refs;
    commit.message.n_segments = 2;
    cr_assert_eq(index_volume_add(volume, &commit.message, NULL), GRAFT_CORRUPT);
}

Test(page_index, equals_a_model_read_while_it_grows)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct model *models[2] = {model_new(), model_new()};
    struct metrics *metrics = metrics_new();
    struct page_index *index = open_index_with(folder, metrics);
    struct index_volume *volumes[2] = {volume_of(index, models[0]), volume_of(index, models[1])};
    struct rng rng;
    struct graft_error err;
    rng_seed(&rng, 33);
    for (uint64_t lsn = 1; lsn <= LSNS; lsn++) {
        for (int i = 0; i < 2; i++) {
            next_commit(models[i], &rng, lsn);
            cr_assert_eq(index_volume_add(volumes[i], &commit.message, &err), GRAFT_OK, "%s", err.message);
            if (lsn > 1)
                read_somewhere(index, volumes[i], models[i], &rng); // beside what is not published
            cr_assert_eq(index_volume_publish(volumes[i], &err), GRAFT_OK, "%s", err.message);
            for (int reads = 0; reads < 4; reads++)
                read_somewhere(index, volumes[i], models[i], &rng);
            if (lsn < LSNS && rng_below(&rng, 8) == 0)
                add_malformed(volumes[i], models[i], &rng);
            read_somewhere(index, volumes[i], models[i], &rng);
        }
        // A history begins anew, with what was remembered of the old one under the same pages.
        if (lsn == LSNS / 2) {
            struct gid vid = models[1]->vid;
            free(models[1]);
            models[1] = model_new();
            models[1]->vid = vid;
            cr_assert_eq(index_volume_drop(volumes[1], &err), GRAFT_OK);
            for (uint64_t again = 1; again <= lsn; again++) {
                next_commit(models[1], &rng, again);
                cr_assert_eq(index_volume_apply(volumes[1], &commit.message, &err), GRAFT_OK);
            }
        }
    }
    int64_t remembered = metric_value(metrics_counter(metrics, "graft_index_remembered_total", NULL, ""));
    int64_t seeks = metric_value(metrics_counter(metrics, "graft_index_seeks_total", NULL, ""));
    cr_assert(remembered > 1000 && seeks > 1000, "%lld remembered, %lld sought", (long long)remembered,
              (long long)seeks);
    for (int i = 0; i < 2; i++) {
        for (uint64_t lsn = LSNS; lsn > 0; lsn--)
            check_snapshot(index, volumes[i], models[i], lsn);
        index_volume_release(volumes[i]);
        free(models[i]);
    }
    page_index_close(index);
    metrics_free(metrics);
}

// ---- readers beside the writer

struct reading {
    struct page_index *index;
    struct index_volume *volume;
    const struct model *model; // whole before the readers start
    atomic_uint failures, reads;
};

static void read_beside(struct worker *worker, void *context)
{
    struct reading *reading = context;
    _cleanup_(pageset_free_p) struct pageset *all = pageset_new();
    struct page_version versions[PAGES];
    struct segment_place place;
    pageset_add_run(all, 1, PAGES);
    while (!worker_stopping(worker)) {
        uint64_t lsn = index_volume_state(reading->volume).lsn;
        if (lsn == 0 || index_volume_resolve(reading->volume, lsn, all, versions, NULL) != GRAFT_OK)
            continue;
        for (uint32_t p = 1; p <= PAGES; p++) {
            uint32_t wrote = 0;
            if (versions[p - 1].segment) {
                if (page_index_segment(reading->index, versions[p - 1].segment, &place, NULL) != GRAFT_OK)
                    atomic_fetch_add(&reading->failures, 1);
                wrote = (uint32_t)get_be64(place.sid.bytes + 8);
            }
            if (wrote != reading->model->segment[lsn][p])
                atomic_fetch_add(&reading->failures, 1);
        }
        atomic_fetch_add(&reading->reads, 1);
    }
}

// The history is made twice from one seed: into the model before the readers start, into the index beside them.
Test(page_index, readers_beside_the_writer_see_their_snapshots)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct model *model = model_new();
    struct reading reading = {.index = open_index(folder), .model = model};
    struct worker workers[2] = {0};
    struct rng rng;
    struct graft_error err;
    reading.volume = volume_of(reading.index, model);
    rng_seed(&rng, 44);
    for (uint64_t lsn = 1; lsn <= LSNS; lsn++)
        next_commit(model, &rng, lsn);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(worker_start(&workers[i], "reader", read_beside, &reading, &err), GRAFT_OK);
    struct model *again = model_new();
    again->vid = model->vid;
    rng_seed(&rng, 44);
    for (uint64_t lsn = 1; lsn <= LSNS; lsn++) {
        unsigned before = atomic_load(&reading.reads);
        next_commit(again, &rng, lsn);
        cr_assert_eq(index_volume_apply(reading.volume, &commit.message, &err), GRAFT_OK, "%s", err.message);
        while (lsn % 8 == 0 && atomic_load(&reading.reads) == before)
            sched_yield();
    }
    for (int i = 0; i < 2; i++)
        worker_request_stop(&workers[i]);
    for (int i = 0; i < 2; i++)
        worker_join(&workers[i]);
    cr_assert_eq(atomic_load(&reading.failures), 0);
    cr_assert_gt(atomic_load(&reading.reads), 0);
    index_volume_release(reading.volume);
    page_index_close(reading.index);
    free(model);
    free(again);
}

// Several volumes' commits wait for their publishing at the same time, and go out in another order than they came.
Test(page_index, volumes_that_are_added_to_in_turns_share_no_segment_numbers)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct model *models[2] = {model_new(), model_new()};
    struct page_index *index = open_index(folder);
    struct rng rng;
    struct graft_error err;
    rng_seed(&rng, 55);
    for (uint64_t lsn = 1; lsn <= 20; lsn++) {
        struct index_volume *volumes[2] = {volume_of(index, models[0]), volume_of(index, models[1])};
        for (int i = 0; i < 2; i++) {
            next_commit(models[i], &rng, lsn);
            cr_assert_eq(index_volume_add(volumes[i], &commit.message, &err), GRAFT_OK, "%s", err.message);
        }
        for (int i = 1; i >= 0; i--) {
            cr_assert_eq(index_volume_publish(volumes[i], &err), GRAFT_OK, "%s", err.message);
            index_volume_release(volumes[i]);
        }
        page_index_close(index);
        index = open_index(folder);
    }
    for (int i = 0; i < 2; i++) {
        struct index_volume *volume = volume_of(index, models[i]);
        for (uint64_t lsn = 1; lsn <= 20; lsn++)
            check_snapshot(index, volume, models[i], lsn);
        index_volume_release(volume);
        free(models[i]);
    }
    page_index_close(index);
}

static struct buffer packed[LSNS + 1]; // whole commits, to be added in another process and again

static void add_packed(struct index_volume *volume, uint64_t lsn)
{
    ProtobufCMessage *message;
    struct graft_error err;
    cr_assert_eq(
        message_decode(&graft__commit__descriptor, buffer_bytes(&packed[lsn]), 1 << 20, &message, &err),
        GRAFT_OK);
    cr_assert_eq(index_volume_add(volume, (const Graft__Commit *)message, &err), GRAFT_OK, "%s", err.message);
    message_free(message);
}

// Finds what those before it published, and perhaps more; publishes some commits, adds others, and dies.
static void go_on_and_die(const char *folder, const struct model *model, uint64_t published)
{
    struct page_index *index = open_index(folder);
    struct index_volume *volume = volume_of(index, model);
    uint64_t applied = index_volume_state(volume).lsn;
    cr_assert_geq(applied, published);
    for (uint64_t lsn = 1; lsn <= applied; lsn++)
        check_snapshot(index, volume, model, lsn);
    for (uint64_t lsn = applied + 1; lsn <= published + 50; lsn++) {
        add_packed(volume, lsn);
        if (lsn == published + 20)
            cr_assert_eq(index_volume_publish(volume, NULL), GRAFT_OK);
    }
    _exit(0);
}

Test(page_index, a_process_that_dies_between_its_writes_is_followed_by_one_that_goes_on)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct model *model = model_new();
    struct rng rng;
    rng_seed(&rng, 66);
    for (uint64_t lsn = 1; lsn <= LSNS; lsn++) {
        next_commit(model, &rng, lsn);
        packed[lsn] = (struct buffer)BUFFER_INIT(1 << 20);
        cr_assert_eq(message_encode(&commit.message.base, &packed[lsn], NULL), GRAFT_OK);
    }
    // RocksDB's threads would not come along into a child: this process opens the index when all have died.
    for (uint64_t applied = 0; applied < 100; applied += 20) {
        int wait_status;
        pid_t child = fork();
        if (child == 0)
            go_on_and_die(folder, model, applied);
        cr_assert_eq(waitpid(child, &wait_status, 0), child);
        cr_assert_eq(wait_status, 0);
    }
    struct page_index *index = open_index(folder);
    struct index_volume *volume = volume_of(index, model);
    cr_assert_geq(index_volume_state(volume).lsn, 100);
    for (uint64_t lsn = index_volume_state(volume).lsn + 1; lsn <= LSNS; lsn++)
        add_packed(volume, lsn);
    cr_assert_eq(index_volume_publish(volume, NULL), GRAFT_OK);
    for (uint64_t lsn = 1; lsn <= LSNS; lsn++) {
        check_snapshot(index, volume, model, lsn);
        buffer_release(&packed[lsn]);
    }
    index_volume_release(volume);
    page_index_close(index);
    free(model);
}

// One commit of more pages than a batch has puts, and one that cuts: a process that ends in the middle of it has written a
// part. Then the metastore, restored meanwhile, has another commit in its place, without those pages and without the cut.
static void die_in_a_commit(const char *folder, const struct model *model, bool cuts)
{
    struct page_index *index = open_index(folder);
    struct index_volume *volume = volume_of(index, model);
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    struct hash128 base = index_volume_state(volume).chain;
    cr_assert_eq(index_volume_state(volume).lsn, 20);
    pageset_add_run(pages, 1, cuts ? 1 : 1500);
    build_commit(model, &base, 21, 2000, cuts ? 0 : model->page_count[20], pages);
    cr_assert_eq(index_volume_add(volume, &commit.message, NULL), GRAFT_OK);
    _exit(0);
}

static void expect_nothing_left(bool cuts)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct model *model = model_new();
    struct rng rng;
    struct graft_error err;
    int wait_status;
    rng_seed(&rng, 79);
    for (uint64_t lsn = 1; lsn <= 40; lsn++) {
        next_commit(model, &rng, lsn);
        packed[lsn] = (struct buffer)BUFFER_INIT(1 << 20);
        cr_assert_eq(message_encode(&commit.message.base, &packed[lsn], NULL), GRAFT_OK);
    }
    cr_assert_gt(model->page_count[20], 0);
    pid_t child = fork();
    if (child == 0) {
        struct page_index *index = open_index(folder);
        struct index_volume *volume = volume_of(index, model);
        for (uint64_t lsn = 1; lsn <= 20; lsn++)
            add_packed(volume, lsn);
        cr_assert_eq(index_volume_publish(volume, NULL), GRAFT_OK);
        index_volume_release(volume);
        page_index_close(index);
        die_in_a_commit(folder, model, cuts);
    }
    cr_assert_eq(waitpid(child, &wait_status, 0), child);
    cr_assert_eq(wait_status, 0);
    struct page_index *index = open_index(folder);
    struct index_volume *volume = volume_of(index, model);
    cr_assert_eq(index_volume_state(volume).lsn, 20);
    ProtobufCMessage *message;
    cr_assert_eq(
        message_decode(&graft__commit__descriptor, buffer_bytes(&packed[21]), 1 << 20, &message, &err),
        GRAFT_OK);
    cr_assert_eq(index_volume_add(volume, (const Graft__Commit *)message, &err), GRAFT_UNAVAILABLE);
    message_free(message);
    cr_assert_eq(err.detail, GRAFT_DETAIL_BEHIND, "%s", err.message);
    cr_assert_eq(index_volume_state(volume).lsn, 0);
    for (uint64_t lsn = 1; lsn <= 40; lsn++)
        add_packed(volume, lsn);
    cr_assert_eq(index_volume_publish(volume, NULL), GRAFT_OK);
    for (uint64_t lsn = 1; lsn <= 40; lsn++) {
        check_snapshot(index, volume, model, lsn);
        buffer_release(&packed[lsn]);
    }
    index_volume_release(volume);
    page_index_close(index);
    free(model);
}

Test(page_index, entries_of_a_commit_that_was_not_finished_are_not_taken_over_by_another)
{
    expect_nothing_left(false);
}

Test(page_index, the_cut_of_a_commit_that_was_not_finished_is_not_taken_over_by_another)
{
    expect_nothing_left(true);
}

// What a metastore does not write: refused before anything of it is in the index.
Test(page_index, a_commit_that_is_not_what_a_metastore_writes_is_refused)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct model *model = model_new(), *scratch = model_new();
    struct page_index *index = open_index(folder);
    struct index_volume *volume = volume_of(index, model);
    uint8_t everything[] = {0, 0xff, 0xff, 0xff, 0xff, 0x0f}, broken[] = {0, 0}, short_gid[15] = {0};
    struct graft_error err;
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    pageset_add_run(pages, 1, 100);
    build_commit(model, &model->chain[0], 1, 100, 0, pages);
    cr_assert_eq(index_volume_apply(volume, &commit.message, &err), GRAFT_OK, "%s", err.message);
    struct hash128 chain = commit.chain;
    for (int change = 0; change < 8; change++) {
        build_commit(model, &chain, 2, 100, 100, pages);
        Graft__Commit *message = &commit.message;
        switch (change) {
        case 0: // four thousand million pages
            commit.ref.pages = (ProtobufCBinaryData){sizeof everything, everything};
            break;
        case 1:
            commit.ref.pages = (ProtobufCBinaryData){sizeof broken, broken};
            break;
        case 2:
            commit.ref.structural = (ProtobufCBinaryData){sizeof broken, broken};
            break;
        case 3:
            commit.ref.sid = (ProtobufCBinaryData){sizeof short_gid, short_gid};
            break;
        case 4:
            commit.ref.owner = commit.ref.sid; // no volume
            break;
        case 5:
            message->cut = 101;
            break;
        case 6:
            message->page_count = 99; // not what the chain says
            break;
        case 7:
            message->vid = (ProtobufCBinaryData){GID_SIZE, scratch->vid.bytes};
            break;
        }
        cr_assert_eq(index_volume_apply(volume, message, &err), GRAFT_CORRUPT, "change %d", change);
        cr_assert_eq(err.detail, GRAFT_DETAIL_BAD_MESSAGE, "change %d: %s", change, err.message);
        cr_assert_eq(index_volume_state(volume).lsn, 1);
    }
    build_commit(model, &chain, 2, 100, 100, pages);
    cr_assert_eq(index_volume_apply(volume, &commit.message, &err), GRAFT_OK, "%s", err.message);
    index_volume_release(volume);
    page_index_close(index);
    free(model);
    free(scratch);
}

Test(page_index, refuses_what_does_not_continue_the_chain)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct model *model = model_new();
    struct page_index *index = open_index(folder);
    struct index_volume *volume = volume_of(index, model);
    struct rng rng;
    struct graft_error err;
    rng_seed(&rng, 8);
    next_commit(model, &rng, 1);
    cr_assert_eq(index_volume_apply(volume, &commit.message, &err), GRAFT_OK);
    cr_assert_eq(index_volume_apply(volume, &commit.message, &err), GRAFT_CORRUPT); // LSN 1 again
    next_commit(model, &rng, 2);
    commit.base_chain.bytes[0] ^= 1;
    cr_assert_eq(index_volume_apply(volume, &commit.message, &err),
                 GRAFT_CORRUPT); // chain is not of this base
    commit.chain =
        chain_next(&commit.base_chain, &model->vid, 2, &commit.token, &commit.digest, model->page_count[2]);
    cr_assert_eq(index_volume_apply(volume, &commit.message, &err), GRAFT_CORRUPT);
    cr_assert_eq(err.detail, GRAFT_DETAIL_CHAIN_MISMATCH);
    cr_assert_eq(index_volume_state(volume).lsn, 1);
    index_volume_release(volume);
    page_index_close(index);
    free(model);
}

Test(page_index, commits_added_are_seen_all_at_once_when_they_are_published)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct model *model = model_new();
    struct page_index *index = open_index(folder);
    struct index_volume *volume = volume_of(index, model);
    struct rng rng;
    struct graft_error err;
    rng_seed(&rng, 21);
    for (uint64_t lsn = 1; lsn <= 30; lsn++) {
        next_commit(model, &rng, lsn);
        cr_assert_eq(index_volume_add(volume, &commit.message, &err), GRAFT_OK, "%s", err.message);
        cr_assert_eq(index_volume_state(volume).lsn, lsn <= 20 ? 0 : 20);
        if (lsn == 20)
            cr_assert_eq(index_volume_publish(volume, &err), GRAFT_OK);
    }
    check_snapshot(index, volume, model, 20);
    // What does not continue the chain is refused; what came before it stays.
    commit.chain.bytes[0] ^= 1;
    cr_assert_eq(index_volume_add(volume, &commit.message, &err), GRAFT_CORRUPT);
    cr_assert_eq(index_volume_state(volume).lsn, 20);
    cr_assert_eq(index_volume_publish(volume, &err), GRAFT_OK);
    cr_assert_eq(index_volume_state(volume).lsn, 30);
    cr_assert_eq(index_volume_publish(volume, &err), GRAFT_OK); // nothing
    for (uint64_t lsn = 1; lsn <= 30; lsn++)
        check_snapshot(index, volume, model, lsn);
    index_volume_release(volume);
    page_index_close(index);
    free(model);
}

Test(page_index, a_dropped_volume_starts_anew_and_nothing_of_it_is_met)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct model *model = model_new(), *other = model_new();
    struct page_index *index = open_index(folder);
    struct index_volume *volume = volume_of(index, model);
    struct rng rng;
    struct graft_error err;
    rng_seed(&rng, 9);
    for (uint64_t lsn = 1; lsn <= 20; lsn++) {
        next_commit(model, &rng, lsn);
        cr_assert_eq(index_volume_apply(volume, &commit.message, &err), GRAFT_OK);
    }
    cr_assert_eq(index_volume_drop(volume, &err), GRAFT_OK);
    cr_assert_eq(index_volume_state(volume).lsn, 0);
    other->vid = model->vid; // another history of the same volume
    for (uint64_t lsn = 1; lsn <= 10; lsn++) {
        next_commit(other, &rng, lsn);
        cr_assert_eq(index_volume_apply(volume, &commit.message, &err), GRAFT_OK, "%s", err.message);
    }
    for (uint64_t lsn = 1; lsn <= 10; lsn++)
        check_snapshot(index, volume, other, lsn);
    struct page_version version;
    _cleanup_(pageset_free_p) struct pageset *one = pageset_new();
    pageset_add(one, 1);
    cr_assert_eq(index_volume_resolve(volume, 11, one, &version, &err), GRAFT_UNAVAILABLE);
    index_volume_release(volume);
    page_index_close(index);
    free(model);
    free(other);
}

// RocksDB's work for a read of `pages`, page 5 and at most nine others, at `lsn`.
static uint64_t cost_of(struct index_volume *volume, const struct pageset *pages, uint64_t lsn)
{
    rocksdb_perfcontext_t *context = rocksdb_perfcontext_create();
    struct page_version versions[10];
    struct graft_error err;
    rocksdb_perfcontext_reset(context);
    cr_assert_eq(index_volume_resolve(volume, lsn, pages, versions, &err), GRAFT_OK, "%s", err.message);
    uint64_t cost = rocksdb_perfcontext_metric(context, rocksdb_internal_key_skipped_count) +
                    rocksdb_perfcontext_metric(context, rocksdb_seek_on_memtable_count) +
                    rocksdb_perfcontext_metric(context, rocksdb_next_on_memtable_count);
    for (uint64_t i = 0; i < pageset_count(pages); i++)
        cr_assert_neq(versions[i].segment, 0);
    rocksdb_perfcontext_destroy(context);
    return cost;
}

// A page that is rewritten ever so often is found with the same work as one that was written once, in the history; and with
// none where the newest version is remembered.
Test(page_index, a_look_up_costs_the_same_after_20000_commits)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct model *model = model_new();
    struct page_index *index = open_index(folder);
    struct index_volume *volume = volume_of(index, model);
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new(), *one = pageset_new();
    uint64_t cost[2] = {0};
    struct graft_error err;
    pageset_add_run(pages, 1, 10);
    pageset_add(one, 5);
    rocksdb_set_perf_level(rocksdb_enable_count);
    for (uint64_t lsn = 1; lsn <= 20000; lsn++) {
        build_commit(model, lsn == 1 ? &model->chain[0] : &commit.chain, lsn, 10, lsn == 1 ? 0 : 10,
                     lsn == 1 ? pages : one);
        cr_assert_eq(index_volume_apply(volume, &commit.message, &err), GRAFT_OK, "%s", err.message);
        if (lsn != 20 && lsn != 20000)
            continue;
        cost[lsn != 20] = cost_of(volume, one, lsn - 1); // not the newest version of page 5
        cost_of(volume, pages, lsn);
        cr_assert_eq(cost_of(volume, pages, lsn), 0);
    }
    cr_assert_gt(cost[0], 0);
    cr_assert_leq(cost[1], cost[0] + 20, "%llu at 20 commits, %llu at 20,000", (unsigned long long)cost[0],
                  (unsigned long long)cost[1]);
    index_volume_release(volume);
    page_index_close(index);
    free(model);
}
