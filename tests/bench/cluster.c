// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/net/http_server.h"
#include "common/net/page_stream.h"
#include "tests/bench/bench.h"

#define REQUEST_MAX (64 * MIB)

void cluster_start(struct cluster *cluster, const char *parent)
{
    char path[512];
    struct graft_error err;
    const char *usual = getenv("TMPDIR");
    if (parent)
        setenv("TMPDIR", parent, 1);
    *cluster = (struct cluster){.folder = test_folder_new()};
    if (parent && usual)
        setenv("TMPDIR", usual, 1);
    snprintf(path, sizeof path, "%s/cluster.key", cluster->folder);
    bench_check(cluster_key_load(path, &cluster->key, &err), &err, "loading the cluster's key");
    const char *const quiet[] = {"--log-level", "warn", NULL};
    cluster->metastore = metastore_start(cluster->folder, quiet);
    cluster->pagestore = pagestore_start(cluster->folder, cluster->metastore, quiet);
}

static double process_peak(pid_t pid)
{
    char path[64], line[256];
    unsigned long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        bench_fail("cannot read %s", path);
    while (fgets(line, sizeof line, file) && sscanf(line, "VmHWM: %lu", &kib) != 1)
        ;
    fclose(file);
    return (double)kib * 1024;
}

void cluster_note_peaks(struct cluster *cluster)
{
    cluster->metastore_peak = MAX(cluster->metastore_peak, process_peak(daemon_pid(cluster->metastore)));
    cluster->pagestore_peak = MAX(cluster->pagestore_peak, process_peak(daemon_pid(cluster->pagestore)));
}

void cluster_stop(struct cluster *cluster)
{
    if (daemon_stop(cluster->pagestore) != 0 || daemon_stop(cluster->metastore) != 0)
        bench_fail("a daemon did not end well");
    daemon_free(cluster->pagestore);
    daemon_free(cluster->metastore);
    test_folder_free(cluster->folder);
}

void cluster_restart_pagestore_cold(struct cluster *cluster)
{
    char command[600];
    cluster_note_peaks(cluster);
    if (daemon_stop(cluster->pagestore) != 0)
        bench_fail("the pagestore did not end well");
    snprintf(command, sizeof command, "rm -r '%s/pagestore-cache'", cluster->folder);
    if (system(command) != 0)
        bench_fail("cannot remove the pagestore's cache");
    daemon_restart(cluster->pagestore);
}

// ---- calls ----------------------------------------------------------------------------------------------------------

static void append_call(const char *call, const ProtobufCMessage *request, struct buffer *to)
{
    char path[64];
    struct graft_error err;
    snprintf(path, sizeof path, "/v1/%s", call);
    http_load_head(to, path, HTTP_PROTOBUF, protobuf_c_message_get_packed_size(request));
    bench_check(message_encode(request, to, &err), &err, "encoding a request");
}

static ProtobufCMessage *decode_answer(const struct http_answer_seen *answer, const char *call,
                                       const ProtobufCMessageDescriptor *response)
{
    struct graft_error err;
    ProtobufCMessage *message;
    if (answer->code != 200) {
        if (message_decode(&graft__error__descriptor, answer->body, MIB, &message, &err) != GRAFT_OK)
            bench_fail("%s: HTTP %d", call, answer->code);
        bench_fail("%s: HTTP %d, %s", call, answer->code, ((Graft__Error *)message)->message);
    }
    bench_check(message_decode(response, answer->body, MIB, &message, &err), &err, call);
    return message;
}

ProtobufCMessage *cluster_call(struct http_load *load, const char *call, const ProtobufCMessage *request,
                               const ProtobufCMessageDescriptor *response)
{
    _cleanup_(buffer_release) struct buffer bytes = BUFFER_INIT(REQUEST_MAX);
    append_call(call, request, &bytes);
    struct http_answer_seen answer = http_load_call(load, buffer_bytes(&bytes));
    return decode_answer(&answer, call, response);
}

struct snapshot cluster_create_volume(struct http_load *metastore)
{
    struct graft_error err;
    struct snapshot head;
    struct gid vid = gid_make(GID_VOLUME, 1700000000000ull);
    Graft__CreateVolumeRequest request = GRAFT__CREATE_VOLUME_REQUEST__INIT;
    request.vid = binary_of(vid.bytes, GID_SIZE);
    request.page_size = PAGE_SIZE_DEFAULT;
    request.kind = GRAFT__VOLUME_KIND__VOLUME_FIXED;
    ProtobufCMessage *answer =
        cluster_call(metastore, "create_volume", &request.base, &graft__create_volume_response__descriptor);
    bench_check(snapshot_from_message(((Graft__CreateVolumeResponse *)answer)->head, &head, &err), &err,
                "create_volume");
    message_free(answer);
    return head;
}

// ---- uploads --------------------------------------------------------------------------------------------------------

// Half of a compressible page is random: about 2:1 by zstd.
static void make_page(uint8_t *page, bool compressible)
{
    random_bytes(page, PAGE_SIZE_DEFAULT);
    for (size_t i = 0; compressible && i < PAGE_SIZE_DEFAULT; i++)
        page[i] = i % 128 < 64 ? (uint8_t)(' ' + i % 64) : page[i];
}

static void append(struct buffer *to, const void *data, size_t size)
{
    struct graft_error err;
    bench_check(buffer_append(to, data, size, &err), &err, "making a request");
}

static void append_page(struct buffer *to, struct page_codec *codec, const struct gid *vid, uint32_t pageidx,
                        bool compressible)
{
    uint8_t page[PAGE_SIZE_DEFAULT], head[PAGE_FRAME_HEADER_SIZE_MAX];
    struct bytes data = {page, sizeof page};
    make_page(page, compressible);
    struct page_header header = {.pageidx = pageidx,
                                 .state = PAGE_STATE_STORED,
                                 .raw_size = sizeof page,
                                 .checksum = page_checksum(vid, pageidx, page, sizeof page)};
    page_codec_encode(codec, data, &header.encoding, &data);
    CHECK((header.encoding == PAGE_ENCODING_ZSTD) == compressible);
    append(to, head, page_stream_put_page(head, &header, (uint32_t)data.size));
    append(to, data.data, data.size);
}

struct buffer cluster_upload_request(const struct gid *vid, uint32_t first, uint32_t count, bool compressible)
{
    struct buffer body = BUFFER_INIT(REQUEST_MAX), request = BUFFER_INIT(REQUEST_MAX);
    struct graft_error err;
    uint8_t head[PAGE_FRAME_HEADER_SIZE_MAX];
    struct page_codec *codec = page_codec_new();
    append(&body, head, page_stream_put_begin(head, vid, 0, NULL));
    for (uint32_t i = 0; i < count; i++)
        append_page(&body, codec, vid, first + i, compressible);
    bench_check(page_stream_append_end(&body, count, NULL, &err), &err, "making an upload");
    page_codec_free(codec);
    http_load_head(&request, "/v1/write_pages", HTTP_STREAM, body.size);
    append(&request, body.data, body.size);
    buffer_release(&body);
    return request;
}

Graft__WritePagesResponse *cluster_upload(struct http_load *pagestore, const struct gid *vid, uint32_t first,
                                          uint32_t count, bool compressible)
{
    _cleanup_(buffer_release) struct buffer request = cluster_upload_request(vid, first, count, compressible);
    struct http_answer_seen answer = http_load_call(pagestore, buffer_bytes(&request));
    return (Graft__WritePagesResponse *)decode_answer(&answer, "write_pages",
                                                      &graft__write_pages_response__descriptor);
}

// ---- commits and reads ----------------------------------------------------------------------------------------------

void commit_request(const struct snapshot *base, Graft__SegmentRef **segments, size_t count,
                    uint32_t page_count, struct buffer *to)
{
    uint8_t token[TOKEN_SIZE];
    struct hash128 digest = {{1}};
    struct gid cid = {{GID_CLIENT}};
    Graft__CommitRequest request = GRAFT__COMMIT_REQUEST__INIT;
    random_bytes(token, sizeof token);
    request.vid = binary_of(base->vid.bytes, GID_SIZE);
    request.base_lsn = base->lsn;
    request.base_chain = binary_of(base->chain.bytes, HASH_SIZE);
    request.token = binary_of(token, sizeof token);
    request.digest = binary_of(digest.bytes, HASH_SIZE);
    request.cid = binary_of(cid.bytes, GID_SIZE);
    request.page_count = page_count;
    request.cut = base->page_count;
    request.n_segments = count;
    request.segments = segments;
    append_call("commit", &request.base, to);
}

struct snapshot commit_answer(const struct http_answer_seen *answer)
{
    struct graft_error err;
    struct snapshot head;
    ProtobufCMessage *message = decode_answer(answer, "commit", &graft__commit_response__descriptor);
    bench_check(snapshot_from_message(((Graft__CommitResponse *)message)->snapshot, &head, &err), &err,
                "commit");
    message_free(message);
    return head;
}

struct snapshot cluster_commit(struct http_load *metastore, const struct snapshot *base,
                               Graft__SegmentRef **segments, size_t count, uint32_t page_count)
{
    _cleanup_(buffer_release) struct buffer request = BUFFER_INIT(REQUEST_MAX);
    commit_request(base, segments, count, page_count, &request);
    struct http_answer_seen answer = http_load_call(metastore, buffer_bytes(&request));
    return commit_answer(&answer);
}

void read_request(const struct snapshot *snapshot, uint32_t first, uint32_t count, struct buffer *to)
{
    uint8_t pages[2 * VARINT_SIZE_MAX];
    size_t size = varint_put(pages, first - 1);
    size += varint_put(pages + size, count);
    Graft__ReadPagesRequest request = GRAFT__READ_PAGES_REQUEST__INIT;
    request.vid = binary_of(snapshot->vid.bytes, GID_SIZE);
    request.lsn = snapshot->lsn;
    request.chain = binary_of(snapshot->chain.bytes, HASH_SIZE);
    request.pages = binary_of(pages, size);
    append_call("read_pages", &request.base, to);
}

void bench_memory(struct cluster *cluster)
{
    struct samples metastore = {0}, pagestore = {0};
    const struct row rows[] = {
        {"memory_metastore", "<= 256 MiB", "MiB", 1.0 / (1 << 20)},
        {"memory_pagestore", "<= 256 MiB", "MiB", 1.0 / (1 << 20)},
    };
    cluster_note_peaks(cluster);
    samples_add(&metastore, cluster->metastore_peak);
    samples_add(&pagestore, cluster->pagestore_peak);
    row_print_single(&rows[0], &metastore);
    row_print_single(&rows[1], &pagestore);
}
