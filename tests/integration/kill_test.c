// SPDX-License-Identifier: Apache-2.0
//
// kill -9 of either daemon with requests in flight: at each phase of a push and of a read, by a proxy that holds the call
// there; and at seeded random moments under several writers. Afterwards every acknowledged commit is there with all its
// pages, and a retry has made no second one. The seed is GRAFT_TEST_SEED, or what is printed.
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/include/graft.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/random.h"
#include "tests/lib/daemon.h"
#include "tests/lib/proxy.h"

#define PAGE 4096u
#define PUSH_PAGES 600u // 2.4 MB: a segment of its own
#define RETRY_FOR_MS 20000u

struct cluster {
    char *folder;
    struct daemon *metastore, *pagestore;
    struct proxy *meta_proxy, *page_proxy;
};

static struct cluster cluster_new(void)
{
    struct cluster cluster = {.folder = test_folder_new()};
    cluster.metastore = metastore_start(cluster.folder, NULL);
    cluster.pagestore = pagestore_start(cluster.folder, cluster.metastore, NULL);
    cluster.meta_proxy = proxy_new(daemon_address(cluster.metastore, "listen"));
    cluster.page_proxy = proxy_new(daemon_address(cluster.pagestore, "listen"));
    return cluster;
}

static void cluster_free(struct cluster *cluster)
{
    proxy_free(cluster->page_proxy);
    proxy_free(cluster->meta_proxy);
    daemon_free(cluster->pagestore);
    daemon_free(cluster->metastore);
    test_folder_free(cluster->folder);
}

static struct graft *client_open(const struct cluster *cluster, const char *name)
{
    char path[4096];
    struct graft *client;
    struct graft_error err;
    snprintf(path, sizeof path, "%s/%s", cluster->folder, name);
    struct graft_settings settings = {
        .data = path,
        .metastore = proxy_url(cluster->meta_proxy),
        .pagestore = proxy_url(cluster->page_proxy),
        .deadline_ms = 5000,
    };
    cr_assert_eq(graft_open(&settings, &client, &err), GRAFT_OK, "%s", err.message);
    return client;
}

// A page's bytes follow from its number and the commit that wrote it.
static void fill_page(uint8_t page[PAGE], uint32_t pageidx, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed * 1000003 + pageidx);
    for (size_t i = 0; i < PAGE; i += 8) {
        uint64_t word = rng_next(&rng);
        memcpy(page + i, &word, 8);
    }
}

static void commit_pages(struct graft_volume *volume, uint32_t first, uint32_t count, uint64_t seed)
{
    struct graft_writer *writer;
    struct graft_error err;
    uint8_t page[PAGE];
    cr_assert_eq(graft_writer_begin(volume, &writer, &err), GRAFT_OK, "%s", err.message);
    for (uint32_t pageidx = first; pageidx < first + count; pageidx++) {
        fill_page(page, pageidx, seed);
        cr_assert_eq(graft_writer_write(writer, pageidx, page, PAGE, &err), GRAFT_OK, "%s", err.message);
    }
    cr_assert_eq(graft_writer_commit(writer, NULL, &err), GRAFT_OK, "%s", err.message);
}

static void expect_pages(struct graft_volume *volume, uint32_t first, uint32_t count, uint64_t seed)
{
    struct graft_snapshot *snapshot;
    struct graft_error err;
    uint8_t expected[PAGE], page[PAGE];
    size_t size;
    cr_assert_eq(graft_snapshot_open(volume, &snapshot, &err), GRAFT_OK, "%s", err.message);
    struct graft_page_range range = {first, count};
    cr_assert_eq(graft_hydrate(snapshot, &range, 1, &err), GRAFT_OK, "%s", err.message);
    for (uint32_t pageidx = first; pageidx < first + count; pageidx++) {
        fill_page(expected, pageidx, seed);
        cr_assert_eq(graft_snapshot_read(snapshot, pageidx, page, PAGE, &size, &err), GRAFT_OK, "%s",
                     err.message);
        cr_assert(size == PAGE && memcmp(page, expected, PAGE) == 0, "page %u", pageidx);
    }
    graft_snapshot_release(snapshot);
}

// A wait that nothing ends early: between two tries, and up to the moment of a kill.
static void pause_us(uint64_t us)
{
    uint64_t until_us = clock_monotonic_us(clock_system()) + us;
    struct mutex lock;
    struct cond never;
    mutex_init(&lock, RANK_LEAF);
    cond_init(&never);
    mutex_lock(&lock);
    while (cond_wait_until(&never, &lock, until_us)) {
    }
    mutex_unlock(&lock);
    cond_release(&never);
    mutex_release(&lock);
}

static uint64_t push_until_done(struct graft_volume *volume)
{
    struct graft_error err;
    uint64_t until_ms = clock_monotonic_ms(clock_system()) + RETRY_FOR_MS;
    for (; clock_monotonic_ms(clock_system()) < until_ms; pause_us(5000)) {
        uint64_t lsn;
        enum graft_status status = graft_push(volume, &lsn, &err);
        if (status == GRAFT_OK)
            return lsn;
        cr_assert(status == GRAFT_UNAVAILABLE || status == GRAFT_UNKNOWN, "%s: %s", graft_status_text(status),
                  err.message);
    }
    cr_assert_fail("the push never got through: %s", err.message);
    return 0;
}

// ---- each phase -------------------------------------------------------------------------------------------------------

struct call {
    struct graft_volume *volume;
    bool read; // else push
    enum graft_status status;
};

static void *make_call(void *context)
{
    struct call *call = context;
    struct graft_snapshot *snapshot;
    if (!call->read) {
        call->status = graft_push(call->volume, NULL, NULL);
    } else if (graft_snapshot_open(call->volume, &snapshot, NULL) == GRAFT_OK) {
        struct graft_page_range range = {1, PUSH_PAGES};
        call->status = graft_hydrate(snapshot, &range, 1, NULL);
        graft_snapshot_release(snapshot);
    }
    return NULL;
}

struct phase {
    const char *name;
    struct proxy_stop stop;
    bool metastore; // who is killed; else the pagestore
    bool read;
};

static const struct phase phases[] = {
    {"create_volume sent", {"/v1/create_volume", PROXY_REQUEST, 0}, true, false},
    {"create_volume answered", {"/v1/create_volume", PROXY_ANSWER, 0}, true, false},
    {"write_pages headers", {"/v1/write_pages", PROXY_REQUEST, 0}, false, false},
    {"write_pages a page", {"/v1/write_pages", PROXY_REQUEST, 5000}, false, false},
    {"write_pages half", {"/v1/write_pages", PROXY_REQUEST, 1200000}, false, false},
    {"write_pages nearly all", {"/v1/write_pages", PROXY_REQUEST, 2470000}, false, false},
    {"write_pages answered", {"/v1/write_pages", PROXY_ANSWER, 0}, false, false},
    {"write_pages answer cut", {"/v1/write_pages", PROXY_ANSWER, 200}, false, false},
    {"commit headers", {"/v1/commit", PROXY_REQUEST, 0}, true, false},
    {"commit body", {"/v1/commit", PROXY_REQUEST, 250}, true, false},
    {"commit answered", {"/v1/commit", PROXY_ANSWER, 0}, true, false},
    {"commit answer cut", {"/v1/commit", PROXY_ANSWER, 100}, true, false},
    {"read_pages sent", {"/v1/read_pages", PROXY_REQUEST, 0}, false, true},
    {"read_pages first bytes", {"/v1/read_pages", PROXY_ANSWER, 300}, false, true},
    {"read_pages half", {"/v1/read_pages", PROXY_ANSWER, 1200000}, false, true},
};

static void kill_in_phase(struct cluster *cluster, const struct phase *phase, unsigned number)
{
    char name[32];
    struct graft_volume *volume, *reader;
    struct graft_error err;
    struct daemon *victim = phase->metastore ? cluster->metastore : cluster->pagestore;
    struct proxy *proxy = phase->metastore ? cluster->meta_proxy : cluster->page_proxy;
    snprintf(name, sizeof name, "writer-%u", number);
    struct graft *writer_client = client_open(cluster, name);
    snprintf(name, sizeof name, "reader-%u", number);
    struct graft *reader_client = client_open(cluster, name);
    cr_assert_eq(graft_volume_create(writer_client, PAGE, GRAFT_FIXED, &volume, &err), GRAFT_OK);
    struct graft_volume_info info;
    cr_assert_eq(graft_volume_info(volume, &info, &err), GRAFT_OK);
    commit_pages(volume, 1, PUSH_PAGES, number);
    if (phase->read) {
        cr_assert_eq(push_until_done(volume), 1);
        cr_assert_eq(graft_volume_clone(reader_client, info.vid, &reader, &err), GRAFT_OK, "%s", err.message);
    }

    pthread_t thread;
    struct call call = {.volume = phase->read ? reader : volume, .read = phase->read};
    proxy_stop_at(proxy, &phase->stop);
    cr_assert_eq(pthread_create(&thread, NULL, make_call, &call), 0);
    cr_assert(proxy_await_stop(proxy, 20000), "%s: the call never came there", phase->name);
    daemon_kill(victim);
    proxy_go_on(proxy);
    daemon_restart(victim);
    pthread_join(thread, NULL);

    if (!phase->read) {
        cr_assert_eq(push_until_done(volume), 1, "%s: a second commit", phase->name);
        cr_assert_eq(graft_volume_clone(reader_client, info.vid, &reader, &err), GRAFT_OK, "%s", err.message);
    }
    expect_pages(reader, 1, PUSH_PAGES, number);
    cr_assert_eq(graft_volume_info(reader, &info, &err), GRAFT_OK);
    cr_assert_eq(info.remote_lsn, 1, "%s", phase->name);
    commit_pages(volume, 5, 1, number + 1000);
    cr_assert_eq(push_until_done(volume), 2, "%s", phase->name);
    graft_volume_close(volume);
    graft_volume_close(reader);
    graft_close(writer_client);
    graft_close(reader_client);
}

Test(kill, at_every_phase_of_a_push_and_a_read, .timeout = 300)
{
    struct cluster cluster = cluster_new();
    for (unsigned i = 0; i < ARRAY_COUNT(phases); i++)
        kill_in_phase(&cluster, &phases[i], i + 1);
    cluster_free(&cluster);
}

// ---- random moments ---------------------------------------------------------------------------------------------------

#define WRITERS 4
#define KILLS 12 // at least, and until each writer has got through
#define KILLS_MAX 120
#define PUSHES_MIN 6u // of each writer, between kills
#define SPREAD 40u    // pages that a writer's volume has

struct writer_state {
    struct cluster *cluster;
    unsigned number;
    uint64_t seed;
    atomic_bool *stop;
    char vid[GRAFT_VID_SIZE];
    _Atomic uint64_t acknowledged; // pushes
    uint64_t page_seed[SPREAD + 1];
    struct rng rng;
};

static void *write_on(void *context)
{
    struct writer_state *state = context;
    char name[32];
    struct graft_volume *volume;
    struct graft_volume_info info;
    struct graft_error err;
    snprintf(name, sizeof name, "random-%u", state->number);
    struct graft *client = client_open(state->cluster, name);
    cr_assert_eq(graft_volume_create(client, PAGE, GRAFT_FIXED, &volume, &err), GRAFT_OK);
    cr_assert_eq(graft_volume_info(volume, &info, &err), GRAFT_OK);
    memcpy(state->vid, info.vid, sizeof state->vid);
    uint64_t step = 0;
    while (!atomic_load(state->stop)) {
        uint32_t first = 1 + (uint32_t)rng_below(&state->rng, SPREAD);
        uint32_t count = 1 + (uint32_t)rng_below(&state->rng, SPREAD - first + 1);
        uint64_t seed = state->number * 1000000ull + ++step;
        commit_pages(volume, first, count, seed);
        for (uint32_t pageidx = first; pageidx < first + count; pageidx++)
            state->page_seed[pageidx] = seed;
        uint64_t lsn = push_until_done(volume);
        state->acknowledged++;
        cr_assert_eq(lsn, state->acknowledged, "writer %u: LSN %llu after %llu pushes", state->number,
                     (unsigned long long)lsn, (unsigned long long)state->acknowledged);
    }
    graft_volume_close(volume);
    graft_close(client);
    return NULL;
}

static void verify_writer(struct cluster *cluster, const struct writer_state *state)
{
    char name[32];
    struct graft_volume *volume;
    struct graft_volume_info info;
    struct graft_error err;
    snprintf(name, sizeof name, "verify-%u", state->number);
    struct graft *client = client_open(cluster, name);
    cr_assert_eq(graft_volume_clone(client, state->vid, &volume, &err), GRAFT_OK, "%s", err.message);
    cr_assert_eq(graft_volume_info(volume, &info, &err), GRAFT_OK);
    cr_assert_eq(info.remote_lsn, state->acknowledged);
    for (uint32_t pageidx = 1; pageidx <= SPREAD; pageidx++) {
        if (state->page_seed[pageidx])
            expect_pages(volume, pageidx, 1, state->page_seed[pageidx]);
    }
    graft_volume_close(volume);
    graft_close(client);
}

static bool all_got_through(struct writer_state *states)
{
    for (unsigned i = 0; i < WRITERS; i++)
        if (atomic_load(&states[i].acknowledged) < PUSHES_MIN)
            return false;
    return true;
}

Test(kill, at_random_moments_under_four_writers, .timeout = 300)
{
    const char *text = getenv("GRAFT_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : clock_wall_ms(clock_system());
    fprintf(stderr, "# GRAFT_TEST_SEED=%llu\n", (unsigned long long)seed);
    struct cluster cluster = cluster_new();
    struct writer_state states[WRITERS];
    pthread_t threads[WRITERS];
    atomic_bool stop = false;
    struct rng rng;
    rng_seed(&rng, seed);
    for (unsigned i = 0; i < WRITERS; i++) {
        states[i] = (struct writer_state){.cluster = &cluster, .number = i + 1, .stop = &stop};
        rng_seed(&states[i].rng, seed + i);
        cr_assert_eq(pthread_create(&threads[i], NULL, write_on, &states[i]), 0);
    }
    int kills = 0;
    for (; kills < KILLS || (kills < KILLS_MAX && !all_got_through(states)); kills++) {
        pause_us(20000 + rng_below(&rng, 300000));
        struct daemon *victim = rng_below(&rng, 2) ? cluster.metastore : cluster.pagestore;
        daemon_kill(victim);
        daemon_restart(victim);
    }
    atomic_store(&stop, true);
    uint64_t total = 0;
    for (unsigned i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        verify_writer(&cluster, &states[i]);
        cr_assert_geq(states[i].acknowledged, PUSHES_MIN, "writer %u got only %llu pushes through", i + 1,
                      (unsigned long long)states[i].acknowledged);
        total += states[i].acknowledged;
    }
    fprintf(stderr, "# %llu pushes acknowledged across %d kills\n", (unsigned long long)total, kills);
    cluster_free(&cluster);
}
