// SPDX-License-Identifier: Apache-2.0
//
// Shared by catchup.c, which applies what the index lacks, and catchup_reread.c, which reads single commits again.
#ifndef PAGESTORE_CATCHUP_INTERNAL_H
#define PAGESTORE_CATCHUP_INTERNAL_H

#include "common/base/mutex.h"
#include "pagestore/catchup.h"
#include "pagestore/commit_stream.h"

struct catchup {
    struct page_index *index;
    struct disk_reserve *reserve;
    struct http_client *http; // its thread is the index's writer
    struct timers *timers;
    char url[1024];
    struct mutex lock;
    TAILQ_HEAD(, catching) catchings;   // under lock
    unsigned catching_count;            // under lock
    TAILQ_HEAD(, rereading) rereadings; // under lock
    unsigned rereading_count;           // under lock
    bool stopping;                      // under lock
    struct metric *rounds, *waits, *late, *rereads;
};

// Sees to it that the disk has room for what applying the commit writes.
enum graft_status catchup_reserve(struct catchup *catchup, const Graft__Commit *commit,
                                  struct graft_error *err);

#endif
