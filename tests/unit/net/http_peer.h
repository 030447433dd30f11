// SPDX-License-Identifier: Apache-2.0
//
// The other side of the HTTP server in tests: a raw socket that sends what it is told, byte for byte, and
// reads answers. Every read gives up after PEER_TIMEOUT_MS.
#ifndef TESTS_UNIT_NET_HTTP_PEER_H
#define TESTS_UNIT_NET_HTTP_PEER_H

#include <stdbool.h>
#include <stddef.h>

#define PEER_TIMEOUT_MS 20000

struct peer {
    int socket;
    char *input;
    size_t start, size; // what was read and not yet consumed
    size_t capacity;
    bool ended; // the server closed its side
};

struct reply {
    int code; // 0: none came, or it was broken
    char head[4096];
    char *body;
    size_t size, capacity;
    bool whole; // the body is complete
};

void peer_open(struct peer *peer, const char *address);
void peer_close(struct peer *peer);
bool peer_send(struct peer *peer, const void *data, size_t size); // false: the server has closed
bool peer_print(struct peer *peer, const char *format, ...) __attribute__((format(printf, 2, 3)));
// One answer (1xx are answers too). `to_head`: to a HEAD request, which has no body.
struct reply peer_reply(struct peer *peer, bool to_head);
void reply_release(struct reply *reply);
const char *reply_header(const struct reply *reply, const char *name, char *ret_value,
                         size_t size); // NULL: absent
bool peer_is_closed(
    struct peer *peer); // waits for the end of the server's side; false if more comes, or time is up

// One request, its answer, on a connection that stays.
struct reply peer_post(struct peer *peer, const char *path, const char *type, const void *body, size_t size);
struct reply peer_get(struct peer *peer, const char *path);

#endif
