// SPDX-License-Identifier: Apache-2.0
//
// A client with one volume at the mock servers, its data directory a temporary one, that can be closed, opened again
// elsewhere, and copied.
#ifndef TESTS_UNIT_CLIENT_REPLICA_FIXTURE_H
#define TESTS_UNIT_CLIENT_REPLICA_FIXTURE_H

#include "tests/unit/client/mock_servers.h"

struct replica {
    char folder[64];
    const struct mock_servers *mock;
    uint32_t deadline_ms;
    struct graft *client;        // NULL: closed
    struct graft_volume *volume; // NULL: none yet
    char vid[GRAFT_VID_SIZE];
};

void replica_begin(struct replica *replica, const struct mock_servers *mock, uint32_t deadline_ms);
void replica_end(struct replica *replica); // closes and removes
void replica_create(struct replica *replica);
void replica_close(struct replica *replica);
void replica_reopen(struct replica *replica);
void replica_reopen_at(struct replica *replica, const char *url); // both servers
// Copies the folder as it lies there; the copy is closed.
void replica_copy(const struct replica *from, struct replica *ret_copy);

struct graft_volume_info replica_info(const struct replica *replica);
// Pages of mock_page(), as one commit.
void replica_commit(struct replica *replica, uint32_t first, uint32_t count);

#endif
