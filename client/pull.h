// SPDX-License-Identifier: Apache-2.0
//
// Pulling: taking over what others pushed, which moves no page.
#ifndef CLIENT_PULL_H
#define CLIENT_PULL_H

#include "client/client.h"

// [network] graft_pull(). The turn is the caller's.
enum graft_status pull_run(struct graft_volume *volume, uint64_t *ret_changed, struct graft_error *err);
// [network] Asks what changed since the replica's base, and checks that the answer is about the same volume and
// history; if it is not, the volume is `corrupt`. *ret_pull is remote_pull_release()d by the caller.
enum graft_status pull_ask(struct graft_volume *volume, const struct store_state *state,
                           struct remote_pull *ret_pull, struct graft_error *err);
// The answer as the store takes it over; borrows from *pull.
struct store_pull pull_for_store(const struct store_state *state, const struct remote_pull *pull);

#endif
