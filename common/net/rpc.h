// SPDX-License-Identifier: Apache-2.0
//
// Calls of the protocol over the HTTP client: POST <base url>/v1/<call>, protobuf both ways.
//
// Statuses: what a server answered in an Error message of its own keeps status and detail (`answered`). Where no such
// answer came, a call whose request was sent is UNKNOWN, whatever the reason (the detail tells), and one that was not is
// UNAVAILABLE; never a status that would settle anything. Streams change nothing, so theirs are UNAVAILABLE in both cases.
#ifndef COMMON_NET_RPC_H
#define COMMON_NET_RPC_H

#include "common/net/http_client.h"
#include "common/net/message.h"

struct rpc_target {
    struct http_client *http;
    const char *url;      // "http://127.0.0.1:3001", without a slash at the end
    const char *bearer;   // NULL: none
    uint32_t deadline_ms; // of each call; streams have their stall_ms instead
};

// What an answer that is not OK says besides its error.
struct rpc_failure {
    bool answered; // the server's own Error, not a proxy's and not ours
    bool sent;     // false: certainly nothing reached the server
    uint32_t retry_after_ms;
    bool has_token;
    struct token token;
    bool has_snapshot;
    struct snapshot snapshot;
};

// Blocks. On OK *ret_response is a message of `response` (message_free()). Otherwise *ret_failure (may be NULL) is filled.
// Never retries by itself. Errors name the call and the URL.
enum graft_status rpc_call(const struct rpc_target *target, const char *call, const ProtobufCMessage *request,
                           const ProtobufCMessageDescriptor *response, ProtobufCMessage **ret_response,
                           struct rpc_failure *ret_failure, struct graft_error *err);
// The same with bytes that were encoded before (a push sends the same bytes again).
enum graft_status rpc_call_bytes(const struct rpc_target *target, const char *call, struct bytes request,
                                 const ProtobufCMessageDescriptor *response, ProtobufCMessage **ret_response,
                                 struct rpc_failure *ret_failure, struct graft_error *err);

// True for errors that another try may change: UNAVAILABLE, UNKNOWN.
bool rpc_is_transient(const struct graft_error *error);

// Calls `call` until it answers with something that is not transient, at most `attempts` times, waiting as `backoff` says
// or as long as the server asks for. Ends early, with CANCELLED / STOPPING, when the HTTP client is stopped.
enum graft_status rpc_call_retry(const struct rpc_target *target, const char *call,
                                 const ProtobufCMessage *request, const ProtobufCMessageDescriptor *response,
                                 unsigned attempts, ProtobufCMessage **ret_response,
                                 struct rpc_failure *ret_failure, struct graft_error *err);

// A stream of frames (commits, watch): each whole frame's bytes go to `on_frame`, on the HTTP client's thread; a status
// other than OK ends the exchange with that error. Blocks until the stream has ended; `on_frame` says through *ret_end that
// the closing frame came, without which the answer is UNAVAILABLE / TRUNCATED.
typedef enum graft_status rpc_frame_fn(void *context, struct bytes frame, bool *ret_end,
                                       struct graft_error *err);
struct rpc_stream;
enum graft_status rpc_stream_start(const struct rpc_target *target, const char *call,
                                   const ProtobufCMessage *request, size_t frame_max, uint32_t stall_ms,
                                   rpc_frame_fn *on_frame, void *context, struct rpc_stream **ret_stream,
                                   struct graft_error *err);
void rpc_stream_cancel(struct rpc_stream *stream); // any thread
// `on_end` is called once, when the stream has ended: on the HTTP client's thread, or at once if it has. It only wakes
// whoever calls rpc_stream_finish(), which returns after it, soon. At most one a stream.
void rpc_stream_on_end(struct rpc_stream *stream, void (*on_end)(void *context), void *context);
// Waits for the end and frees the stream.
enum graft_status rpc_stream_finish(struct rpc_stream *stream, struct rpc_failure *ret_failure,
                                    struct graft_error *err);

#endif
