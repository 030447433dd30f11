// SPDX-License-Identifier: Apache-2.0
//
// What a long history costs: two volumes of the same pages, filed alike in segments of ten pages. One has 10 commits, the
// other 100,000, which rewrote each page a thousand times. The pagestore forgets its index and catches up with them; then
// the same 100 pages are read from either in turns.
//
// The daemons of these rows keep their files in memory: 100,000 commits one behind the other would spend minutes in the
// disk's syncs, of which these rows measure nothing.
#include <stdlib.h>

#include "tests/bench/bench.h"

#define FOLDER "/dev/shm"
#define VOLUME_PAGES 1000u
#define SEGMENT_PAGES 10u
#define SEGMENTS (VOLUME_PAGES / SEGMENT_PAGES)
#define LONG_HISTORY 100000u
#define SHORT_HISTORY 10u
#define READ_PAGES 100u
#define CATCHUP_ROUNDS 3u
#define ROUNDS 300u

struct filing {
    Graft__WritePagesResponse *uploads[SEGMENTS];
    Graft__SegmentRef *segments[SEGMENTS];
};

static void file_pages(struct http_load *pagestore, const struct gid *vid, struct filing *filing)
{
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        filing->uploads[i] = cluster_upload(pagestore, vid, 1 + i * SEGMENT_PAGES, SEGMENT_PAGES, false);
        if (filing->uploads[i]->n_segments != 1)
            bench_fail("ten pages became %zu segments", filing->uploads[i]->n_segments);
        filing->segments[i] = filing->uploads[i]->segments[0];
    }
}

// The first commit writes every page, each later one ten of them, in turns.
static struct snapshot make_volume(struct http_load *metastore, struct http_load *pagestore, unsigned commits)
{
    struct snapshot head = cluster_create_volume(metastore);
    struct filing filing;
    file_pages(pagestore, &head.vid, &filing);
    head = cluster_commit(metastore, &head, filing.segments, SEGMENTS, VOLUME_PAGES);
    for (unsigned i = 1; i < commits; i++)
        head = cluster_commit(metastore, &head, &filing.segments[i % SEGMENTS], 1, VOLUME_PAGES);
    for (unsigned i = 0; i < SEGMENTS; i++)
        message_free(&filing.uploads[i]->base);
    return head;
}

// Until the pagestore has caught up: meanwhile it answers 503, after some seconds each time.
static double read_until_answered(struct cluster *cluster, const struct buffer *request)
{
    struct http_load *load = http_load_open(daemon_address(cluster->pagestore, "listen"), 1, 0);
    double began = bench_now();
    int code;
    do
        code = http_load_call(load, buffer_bytes(request)).code;
    while (code == 503);
    if (code != 200)
        bench_fail("a read after the catch-up was answered %d", code);
    http_load_free(load);
    return bench_now() - began;
}

static double read_once(struct http_load *load, const struct buffer *request)
{
    double began = bench_now();
    struct http_answer_seen answer = http_load_call(load, buffer_bytes(request));
    if (answer.code != 200 || answer.size < READ_PAGES * 4096)
        bench_fail("a read was answered %d with %llu bytes", answer.code, (unsigned long long)answer.size);
    return bench_now() - began;
}

static void build_histories(struct cluster *cluster, struct buffer *ret_late, struct buffer *ret_early)
{
    struct http_load *metastore = http_load_open(daemon_address(cluster->metastore, "listen"), 1, 1 << 20);
    struct http_load *pagestore = http_load_open(daemon_address(cluster->pagestore, "listen"), 1, 1 << 20);
    struct snapshot early = make_volume(metastore, pagestore, SHORT_HISTORY);
    struct snapshot late = make_volume(metastore, pagestore, LONG_HISTORY);
    read_request(&late, VOLUME_PAGES / 2, READ_PAGES, ret_late);
    read_request(&early, VOLUME_PAGES / 2, READ_PAGES, ret_early);
    http_load_free(pagestore);
    http_load_free(metastore);
}

static void time_catch_up(struct cluster *cluster, const struct buffer *request)
{
    const struct row row = {"catch_up", ">= 300,000 entries/s", "entries/s", 1};
    struct samples samples = {0};
    for (unsigned i = 0; i < CATCHUP_ROUNDS; i++) {
        cluster_restart_pagestore_cold(cluster);
        double took = read_until_answered(cluster, request);
        samples_add(&samples, (VOLUME_PAGES + (LONG_HISTORY - 1) * SEGMENT_PAGES) / took);
    }
    row_print_single(&row, &samples);
}

void bench_history(struct cluster *cluster)
{
    const struct row row = {"read_100_pages_after_100k_commits", "<= 1.2", "us", 1e6};
    struct samples subject = {0}, baseline = {0};
    struct buffer late = BUFFER_INIT(4096), early = BUFFER_INIT(4096);
    struct cluster own;
    cluster_start(&own, FOLDER);
    build_histories(&own, &late, &early);
    time_catch_up(&own, &late);
    read_until_answered(&own, &early);
    struct http_load *load = http_load_open(daemon_address(own.pagestore, "listen"), 1, 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        samples_add(&subject, read_once(load, &late));
        samples_add(&baseline, read_once(load, &early));
    }
    row_print(&row, &subject, &baseline);
    http_load_free(load);
    buffer_release(&late);
    buffer_release(&early);
    cluster_note_peaks(&own);
    cluster->metastore_peak = MAX(cluster->metastore_peak, own.metastore_peak);
    cluster->pagestore_peak = MAX(cluster->pagestore_peak, own.pagestore_peak);
    cluster_stop(&own);
}
