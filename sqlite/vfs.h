// SPDX-License-Identifier: Apache-2.0
#ifndef SQLITE_VFS_H
#define SQLITE_VFS_H

#include "common/base/error.h"

// Registers the VFS, once per process. Also the default if that is asked for here or in the settings; settings that cannot
// be read are an error, for a program that counts on the default would write into files of the host. An SQLITE_… code.
int vfs_register(int make_default, struct graft_error *err);

#endif
