// SPDX-License-Identifier: Apache-2.0
//
// Fencing off: how a push that may have been sent gets a definitive answer, so that nothing of it can land later.
//
//     COMMITTING ──ask again──▶ landed, or rejected
//         │  ▲ no answer that settles it
//         ▼  │
//       FENCING ──void commit on the same base──▶ OK, GONE: the push can never land any more
//            └──────────────────────────────────  CONFLICT: its place is taken, so asking settles it now
//
// The void commit (no page, a token of its own) is durable here before it is sent, like any other; whoever
// pushes next goes on with it.
#ifndef CLIENT_PUSH_FENCE_H
#define CLIENT_PUSH_FENCE_H

#include "client/client.h"

// [network] Afterwards no push of the volume is under way and nothing that was sent can land: it landed, or
// the volume's status says that it did not; one that was never sent was dropped. The turn is the caller's. BUSY
// / PUSH_PENDING, with the reason, if the servers do not answer: the push stays as it is.
enum graft_status push_resolve(struct graft_volume *volume, uint32_t patience_ms, struct graft_error *err);
// [network] The same for one whose outcome does not matter, also where the histories differ.
enum graft_status push_drop(struct graft_volume *volume, uint32_t patience_ms, struct graft_error *err);

#endif
