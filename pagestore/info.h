// SPDX-License-Identifier: Apache-2.0
//
// GET /v1/info: name, version and limits, as JSON.
#ifndef PAGESTORE_INFO_H
#define PAGESTORE_INFO_H

#include "common/net/http_server.h"

void info_ready(struct http_request *request, struct bytes whole);

#endif
