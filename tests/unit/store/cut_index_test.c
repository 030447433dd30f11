// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <string.h>

#include "common/base/random.h"
#include "common/store/cut_index.h"
#include "common/store/rocksdb_util.h"
#include "tests/unit/store/temp_folder.h"

#define LSN_COUNT 100000u

static struct temp_folder folder;
static struct rocks *rocks;

static void set_up(void)
{
    static const struct rocks_family families[] = {{.name = "cuts"}};
    static const struct rocks_settings settings = {
        .block_cache_size = 8 << 20, .write_buffer_size = 8 << 20, .max_open_files = 64};
    struct graft_error error;
    temp_folder_init(&folder);
    cr_assert_eq(rocks_open(folder.path, &settings, families, 1, &rocks, &error), GRAFT_OK, "%s",
                 error.message);
}

static void tear_down(void)
{
    rocks_close(rocks);
    temp_folder_release(&folder);
}

TestSuite(cut_index, .init = set_up, .fini = tear_down, .timeout = 120);

static const struct bytes volume = {(const uint8_t *)"\0\0\0\7", 4};
static const struct bytes neighbour = {(const uint8_t *)"\0\0\0\10", 4};

static void put(rocksdb_writebatch_wi_t *batch, struct bytes prefix, uint64_t lsn, uint32_t cut)
{
    struct graft_error error;
    cr_assert_eq(cut_index_put(rocks->db, rocks->families[0], rocks->read, batch, prefix, lsn, cut, &error),
                 GRAFT_OK, "%s", error.message);
}

static void write_batch(rocksdb_writebatch_wi_t *batch)
{
    char *message = NULL;
    rocksdb_write_writebatch_wi(rocks->db, rocks->write, batch, &message);
    cr_assert_null(message);
    rocksdb_writebatch_wi_clear(batch);
}

static uint32_t lowest(struct cut_reader *reader, uint64_t after, uint64_t upto)
{
    struct graft_error error;
    uint32_t cut = 0;
    cr_assert_eq(cut_reader_lowest(reader, after, upto, &cut, &error), GRAFT_OK, "%s", error.message);
    return cut;
}

static uint32_t model_lowest(const uint32_t *model, uint64_t after, uint64_t upto)
{
    uint32_t cut = CUT_NONE;
    for (uint64_t lsn = after + 1; lsn <= upto; lsn++)
        cut = MIN(cut, model[lsn]);
    return cut;
}

// Cuts at one in `every` of the LSNs, several to a batch so that they must see each other.
static uint32_t *fill(uint64_t seed, uint64_t every)
{
    uint32_t *model = malloc((LSN_COUNT + 1) * sizeof *model);
    struct rng rng;
    rng_seed(&rng, seed);
    _cleanup_(rocks_indexed_batch_free_p) rocksdb_writebatch_wi_t *batch = rocksdb_writebatch_wi_create(0, 1);
    for (uint64_t lsn = 1; lsn <= LSN_COUNT; lsn++) {
        model[lsn] = CUT_NONE;
        if (rng_below(&rng, every) == 0) {
            model[lsn] = (uint32_t)rng_below(&rng, 1u << 30);
            put(batch, volume, lsn, model[lsn]);
        }
        if (rng_below(&rng, 50) == 0)
            write_batch(batch);
    }
    write_batch(batch);
    return model;
}

static void compare(uint64_t seed, uint64_t every, unsigned queries)
{
    _cleanup_(free_p) uint32_t *model = fill(seed, every);
    _cleanup_(cut_reader_close_p) struct cut_reader *reader =
        cut_reader_open(rocks->db, rocks->families[0], volume);
    struct rng rng;
    rng_seed(&rng, seed + 1);
    for (unsigned i = 0; i < queries; i++) {
        uint64_t after = rng_below(&rng, LSN_COUNT), upto = after + rng_below(&rng, LSN_COUNT - after + 1);
        if (i % 4 == 0)
            upto = MIN((uint64_t)LSN_COUNT, after + rng_below(&rng, 200));
        cr_assert_eq(lowest(reader, after, upto), model_lowest(model, after, upto), "(%lu, %lu]", after,
                     upto);
    }
}

Test(cut_index, agrees_with_a_scan_when_every_commit_cuts)
{
    compare(1, 1, 2000);
}

Test(cut_index, agrees_with_a_scan_when_few_commits_cut)
{
    compare(2, 700, 2000);
}

Test(cut_index, finds_nothing_where_nothing_was_cut)
{
    _cleanup_(cut_reader_close_p) struct cut_reader *reader =
        cut_reader_open(rocks->db, rocks->families[0], volume);
    cr_assert_eq(lowest(reader, 0, UINT64_MAX), CUT_NONE);
    cr_assert_eq(lowest(reader, 5, 5), CUT_NONE);
}

Test(cut_index, bounds_are_exclusive_below_and_inclusive_above)
{
    _cleanup_(rocks_indexed_batch_free_p) rocksdb_writebatch_wi_t *batch = rocksdb_writebatch_wi_create(0, 1);
    put(batch, volume, 64, 10);
    put(batch, volume, 128, 5);
    write_batch(batch);
    _cleanup_(cut_reader_close_p) struct cut_reader *reader =
        cut_reader_open(rocks->db, rocks->families[0], volume);
    cr_assert_eq(lowest(reader, 63, 64), 10);
    cr_assert_eq(lowest(reader, 64, 127), CUT_NONE);
    cr_assert_eq(lowest(reader, 64, 128), 5);
    cr_assert_eq(lowest(reader, 0, 127), 10);
    cr_assert_eq(lowest(reader, 128, UINT64_MAX), CUT_NONE);
}

Test(cut_index, volumes_do_not_see_each_other)
{
    _cleanup_(rocks_indexed_batch_free_p) rocksdb_writebatch_wi_t *batch = rocksdb_writebatch_wi_create(0, 1);
    put(batch, volume, 3, 7);
    put(batch, neighbour, 3, 2);
    put(batch, neighbour, 9000, 1);
    write_batch(batch);
    _cleanup_(cut_reader_close_p) struct cut_reader *reader =
        cut_reader_open(rocks->db, rocks->families[0], volume);
    cr_assert_eq(lowest(reader, 0, 1000000), 7);
    cr_assert_eq(lowest(reader, 3, 1000000), CUT_NONE);
}

Test(cut_index, far_apart_and_very_large_lsns_work)
{
    _cleanup_(rocks_indexed_batch_free_p) rocksdb_writebatch_wi_t *batch = rocksdb_writebatch_wi_create(0, 1);
    put(batch, volume, 1, 40);
    put(batch, volume, 1ull << 41, 30);
    put(batch, volume, (1ull << 62) + 5, 20);
    write_batch(batch);
    _cleanup_(cut_reader_close_p) struct cut_reader *reader =
        cut_reader_open(rocks->db, rocks->families[0], volume);
    cr_assert_eq(lowest(reader, 0, UINT64_MAX), 20);
    cr_assert_eq(lowest(reader, 0, 1ull << 62), 30);
    cr_assert_eq(lowest(reader, 1, (1ull << 41) - 1), CUT_NONE);
}

// Entries that RocksDB's iterator stepped over or landed on, by its own count.
static uint64_t steps_of(struct cut_reader *reader, uint64_t after, uint64_t upto)
{
    rocksdb_perfcontext_t *context = rocksdb_perfcontext_create();
    rocksdb_set_perf_level(rocksdb_enable_count);
    rocksdb_perfcontext_reset(context);
    lowest(reader, after, upto);
    uint64_t steps = rocksdb_perfcontext_metric(context, rocksdb_internal_key_skipped_count) +
                     rocksdb_perfcontext_metric(context, rocksdb_seek_on_memtable_count);
    rocksdb_set_perf_level(rocksdb_disable);
    rocksdb_perfcontext_destroy(context);
    return steps;
}

Test(cut_index, a_query_reads_a_bounded_number_of_nodes_a_level)
{
    _cleanup_(free_p) uint32_t *model = fill(3, 1);
    // Until they are flushed, the earlier values of a node lie beside it and are counted as well.
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    char *message = NULL;
    rocksdb_flush_cf(rocks->db, options, rocks->families[0], &message);
    rocksdb_flushoptions_destroy(options);
    cr_assert_null(message);
    _cleanup_(cut_reader_close_p) struct cut_reader *reader =
        cut_reader_open(rocks->db, rocks->families[0], volume);
    struct rng rng;
    rng_seed(&rng, 4);
    uint64_t most = 0;
    for (unsigned i = 0; i < 500; i++)
        most = MAX(most, steps_of(reader, rng_below(&rng, 100), LSN_COUNT - rng_below(&rng, 100)));
    cr_assert_gt(most, 60); // the counter counts
    cr_assert_leq(most, 3 * (2 * 63 + 2), "100,000 commits have three levels, but %lu nodes were read", most);
}
