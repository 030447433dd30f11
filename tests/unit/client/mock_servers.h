// SPDX-License-Identifier: Apache-2.0
//
// Both servers in one process, for faults that the real ones never show: answers that get lost, refusals of proxies, other
// histories, broken streams. Otherwise they keep one volume's log and say of every page that it has a tag's bytes.
#ifndef TESTS_UNIT_CLIENT_MOCK_SERVERS_H
#define TESTS_UNIT_CLIENT_MOCK_SERVERS_H

#include <criterion/criterion.h>

#include "client/include/graft.h"
#include "common/base/checksum.h"
#include "common/base/mutex.h"
#include "common/net/http_server.h"
#include "common/net/message.h"
#include "proto/graft.pb-c.h"

#define MOCK_COMMITS_MAX 16u
#define MOCK_PAGE_SIZE 512u

enum commit_fault {
    COMMIT_PLAIN,          // as the real one does
    COMMIT_LOST,           // lands, and something on the way answers 502
    COMMIT_PROXY_CONFLICT, // 409 with a text, nothing done
    COMMIT_BARE_CONFLICT,  // CONFLICT / NOT_HEAD that echoes no token
    COMMIT_OTHER_CONFLICT, // the same about another token
    COMMIT_CONFLICT,       // the same about this one
    COMMIT_TOKEN_REUSED,
    COMMIT_DELETED,
    COMMIT_DENIED, // of the server itself, echoing the token
    COMMIT_SEGMENT_GONE,
    COMMIT_RETIRED,
    COMMIT_CHAIN_MISMATCH,
    COMMIT_BUSY,            // 503
    COMMIT_BUSY_A_SECOND,   // 503 with Retry-After: 1
    COMMIT_OTHER_TOKEN_OK,  // OK about another token
    COMMIT_OTHER_DIGEST_OK, // OK about another digest
    COMMIT_OTHER_CHAIN_OK,  // OK, with a chain that does not follow from the base
    COMMIT_HOLD,            // waits for mock_release(), which answers it with 503
};

enum write_fault {
    WRITE_PLAIN,
    WRITE_BUSY,        // 503
    WRITE_BAD_BYTES,   // INVALID / BAD_CHECKSUM: they changed on the way
    WRITE_FEWER_PAGES, // a reference that leaves out the last page
};

enum read_fault {
    READ_PLAIN,
    READ_OTHER_LSN, // the echo is about another LSN
    READ_OTHER_CHAIN,
    READ_CUT,       // the stream stops before its last page
    READ_LEAVE_OUT, // a whole stream without its last page
    READ_STRANGER,  // a page that was not asked for
    READ_TWICE,     // the same page twice
    READ_DAMAGED,   // the last page is DAMAGED
    READ_BAD_BYTES, // the last page's checksum does not fit
    READ_SHORT,     // the last page is a byte short (checksum as it should be)
    READ_BEHIND,    // 503 / BEHIND
    READ_RETIRED,   // GONE
    READ_HOLD,      // waits for mock_release()
};

struct mock_servers {
    struct http_server *server;
    char url[64];
    struct mutex lock; // RANK_LEAF; of all below
    struct cond changed;

    // What the next calls do; the last one goes on for ever.
    enum commit_fault commit_faults[MOCK_COMMITS_MAX];
    enum write_fault write_faults[MOCK_COMMITS_MAX];
    enum read_fault read_faults[MOCK_COMMITS_MAX];
    unsigned creates_busy, pulls_busy; // so many of the next are refused: 503 with Retry-After: 1

    uint64_t head_lsn;
    struct hash128 head_chain;
    uint32_t head_page_count;
    struct token landed[MOCK_COMMITS_MAX];       // by LSN - 1
    struct snapshot landed_as[MOCK_COMMITS_MAX]; // likewise

    // With `fences_apart`, commits that name no segment count as fences and have faults of their own.
    bool fences_apart;
    enum commit_fault fence_faults[MOCK_COMMITS_MAX];
    unsigned fences;
    // Once a fence was answered with a definitive refusal, other commits meet `plain_is` instead of their fault.
    bool plain_after_fence, plain_now;
    enum commit_fault plain_is;
    // Called as a commit arrives, before anything is done with it. Not under the lock.
    void (*on_commit)(void *context);
    void *context;

    // What was seen.
    unsigned commits, writes, reads, creates, pulls;
    struct buffer requests[MOCK_COMMITS_MAX]; // CommitRequests
    uint32_t first[MOCK_COMMITS_MAX];         // of the reads
    uint64_t read_counts[MOCK_COMMITS_MAX];
    struct http_request *held[MOCK_COMMITS_MAX]; // READ_HOLD, COMMIT_HOLD
    struct buffer held_bodies[MOCK_COMMITS_MAX];
    unsigned held_count, held_most;
};

void mock_start(struct mock_servers *mock);
void mock_stop(struct mock_servers *mock);
// Answers what is held, and holds no more.
void mock_release(struct mock_servers *mock);
// Refuses what is held with GONE, and holds no more.
void mock_refuse(struct mock_servers *mock);
// Waits until that many requests are held.
void mock_await_held(struct mock_servers *mock, unsigned count);
// Lands a commit of somebody else that changes nothing.
void mock_land_other(struct mock_servers *mock, const char *vid);
// Of the commit that came at that place.
struct token mock_request_token(struct mock_servers *mock, unsigned place);
// Sends that commit's request once more; the HTTP status of the answer.
unsigned mock_replay(struct mock_servers *mock, unsigned place);
// A volume of that many pages at LSN 1.
void mock_set_head(struct mock_servers *mock, const char *vid, uint32_t page_count);

// The bytes that a page has on the servers.
void mock_page(uint32_t pageidx, uint8_t to[MOCK_PAGE_SIZE]);

#endif
