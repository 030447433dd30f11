// SPDX-License-Identifier: Apache-2.0
//
// Commits over HTTP against RocksDB alone: 64 volumes at once against 64 threads with a synced put each, one commit at a time
// against one synced put. The puts have the size of a commit's record.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/store/rocksdb_util.h"
#include "tests/bench/watchers.h"

#define WRITERS 64u
#define WRITER_COMMITS 200u
#define LONE_COMMITS 300u
#define ROUNDS 7u
#define RECORD_SIZE 350

struct writer {
    struct snapshot head;
    Graft__WritePagesResponse *upload;
    struct buffer request;
    unsigned left;
};

struct committing {
    struct writer writers[WRITERS];
    struct samples *latencies; // of a lone writer; NULL: not wanted
    double began;
};

static bool next_commit(void *context, unsigned connection, struct bytes *ret_request)
{
    struct committing *committing = context;
    struct writer *writer = &committing->writers[connection];
    if (writer->left == 0)
        return false;
    writer->left--;
    buffer_clear(&writer->request);
    commit_request(&writer->head, writer->upload->segments, 1, 1, &writer->request);
    *ret_request = buffer_bytes(&writer->request);
    committing->began = bench_now();
    return true;
}

static void committed(void *context, unsigned connection, const struct http_answer_seen *answer)
{
    struct committing *committing = context;
    if (committing->latencies)
        samples_add(committing->latencies, bench_now() - committing->began);
    committing->writers[connection].head = commit_answer(answer);
}

static double commits_per_second(struct http_load *load, struct committing *committing)
{
    for (unsigned i = 0; i < WRITERS; i++)
        committing->writers[i].left = WRITER_COMMITS;
    double began = bench_now();
    http_load_run(load, next_commit, committed, committing);
    return WRITERS * WRITER_COMMITS / (bench_now() - began);
}

static double commit_latency(struct http_load *load, struct committing *committing)
{
    struct samples latencies = {0};
    committing->latencies = &latencies;
    committing->writers[0].left = LONE_COMMITS;
    http_load_run(load, next_commit, committed, committing);
    committing->latencies = NULL;
    return samples_median(&latencies);
}

// ---- RocksDB --------------------------------------------------------------------------------------------------------

static void put_synced(struct rocks *rocks)
{
    static _Atomic unsigned long numbers;
    static const char record[RECORD_SIZE] = {1};
    struct graft_error err;
    char key[64], *message = NULL;
    int size = snprintf(key, sizeof key, "volumes/0000000000000000000000/commits/%016lx", numbers++);
    rocksdb_put_cf(rocks->db, rocks->write_synced, rocks->families[0], key, (size_t)size, record,
                   sizeof record, &message);
    bench_check(rocks_status(&err, message, "put"), &err, "the baseline");
}

static void *put_many(void *context)
{
    for (unsigned i = 0; i < WRITER_COMMITS; i++)
        put_synced(context);
    return NULL;
}

static double puts_per_second(struct rocks *rocks)
{
    pthread_t threads[WRITERS];
    double began = bench_now();
    for (unsigned i = 0; i < WRITERS; i++) {
        if (pthread_create(&threads[i], NULL, put_many, rocks) != 0)
            bench_fail("cannot start a thread");
    }
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    return WRITERS * WRITER_COMMITS / (bench_now() - began);
}

static double put_latency(struct rocks *rocks)
{
    struct samples latencies = {0};
    for (unsigned i = 0; i < LONE_COMMITS; i++) {
        double began = bench_now();
        put_synced(rocks);
        samples_add(&latencies, bench_now() - began);
    }
    return samples_median(&latencies);
}

static struct rocks *open_rocks(const struct cluster *cluster)
{
    static const struct rocks_family family = {
        .name = "objects", .compression = ROCKS_LZ4, .point_reads = true};
    static const struct rocks_settings settings = {
        .block_cache_size = 32 << 20, .write_buffer_size = 32 << 20, .max_open_files = 256};
    char path[512];
    struct rocks *rocks;
    struct graft_error err;
    snprintf(path, sizeof path, "%s/baseline-rocksdb", cluster->folder);
    bench_check(rocks_open(path, &settings, &family, 1, &rocks, &err), &err, "opening the baseline");
    return rocks;
}

// ---- rows -----------------------------------------------------------------------------------------------------------

static struct committing *committing_new(const struct cluster *cluster, unsigned writers)
{
    struct committing *committing = bench_alloc(sizeof *committing);
    struct http_load *metastore = http_load_open(daemon_address(cluster->metastore, "listen"), 1, 1 << 16);
    struct http_load *pagestore = http_load_open(daemon_address(cluster->pagestore, "listen"), 1, 1 << 16);
    for (unsigned i = 0; i < writers; i++) {
        struct writer *writer = &committing->writers[i];
        writer->head = cluster_create_volume(metastore);
        writer->upload = cluster_upload(pagestore, &writer->head.vid, 1, 1, false);
        buffer_init(&writer->request, 1 << 16);
    }
    http_load_free(metastore);
    http_load_free(pagestore);
    return committing;
}

static void committing_free(struct committing *committing)
{
    for (unsigned i = 0; i < WRITERS; i++) {
        if (committing->writers[i].upload)
            message_free(&committing->writers[i].upload->base);
        buffer_release(&committing->writers[i].request);
    }
    free(committing);
}

void bench_commits(struct cluster *cluster)
{
    const struct row many_row = {"commits_64_volumes", ">= 1", "commits/s", 1};
    const struct row lone_row = {"commit_alone", "<= 2", "us", 1e6};
    struct samples many = {0}, many_puts = {0}, lone = {0}, lone_puts = {0};
    struct rocks *rocks = open_rocks(cluster);
    struct committing *committing = committing_new(cluster, WRITERS);
    const char *address = daemon_address(cluster->metastore, "listen");
    struct http_load *loads[2] = {http_load_open(address, WRITERS, 1 << 16),
                                  http_load_open(address, 1, 1 << 16)};
    for (unsigned i = 0; i < ROUNDS; i++) {
        samples_add(&many, commits_per_second(loads[0], committing));
        samples_add(&many_puts, puts_per_second(rocks));
        samples_add(&lone, commit_latency(loads[1], committing));
        samples_add(&lone_puts, put_latency(rocks));
    }
    row_print(&many_row, &many, &many_puts);
    row_print(&lone_row, &lone, &lone_puts);
    http_load_free(loads[0]);
    http_load_free(loads[1]);
    committing_free(committing);
    rocks_close(rocks);
}

#define WATCHER_ROUNDS 3u

void bench_watchers(struct cluster *cluster)
{
    const struct row row = {"commit_beside_10k_watchers", "<= 1.1", "us", 1e6};
    struct samples with = {0}, without = {0};
    struct committing *committing = committing_new(cluster, 1);
    struct http_load *load = http_load_open(daemon_address(cluster->metastore, "listen"), 1, 1 << 16);
    commit_latency(load, committing);
    for (unsigned i = 0; i < WATCHER_ROUNDS; i++) {
        // What the watchers watch has a commit to tell of, and then stands still.
        struct committing *watched = committing_new(cluster, 1);
        commit_latency(load, watched);
        samples_add(&without, commit_latency(load, committing));
        struct watchers *watchers = watchers_open(cluster, &watched->writers[0].head.vid);
        samples_add(&with, commit_latency(load, committing));
        samples_add(&with, commit_latency(load, committing));
        watchers_close(watchers);
        samples_add(&without, commit_latency(load, committing));
        committing_free(watched);
    }
    row_print(&row, &with, &without);
    http_load_free(load);
    committing_free(committing);
}
