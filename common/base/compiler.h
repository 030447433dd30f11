// SPDX-License-Identifier: Apache-2.0
//
// The GNU extensions that the tree allows itself, each under one name: scope-bound destructors, TAKE(), attributes.
#ifndef COMMON_BASE_COMPILER_H
#define COMMON_BASE_COMPILER_H

#include <stddef.h>
#include <stdlib.h>

// Runs f(&variable) when the variable goes out of scope. Keeping it until then may be all that the variable is for, which
// clang takes for an oversight unless told.
#define _cleanup_(f) __attribute__((cleanup(f), unused))

// Hands over what a cleanup variable owns: yields the pointer and leaves NULL behind.
#define TAKE(pointer)                       \
    ({                                      \
        typeof(pointer) taken_ = (pointer); \
        (pointer) = NULL;                   \
        taken_;                             \
    })

// Defines free_fn##_p() for use with _cleanup_ on a `type *` variable. free_fn takes NULL.
#define DEFINE_CLEANUP(type, free_fn)              \
    static inline void free_fn##_p(type **pointer) \
    {                                              \
        free_fn(*pointer);                         \
    }

// For memory from malloc(): _cleanup_(free_p) char *text = NULL;
static inline void free_p(void *pointer)
{
    free(*(void **)pointer);
}

#define _printf_(format_index, first_argument) __attribute__((format(printf, format_index, first_argument)))
#define _warn_unused_ __attribute__((warn_unused_result))
#define _noreturn_ __attribute__((noreturn))

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CONTAINER_OF(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))
#define MIN(a, b)           \
    ({                      \
        typeof(a) a_ = (a); \
        typeof(b) b_ = (b); \
        a_ < b_ ? a_ : b_;  \
    })
#define MAX(a, b)           \
    ({                      \
        typeof(a) a_ = (a); \
        typeof(b) b_ = (b); \
        a_ > b_ ? a_ : b_;  \
    })

#endif
