// SPDX-License-Identifier: Apache-2.0
//
// Pushing: the durable state machine that makes the unpushed local commits one remote commit, exactly once.
//
//           push_begin           push_upload_step           push_commit_step: OK
//     IDLE ────────────▶ UPLOADING ─────────────▶ COMMITTING ────────────────────▶ IDLE (settled)
//                            ▲     SEGMENT_GONE       │  CONFLICT, TOKEN_REUSED, DELETED, echoing our token
//                            └────────────────────────┤─────────────────────────▶ IDLE, volume `rejected`
//                                                     │  another history
//                                                     ├─────────────────────────▶ volume `corrupt`
//                                                     └─ anything else: stays, volume `unknown`
//
// Who wants to drop the push instead (reset, fork) fences it off: push_fence.h.
//
// Each state is durable before the next message leaves; the token is chosen once, at begin, and kept through
// every retry. Whoever pushes next, also after a restart, goes on where the store says the push stands.
#ifndef CLIENT_PUSH_H
#define CLIENT_PUSH_H

#include "client/client.h"

// [network] graft_push() with a choice of how long to go on trying. The turn is the caller's.
enum graft_status push_run(struct graft_volume *volume, uint32_t patience_ms, uint64_t *ret_remote_lsn,
                           struct graft_error *err);
// [network] The same, until everything is pushed that was committed when it was called: a push that had no answer
// yet is followed by one for the commits made since it began. The turn is the caller's.
enum graft_status push_all(struct graft_volume *volume, uint32_t patience_ms, struct graft_error *err);

#endif
