// SPDX-License-Identifier: Apache-2.0
//
// The other side of an HTTP client's tests: a server of raw sockets that does exactly what a test says, right
// or wrong. One thread; it serves one connection after the other with `serve`, which may read several
// requests.
#ifndef TESTS_UNIT_NET_FAKE_SERVER_H
#define TESTS_UNIT_NET_FAKE_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct fake_server {
    int listener;
    char url[64]; // "http://127.0.0.1:PORT"
    void (*serve)(struct fake_server *server, int fd);
    void *context;
    pthread_t thread;
    atomic_uint connections; // accepted so far
    atomic_uint requests;    // whole heads read so far
};

void fake_start(struct fake_server *server, void (*serve)(struct fake_server *server, int fd), void *context);
void fake_stop(
    struct fake_server *server); // the serve function must have ended, or end at the end of its connection

#define FAKE_HEAD_MAX 8192

// Reads up to the empty line; false at the connection's end.
bool fake_read_head(struct fake_server *server, int fd, char head[FAKE_HEAD_MAX]);
// Reads the body that the head announces (Content-Length or chunked) into `to`; returns its size, or the size
// read so far if the connection ends.
size_t fake_read_body(int fd, const char *head, char *to, size_t size_max);
// Reads and drops until the connection ends; returns the bytes.
size_t fake_drain(int fd);
void fake_send(int fd, const void *data, size_t size); // errors are ignored: the client may be gone
void fake_print(int fd, const char *format, ...) __attribute__((format(printf, 2, 3)));
// A whole answer with a Content-Length.
void fake_answer(int fd, const char *status_line, const char *content_type, const void *body, size_t size);
bool fake_head_has(const char *head, const char *line); // case matters

#endif
