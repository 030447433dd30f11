// SPDX-License-Identifier: Apache-2.0
//
// POST /v1/segments and /v1/segment: what the object store holds, and one segment's index. Operators' calls:
// they read the store on threads of their own, a few at a time.
#ifndef PAGESTORE_SEGMENT_CALLS_H
#define PAGESTORE_SEGMENT_CALLS_H

#include "common/net/http_server.h"

void segments_ready(struct http_request *request, struct bytes whole);
void segment_ready(struct http_request *request, struct bytes whole);

#endif
