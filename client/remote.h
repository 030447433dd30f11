// SPDX-License-Identifier: Apache-2.0
//
// The servers as the client sees them: one typed function per call of the protocol. Whatever comes back was
// checked for form and for being about what was asked; nothing here keeps state or tries again.
//
// Threads: any number at once. Calls block; only what is marked runs on the HTTP client's thread.
#ifndef CLIENT_REMOTE_H
#define CLIENT_REMOTE_H

#include "common/base/pageset.h"
#include "common/net/http_client.h"
#include "common/net/message.h"
#include "common/net/page_stream.h"
#include "common/net/rpc.h"

struct remote {
    struct http_client *http;
    char *metastore; // base URLs without a slash at the end; NULL: not known
    char *pagestore;
    char *bearer;
    uint32_t deadline_ms; // of a unary call; of a stream, how long it may stand still
};

enum graft_status remote_init(struct remote *remote, const char *metastore, const char *pagestore,
                              const char *bearer, uint32_t deadline_ms, struct graft_error *err);
void remote_release(struct remote *remote); // cancels what is under way

// ---- the metastore ------------------------------------------------------------------------------
//
// *ret_retry_after_ms, where a call fails: the pause that a refusal asked for, 0 if none. NULL is fine.

enum graft_status remote_create_volume(const struct remote *remote, const struct gid *vid, uint32_t page_size,
                                       bool variable, struct snapshot *ret_head, uint32_t *ret_retry_after_ms,
                                       struct graft_error *err);
// lsn 0: the head, which may be the volume's end (`deleted`).
enum graft_status remote_snapshot(const struct remote *remote, const struct gid *vid, uint64_t lsn,
                                  struct snapshot *ret_snapshot, struct graft_error *err);
// The same for those who want to read: GONE / DELETED instead of the end.
enum graft_status remote_live_snapshot(const struct remote *remote, const struct gid *vid, uint64_t lsn,
                                       struct snapshot *ret_snapshot, struct graft_error *err);

// Makes a new volume that is what `vid` is at `base`.
enum graft_status remote_fork(const struct remote *remote, const struct gid *vid, uint64_t base_lsn,
                              const struct hash128 *base_chain, const struct gid *new_vid,
                              struct snapshot *ret_snapshot, struct graft_error *err);

struct remote_pull {
    struct snapshot head;
    struct pageset *changed; // within head.page_count
    uint32_t cut;
    bool everything;
};
void remote_pull_release(struct remote_pull *pull);
enum graft_status remote_pull(const struct remote *remote, const struct gid *vid, uint64_t after_lsn,
                              const struct hash128 *chain, struct remote_pull *ret_pull,
                              uint32_t *ret_retry_after_ms, struct graft_error *err);

struct remote_commit {
    struct snapshot snapshot; // of the commit
    struct token token;
    struct hash128 digest;
};
// Sends a CommitRequest that was serialized before. *ret_failure is filled when the answer is not OK.
enum graft_status remote_commit(const struct remote *remote, struct bytes request,
                                struct remote_commit *ret_commit, struct rpc_failure *ret_failure,
                                struct graft_error *err);

enum graft_status remote_delete_volume(const struct remote *remote, const struct gid *vid,
                                       const struct token *token, struct graft_error *err);
// Calls `visit` for each volume, in order, until it returns false. No call is under way while it runs.
enum graft_status remote_list_volumes(const struct remote *remote,
                                      bool (*visit)(void *context, const struct snapshot *head),
                                      void *context, struct graft_error *err);
// Calls `visit` (on the HTTP client's thread) for each commit of [from, to], ascending; an error from it ends
// the stream.
enum graft_status remote_commits(const struct remote *remote, const struct gid *vid, uint64_t from_lsn,
                                 uint64_t to_lsn,
                                 enum graft_status (*visit)(void *context, const Graft__Commit *commit,
                                                            struct graft_error *err),
                                 void *context, struct graft_error *err);

struct remote_watch_item {
    struct gid vid;
    uint64_t after_lsn;
};
// `head` and `trouble` (on the HTTP client's thread) see each head that a frame names, and each volume whose
// head the servers cannot tell: unknown there (NOT_FOUND), or damaged. Such a one is watched all the same: a
// head may follow. Cancel and finish with rpc_stream_…; the stream ends only by cancellation or failure.
struct remote_watch {
    void (*head)(void *context, const struct snapshot *head);
    void (*trouble)(void *context, const struct gid *vid, const struct graft_error *why);
    void *context;
    struct rpc_stream *stream;
};
// *watch stays where it is until remote_watch_finish(). `url` is what remote_watch_url() gave.
enum graft_status remote_watch_start(const struct remote *remote, const char *url,
                                     const struct remote_watch_item *items, size_t item_count,
                                     struct remote_watch *watch, struct graft_error *err);
// Waits for the end.
enum graft_status remote_watch_finish(struct remote_watch *watch, uint32_t *ret_retry_after_ms,
                                      struct graft_error *err);
// Asks the metastore where its watch listens. *ret_url is the caller's to free().
enum graft_status remote_watch_url(const struct remote *remote, char **ret_url, struct graft_error *err);

// ---- the pagestore ------------------------------------------------------------------------------

// One upload of pages: `read` (on the HTTP client's thread) gives the body as http_exchange_spec.read_body
// does. *ret_response is message_free()d by the caller. *ret_retry_after_ms: the pause that a refusal asks
// for.
enum graft_status remote_write_pages(const struct remote *remote,
                                     long (*read)(void *context, void *to, size_t size), void *context,
                                     Graft__WritePagesResponse **ret_response, uint32_t *ret_retry_after_ms,
                                     struct graft_error *err);

// One download of pages. The functions run on the HTTP client's thread, in order; `done` is the last, comes
// once, and may free the context.
struct remote_pages_sink {
    // A page of the stream, as it travelled (`damage`: why it has no data; else NULL). Whether it was asked
    // for is the sink's to check. A status other than OK ends the stream with that error.
    enum graft_status (*page)(void *context, const struct gid *owner, const struct page_header *page,
                              struct bytes data, const struct graft_error *damage, struct graft_error *err);
    // What was received at once has been handed over.
    enum graft_status (*flush)(void *context, struct graft_error *err);
    // outcome->status GRAFT_OK: the stream was whole, to its End. `size`: bytes of the body that came.
    void (*done)(void *context, const struct graft_error *outcome, uint64_t size);
};
// `first`: the page that somebody waits for; 0: none. Returns at once; after an error `done` does not come.
// *ret_exchange may be cancelled, and is given back with http_exchange_unref().
enum graft_status remote_read_pages(const struct remote *remote, const struct gid *vid, uint64_t lsn,
                                    const struct hash128 *chain, const struct pageset *pages, uint32_t first,
                                    const struct remote_pages_sink *sink, void *context,
                                    struct http_exchange **ret_exchange, struct graft_error *err);

#endif
