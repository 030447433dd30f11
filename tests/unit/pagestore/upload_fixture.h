// SPDX-License-Identifier: Apache-2.0
//
// Uploads over a store in memory that misbehaves on request, without HTTP and without a metastore: what a
// volume is, its VID says (see volume_of()). What a test cannot go on without fails it.
#ifndef TESTS_UNIT_PAGESTORE_UPLOAD_FIXTURE_H
#define TESTS_UNIT_PAGESTORE_UPLOAD_FIXTURE_H

#include "common/base/mutex.h"
#include "common/base/pageset.h"
#include "common/net/message.h"
#include "common/net/page_stream.h"
#include "pagestore/segment_index.h"
#include "pagestore/upload.h"
#include "tests/lib/upload_stream.h"

struct fixture {
    struct objstore *store; // the faulty wrapper
    struct volume_infos *volumes;
    struct cluster_key key;
    struct metrics *metrics;
    struct uploads *uploads;
};
void fixture_init(struct fixture *fixture, const char *store_url, uint64_t linger_ms);
void fixture_release(struct fixture *fixture);
uint64_t fixture_segments(struct fixture *fixture); // objects under segments/
int64_t fixture_metric(struct fixture *fixture, const char *name, const char *labels);

enum volume {
    VOLUME_FIXED = 1, // of 4,096 bytes
    VOLUME_VARIABLE,  // up to 4,096 bytes
    VOLUME_SMALL,     // fixed, 512 bytes
    VOLUME_UNKNOWN,   // NOT_FOUND
    VOLUME_NO_ANSWER, // the metastore is away
};
struct gid volume_of(enum volume kind, unsigned number);

// ---- sending

struct sender {
    struct upload *upload;
    struct mutex lock;
    struct cond changed;
    bool woken, done, released; // lock
    enum graft_status status;   // lock, with `done`
    struct graft_error error;
    Graft__WritePagesResponse *response;
    size_t taken; // bytes
};
// Begins an upload with the announced size.
enum graft_status sender_open(struct sender *sender, struct fixture *fixture, uint64_t body_size,
                              struct graft_error *err);
// Feeds bytes in pieces, waiting for wakes; stops when the upload is done. False: it was done early.
bool sender_feed(struct sender *sender, struct bytes bytes, size_t piece_size);
void sender_finish(struct sender *sender);
enum graft_status sender_await(struct sender *sender); // the outcome
void sender_close(struct sender *sender);              // closes the upload if it is open; frees the response

// All of it: open, feed, finish, await. The outcome's status; the caller closes.
enum graft_status sender_send(struct sender *sender, struct fixture *fixture, const struct stream *stream,
                              size_t piece_size);

// ---- checking

// The references are signed, disjoint and hold exactly `expected`; every page's bytes are what page_fill()
// says. Returns how many segments there are.
size_t check_stored(struct fixture *fixture, const struct sender *sender, const struct gid *vid,
                    const struct pageset *expected, uint32_t page_size);

#endif
