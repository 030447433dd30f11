// SPDX-License-Identifier: Apache-2.0
#include "client/push_send.h"

#include "client/patience.h"

// What an answer that is not OK means for the token. Only what the metastore itself says about this very
// token settles anything: proxies and other requests' answers do not.
static enum push_answer classify_failure(const struct push_message *message,
                                         const struct rpc_failure *failure, const struct graft_error *error)
{
    if (!failure->answered)
        return ANSWER_PENDING;
    if (error->detail == GRAFT_DETAIL_SEGMENT_GONE)
        return ANSWER_SEGMENT_GONE;
    if (!failure->has_token || !token_equal(&failure->token, &message->token))
        return ANSWER_PENDING;
    switch (error->detail) {
    case GRAFT_DETAIL_NOT_HEAD:
    case GRAFT_DETAIL_TOKEN_REUSED:
    case GRAFT_DETAIL_DELETED:
        return ANSWER_REJECTED;
    case GRAFT_DETAIL_CHAIN_MISMATCH:
        return ANSWER_CORRUPT;
    case GRAFT_DETAIL_RETIRED:
        return ANSWER_GONE;
    default:
        return error->status == GRAFT_CONFLICT ? ANSWER_REJECTED : ANSWER_PENDING;
    }
}

// An OK counts if token and digest are this commit's; then it must also say what this commit must have become.
static enum push_answer check_landed(const struct gid *vid, const struct push_message *message,
                                     const struct remote_commit *commit, struct graft_error *err)
{
    const struct snapshot *landed = &commit->snapshot;

    if (!token_equal(&commit->token, &message->token) || !hash_equal(&commit->digest, &message->digest) ||
        !gid_equal(&landed->vid, vid)) {
        error_set(err, GRAFT_UNKNOWN, GRAFT_DETAIL_PROTOCOL,
                  "the metastore's answer to a commit of volume %s is about another commit",
                  gid_format(vid).text);
        return ANSWER_PENDING;
    }
    struct hash128 chain = chain_next(&message->base.chain, vid, landed->lsn, &message->token,
                                      &message->digest, message->page_count);
    if (landed->lsn == message->base.lsn + 1 && landed->page_count == message->page_count &&
        hash_equal(&landed->chain, &chain))
        return ANSWER_LANDED;
    error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
              "the commit of volume %s on LSN %llu landed as LSN %llu of another history",
              gid_format(vid).text, (unsigned long long)message->base.lsn, (unsigned long long)landed->lsn);
    return ANSWER_CORRUPT;
}

enum push_answer push_send(struct graft_volume *volume, const struct push_message *message,
                           uint32_t patience_ms, struct store_remote *ret_landed, bool *ret_sent,
                           struct graft_error *err)
{
    const struct gid *vid = &volume->source.vid;
    struct patience patience;

    *ret_sent = false;
    patience_init(&patience, volume->client->remote.http, patience_ms);
    for (;;) {
        struct rpc_failure failure;
        struct remote_commit commit;
        enum graft_status status =
            remote_commit(&volume->client->remote, message->request, &commit, &failure, err);
        enum push_answer answer = status == GRAFT_OK ? check_landed(vid, message, &commit, err)
                                                     : classify_failure(message, &failure, err);
        volume->retry_after_ms = status == GRAFT_OK ? 0 : failure.retry_after_ms;
        *ret_sent |= status == GRAFT_OK || failure.answered || failure.sent;
        if (answer == ANSWER_LANDED)
            *ret_landed =
                (struct store_remote){commit.snapshot.lsn, commit.snapshot.chain, commit.snapshot.page_count};
        if (failure.has_snapshot && gid_equal(&failure.snapshot.vid, vid))
            store_note_remote(volume->store, failure.snapshot.lsn, NULL);
        if (answer != ANSWER_PENDING || !patience_wait(&patience, err, failure.retry_after_ms))
            return answer;
    }
}
