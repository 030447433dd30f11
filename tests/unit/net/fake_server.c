// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/net/fake_server.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void *run(void *context)
{
    struct fake_server *server = context;
    for (;;) {
        int fd = accept(server->listener, NULL, NULL);
        if (fd < 0)
            return NULL; // fake_stop() shut the listener down
        // Answers are written in pieces, each of which would wait for the one before to be acknowledged.
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        atomic_fetch_add(&server->connections, 1);
        server->serve(server, fd);
        close(fd);
    }
}

void fake_start(struct fake_server *server, void (*serve)(struct fake_server *server, int fd), void *context)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    memset(server, 0, sizeof *server);
    server->serve = serve;
    server->context = context;
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(server->listener, 0);
    cr_assert_eq(bind(server->listener, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(server->listener, 64), 0);
    cr_assert_eq(getsockname(server->listener, (struct sockaddr *)&address, &size), 0);
    snprintf(server->url, sizeof server->url, "http://127.0.0.1:%u", ntohs(address.sin_port));
    cr_assert_eq(pthread_create(&server->thread, NULL, run, server), 0);
}

void fake_stop(struct fake_server *server)
{
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listener);
}

static bool read_byte(int fd, char *ret_byte)
{
    return recv(fd, ret_byte, 1, 0) == 1;
}

bool fake_read_head(struct fake_server *server, int fd, char head[FAKE_HEAD_MAX])
{
    size_t size = 0;
    while (size + 1 < FAKE_HEAD_MAX && read_byte(fd, &head[size])) {
        size++;
        head[size] = 0;
        if (size >= 4 && strcmp(head + size - 4, "\r\n\r\n") == 0) {
            atomic_fetch_add(&server->requests, 1);
            return true;
        }
    }
    return false;
}

static size_t read_some(int fd, char *to, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t count = recv(fd, to + done, size - done, 0);
        if (count <= 0)
            break;
        done += (size_t)count;
    }
    return done;
}

static size_t read_chunks(int fd, char *to, size_t size_max)
{
    size_t size = 0;
    for (;;) {
        char line[32], crlf[2];
        size_t length = 0;
        while (length + 1 < sizeof line && read_byte(fd, &line[length]) && line[length] != '\n')
            length++;
        line[length] = 0;
        size_t chunk = strtoul(line, NULL, 16);
        if (length == 0 || size + chunk > size_max)
            return size;
        size += read_some(fd, to + size, chunk);
        if (read_some(fd, crlf, 2) != 2 || chunk == 0)
            return size;
    }
}

size_t fake_read_body(int fd, const char *head, char *to, size_t size_max)
{
    if (strstr(head, "Transfer-Encoding: chunked"))
        return read_chunks(fd, to, size_max);
    const char *length = strstr(head, "Content-Length: ");
    size_t size = length ? strtoul(length + strlen("Content-Length: "), NULL, 10) : 0;
    cr_assert_leq(size, size_max);
    return read_some(fd, to, size);
}

size_t fake_drain(int fd)
{
    char waste[65536];
    size_t size = 0;
    for (;;) {
        ssize_t count = recv(fd, waste, sizeof waste, 0);
        if (count <= 0)
            return size;
        size += (size_t)count;
    }
}

void fake_send(int fd, const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        ssize_t count = send(fd, at, size, MSG_NOSIGNAL);
        if (count <= 0)
            return;
        at += count;
        size -= (size_t)count;
    }
}

void fake_print(int fd, const char *format, ...)
{
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fake_send(fd, text, (size_t)size);
}

void fake_answer(int fd, const char *status_line, const char *content_type, const void *body, size_t size)
{
    fake_print(fd, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", status_line,
               content_type, size);
    fake_send(fd, body, size);
}

bool fake_head_has(const char *head, const char *line)
{
    return strstr(head, line) != NULL;
}
