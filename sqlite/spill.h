// SPDX-License-Identifier: Apache-2.0
//
// Temporary files without a name: what outgrows memory goes there and is gone with its descriptor, however the process
// ends.
#ifndef SQLITE_SPILL_H
#define SQLITE_SPILL_H

#include "common/base/error.h"

// Opens one in `folder`, for reading and writing.
enum graft_status spill_open(const char *folder, int *ret_fd, struct graft_error *err);

#endif
