// SPDX-License-Identifier: Apache-2.0
//
// Many objects read in order by a thread that may wait: a window of gets is under way while earlier ones
// are visited, so a distant store costs its latency once a window. At most FETCH_WINDOW × FETCH_PREFIX_SIZE
// bytes and one whole object are in memory.
#ifndef METASTORE_FETCH_H
#define METASTORE_FETCH_H

#include "common/store/objstore.h"
#include "metastore/keys.h"

#define FETCH_WINDOW 32u
#define FETCH_PREFIX_SIZE (32 * 1024u)

struct fetch_spec {
    size_t count;
    struct object_key (*key)(void *context, size_t place);
    // In order of place. `object.data` NULL: there is no such object. A status other than OK ends the fetch.
    enum graft_status (*visit)(void *context, size_t place, struct bytes object, struct graft_error *err);
    void *context;
    uint64_t object_size_max;
};

enum graft_status fetch_all(struct objstore *store, const struct fetch_spec *spec, struct graft_error *err);

// One object; *ret_found false if there is none. *ret_object has its cap from the caller.
enum graft_status fetch_one(struct objstore *store, const char *key, bool *ret_found,
                            struct buffer *ret_object, struct graft_error *err);

#endif
