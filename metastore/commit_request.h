// SPDX-License-Identifier: Apache-2.0
//
// A commit's request, made ready before its turn comes: what it says, and the bytes of the record that it
// would become if its base is the head. Nothing here needs the head.
#ifndef METASTORE_COMMIT_REQUEST_H
#define METASTORE_COMMIT_REQUEST_H

#include "common/base/receipt.h"
#include "metastore/record.h"

// INVALID, naming the field. All of *ret_commit but time_ms is set; `lsn` is base + 1.
enum graft_status commit_request_parse(const Graft__CommitRequest *request, struct commit_facts *ret_commit,
                                       struct gid *ret_cid, struct graft_error *err);

// Checks the segment references and appends the record. Receipts are taken out of the request: they are not
// kept. *ret_expires_ms: when the first of them expires. INVALID or LIMIT for the references, see
// references.h.
enum graft_status commit_request_encode(Graft__CommitRequest *request, const struct cluster_key *key,
                                        const struct commit_facts *commit, const struct gid *cid,
                                        struct buffer *to, uint64_t *ret_expires_ms, struct graft_error *err);

#endif
