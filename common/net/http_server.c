// SPDX-License-Identifier: Apache-2.0
//
// Starting and stopping, connections, and the timer of each. libmicrohttpd's pool runs the handlers; one
// thread of ours runs the deadlines, for a suspended connection never times out by itself.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/net/http_internal.h"

static const struct http_timing timing_default = {
    .head_ms = HEADERS_TIME_MAX_MS,
    .rate_window_ms = UPLOAD_RATE_WINDOW_MS,
    .rate_min = UPLOAD_RATE_MIN,
    .look_ms = UPLOAD_LOOK_MS,
    .drain_ms = DRAIN_TIME_MAX_MS,
    .drain_idle_ms = DRAIN_IDLE_MAX_MS,
};

// ---- connections and their deadlines --------------------------------------------------------------------

void http_connection_unref(struct http_connection *connection)
{
    if (atomic_fetch_sub(&connection->references, 1) != 1)
        return;
    mutex_release(&connection->lock);
    free(connection);
}

// One timer serves all deadlines of a connection. It is armed when there is none, or an earlier deadline
// comes; a later one is found when it fires. So a busy connection arms it once in a while, not with each
// request.
static void connection_fire(struct timer *timer)
{
    struct http_connection *connection = CONTAINER_OF(timer, struct http_connection, timer);
    LOCK_GUARD(&connection->lock);
    connection->armed_us = 0;
    uint64_t now_us = http_now_us(), deadline_us = connection->deadline_us;
    if (!connection->open || deadline_us == 0)
        return;
    if (deadline_us > now_us) {
        http_connection_set_deadline_locked(connection, deadline_us);
        return;
    }
    connection->deadline_us = 0;
    if (connection->request)
        http_request_due_locked(connection->request, now_us);
    else
        shutdown(connection->socket, SHUT_RDWR); // headers that take for ever
}

void http_connection_set_deadline_locked(struct http_connection *connection, uint64_t deadline_us)
{
    mutex_assert_held(&connection->lock);
    connection->deadline_us = deadline_us;
    if (deadline_us == 0 || !connection->open ||
        (connection->armed_us != 0 && connection->armed_us <= deadline_us))
        return;
    uint64_t now_us = http_now_us();
    uint64_t after_ms = deadline_us > now_us ? (deadline_us - now_us + 999) / 1000 : 0;
    connection->armed_us = now_us + after_ms * 1000;
    timer_arm(connection->server->timers, &connection->timer, after_ms, connection_fire);
}

static struct http_connection *connection_open(struct http_server *server, int socket)
{
    struct http_connection *connection = calloc(1, sizeof *connection);
    if (!connection)
        return NULL;
    connection->server = server;
    connection->references = 1;
    connection->socket = socket;
    mutex_init(&connection->lock, RANK_HTTP_REQUEST);
    LOCK_GUARD(&server->lock);
    TAILQ_INSERT_TAIL(&server->connections, connection, entry);
    mutex_lock(&connection->lock);
    connection->open = true;
    connection->cut = server->cut;
    http_connection_set_deadline_locked(
        connection,
        http_now_us() + (server->settings.idle_timeout_ms + (uint64_t)server->timing.head_ms) * 1000);
    mutex_unlock(&connection->lock);
    return connection;
}

static void connection_close(struct http_connection *connection)
{
    struct http_server *server = connection->server;
    mutex_lock(&server->lock);
    TAILQ_REMOVE(&server->connections, connection, entry);
    mutex_unlock(&server->lock);
    mutex_lock(&connection->lock);
    CHECK(!connection->request);
    connection->open = false;
    mutex_unlock(&connection->lock);
    timer_cancel(server->timers, &connection->timer);
    http_connection_unref(connection);
}

static void connection_notify(void *context, struct MHD_Connection *mhd, void **state,
                              enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        *state = connection_open(context,
                                 MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd);
    else if (*state)
        connection_close(*state);
}

// From here on nothing suspends: what is suspended goes on, finds itself cut, and ends.
static void cut_all(struct http_server *server)
{
    LOCK_GUARD(&server->lock);
    server->cut = true;
    struct http_connection *connection;
    TAILQ_FOREACH (connection, &server->connections, entry) {
        mutex_lock(&connection->lock);
        connection->cut = true;
        if (connection->request)
            http_request_wake_locked(connection->request);
        shutdown(connection->socket, SHUT_RDWR);
        mutex_unlock(&connection->lock);
    }
}

// ---- counting what is unclosed --------------------------------------------------------------------------

void http_server_enter(struct http_server *server)
{
    LOCK_GUARD(&server->lock);
    server->unclosed++;
}

void http_server_leave(struct http_server *server)
{
    mutex_lock(&server->lock);
    CHECK(server->unclosed > 0);
    // Under the lock: once it is let go, http_server_stop() may free the server.
    if (--server->unclosed == 0)
        cond_broadcast(&server->changed);
    mutex_unlock(&server->lock);
}

// Returns how many are left.
static unsigned wait_until_closed(struct http_server *server, uint32_t wait_ms)
{
    uint64_t deadline_us = http_now_us() + wait_ms * 1000ull;
    LOCK_GUARD(&server->lock);
    bool is_time_left = true;
    while (server->unclosed > 0 && is_time_left)
        is_time_left = cond_wait_until(&server->changed, &server->lock, deadline_us);
    return server->unclosed;
}

// ---- metrics --------------------------------------------------------------------------------------------

static const char *const class_names[] = {"cut", "1xx", "2xx", "3xx", "4xx", "5xx"};

static void metrics_register(struct http_server *server, const char *path,
                             struct http_route_metrics *ret_metrics)
{
    struct metrics *registry = server->settings.metrics;
    const char *name = server->settings.metrics_name;
    char labels[160];
    for (size_t i = 0; i < ARRAY_COUNT(class_names); i++) {
        if (i == 1 || i == 3) // never sent
            continue;
        snprintf(labels, sizeof labels, "server=\"%s\",path=\"%s\",code=\"%s\"", name, path, class_names[i]);
        ret_metrics->by_class[i] =
            metrics_counter(registry, "graft_http_requests_total", labels,
                            "Requests done, by class of the answer's code; cut: none was sent.");
    }
    snprintf(labels, sizeof labels, "server=\"%s\",path=\"%s\"", name, path);
    ret_metrics->latency = metrics_histogram(registry, "graft_http_request_seconds", labels,
                                             "Time from a request's headers to the end of its answer.");
    ret_metrics->in_flight = metrics_gauge(registry, "graft_http_in_flight", labels, "Requests under way.");
    ret_metrics->received =
        metrics_counter(registry, "graft_http_received_bytes_total", labels, "Bytes of request bodies.");
    ret_metrics->sent =
        metrics_counter(registry, "graft_http_sent_bytes_total", labels, "Bytes of answers' bodies.");
}

// ---- start and stop -------------------------------------------------------------------------------------

static void server_free(struct http_server *server)
{
    if (!server)
        return;
    timers_free(server->timers);
    cond_release(&server->changed);
    mutex_release(&server->lock);
    free(server->metrics);
    free(server->routes);
    free(server);
}
DEFINE_CLEANUP(struct http_server, server_free)

static void check_settings(const struct http_server_settings *settings)
{
    CHECK(settings->threads >= 1 && settings->connections_max >= settings->threads);
    CHECK(settings->connection_memory >= 2048 && settings->idle_timeout_ms > 0);
    CHECK(!settings->metrics || settings->metrics_name);
    for (size_t i = 0; i < settings->route_count; i++) {
        const struct http_route *route = &settings->routes[i];
        CHECK(route->method && route->path && route->ready);
        CHECK(!route->body || route->content_type);
        CHECK(route->body || route->body_max <= RECEIVE_BUDGET_SIZE);
    }
}

static struct http_server *server_new(const struct http_server_settings *settings,
                                      const struct http_timing *timing)
{
    _cleanup_(server_free_p) struct http_server *server = calloc(1, sizeof *server);
    if (!server)
        return NULL;
    mutex_init(&server->lock, RANK_HTTP_SERVER);
    cond_init(&server->changed);
    TAILQ_INIT(&server->connections);
    server->settings = *settings;
    server->timing = *timing;
    server->budget_left = RECEIVE_BUDGET_SIZE;
    server->routes = calloc(settings->route_count + 1, sizeof server->routes[0]);
    server->metrics = calloc(settings->route_count + 1, sizeof server->metrics[0]);
    if (!server->routes || !server->metrics)
        return NULL;
    for (size_t i = 0; i < settings->route_count; i++)
        server->routes[i] = settings->routes[i];
    if (settings->metrics) {
        for (size_t i = 0; i < settings->route_count; i++)
            metrics_register(server, settings->routes[i].path, &server->metrics[i]);
        metrics_register(server, "other", &server->metrics[settings->route_count]);
    }
    return TAKE(server);
}

// Returns NULL with errno set. libmicrohttpd's threads take no signals: those are for the thread that waits
// for them.
static struct MHD_Daemon *daemon_start(struct http_server *server, int listener)
{
    const struct http_server_settings *settings = &server->settings;
    struct MHD_OptionItem options[] = {
        {MHD_OPTION_LISTEN_SOCKET, listener, NULL},
        {MHD_OPTION_CONNECTION_LIMIT, (intptr_t)settings->connections_max, NULL},
        {MHD_OPTION_CONNECTION_MEMORY_LIMIT, (intptr_t)settings->connection_memory, NULL},
        {MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)((settings->idle_timeout_ms + 999) / 1000), NULL},
        {MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)http_request_completed, server},
        {MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)connection_notify, server},
        {settings->threads > 1 ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END, (intptr_t)settings->threads,
         NULL},
        {MHD_OPTION_END, 0, NULL},
    };
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    errno = 0;
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
                         http_request_handle, server, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
    int error_number = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error_number;
    return daemon;
}

enum graft_status http_server_start_timed(const struct http_server_settings *settings,
                                          const struct http_timing *timing, struct http_server **ret_server,
                                          struct graft_error *err)
{
    check_settings(settings);
    _cleanup_(server_free_p) struct http_server *server = server_new(settings, timing);
    if (!server)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the server on %s",
                         settings->listen);
    enum graft_status status = timers_new("http-deadlines", &server->timers, err);
    if (status != GRAFT_OK)
        return status;
    int listener;
    status = http_listen(settings->listen, &listener, server->address, sizeof server->address, err);
    if (status != GRAFT_OK)
        return status;
    server->daemon = daemon_start(server, listener);
    if (!server->daemon) {
        status = error_from_errno(err, errno, "starting the server on %s", settings->listen);
        close(listener);
        return status;
    }
    *ret_server = TAKE(server);
    return GRAFT_OK;
}

enum graft_status http_server_start(const struct http_server_settings *settings,
                                    struct http_server **ret_server, struct graft_error *err)
{
    return http_server_start_timed(settings, &timing_default, ret_server, err);
}

const char *http_server_address(const struct http_server *server)
{
    return server->address;
}

void http_server_drain(struct http_server *server, uint32_t wait_ms)
{
    atomic_store(&server->draining, true);
    if (wait_until_closed(server, wait_ms) > 0)
        cut_all(server);
}

void http_server_stop(struct http_server *server)
{
    if (!server)
        return;
    atomic_store(&server->draining, true);
    cut_all(server);
    MHD_stop_daemon(server->daemon);
    server->daemon = NULL;
    unsigned unanswered = wait_until_closed(server, STOP_TIME_MAX_MS);
    if (unanswered > 0) {
        log_error("http-requests-unanswered", "addr=%s count=%u", server->address, unanswered);
        return;
    }
    server_free(server);
}
