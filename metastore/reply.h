// SPDX-License-Identifier: Apache-2.0
//
// Answers of the metastore's calls.
#ifndef METASTORE_REPLY_H
#define METASTORE_REPLY_H

#include "common/net/http_server.h"
#include "metastore/sequencer.h"

// 200 with the message.
void reply_message(struct http_request *request, const ProtobufCMessage *message);
// An Error; Retry-After where trying again may help. Logged if the fault is ours.
void reply_error(struct http_request *request, const struct graft_error *error);
// An Error that echoes the token and shows the head where the answer has them.
void reply_refusal(struct http_request *request, const struct commit_answer *answer);

// A request's message, decoded with a cap on its memory. Answers the request itself if it is malformed:
// then NULL.
ProtobufCMessage *request_message(struct http_request *request, struct bytes body,
                                  const ProtobufCMessageDescriptor *descriptor);

#endif
