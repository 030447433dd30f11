// SPDX-License-Identifier: Apache-2.0
#ifndef SQLITE_VFS_H
#define SQLITE_VFS_H

// Registers the VFS, once per process. Also the default if that is asked for here or in the settings.
int vfs_register(int make_default);

#endif
