// SPDX-License-Identifier: Apache-2.0
//
// The first half of a push: the pages of its range become segments, and what they say becomes a
// CommitRequest.
#ifndef CLIENT_PUSH_UPLOAD_H
#define CLIENT_PUSH_UPLOAD_H

#include "client/client.h"

#define PUSH_REQUEST_SIZE_MAX (64 * MIB) // of page bytes in one write_pages call

// [network] Uploads every page of the push that the store has under way (UPLOADING), each with its latest
// version, in ascending order, and appends the serialized CommitRequest to `to` (cap
// COMMIT_REQUEST_SIZE_MAX). Failures that may pass are met with further tries until `patience_ms` passed
// without one that did not fail. LIMIT if the references to the segments do not fit in one commit.
enum graft_status push_upload(struct graft_volume *volume, const struct store_push *push,
                              uint32_t patience_ms, struct buffer *to, struct hash128 *ret_digest,
                              struct graft_error *err);

#endif
