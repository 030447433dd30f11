// SPDX-License-Identifier: Apache-2.0
//
// Lengths: variable volumes, truncation and regrowth, and the file API against a model.
#include "common/base/random.h"
#include "tests/integration/client_fixture.h"

TestSuite(client_file, .init = cluster_begin, .fini = cluster_end);

// ---- pages of any length ------------------------------------------------------------------------

static void write_variable(struct graft_volume *volume, uint32_t pageidx, size_t size, uint32_t tag)
{
    struct graft_writer *writer;
    uint8_t page[4096];

    fill_page(page, size, pageidx, tag);
    expect_ok(graft_writer_begin(volume, &writer, &err));
    expect_ok(graft_writer_write(writer, pageidx, page, size, &err));
    expect_ok(graft_writer_commit(writer, NULL, &err));
}

static void expect_variable(struct graft_volume *volume, uint32_t pageidx, size_t size, uint32_t tag)
{
    struct graft_snapshot *snapshot;
    uint8_t page[4096], expected[4096];
    size_t found;

    expect_ok(graft_snapshot_open(volume, &snapshot, &err));
    expect_ok(graft_snapshot_read(snapshot, pageidx, page, sizeof page, &found, &err));
    graft_snapshot_release(snapshot);
    cr_assert_eq(found, size);
    fill_page(expected, size, pageidx, tag);
    cr_assert_eq(memcmp(page, expected, size), 0);
}

Test(client_file, variable_pages_keep_their_lengths)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 4096, GRAFT_VARIABLE);
    struct graft_writer *writer;
    uint8_t page[4097] = {0};

    write_variable(volume, 1, 4096, 1);
    write_variable(volume, 2, 1, 1);
    write_variable(volume, 3, 0, 1);
    write_variable(volume, 7, 100, 1);
    expect_ok(graft_writer_begin(volume, &writer, &err));
    expect_status(GRAFT_LIMIT, graft_writer_write(writer, 1, page, 4097, &err));
    graft_writer_abort(writer);
    expect_ok(graft_push(volume, NULL, &err));
    struct graft_volume *clone = clone_volume(b, volume);
    cr_assert_eq(info_of(clone).page_count, 7);
    cr_assert_eq(info_of(clone).kind, GRAFT_VARIABLE);
    expect_variable(clone, 1, 4096, 1);
    expect_variable(clone, 2, 1, 1);
    expect_variable(clone, 3, 0, 1);
    expect_variable(clone, 4, 0, 1);
    expect_variable(clone, 7, 100, 1);
    expect_variable(clone, 8, 0, 1);
    // Another length of the same page.
    write_variable(clone, 7, 50, 2);
    expect_ok(graft_push(clone, NULL, &err));
    expect_ok(graft_pull(volume, NULL, &err));
    expect_variable(volume, 7, 50, 2);
    expect_variable(volume, 2, 1, 1);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

Test(client_file, pages_cut_off_never_come_back)
{
    struct graft *a = open_client("a"), *b = open_client("b"), *c = open_client("c");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);
    struct graft_snapshot *full;

    commit_pages(volume, 1, 20, 1);
    expect_ok(graft_push(volume, NULL, &err));
    struct graft_volume *reader = clone_volume(b, volume);
    expect_page(reader, 15, 1);
    expect_ok(graft_snapshot_open(reader, &full, &err));
    commit_truncate(volume, 10);
    commit_truncate(volume, 30);
    expect_page(volume, 15, 0);
    commit_pages(volume, 18, 1, 2);
    expect_ok(graft_push(volume, NULL, &err));
    expect_ok(graft_pull(reader, NULL, &err));
    struct graft_volume *fresh = clone_volume(c, volume);
    for (uint32_t page = 1; page <= 31; page++) {
        uint32_t tag = page <= 10 ? 1 : page == 18 ? 2 : 0;
        expect_page(volume, page, tag);
        expect_page(reader, page, tag);
        expect_page(fresh, page, tag);
        expect_snapshot_page(full, 512, page, page <= 20 ? 1 : 0);
    }
    cr_assert_eq(info_of(reader).page_count, 30);
    graft_snapshot_release(full);
    graft_volume_close(fresh);
    graft_volume_close(reader);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
    graft_close(c);
}

Test(client_file, a_volume_cut_to_nothing_is_empty_and_grows_again)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);

    commit_pages(volume, 1, 5, 1);
    expect_ok(graft_push(volume, NULL, &err));
    struct graft_volume *clone = clone_volume(b, volume);
    commit_truncate(volume, 0);
    expect_ok(graft_push(volume, NULL, &err));
    expect_ok(graft_pull(clone, NULL, &err));
    cr_assert_eq(info_of(clone).page_count, 0);
    cr_assert_eq(info_of(clone).pages_pending, 0);
    expect_page(clone, 1, 0);
    commit_pages(clone, 3, 1, 2);
    expect_ok(graft_push(clone, NULL, &err));
    expect_ok(graft_pull(volume, NULL, &err));
    expect_page(volume, 1, 0);
    expect_page(volume, 3, 2);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

// ---- files against a model ----------------------------------------------------------------------

#define MODEL_SIZE_MAX 60000u

struct model {
    uint8_t bytes[MODEL_SIZE_MAX + 4096], synced[MODEL_SIZE_MAX + 4096];
    uint64_t size, synced_size;
    bool variable;
    uint32_t page_size;
};

static uint64_t model_round(const struct model *model, uint64_t size)
{
    uint64_t page_size = model->page_size;

    return model->variable ? size : (size + page_size - 1) / page_size * page_size;
}

static void model_write(struct model *model, uint64_t offset, const uint8_t *data, size_t size)
{
    memcpy(model->bytes + offset, data, size);
    uint64_t end = model_round(model, offset + size);
    if (end > model->size)
        model->size = end;
}

static void model_truncate(struct model *model, uint64_t size)
{
    if (size < model->size)
        memset(model->bytes + size, 0, model->size - size);
    model->size = model_round(model, size);
}

static void expect_file(struct graft_file *file, const uint8_t *bytes, uint64_t size)
{
    static uint8_t found[MODEL_SIZE_MAX + 8192];
    uint64_t file_size;
    size_t got;

    expect_ok(graft_file_size(file, &file_size, &err));
    cr_assert_eq(file_size, size, "size %lu, not %lu", (unsigned long)file_size, (unsigned long)size);
    expect_ok(graft_file_read(file, 0, found, sizeof found, &got, &err));
    cr_assert_eq(got, size);
    for (size_t i = 0; i < size; i++)
        cr_assert_eq(found[i], bytes[i], "byte %zu", i);
}

static void model_step(struct model *model, struct graft_file *file, struct rng *rng)
{
    static uint8_t data[20000], found[20000];
    uint64_t offset = rng_below(rng, MODEL_SIZE_MAX - sizeof data);
    size_t size = rng_below(rng, 4) == 0 ? rng_below(rng, sizeof data) : rng_below(rng, 200);
    size_t got;

    switch (rng_below(rng, 8)) {
    case 0:
        expect_ok(graft_file_truncate(file, offset, &err));
        model_truncate(model, offset);
        break;
    case 1:
        expect_ok(graft_file_sync(file, &err));
        memcpy(model->synced, model->bytes, sizeof model->bytes);
        model->synced_size = model->size;
        break;
    case 2:
    case 3:
        expect_ok(graft_file_read(file, offset, found, size, &got, &err));
        cr_assert_eq(got, offset >= model->size ? 0 : MIN(size, model->size - offset));
        cr_assert_eq(memcmp(found, model->bytes + offset, got), 0);
        break;
    default:
        for (size_t i = 0; i < size; i++)
            data[i] = (uint8_t)rng_next(rng);
        expect_ok(graft_file_write(file, offset, data, size, &err));
        if (size > 0)
            model_write(model, offset, data, size);
    }
}

static void run_model(enum graft_volume_kind kind, uint32_t page_size, uint64_t seed)
{
    static struct model model;
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, page_size, kind);
    struct graft_file *file;
    struct rng rng;

    memset(&model, 0, sizeof model);
    model.variable = kind == GRAFT_VARIABLE;
    model.page_size = page_size;
    rng_seed(&rng, seed);
    expect_ok(graft_file_open(volume, &file, &err));
    for (unsigned i = 0; i < 600; i++)
        model_step(&model, file, &rng);
    expect_file(file, model.bytes, model.size);
    graft_file_close(file);
    // What was not synced is gone; the rest travels whole.
    expect_ok(graft_file_open(volume, &file, &err));
    expect_file(file, model.synced, model.synced_size);
    graft_file_close(file);
    expect_ok(graft_push(volume, NULL, &err));
    struct graft_volume *clone = clone_volume(b, volume);
    expect_ok(graft_file_open(clone, &file, &err));
    cr_assert_leq(info_of(clone).fetch.pages, 1);
    expect_file(file, model.synced, model.synced_size);
    graft_file_close(file);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

Test(client_file, random_operations_on_a_variable_volume_match_a_model)
{
    run_model(GRAFT_VARIABLE, 1024, 1);
}

Test(client_file, random_operations_on_a_fixed_volume_match_a_model)
{
    run_model(GRAFT_FIXED, 512, 2);
}

Test(client_file, writes_on_a_head_that_moved_are_a_conflict_and_dropped)
{
    struct graft *a = open_client("a");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_VARIABLE);
    struct graft_file *file, *other;

    expect_ok(graft_file_open(volume, &file, &err));
    expect_ok(graft_file_open(volume, &other, &err));
    expect_ok(graft_file_write(file, 0, "first", 5, &err));
    expect_ok(graft_file_write(other, 0, "other!", 6, &err));
    expect_ok(graft_file_sync(other, &err));
    expect_detail(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, graft_file_sync(file, &err));
    expect_file(file, (const uint8_t *)"other!", 6);
    expect_ok(graft_file_write(file, 6, "more", 4, &err));
    expect_ok(graft_file_sync(file, &err));
    // `other` still shows what it read, and is told at its next write.
    expect_file(other, (const uint8_t *)"other!", 6);
    expect_detail(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, graft_file_write(other, 0, "x", 1, &err));
    expect_file(other, (const uint8_t *)"other!more", 10);
    graft_file_close(file);
    graft_file_close(other);
    graft_volume_close(volume);
    graft_close(a);
}

Test(client_file, beyond_the_largest_volume_is_a_limit)
{
    struct graft *a = open_client("a");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);
    struct graft_file *file;

    expect_ok(graft_file_open(volume, &file, &err));
    expect_status(GRAFT_LIMIT, graft_file_write(file, UINT64_MAX, "x", 1, &err));
    expect_status(GRAFT_LIMIT, graft_file_write(file, 512ull * UINT32_MAX, "x", 1, &err));
    expect_status(GRAFT_LIMIT, graft_file_truncate(file, 512ull * UINT32_MAX + 1, &err));
    expect_ok(graft_file_write(file, 512ull * UINT32_MAX - 1, "x", 1, &err));
    expect_ok(graft_file_sync(file, &err));
    cr_assert_eq(info_of(volume).page_count, UINT32_MAX);
    expect_ok(graft_push(volume, NULL, &err));
    graft_file_close(file);
    graft_volume_close(volume);
    graft_close(a);
}
