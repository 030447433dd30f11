// SPDX-License-Identifier: Apache-2.0
//
// What the rows share: timing, medians, the table, and a cluster of the real daemons that all rows use, so that their
// memory at the end is that of all the work together. Whatever fails ends the program with a message.
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <netinet/in.h>

#include "common/base/pageset.h"
#include "common/base/receipt.h"
#include "common/net/message.h"
#include "tests/bench/http_load.h"
#include "tests/lib/daemon.h"

_noreturn_ _printf_(1, 2) void bench_fail(const char *format, ...);
void bench_check(enum graft_status status, const struct graft_error *error,
                 const char *doing); // fails unless OK
void *bench_alloc(size_t size);      // zeroed
double bench_now(void);              // seconds
struct sockaddr_in bench_address(const char *address);

// ---- results --------------------------------------------------------------------------------------------------------

#define ROUNDS_MAX 1000

struct samples {
    unsigned count;
    double values[ROUNDS_MAX];
};
void samples_add(struct samples *samples, double value);
double samples_median(const struct samples *samples); // sorts a copy

// Prints a row of the table. `subject` and `baseline` were taken in turns; the ratio is the median of their pairs'
// ratios. `against` NULL: there is no baseline.
struct row {
    const char *name, *target;
    const char *unit; // of the absolute figures
    double scale;     // of the values to that unit
};
void row_print(const struct row *row, const struct samples *subject, const struct samples *baseline);
void row_print_single(const struct row *row, const struct samples *subject);

// ---- the cluster ----------------------------------------------------------------------------------------------------

struct cluster {
    char *folder;
    struct daemon *metastore, *pagestore;
    struct cluster_key key;
    double metastore_peak, pagestore_peak; // bytes of resident memory, of processes that were asked
};

// `parent`: of its folder; NULL: $TMPDIR.
void cluster_start(struct cluster *cluster, const char *parent);
void cluster_stop(struct cluster *cluster);
// Takes the daemons' memory so far into the peaks.
void cluster_note_peaks(struct cluster *cluster);
// The pagestore as on its first day, but for the segments.
void cluster_restart_pagestore_cold(struct cluster *cluster);

// One protobuf call on `load`, which must keep bodies. The answer is the caller's.
ProtobufCMessage *cluster_call(struct http_load *load, const char *call, const ProtobufCMessage *request,
                               const ProtobufCMessageDescriptor *response);
struct snapshot cluster_create_volume(struct http_load *metastore);

// A write_pages request: `count` pages from `first` on, 4 KiB each. `compressible`: text that zstd packs 3:1, else random.
struct buffer cluster_upload_request(const struct gid *vid, uint32_t first, uint32_t count,
                                     bool compressible);
Graft__WritePagesResponse *cluster_upload(struct http_load *pagestore, const struct gid *vid, uint32_t first,
                                          uint32_t count, bool compressible);

// Appends a commit request, head and body, on `base`.
void commit_request(const struct snapshot *base, Graft__SegmentRef **segments, size_t count,
                    uint32_t page_count, struct buffer *to);
// The commit's snapshot, from a whole answer.
struct snapshot commit_answer(const struct http_answer_seen *answer);
struct snapshot cluster_commit(struct http_load *metastore, const struct snapshot *base,
                               Graft__SegmentRef **segments, size_t count, uint32_t page_count);

// Appends a read_pages request, head and body.
void read_request(const struct snapshot *snapshot, uint32_t first, uint32_t count, struct buffer *to);

// ---- the rows -------------------------------------------------------------------------------------------------------

void bench_reads(struct cluster *cluster);    // against nginx, raw and zstd
void bench_history(struct cluster *cluster);  // catch-up, and reads after many commits
void bench_uploads(struct cluster *cluster);  // write_pages against a synced write
void bench_commits(struct cluster *cluster);  // one and many, against RocksDB
void bench_watchers(struct cluster *cluster); // a commit's latency beside 10,000 of them
void bench_local(struct cluster *cluster);    // libgraft's store against plain files
void bench_rewriting(
    struct cluster *cluster); // its disk and bytes written while pages are written again and again
void bench_volumes(struct cluster *cluster);             // opening a directory of many
void bench_load(struct cluster *cluster);                // its memory and open files with some GB
int bench_load_child(const char *data, const char *gib); // the process that has them
void bench_memory(struct cluster *cluster);

#endif
