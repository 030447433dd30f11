// SPDX-License-Identifier: Apache-2.0
//
// What push.c and push_fence.c share.
#ifndef CLIENT_PUSH_INTERNAL_H
#define CLIENT_PUSH_INTERNAL_H

#include "client/push.h"

// One call's way through the states.
struct push_run {
    struct graft_volume *volume;
    uint32_t patience_ms;
    struct store_push push; // as the store last said
    bool created;           // the servers know the volume
    bool asked;             // the request was sent during this call, without an answer that settles it
    bool fenced;            // a fence of this call found its place taken
};

// What the store says of the push, taken over into `run`.
struct store_state push_look(struct push_run *run);
// The servers learn of the volume before anything is based on nothing.
enum graft_status push_create(struct push_run *run, const struct store_remote *base, struct graft_error *err);
// Two histories do not match: says so in the volume's status, and returns it.
enum graft_status push_corrupt(struct push_run *run, const struct graft_error *why, struct graft_error *err);
// COMMITTING or FENCING: sends the push's own request. OK: it landed, or goes back to UPLOADING.
enum graft_status push_commit_step(struct push_run *run, uint32_t patience_ms, struct graft_error *err);
// FENCING: asks about the push once more, then sends the void commit. OK: the push landed, or was given up (its
// status says so), or something else has its place and it is COMMITTING again.
enum graft_status push_fence_step(struct push_run *run, struct graft_error *err);

#endif
