// SPDX-License-Identifier: Apache-2.0
//
// A metastore's calls from a test: blocking, on the real wire. Statuses come back; transport failures too.
#ifndef TESTS_INTEGRATION_META_CLIENT_H
#define TESTS_INTEGRATION_META_CLIENT_H

#include "common/net/rpc.h"
#include "tests/lib/commit_plan.h"
#include "tests/lib/daemon.h"

struct meta_client {
    struct http_client *http;
    struct rpc_target calls, watch;
    struct cluster_key key;
};

void meta_client_init(struct meta_client *client, const char *folder, const struct daemon *metastore);
void meta_client_release(struct meta_client *client);

struct gid meta_create_volume(struct meta_client *client); // a fixed one of 4 KiB pages
enum graft_status meta_create(struct meta_client *client, const struct gid *vid, uint32_t page_size,
                              bool variable, struct graft_error *err);
enum graft_status meta_commit(struct meta_client *client, const struct commit_plan *plan,
                              struct snapshot *ret_snapshot, struct rpc_failure *ret_failure,
                              struct graft_error *err);
enum graft_status meta_snapshot(struct meta_client *client, const struct gid *vid, uint64_t lsn,
                                struct snapshot *ret_snapshot, struct graft_error *err);
enum graft_status meta_delete(struct meta_client *client, const struct gid *vid, uint64_t token,
                              struct graft_error *err);
struct meta_pull {
    struct snapshot head;
    struct pageset *changed; // the caller's
    uint32_t cut;
    bool everything;
};
enum graft_status meta_pull(struct meta_client *client, const struct gid *vid, uint64_t after,
                            const struct hash128 *chain, struct meta_pull *ret_pull, struct graft_error *err);
// All commits from..to as a stream; *ret_count of them, in order, chains checked.
enum graft_status meta_commits(struct meta_client *client, const struct gid *vid, uint64_t from, uint64_t to,
                               uint64_t *ret_count, struct graft_error *err);
// A page of the list; *ret_next is zero at the end. `heads` has room for `limit`.
enum graft_status meta_list(struct meta_client *client, const struct gid *after, uint32_t limit,
                            struct snapshot *heads, size_t *ret_count, struct gid *ret_next,
                            struct graft_error *err);

// Commits `count` times on `head`, two pages each; returns the new head. Tokens from `token` on.
struct snapshot meta_grow(struct meta_client *client, struct snapshot head, uint64_t count, uint64_t token);

// The value of a metric as /metrics prints it, 0 if it is not there. `name` with its labels.
double meta_metric(struct meta_client *client, const char *name);

#endif
