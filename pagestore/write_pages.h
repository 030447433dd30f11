// SPDX-License-Identifier: Apache-2.0
//
// POST /v1/write_pages: a page stream in, segment references out, once they are durable. The functions of its
// route.
#ifndef PAGESTORE_WRITE_PAGES_H
#define PAGESTORE_WRITE_PAGES_H

#include "common/net/http_server.h"

void write_pages_begin(struct http_request *request, void *context);
size_t write_pages_body(struct http_request *request, const void *data, size_t size);
void write_pages_ready(struct http_request *request, struct bytes whole);
void write_pages_closed(struct http_request *request);

#endif
