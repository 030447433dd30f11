// SPDX-License-Identifier: Apache-2.0
//
// read_pages from the memory cache against nginx sending the same bytes from files in the kernel's cache. Bodies are fetched
// once, verified page by page, and put under nginx's root; then both serve them in turns to the same client.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/net/page_stream.h"
#include "tests/bench/bench.h"
#include "tests/bench/nginx.h"

#define REQUEST_PAGES 1024u
#define RANGES 8u // 32 MiB in all: half of the cache
#define CONNECTIONS 4u
#define ROUNDS 9u
#define ROUND_REQUESTS 256u

struct serving {
    const struct buffer *requests; // RANGES of them
    const uint64_t *sizes;         // of their bodies
    unsigned left, sent;
    unsigned range[CONNECTIONS];
};

static bool next_request(void *context, unsigned connection, struct bytes *ret_request)
{
    struct serving *serving = context;
    if (serving->left == 0)
        return false;
    serving->left--;
    serving->range[connection] = serving->sent++ % RANGES;
    *ret_request = buffer_bytes(&serving->requests[serving->range[connection]]);
    return true;
}

static void count_answer(void *context, unsigned connection, const struct http_answer_seen *answer)
{
    struct serving *serving = context;
    if (answer->code != 200 || answer->size != serving->sizes[serving->range[connection]])
        bench_fail("a read was answered %d with %llu bytes", answer->code, (unsigned long long)answer->size);
}

static double pages_per_second(struct http_load *load, const struct buffer *requests, const uint64_t *sizes)
{
    struct serving serving = {.requests = requests, .sizes = sizes, .left = ROUND_REQUESTS};
    double began = bench_now();
    http_load_run(load, next_request, count_answer, &serving);
    return ROUND_REQUESTS * REQUEST_PAGES / (bench_now() - began);
}

static void verify(const struct gid *vid, struct bytes body)
{
    struct page_decoder *decoder = page_decoder_new();
    struct page_codec *codec = page_codec_new();
    struct page_event event;
    struct graft_error err;
    unsigned pages = 0;
    do {
        struct bytes plain;
        bench_check(page_decoder_next(decoder, &body, &event, &err), &err, "decoding a read");
        if (event.type == PAGE_EVENT_PAGE) {
            bench_check(page_codec_decode(codec, vid, &event.page, event.data, &plain, &err), &err, "a page");
            pages++;
        }
    } while (event.type != PAGE_EVENT_NEED_MORE && event.type != PAGE_EVENT_END);
    bench_check(page_decoder_finish(decoder, &err), &err, "a read");
    if (pages != REQUEST_PAGES)
        bench_fail("a read brought %u pages", pages);
    page_codec_free(codec);
    page_decoder_free(decoder);
}

static struct snapshot make_volume(struct http_load *metastore, struct http_load *pagestore,
                                   bool compressible)
{
    struct snapshot base = cluster_create_volume(metastore);
    Graft__WritePagesResponse *uploads[RANGES];
    Graft__SegmentRef *segments[64];
    size_t count = 0;
    for (unsigned i = 0; i < RANGES; i++) {
        uploads[i] = cluster_upload(pagestore, &base.vid, 1 + i * REQUEST_PAGES, REQUEST_PAGES, compressible);
        for (size_t j = 0; j < uploads[i]->n_segments; j++)
            segments[count++] = uploads[i]->segments[j];
    }
    struct snapshot head = cluster_commit(metastore, &base, segments, count, RANGES * REQUEST_PAGES);
    for (unsigned i = 0; i < RANGES; i++)
        message_free(&uploads[i]->base);
    return head;
}

static void save(const char *folder, unsigned number, struct bytes body)
{
    char path[512];
    snprintf(path, sizeof path, "%s/www/%u", folder, number);
    FILE *file = fopen(path, "we");
    if (!file || fwrite(body.data, 1, body.size, file) != body.size || fclose(file) != 0)
        bench_fail("cannot write %s", path);
}

static void compare(struct cluster *cluster, struct nginx *nginx, bool compressible, const struct row *row)
{
    struct http_load *metastore = http_load_open(daemon_address(cluster->metastore, "listen"), 1, 1 << 20);
    struct http_load *pagestore = http_load_open(daemon_address(cluster->pagestore, "listen"), 1, 16 << 20);
    struct snapshot head = make_volume(metastore, pagestore, compressible);
    struct buffer ours[RANGES], theirs[RANGES];
    uint64_t sizes[RANGES];
    for (unsigned i = 0; i < RANGES; i++) {
        char path[32];
        buffer_init(&ours[i], 4096);
        buffer_init(&theirs[i], 4096);
        read_request(&head, 1 + i * REQUEST_PAGES, REQUEST_PAGES, &ours[i]);
        struct http_answer_seen answer = http_load_call(pagestore, buffer_bytes(&ours[i]));
        verify(&head.vid, answer.body);
        unsigned number = compressible * RANGES + i;
        save(cluster->folder, number, answer.body);
        snprintf(path, sizeof path, "/%u", number);
        http_load_head(&theirs[i], path, NULL, 0);
        sizes[i] = answer.size;
    }
    http_load_free(metastore);
    http_load_free(pagestore);

    struct samples subject = {0}, baseline = {0};
    struct http_load *graft_load =
        http_load_open(daemon_address(cluster->pagestore, "listen"), CONNECTIONS, 0);
    struct http_load *nginx_load = http_load_open(nginx->address, CONNECTIONS, 0);
    pages_per_second(graft_load, ours, sizes); // both warm
    pages_per_second(nginx_load, theirs, sizes);
    for (unsigned i = 0; i < ROUNDS; i++) {
        samples_add(&subject, pages_per_second(graft_load, ours, sizes));
        samples_add(&baseline, pages_per_second(nginx_load, theirs, sizes));
    }
    row_print(row, &subject, &baseline);
    http_load_free(graft_load);
    http_load_free(nginx_load);
    for (unsigned i = 0; i < RANGES; i++) {
        buffer_release(&ours[i]);
        buffer_release(&theirs[i]);
    }
}

void bench_reads(struct cluster *cluster)
{
    const struct row raw = {"read_pages_raw", ">= 0.8", "pages/s", 1};
    const struct row zstd = {"read_pages_zstd", ">= 300,000 pages/s", "pages/s", 1};
    char www[512];
    snprintf(www, sizeof www, "%s/www", cluster->folder);
    if (mkdir(www, 0700) != 0)
        bench_fail("cannot make %s", www);
    struct nginx nginx;
    nginx_start(&nginx, cluster->folder);
    compare(cluster, &nginx, false, &raw);
    compare(cluster, &nginx, true, &zstd);
    nginx_stop(&nginx);
}
