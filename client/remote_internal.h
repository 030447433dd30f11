// SPDX-License-Identifier: Apache-2.0
//
// What remote.c and remote_pages.c share.
#ifndef CLIENT_REMOTE_INTERNAL_H
#define CLIENT_REMOTE_INTERNAL_H

#include "client/remote.h"

#define URL_SIZE_MAX 2048u

// UNAVAILABLE / UNREACHABLE if no URL (`name` says whose) was given.
enum graft_status remote_target(const struct remote *remote, const char *url, const char *name,
                                struct rpc_target *ret_target, struct graft_error *err);
// UNAVAILABLE / PROTOCOL: "<call>: the server's answer <what>".
enum graft_status remote_protocol_error(struct graft_error *err, const char *call, const char *what);

#endif
