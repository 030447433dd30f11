// SPDX-License-Identifier: Apache-2.0
//
// The page-version index against a model in memory: random commits with cuts, read at every LSN.
#include "pagestore/page_index.h"

#include <criterion/criterion.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/random.h"
#include "tests/lib/daemon.h"

#define PAGES 64u
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
    commit = (struct commit){.message = GRAFT__COMMIT__INIT, .ref = GRAFT__SEGMENT_REF__INIT, .pages = BUFFER_INIT(4096)};
    cr_assert_eq(pageset_encode(pages, &commit.pages, NULL), GRAFT_OK);
    random_bytes(&commit.token, sizeof commit.token);
    commit.base_chain = base;
    commit.chain = chain_next(&commit.base_chain, &model->vid, lsn, &commit.token, &commit.digest, page_count);
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

static void check_snapshot(struct page_index *index, struct index_volume *volume, const struct model *model,
                           uint64_t lsn)
{
    _cleanup_(pageset_free_p) struct pageset *all = pageset_new();
    struct page_version versions[PAGES];
    struct graft_error err;
    pageset_add_run(all, 1, PAGES);
    cr_assert_eq(index_volume_resolve(volume, lsn, all, versions, &err), GRAFT_OK, "%s", err.message);
    for (uint32_t p = 1; p <= PAGES; p++) {
        cr_assert_eq(versions[p - 1].pageidx, p);
        uint32_t wrote = 0;
        if (versions[p - 1].segment) {
            struct segment_place place;
            cr_assert_eq(page_index_segment(index, versions[p - 1].segment, &place, &err), GRAFT_OK);
            cr_assert(gid_equal(&place.owner, &model->vid));
            wrote = (uint32_t)get_be64(place.sid.bytes + 8);
        }
        cr_assert_eq(wrote, model->segment[lsn][p], "page %u at LSN %llu: segment %u, not %u", p,
                     (unsigned long long)lsn, wrote, model->segment[lsn][p]);
    }
    struct index_state at;
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

static struct page_index *open_index(const char *folder)
{
    char path[4096];
    struct page_index *index;
    struct graft_error err;
    snprintf(path, sizeof path, "%s/index", folder);
    cr_assert_eq(page_index_open(path, NULL, &index, &err), GRAFT_OK, "%s", err.message);
    return index;
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
    struct model *models[2] = {model_new(), model_new()}; // two volumes, so that one's keys border the other's
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
    cr_assert_eq(index_volume_apply(volume, &commit.message, &err), GRAFT_CORRUPT); // chain is not of this base
    commit.chain = chain_next(&commit.base_chain, &model->vid, 2, &commit.token, &commit.digest, model->page_count[2]);
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
    // What does not continue the chain takes along what was not published.
    commit.chain.bytes[0] ^= 1;
    cr_assert_eq(index_volume_add(volume, &commit.message, &err), GRAFT_CORRUPT);
    cr_assert_eq(index_volume_publish(volume, &err), GRAFT_OK);
    cr_assert_eq(index_volume_state(volume).lsn, 20);
    for (uint64_t lsn = 1; lsn <= 20; lsn++)
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

// A page that is rewritten ever so often is found with the same work as one that was written once.
Test(page_index, a_look_up_costs_the_same_after_20000_commits)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct model *model = model_new();
    struct page_index *index = open_index(folder);
    struct index_volume *volume = volume_of(index, model);
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new(), *one = pageset_new();
    rocksdb_perfcontext_t *context = rocksdb_perfcontext_create();
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
        struct page_version versions[10];
        rocksdb_perfcontext_reset(context);
        cr_assert_eq(index_volume_resolve(volume, lsn, pages, versions, &err), GRAFT_OK);
        cost[lsn != 20] = rocksdb_perfcontext_metric(context, rocksdb_internal_key_skipped_count) +
                          rocksdb_perfcontext_metric(context, rocksdb_seek_on_memtable_count) +
                          rocksdb_perfcontext_metric(context, rocksdb_next_on_memtable_count);
        cr_assert_eq(versions[4].pageidx, 5);
        cr_assert_neq(versions[4].segment, 0);
    }
    rocksdb_perfcontext_destroy(context);
    cr_assert_gt(cost[0], 0);
    cr_assert_leq(cost[1], cost[0] + 20, "%llu at 20 commits, %llu at 20,000", (unsigned long long)cost[0],
                  (unsigned long long)cost[1]);
    index_volume_release(volume);
    page_index_close(index);
    free(model);
}
