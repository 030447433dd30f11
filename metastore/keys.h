// SPDX-License-Identifier: Apache-2.0
//
// The names of the metastore's objects (docs/FORMATS.md). By value, so that a key can stand in an argument
// list: key_commit(&vid, lsn).text
#ifndef METASTORE_KEYS_H
#define METASTORE_KEYS_H

#include "common/base/gid.h"

#define KEY_CATALOG_PREFIX "catalog/"

struct object_key {
    char text[80];
};

struct object_key key_catalog(const struct gid *vid);
struct object_key key_commit(const struct gid *vid, uint64_t lsn);
// `span` is SUMMARY_SMALL or SUMMARY_LARGE; window n holds LSNs (span·n, span·(n+1)].
struct object_key key_summary(const struct gid *vid, uint32_t span, uint64_t n);
struct object_key key_pack(const struct gid *vid, uint32_t span, uint64_t n);
struct object_key key_retired(const struct gid *vid);

// False for what is no key of the catalog.
bool key_parse_catalog(const char *key, struct gid *ret_vid);

#endif
