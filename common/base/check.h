// SPDX-License-Identifier: Apache-2.0
//
// Assertions. They stay on in release builds and are for our own mistakes: input from outside never reaches one.
#ifndef COMMON_BASE_CHECK_H
#define COMMON_BASE_CHECK_H

#include "common/base/compiler.h"

// Writes file, line and expression to stderr and aborts.
_noreturn_ void check_failed(const char *file, int line, const char *expression);

#define CHECK(expression)                                  \
    do {                                                   \
        if (UNLIKELY(!(expression)))                       \
            check_failed(__FILE__, __LINE__, #expression); \
    } while (0)

#endif
