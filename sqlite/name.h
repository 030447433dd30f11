// SPDX-License-Identifier: Apache-2.0
//
// What the name of a database means, by its form alone. Pure functions.
#ifndef SQLITE_NAME_H
#define SQLITE_NAME_H

enum name_kind {
    NAME_RANDOM, // a new volume
    NAME_VID,
    NAME_TAG,  // could be one; or a file in the current directory
    NAME_PATH, // has a slash: a file, a stub perhaps
    NAME_BAD,  // could only be a file in the current directory
};

enum name_kind name_kind_of(const char *name);
// The name in a path "<folder>/<name>", NULL if the path is not of that form.
const char *name_in_folder(const char *path, const char *folder);

#endif
