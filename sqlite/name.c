// SPDX-License-Identifier: Apache-2.0
#include "sqlite/name.h"

#include <string.h>

#include "client/include/graft.h"
#include "common/base/gid.h"

enum name_kind name_kind_of(const char *name)
{
    struct gid vid;

    if (strchr(name, '/'))
        return NAME_PATH;
    if (strcmp(name, "random") == 0)
        return NAME_RANDOM;
    if (gid_parse(name, GID_VOLUME, &vid, NULL) == GRAFT_OK)
        return NAME_VID;
    return graft_tag_is_name(name) ? NAME_TAG : NAME_BAD;
}

const char *name_in_folder(const char *path, const char *folder)
{
    size_t size = strlen(folder);

    if (strncmp(path, folder, size) != 0 || path[size] != '/')
        return NULL;
    const char *name = path + size + 1;
    enum name_kind kind = name_kind_of(name);
    return kind == NAME_VID || kind == NAME_TAG ? name : NULL;
}
