// SPDX-License-Identifier: Apache-2.0
//
// A snapshot of the servers, read without keeping its pages: a fetch source whose pages land in a small
// cache, oldest out first.
#ifndef CLIENT_REMOTE_VIEW_H
#define CLIENT_REMOTE_VIEW_H

#include "client/client.h"

#define REMOTE_VIEW_CACHE_SIZE (8 * MIB) // of pages, when all are full
#define REMOTE_VIEW_AHEAD_SIZE (4 * MIB) // taken of one graft_prefetch(); the rest is not asked for

struct remote_view;

// `head` is the snapshot; the volume gives page size and kind.
enum graft_status remote_view_new(struct fetcher *fetcher, const struct snapshot *head,
                                  struct remote_view **ret_view, struct graft_error *err);
void remote_view_free(struct remote_view *view); // nobody reads; NULL is fine

const struct snapshot *remote_view_head(const struct remote_view *view);
struct fetch_source *remote_view_source(struct remote_view *view);
size_t remote_view_ahead_pages(const struct remote_view *view);

// [network] *ret_written false: the page was never written.
enum graft_status remote_view_read(struct remote_view *view, uint32_t pageidx, void *to, size_t *ret_size,
                                   bool *ret_written, struct graft_error *err);

#endif
