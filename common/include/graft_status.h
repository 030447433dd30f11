// SPDX-License-Identifier: Apache-2.0
//
// Statuses and errors, the same in the library, the daemons and on the wire. Included by graft.h and installed with it.
//
// A status says what the caller does next; `detail` names the exact cause; `message` is for a person: what was being
// done, to what, why it failed and, where one exists, what to try. Numbers are part of the protocol and never change.
#ifndef GRAFT_STATUS_H
#define GRAFT_STATUS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum graft_status {
    GRAFT_OK = 0,
    GRAFT_NOT_FOUND = 1,   // what was named does not exist
    GRAFT_CONFLICT = 2,    // another commit came first: look at the new head and decide
    GRAFT_INVALID = 3,     // the request can never succeed as it is: mend it
    GRAFT_DENIED = 4,      // not allowed with these credentials
    GRAFT_UNAVAILABLE = 5, // not now: nothing was done, try again later
    GRAFT_UNKNOWN = 6,     // it may or may not have been done: ask again with the same token
    GRAFT_LIMIT = 7,       // a stated limit is exceeded: make it smaller
    GRAFT_CORRUPT = 8,     // data fails its check, or two histories do not match
    GRAFT_GONE = 9,        // existed, and retention has removed it
    GRAFT_BUSY = 10,       // somebody else holds it: wait for them, or stop them
    GRAFT_CANCELLED = 11,  // the caller, or a shutdown, took the request back
    GRAFT_INTERNAL = 12,   // our own fault, or the machine's (disk full, I/O error): see the message
};

enum graft_detail {
    GRAFT_DETAIL_NONE = 0,

    GRAFT_DETAIL_TOKEN_REUSED = 1,   // REJECTED: the token landed with another digest
    GRAFT_DETAIL_DELETED = 2,        // REJECTED: the volume was deleted
    GRAFT_DETAIL_NOT_HEAD = 3,       // REJECTED: the base is not the head
    GRAFT_DETAIL_SEGMENT_GONE = 4,   // a receipt expired or a segment was condemned: upload again
    GRAFT_DETAIL_CHAIN_MISMATCH = 5, // the two sides remember different histories
    GRAFT_DETAIL_BAD_RECEIPT = 6,    // a segment reference that the pagestore did not make
    GRAFT_DETAIL_BAD_PAGESET = 7,    // a page set that is not canonical
    GRAFT_DETAIL_BAD_MESSAGE = 8,    // not a well-formed message
    GRAFT_DETAIL_BAD_CHECKSUM = 9,   // bytes that do not match their checksum
    GRAFT_DETAIL_TRUNCATED = 10,     // a stream or a file that ends too early
    GRAFT_DETAIL_TOO_LARGE = 11,     // beyond a limit of docs/LIMITS.md
    GRAFT_DETAIL_BAD_ARGUMENT = 12,  // a field out of its range; the message names it
    GRAFT_DETAIL_NO_SPACE = 13,      // the disk is full, or within its reserve
    GRAFT_DETAIL_IO = 14,            // the disk failed
    GRAFT_DETAIL_LOCKED = 15,        // another process has the directory; the message names it
    GRAFT_DETAIL_TIMEOUT = 16,       // a deadline passed
    GRAFT_DETAIL_UNREACHABLE = 17,   // no connection to the other side
    GRAFT_DETAIL_PROTOCOL = 18,      // the other side answered what no server of this protocol would
    GRAFT_DETAIL_OVERLOADED = 19,    // the other side asks to come back later
    GRAFT_DETAIL_BEHIND = 20,        // the pagestore is still catching up with the volume's log
    GRAFT_DETAIL_STOPPING = 21,      // shutting down
    GRAFT_DETAIL_UNPUSHED = 22,      // the volume has local commits that were not pushed
    GRAFT_DETAIL_PUSH_PENDING = 23,  // a push is under way, its answer not yet known
    GRAFT_DETAIL_NO_MEMORY = 24,
    GRAFT_DETAIL_EXISTS = 25, // create: the name is taken by something else
    GRAFT_DETAIL_NO_SUCH_VOLUME = 26,
    GRAFT_DETAIL_BEYOND_HEAD = 27, // an LSN above the volume's head
    GRAFT_DETAIL_RETIRED = 28,     // an LSN below the history that is kept
    GRAFT_DETAIL_FORKED = 29,      // a handle used in a child of the process that opened it
    GRAFT_DETAIL_HOT_JOURNAL = 30, // import: a -wal or -journal lies beside the SQLite file
    GRAFT_DETAIL_BAD_STORE = 31,   // an object store that lets a second create succeed
    GRAFT_DETAIL_FROZEN = 32,      // a transaction of this process holds the volume's head where it is
};

#define GRAFT_ERROR_MESSAGE_SIZE 256

// Filled in where a call takes `struct graft_error *err` and does not return GRAFT_OK; `err` may be NULL.
struct graft_error {
    enum graft_status status;
    enum graft_detail detail;
    char message[GRAFT_ERROR_MESSAGE_SIZE]; // ends with a NUL, one line
};

#ifdef __cplusplus
}
#endif

#endif
