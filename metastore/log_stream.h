// SPDX-License-Identifier: Apache-2.0
//
// `commits`: a volume's log as a stream. A reader thread fills a buffer from log_reader, the server's
// thread empties it onto the connection; the reader comes back when the buffer is nearly empty, so a slow
// peer costs one buffer and no thread.
#ifndef METASTORE_LOG_STREAM_H
#define METASTORE_LOG_STREAM_H

#include "common/base/worker.h"
#include "common/net/http_server.h"
#include "metastore/log_reader.h"

// Answers `request` with the commits first_lsn to last_lsn of the volume, which exist. log_stream_closed()
// is to be the route's `closed`.
void log_stream_start(struct http_request *request, struct objstore *store, struct pool *readers,
                      const struct gid *vid, uint64_t first_lsn, uint64_t last_lsn);
void log_stream_closed(struct http_request *request);

#endif
