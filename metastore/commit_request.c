// SPDX-License-Identifier: Apache-2.0
#include "metastore/commit_request.h"

#include "metastore/references.h"

enum graft_status commit_request_parse(const Graft__CommitRequest *request, struct commit_facts *ret_commit,
                                       struct gid *ret_cid, struct graft_error *err)
{
    struct commit_facts commit = {
        .base_lsn = request->base_lsn, .page_count = request->page_count, .cut = request->cut};
    enum graft_status status = gid_from_bytes(bytes_of(&request->vid), GID_VOLUME, "vid", &commit.vid, err);
    if (status == GRAFT_OK)
        status = hash_from_bytes(bytes_of(&request->base_chain), "base_chain", &commit.base_chain, err);
    if (status == GRAFT_OK)
        status = token_from_bytes(bytes_of(&request->token), "token", &commit.token, err);
    if (status == GRAFT_OK)
        status = hash_from_bytes(bytes_of(&request->digest), "digest", &commit.digest, err);
    if (status == GRAFT_OK)
        status = gid_from_bytes(bytes_of(&request->cid), GID_CLIENT, "cid", ret_cid, err);
    if (status == GRAFT_OK && request->base_lsn >= INT64_MAX)
        status = error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "base_lsn is %llu",
                           (unsigned long long)request->base_lsn);
    if (status == GRAFT_OK && commit.cut > commit.page_count)
        status = error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                           "cut is %u, more than page_count, %u", commit.cut, commit.page_count);
    if (status != GRAFT_OK)
        return status;
    commit.lsn = commit.base_lsn + 1;
    commit.chain = chain_next(&commit.base_chain, &commit.vid, commit.lsn, &commit.token, &commit.digest,
                              commit.page_count);
    *ret_commit = commit;
    return GRAFT_OK;
}

enum graft_status commit_request_encode(Graft__CommitRequest *request, const struct cluster_key *key,
                                        const struct commit_facts *commit, const struct gid *cid,
                                        struct buffer *to, uint64_t *ret_expires_ms, struct graft_error *err)
{
    enum graft_status status = references_check(key, &commit->vid, commit->page_count, request->segments,
                                                request->n_segments, ret_expires_ms, err);
    if (status != GRAFT_OK)
        return status;
    for (size_t i = 0; i < request->n_segments; i++) {
        request->segments[i]->receipt.len = 0;
        request->segments[i]->expires_ms = 0;
    }
    return commit_record_encode(commit, cid, request->segments, request->n_segments, to, err);
}
