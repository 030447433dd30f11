// SPDX-License-Identifier: Apache-2.0
//
// Lets criterion start in a program built with -fsanitize=thread. Criterion shares memory with the children
// that run its tests at a fixed address, drawn from 0x2000'0000'0000 to 0x6000'0000'0000; ThreadSanitizer
// keeps nearly all of that for itself, so that no draw ever succeeds. The calls by which criterion tries an
// address are caught here: where it asks for one of ThreadSanitizer's, it is given one that is free.
#undef _FILE_OFFSET_BITS // or mmap64 below would be a second mmap
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>

#define ARENA_FIRST 0x200000000000u
#define ARENA_END 0x600000000000u
#define FREE_FIRST 0x550000000000u
#define FREE_END 0x568000000000u
#define FREE_SPREAD_MASK 0x3fff000000u // keeps draws apart from each other, within the free part

#define EXPORTED __attribute__((visibility("default")))

EXPORTED void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t offset);
EXPORTED int mincore(void *addr, size_t len, unsigned char *vec);
EXPORTED int msync(void *addr, size_t len, int flags);

static bool is_taken(const void *address)
{
    uintptr_t place = (uintptr_t)address;
    bool free_for_us = place >= FREE_FIRST && place < FREE_END;
    return place >= ARENA_FIRST && place < ARENA_END && !free_for_us;
}

void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t offset)
{
    static void *(*next)(void *, size_t, int, int, int, off64_t);
    if (!next)
        next = dlsym(RTLD_NEXT, "mmap64");
    if ((flags & MAP_FIXED) && is_taken(addr))
        addr = (void *)(FREE_FIRST + (((uintptr_t)addr >> 8) & FREE_SPREAD_MASK));
    return next(addr, len, prot, flags, fd, offset);
}

// Criterion asks whether an address is in use before it maps there: ENOMEM says no.
int mincore(void *addr, size_t len, unsigned char *vec)
{
    static int (*next)(void *, size_t, unsigned char *);
    if (!next)
        next = dlsym(RTLD_NEXT, "mincore");
    if (is_taken(addr)) {
        errno = ENOMEM;
        return -1;
    }
    return next(addr, len, vec);
}

int msync(void *addr, size_t len, int flags)
{
    static int (*next)(void *, size_t, int);
    if (!next)
        next = dlsym(RTLD_NEXT, "msync");
    if (is_taken(addr)) {
        errno = ENOMEM;
        return -1;
    }
    return next(addr, len, flags);
}
