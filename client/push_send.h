// SPDX-License-Identifier: Apache-2.0
//
// Sending a CommitRequest, and what the answers mean for its token.
#ifndef CLIENT_PUSH_SEND_H
#define CLIENT_PUSH_SEND_H

#include "client/client.h"

enum push_answer {
    ANSWER_LANDED,
    ANSWER_REJECTED,     // it never landed and never will
    ANSWER_SEGMENT_GONE, // not landed so far
    ANSWER_CORRUPT,      // its base is of another history
    ANSWER_GONE,    // the base was retired: it will not land from now on; whether it had, nobody can tell
    ANSWER_PENDING, // settles nothing
};

// A commit on `base`, as its request says it.
struct push_message {
    struct bytes request;
    struct store_remote base;
    struct token token;
    struct hash128 digest;
    uint32_t page_count;
};

// [network] Sends the request, again and again while what comes back settles nothing and `patience_ms` have not
// passed. *ret_landed only for LANDED; for anything else *err is the last answer's error. *ret_sent: some try
// may have reached a server.
enum push_answer push_send(struct graft_volume *volume, const struct push_message *message,
                           uint32_t patience_ms, struct store_remote *ret_landed, bool *ret_sent,
                           struct graft_error *err);

#endif
