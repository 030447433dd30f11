// SPDX-License-Identifier: Apache-2.0
//
// One call of the metastore's `commits`, taken apart commit by commit, all on the HTTP client's thread.
//
//     commit_stream_start(&stream, …)
//         on_commit  for each, in order and without a gap from `from` on; the messages live for the call
//         on_piece   whenever what came in one piece is through, also when something in it was wrong
//         on_end     last, exactly once for each start that was OK; the stream may be started again from within
//     commit_stream_release(&stream)
#ifndef PAGESTORE_COMMIT_STREAM_H
#define PAGESTORE_COMMIT_STREAM_H

#include "common/base/gid.h"
#include "common/net/http_client.h"
#include "common/net/message.h"

struct commit_stream {
    // An error ends the stream with it.
    enum graft_status (*on_commit)(struct commit_stream *stream, const Graft__Commit *commit,
                                   struct graft_error *err);
    enum graft_status (*on_piece)(struct commit_stream *stream,
                                  struct graft_error *err); // NULL: nothing to do
    // GRAFT_OK: everything came, up to the closing frame. Else the server's refusal, what a callback said, or UNAVAILABLE.
    void (*on_end)(struct commit_stream *stream, const struct graft_error *error);

    // The stream's.
    struct frame_reader frames;
    uint64_t next, to;
    bool ended; // the closing frame came
    struct graft_error error;
};

struct commit_stream_request {
    struct http_client *http;
    const char *url; // of the call
    const struct gid *vid;
    uint64_t from, to;    // to == 0: the head
    uint32_t deadline_ms; // 0: none; a server that falls silent is given up on in any case
};

// The callbacks are set, the rest of *stream is zero or was used before.
enum graft_status commit_stream_start(struct commit_stream *stream,
                                      const struct commit_stream_request *request, struct graft_error *err);
void commit_stream_release(struct commit_stream *stream);

#endif
