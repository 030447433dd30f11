// SPDX-License-Identifier: Apache-2.0
//
// What the two halves of an upload share: the stream side (upload.c), on whichever thread feeds it, and the
// work side (upload_work.c), on one worker at a time.
//
//     stream side ──inbox of full blocks──▶ work side ──▶ kept ──finish──▶ shared segment ──▶ answer
//         ▲                                     │
//         └───────────── room ──────────────────┴─ large ─▶ own segments, one being written, one being sealed
//         ─▶ answer
//
// The work side is an actor: upload_kick() makes it look again, and it never runs twice at once. It takes one
// step a run and goes to the end of the pool's queue, so that a long stream does not hold up short ones; it
// never waits for anything but the disk.
//
// Invariants:
//  1. An upload holds at most blocks_max blocks, wherever they are: `reserved` pays for all of them.
//  2. `large` is set once, before `finished`, and never taken back. Only a large upload writes segments of
//  its own.
//  3. References are handed out when `finished` is set, nothing has failed and nothing is being sealed.
//  4. A failed or abandoned upload ends with no writer, no blocks, no slot, and its durable segments removed.
#ifndef PAGESTORE_UPLOAD_INTERNAL_H
#define PAGESTORE_UPLOAD_INTERNAL_H

#include "common/base/mutex.h"
#include "pagestore/segment_reference.h"
#include "pagestore/shared_segment.h"
#include "pagestore/upload.h"

// Of the SEGMENTS_OPEN_MAX open segments one is the shared one.
#define OWN_SEGMENTS_MAX (SEGMENTS_OPEN_MAX - 1)

struct codec_slot {
    STAILQ_ENTRY(codec_slot) next;
    struct page_codec *codec;
};

struct uploads {
    struct uploads_settings settings;
    struct pool *pool;
    struct shared_segments *shared;
    struct metric *pages_total, *bytes_total, *sealed_total, *failed_total, *reserved_gauge;

    struct mutex lock;
    struct cond idle;                 // signalled when the last upload has gone
    unsigned count;                   // lock: uploads alive
    size_t reserved;                  // lock: bytes, at most RECEIVE_BUDGET_SIZE
    struct upload_blocks spare;       // lock: blocks of full size, ready for use
    unsigned spare_count;             // lock
    STAILQ_HEAD(, codec_slot) codecs; // lock: as many as workers
    unsigned own_open;                // lock: at most OWN_SEGMENTS_MAX
    TAILQ_HEAD(, upload) slot_queue;  // lock
};

struct upload {
    struct uploads *uploads;
    struct upload_events events;
    uint64_t body_size;
    size_t reserved; // what it took of the budget
    unsigned blocks_max;

    // the stream side's
    struct page_decoder *decoder;
    struct upload_block *filling;
    bool begun, ended;
    bool info_seen; // `info` may be read
    uint32_t last_pageidx;
    uint32_t page_count;
    uint64_t payload_size;
    struct volume_query query;

    // Written by the stream side before the first block, then constant.
    struct gid vid;

    // under uploads->lock
    unsigned references;
    struct volume_info info; // constant once info_known
    bool info_known;
    bool starved; // the stream side waits for a wake
    bool large, finished, closed;
    bool failed;   // `error` is why
    bool answered; // done has run, or never will
    struct graft_error error;
    struct upload_blocks inbox;
    unsigned blocks_held;
    bool running, again; // the actor
    bool slot_waiting, slot_granted;
    TAILQ_ENTRY(upload) slot_next;
    bool sealing; // a segment of its own is on its way to durable

    // the work side's
    struct job job;
    struct upload_blocks kept;    // verified, while the upload is short
    struct upload_block *pending; // verified, to be written next
    struct segment_writer *writer;
    struct segment_reference *stored; // segments sealed, or being sealed, in order
    unsigned stored_count, stored_capacity;
    bool submitted; // to the shared segment
    struct shared_item item;
};

// ---- both sides

struct upload *upload_ref(struct upload *upload);
void upload_unref(struct upload *upload);
// Makes the work side look again. Any thread.
void upload_kick(struct upload *upload);
// The first failure counts. Any thread, no lock held.
void upload_fail(struct upload *upload, const struct graft_error *error);
// Runs done, if it may still run.
void upload_answer(struct upload *upload, const struct graft_error *error, struct buffer *response);
// Gives a block's room back to the stream side.
void upload_return_block(struct upload *upload, struct upload_block *block);

// ---- the work side

void upload_run(struct job *job);

#endif
