// SPDX-License-Identifier: Apache-2.0
//
// What a simulated client did: one JSON object a line, one write(2) a line, appended, so that a kill keeps what was
// written. An operation has a line when it is invoked and one when it completes (ok, fail, info); a line that says
// `note` tells what the push state machine did meanwhile. docs/TESTING.md has the fields.
//
//     struct line line;
//     line_begin(&line, "invoke", "pull", id);
//     line_add(&line, ",\"after\":%llu", after);
//     line_write(&line);
#ifndef TESTS_SIM_RECORDER_H
#define TESTS_SIM_RECORDER_H

#include <stdint.h>

#include "client/client.h"
#include "common/base/buffer.h"

#define LINE_SIZE_MAX (1024u * 1024)

// Opens the file for the rest of the process. Exits if that fails.
void recorder_open(const char *path, const char *client);
// Whose the lines are from now on; for a process that has several data directories, and works on one at a time.
void recorder_speak_for(const char *client);

struct line {
    struct buffer text;
};

// The line's time is now: call it before an invocation and after a completion.
void line_begin(struct line *line, const char *event, const char *op, uint64_t id);
_printf_(2, 3) void line_add(struct line *line, const char *format, ...);
void line_add_vid(struct line *line, const struct gid *vid);
void line_add_hex(struct line *line, const char *key, const void *bytes, size_t size);
void line_add_state(struct line *line, struct graft_volume *volume);
void line_add_error(struct line *line, const struct graft_error *err);
void line_write(struct line *line); // and frees it
// What an error says of the operation that got it: not done (fail), or nobody knows (info).
const char *line_event_of(enum graft_status status);

struct hex32 {
    char text[33];
};
struct hex32 hex32(const void *bytes); // of 16 bytes

// The last push of this process that landed.
struct landed {
    uint64_t count; // of such pushes; 0: none
    uint64_t lsn;
    struct token token;
};
struct landed recorder_landed(void);

#endif
