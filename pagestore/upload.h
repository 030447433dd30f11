// SPDX-License-Identifier: Apache-2.0
//
// Uploads: streams of pages that become segments, whatever brings them (write_pages.c does over HTTP).
//
//     upload_new(…)                    refused while too many bytes are being received
//     upload_take(data) …              takes what it has room for; less than all: go on after events.wake
//     upload_finish()                  the body is complete; events.done comes, now or later
//     upload_close()                   the last call, after done or because the sender has gone
//
// One thread at a time calls these for one upload; none of them blocks. A server's thread splits the stream
// and copies each page's bytes once, into a bounded number of blocks; workers verify the blocks and write
// them to segments. Memory is reserved when an upload begins, for as much as it can ever hold, so that none
// waits for memory that others hold.
#ifndef PAGESTORE_UPLOAD_H
#define PAGESTORE_UPLOAD_H

#include "common/base/metrics.h"
#include "common/base/receipt.h"
#include "common/store/objstore.h"
#include "pagestore/volume_info.h"

struct uploads;
struct upload;

#define UPLOAD_SIZE_UNKNOWN UINT64_MAX

struct uploads_settings {
    struct objstore *store;
    struct volume_infos *volumes;
    const struct cluster_key *key;
    struct metrics *metrics;
    unsigned workers;
    uint64_t segment_linger_ms;
};

enum graft_status uploads_new(const struct uploads_settings *settings, struct uploads **ret_uploads,
                              struct graft_error *err);
// Every upload was closed. Waits for what they still have under way. NULL is fine.
void uploads_free(struct uploads *uploads);

struct upload_events {
    // There is room again, or something to say. Any thread; may come early, late or twice.
    void (*wake)(void *context);
    // At most once: everything is durable and `response` holds a WritePagesResponse (its bytes may be taken),
    // or `response` is NULL and *error says why nothing is stored. Before upload_finish() only from within
    // upload_take().
    void (*done)(void *context, const struct graft_error *error, struct buffer *response);
    void (*release)(void *context); // the last call: nothing refers to `context` any more
    void *context;
};

// `body_size`: as announced, or UPLOAD_SIZE_UNKNOWN. UNAVAILABLE / OVERLOADED while uploads hold
// RECEIVE_BUDGET_SIZE; after a failure no event comes.
enum graft_status upload_new(struct uploads *uploads, uint64_t body_size, const struct upload_events *events,
                             struct upload **ret_upload, struct graft_error *err);
size_t upload_take(struct upload *upload, const void *data, size_t size);
void upload_finish(struct upload *upload);
// Not finished: nothing of it is kept. The upload is no longer the caller's.
void upload_close(struct upload *upload);

#endif
