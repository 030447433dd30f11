// SPDX-License-Identifier: Apache-2.0
#include "tests/lib/commit_plan.h"

#define BORN_MS 1700000000000ull

struct token token_of(uint64_t number)
{
    struct token token = {{0}};
    put_be64(token.bytes, number);
    token.bytes[15] = 0x70;
    return token;
}

struct hash128 digest_of(uint64_t number)
{
    struct hash128 digest = {{0}};
    put_be64(digest.bytes, number);
    digest.bytes[15] = 0xd1;
    return digest;
}

struct commit_plan plan_on(const struct snapshot *base, uint64_t token, uint32_t first, uint32_t count)
{
    uint32_t end = first + count - 1;
    return (struct commit_plan){.vid = base->vid,
                                .base_lsn = base->lsn,
                                .base_chain = base->chain,
                                .token = token,
                                .digest = token,
                                .page_count = MAX(base->page_count, end),
                                .cut = base->page_count,
                                .expires_ms = UINT64_MAX,
                                .segment_count = 1,
                                .segments = {{first, count}}};
}

static void build_segment(const struct cluster_key *key, const struct commit_plan *plan, struct page_run run,
                          struct built_segment *segment)
{
    size_t size = varint_put(segment->pages, run.first - 1);
    size += varint_put(segment->pages + size, run.count);
    graft__segment_ref__init(&segment->message);
    segment->sid = gid_make(GID_SEGMENT, BORN_MS);
    struct receipt_claim claim = {.sid = segment->sid,
                                  .owner = plan->vid,
                                  .object_size = 100000,
                                  .index_offset = 99000,
                                  .index_size = 900,
                                  .expires_ms = plan->expires_ms,
                                  .pages = {segment->pages, size}};
    segment->receipt = receipt_make(key, &claim);
    segment->message.sid = binary_of(segment->sid.bytes, GID_SIZE);
    segment->message.owner = binary_of(plan->vid.bytes, GID_SIZE);
    segment->message.pages = binary_of(segment->pages, size);
    segment->message.object_size = claim.object_size;
    segment->message.index_offset = claim.index_offset;
    segment->message.index_size = claim.index_size;
    segment->message.expires_ms = claim.expires_ms;
    segment->message.receipt = binary_of(segment->receipt.bytes, RECEIPT_SIZE);
}

void commit_build(const struct cluster_key *key, const struct commit_plan *plan,
                  struct built_commit *ret_commit)
{
    struct built_commit *commit = ret_commit;
    Graft__CommitRequest *request = &commit->request;
    graft__commit_request__init(request);
    commit->plan = *plan;
    commit->token = token_of(plan->token);
    commit->digest = digest_of(plan->digest);
    commit->cid = gid_make(GID_CLIENT, BORN_MS);
    for (unsigned i = 0; i < plan->segment_count; i++) {
        build_segment(key, &commit->plan, plan->segments[i], &commit->segments[i]);
        commit->pointers[i] = &commit->segments[i].message;
    }
    request->vid = binary_of(commit->plan.vid.bytes, GID_SIZE);
    request->base_lsn = plan->base_lsn;
    request->base_chain = binary_of(commit->plan.base_chain.bytes, HASH_SIZE);
    request->token = binary_of(commit->token.bytes, TOKEN_SIZE);
    request->digest = binary_of(commit->digest.bytes, HASH_SIZE);
    request->cid = binary_of(commit->cid.bytes, GID_SIZE);
    request->page_count = plan->page_count;
    request->cut = plan->cut;
    request->n_segments = plan->segment_count;
    request->segments = commit->pointers;
}
