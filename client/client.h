// SPDX-License-Identifier: Apache-2.0
//
// What stands behind the handles of graft.h.
//
//     graft ── store                    (the data directory)
//       │ ├─── remote, fetcher          (the servers; pages on their way)
//       │ └─── sync                     (the background thread, once somebody asked for it)
//       └── graft_volume: one for each VID that is open, however often
//               ├── graft_snapshot ── a pin of the store, or a view of the servers
//               ├── graft_writer, graft_file
//
// Locks: client->lock, volume->turn_lock, then those of the store and the fetcher (common/base/mutex.h).
// Neither of the first two is held across the network; client->lock may be held across the opening of a
// volume in the store.
#ifndef CLIENT_CLIENT_H
#define CLIENT_CLIENT_H

#include <stdatomic.h>
#include <sys/queue.h>

#include "client/fetch.h"
#include "client/include/graft.h"
#include "client/remote.h"
#include "client/store.h"
#include "common/base/mutex.h"

#define DEADLINE_DEFAULT_MS 30000u
// A page that arrived may be evicted before its reader looks again; that it happens so often in a row means a
// fault.
#define READ_ROUNDS_MAX 16u

struct sync;

struct graft {
    char *data; // the data directory
    struct store *store;
    struct remote remote;
    struct fetcher *fetcher;
    struct mutex lock;                 // RANK_CLIENT
    LIST_HEAD(, graft_volume) volumes; // lock
    unsigned volume_count;             // lock; open, or not closed to the end
    bool closed;                       // lock; goes with its last volume
    struct sync *sync;                 // lock; NULL until the first graft_sync_start()
};

struct graft_volume {
    struct graft *client;
    struct store_volume *store;
    struct fetch_source source;
    struct store_arrivals *arrivals; // HTTP thread
    unsigned refs;                   // client->lock
    LIST_ENTRY(graft_volume) link;   // client->lock

    // One push, pull or reset at a time.
    struct mutex turn_lock; // RANK_TURN
    struct cond turn_over;
    bool turn_taken; // turn_lock
    // By who has the turn: the pause that the servers asked for when they refused something last.
    uint32_t retry_after_ms;

    // freeze.c
    unsigned freezes;             // turn_lock; while there are any, the servers' head is not taken over
    bool refused;                 // turn_lock; somebody was told to come again
    bool applying;                // turn_lock; by who has the turn
    bool applying_other;          // turn_lock; and drops commits, or may
    atomic_uint_fast64_t history; // odd while commits are dropped
};

// ---- arguments ----------------------------------------------------------------------------------

// INVALID / BAD_ARGUMENT naming call and argument.
enum graft_status client_missing_argument(struct graft_error *err, const char *call, const char *argument);

// For the public calls, whose `err` is called err.
#define REQUIRE(argument)                                             \
    do {                                                              \
        if (!(argument))                                              \
            return client_missing_argument(err, __func__, #argument); \
    } while (0)

// True in a child of the process that opened the client: there handles are only forgotten.
bool client_is_forked(const struct graft *client);

// A volume was closed to the end. The last one of a client that was closed before takes it along.
void client_volume_gone(struct graft *client);

// ---- volumes ------------------------------------------------------------------------------------

// The open volume of that VID, with one more reference. Opens it in the store if need be: NOT_FOUND.
enum graft_status volume_acquire(struct graft *client, const struct gid *vid,
                                 struct graft_volume **ret_volume, struct graft_error *err);

// The local LSN that a writer began on.
uint64_t writer_base_lsn(const struct graft_writer *writer);

// The turn to push, pull or reset; the first waits for it.
void volume_turn_take(struct graft_volume *volume);
bool volume_turn_try(struct graft_volume *volume);
void volume_turn_give(struct graft_volume *volume);
static inline void volume_turn_give_p(struct graft_volume **volume)
{
    if (*volume)
        volume_turn_give(*volume);
}
#define TURN_GUARD(volume_pointer)                                               \
    _cleanup_(volume_turn_give_p) struct graft_volume *turn_ = (volume_pointer); \
    volume_turn_take(turn_)

// Around applying what a pull or reset brought, for who has the turn. BUSY / FROZEN: not now. `other_history`: what a pin
// saw before need not be an ancestor of what it sees afterwards.
enum graft_status volume_apply_begin(struct graft_volume *volume, bool other_history,
                                     struct graft_error *err);
void volume_apply_end(struct graft_volume *volume);
// For graft_snapshot_history(): read before and after a pin is made.
uint64_t volume_history(const struct graft_volume *volume);
uint64_t volume_history_unknown(void); // equal to no other

// [network] Brings a page that the store called PENDING at this pin.
enum graft_status volume_fetch(struct graft_volume *volume, struct store_pin *pin,
                               const struct store_page *page, struct graft_error *err);

// Makes what a read of the store or a writer answered into what graft.h promises: an empty page of a fixed
// volume is zeros, but for one beyond page_count.
size_t volume_fill_empty(const struct graft_volume *volume, uint32_t pageidx, uint32_t page_count, void *to);
enum graft_status volume_check_page(const struct graft_volume *volume, uint32_t pageidx, size_t to_size,
                                    struct graft_error *err);

#endif
