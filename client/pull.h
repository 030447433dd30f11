// SPDX-License-Identifier: Apache-2.0
//
// Pulling: taking over what others pushed, which moves no page.
#ifndef CLIENT_PULL_H
#define CLIENT_PULL_H

#include "client/client.h"

// [network] graft_pull(). The turn is the caller's.
enum graft_status pull_run(struct graft_volume *volume, uint64_t *ret_changed, struct graft_error *err);

#endif
