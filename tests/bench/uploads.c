// SPDX-License-Identifier: Apache-2.0
//
// write_pages of 16 MiB of raw pages, until they are durable, against one file written with the same bytes and synced. The
// upload was encoded beforehand.
//
// Both remove what they wrote: memory that a virtual machine has not touched before, or has given back, costs ten times as
// much to write to (40 ms for 16 MiB), so a side that keeps its files would pay for the pages that the other one reuses.
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define UPLOAD_PAGES 4096u
#define ROUNDS 9u

static double upload(struct http_load *load, const struct buffer *request)
{
    double began = bench_now();
    struct http_answer_seen answer = http_load_call(load, buffer_bytes(request));
    if (answer.code != 200)
        bench_fail("write_pages was answered %d", answer.code);
    return bench_now() - began;
}

static int remove_file(const char *path, const struct stat *stat, int type, struct FTW *walk)
{
    return type == FTW_F ? unlink(path) : 0;
}

static void remove_segments(const struct cluster *cluster)
{
    char path[512];
    snprintf(path, sizeof path, "%s/segments/objects", cluster->folder);
    if (nftw(path, remove_file, 16, FTW_PHYS) != 0)
        bench_fail("removing segments under %s: %s", path, strerror(errno));
}

static double write_synced(const char *path, const struct buffer *bytes)
{
    double began = bench_now();
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes->data, bytes->size) != (ssize_t)bytes->size || fsync(fd) != 0)
        bench_fail("writing %s: %s", path, strerror(errno));
    close(fd);
    double took = bench_now() - began;
    unlink(path);
    return took;
}

void bench_uploads(struct cluster *cluster)
{
    const struct row row = {"write_pages_16_mib", ">= 0.6", "MiB/s", 1};
    char path[512];
    snprintf(path, sizeof path, "%s/baseline", cluster->folder);
    struct http_load *metastore = http_load_open(daemon_address(cluster->metastore, "listen"), 1, 1 << 20);
    struct http_load *pagestore = http_load_open(daemon_address(cluster->pagestore, "listen"), 1, 1 << 20);
    struct snapshot volume = cluster_create_volume(metastore);
    struct buffer request = cluster_upload_request(&volume.vid, 1, UPLOAD_PAGES, false);
    double size_mib = UPLOAD_PAGES * 4096.0 / (1 << 20);
    struct samples subject = {0}, baseline = {0};
    upload(pagestore, &request);
    remove_segments(cluster);
    write_synced(path, &request);
    for (unsigned i = 0; i < ROUNDS; i++) {
        samples_add(&subject, size_mib / upload(pagestore, &request));
        remove_segments(cluster);
        samples_add(&baseline, size_mib / write_synced(path, &request));
    }
    row_print(&row, &subject, &baseline);
    buffer_release(&request);
    http_load_free(metastore);
    http_load_free(pagestore);
}
