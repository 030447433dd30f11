// SPDX-License-Identifier: Apache-2.0
#include "pagestore/info.h"

#include <jansson.h>
#include <stdlib.h>

#include "common/base/limits.h"

#define INFO_SIZE_MAX (16 * KIB)

void info_ready(struct http_request *request, struct bytes whole)
{
    struct graft_error error;
    json_t *info = json_pack("{s:s, s:s, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}}",               //
                             "name", "graft-pagestore", "version", GRAFT_VERSION, "limits",          //
                             "page_size_min", (json_int_t)PAGE_SIZE_MIN,                             //
                             "page_size_max", (json_int_t)PAGE_SIZE_MAX,                             //
                             "write_pages_pages_max", (json_int_t)WRITE_PAGES_PAGES_MAX,             //
                             "write_pages_size_max", (json_int_t)WRITE_PAGES_SIZE_MAX,               //
                             "read_pages_max", (json_int_t)READ_PAGES_MAX,                           //
                             "read_pages_request_size_max", (json_int_t)READ_PAGES_REQUEST_SIZE_MAX, //
                             "segment_size_max", (json_int_t)SEGMENT_SIZE_MAX,                       //
                             "list_limit_max", (json_int_t)LIST_LIMIT_MAX);
    char *text = info ? json_dumps(info, JSON_INDENT(2)) : NULL;
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(INFO_SIZE_MAX);
    if (!text)
        (void)error_set(&error, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for an answer");
    if (text && buffer_printf(&body, &error, "%s\n", text) == GRAFT_OK)
        http_respond(request, 200, "application/json", &body);
    else
        http_respond_error(request, &error, 0);
    free(text);
    json_decref(info);
}
