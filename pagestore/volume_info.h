// SPDX-License-Identifier: Apache-2.0
//
// What never changes about a volume, its page size and kind, asked from the metastore once and then
// remembered. A bounded cache: the least recently used volume is forgotten first. Thread-safe.
//
// What is known stays known: uploads for a volume that was deleted meanwhile are let through, so that the commit, which
// alone can say DELETED about a token, says it.
#ifndef PAGESTORE_VOLUME_INFO_H
#define PAGESTORE_VOLUME_INFO_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/base/gid.h"
#include "common/base/worker.h"
#include "common/net/rpc.h"

struct volume_info {
    uint32_t page_size;
    bool variable;
};

// Where the answers come from. Blocks. NOT_FOUND / NO_SUCH_VOLUME, UNAVAILABLE.
typedef enum graft_status volume_info_fetch_fn(void *context, const struct gid *vid,
                                               struct volume_info *ret_info, struct graft_error *err);
// The metastore's `snapshot` call; `context` is a struct rpc_target.
volume_info_fetch_fn volume_info_fetch;

struct volume_infos;

// At most `volumes_max` are remembered. `context` outlives the cache.
enum graft_status volume_infos_new(volume_info_fetch_fn *fetch, void *context, unsigned volumes_max,
                                   struct volume_infos **ret_infos, struct graft_error *err);
void volume_infos_free(struct volume_infos *infos); // answers what was asked first; NULL is fine
DEFINE_CLEANUP(struct volume_infos, volume_infos_free)

// From memory, at once. False: not known yet.
bool volume_infos_get(struct volume_infos *infos, const struct gid *vid, struct volume_info *ret_info);

// A question: belongs to `infos` from volume_infos_ask() until `done` runs.
struct volume_query {
    struct gid vid;
    // Exactly once, on a thread of the cache: the answer is in *info, or *error says why there is none (its
    // status is not GRAFT_OK, and *info means nothing).
    void (*done)(struct volume_query *query, const struct volume_info *info, const struct graft_error *error);
    struct job job;
    struct volume_infos *infos;
};
// Never blocks. UNAVAILABLE / OVERLOADED, and `done` will not run, if too many questions wait.
enum graft_status volume_infos_ask(struct volume_infos *infos, struct volume_query *query,
                                   struct graft_error *err);

// Blocks where the answer is not known: not on a server thread.
enum graft_status volume_infos_wait(struct volume_infos *infos, const struct gid *vid,
                                    struct volume_info *ret_info, struct graft_error *err);

#endif
