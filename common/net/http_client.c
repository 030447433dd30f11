// SPDX-License-Identifier: Apache-2.0
//
// The client's thread and what other threads hand it.
//
//     any thread ──start, resume, cancel──▶ attention ──▶ the client's thread: curl_multi ──▶ on_data,
//     on_done
//
// Invariants:
// 1. curl's handles are touched by the client's thread only, from the moment their exchange is in
// `attention`.
// 2. An exchange in `attention` or `listed` is held by a reference of that list.
// 3. A request to resume is seen by the client's thread after the callback that paused, because both run
// there: a resume
//    that comes while the callback is still deciding is not lost.
// 4. The lock is never held across a callback.
// 5. A host's exchanges take turns in the order in which they came: an exchange waits only while as many
// others as there
//    may be connections are in curl's hands. (curl's own limit of connections lets newcomers pass those that
//    wait.)
#include "common/net/http_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/mutex.h"
#include "common/base/random.h"
#include "common/base/worker.h"
#include "common/net/http_exchange.h"

#define CONNECTIONS_PER_HOST_DEFAULT 8
#define CONNECT_TIMEOUT_DEFAULT_MS 5000
#define POLL_MAX_MS 60000 // curl_multi_wakeup() ends a poll; this only bounds the arithmetic

// One origin ("http://127.0.0.1:3001") while there are exchanges with it.
struct http_host {
    char *origin;
    unsigned active; // in curl's hands
    struct http_exchange_list waiting;
    UT_hash_handle hh;
};

struct http_client {
    CURLM *multi;
    struct worker worker;
    unsigned connections_per_host_max;
    uint32_t connect_timeout_ms;
    char user_agent[128];
    struct metric *exchanges, *failures, *sent_bytes, *received_bytes, *in_flight, *duration;

    struct mutex lock;
    struct http_exchange_list attention; // lock
    bool stopping;                       // lock
    struct cond stopped;                 // lock; for http_client_wait()

    // the client's thread
    struct http_exchange_list listed; // active or waiting
    struct http_host *hosts;
    uint64_t next_due_us; // no listed exchange is due earlier
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_init_result;

static void init_curl(void)
{
    curl_init_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

// ---- handing over -------------------------------------------------------------------------------------

enum want {
    WANT_START,
    WANT_RESUME,
    WANT_CANCEL,
};

// False if the client is stopping (of interest to a start only: everything else ends by itself then).
static bool ask(struct http_exchange *exchange, enum want want)
{
    struct http_client *client = exchange->client;
    {
        LOCK_GUARD(&client->lock);
        if (client->stopping && want == WANT_START)
            return false;
        exchange->wants_start |= want == WANT_START;
        exchange->wants_resume |= want == WANT_RESUME;
        exchange->wants_cancel |= want == WANT_CANCEL;
        if (!exchange->queued) {
            exchange->queued = true;
            atomic_fetch_add(&exchange->references, 1);
            TAILQ_INSERT_TAIL(&client->attention, exchange, attention_link);
        }
    }
    curl_multi_wakeup(client->multi);
    return true;
}

void http_exchange_resume(struct http_exchange *exchange)
{
    ask(exchange, WANT_RESUME);
}

void http_exchange_cancel(struct http_exchange *exchange)
{
    ask(exchange, WANT_CANCEL);
}

static enum graft_status start(struct http_client *client, const struct http_exchange_spec *spec,
                               http_done_fn *on_done, void *done_context, struct http_exchange **ret_exchange,
                               struct graft_error *err)
{
    struct http_exchange *exchange;
    enum graft_status status =
        http_exchange_new(client, client->user_agent, client->connect_timeout_ms, spec, &exchange, err);
    if (status != GRAFT_OK)
        return status;
    exchange->on_done = on_done;
    exchange->done_context = done_context;
    if (!ask(exchange, WANT_START)) {
        http_exchange_unref(exchange);
        return error_set(err, GRAFT_CANCELLED, GRAFT_DETAIL_STOPPING, "the HTTP client is stopping");
    }
    if (ret_exchange)
        *ret_exchange = exchange;
    else
        http_exchange_unref(exchange);
    return GRAFT_OK;
}

enum graft_status http_client_start(struct http_client *client, const struct http_exchange_spec *spec,
                                    struct http_exchange **ret_exchange, struct graft_error *err)
{
    return start(client, spec, spec->on_done, spec->context, ret_exchange, err);
}

// ---- the client's thread ------------------------------------------------------------------------------

void http_client_note_due(struct http_client *client, uint64_t due_us)
{
    client->next_due_us = MIN(client->next_due_us, due_us);
}

static void count(struct http_client *client, const struct http_exchange *exchange,
                  const struct http_outcome *outcome)
{
    metric_add(client->exchanges, 1);
    metric_add(client->failures, outcome->error.status != GRAFT_OK);
    metric_add(client->sent_bytes, (int64_t)outcome->sent_size);
    metric_add(client->received_bytes, (int64_t)outcome->received_size);
    metric_observe_us(client->duration, clock_monotonic_us(clock_system()) - exchange->started_us);
}

// What an exchange's URL begins with: all that decides which connection can carry it.
static size_t origin_size(const char *url)
{
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    return (size_t)(host - url) + strcspn(host, "/?#");
}

static struct http_host *host_get(struct http_client *client, const char *url)
{
    struct http_host *host;
    size_t size = origin_size(url);
    HASH_FIND(hh, client->hosts, url, size, host);
    if (host)
        return host;
    host = calloc(1, sizeof *host);
    CHECK(host);
    host->origin = strndup(url, size);
    CHECK(host->origin);
    TAILQ_INIT(&host->waiting);
    HASH_ADD_KEYPTR(hh, client->hosts, host->origin, size, host);
    return host;
}

static void host_put(struct http_client *client, struct http_host *host)
{
    if (host->active > 0 || !TAILQ_EMPTY(&host->waiting))
        return;
    HASH_DEL(client->hosts, host);
    free(host->origin);
    free(host);
}

// Takes an exchange out of the lists. Removing a handle whose transfer is not over closes its connection.
static void unlist(struct http_client *client, struct http_exchange *exchange)
{
    TAILQ_REMOVE(&client->listed, exchange, listed_link);
    exchange->listed = false;
    if (exchange->active) {
        curl_multi_remove_handle(client->multi, exchange->easy);
        exchange->active = false;
        exchange->host->active--;
        metric_add(client->in_flight, -1);
    } else {
        TAILQ_REMOVE(&exchange->host->waiting, exchange, waiting_link);
    }
}

static void activate(struct http_client *client, struct http_exchange *exchange)
{
    // Nothing but memory can fail here: the handle is new and ours.
    CHECK(curl_multi_add_handle(client->multi, exchange->easy) == CURLM_OK);
    exchange->active = true;
    exchange->host->active++;
    metric_add(client->in_flight, 1);
}

static void give_turns(struct http_client *client, struct http_host *host)
{
    struct http_exchange *exchange;
    while (host->active < client->connections_per_host_max && (exchange = TAILQ_FIRST(&host->waiting))) {
        TAILQ_REMOVE(&host->waiting, exchange, waiting_link);
        activate(client, exchange);
    }
    host_put(client, host);
}

// The last thing that happens to an exchange.
static void finish(struct http_client *client, struct http_exchange *exchange, CURLcode result)
{
    struct http_outcome outcome;
    bool was_listed = exchange->listed;
    CHECK(!exchange->finished);
    exchange->finished = true;
    http_exchange_outcome(exchange, result, &outcome);
    if (was_listed) {
        unlist(client, exchange);
        give_turns(client, TAKE(exchange->host));
    }
    curl_easy_cleanup(TAKE(exchange->easy));
    count(client, exchange, &outcome);
    if (exchange->on_done)
        exchange->on_done(exchange->done_context, &outcome);
    if (was_listed)
        http_exchange_unref(exchange);
}

static void cancel(struct http_client *client, struct http_exchange *exchange, enum graft_detail detail)
{
    error_set(&exchange->failure, GRAFT_CANCELLED, detail, "%s %s was cancelled", exchange->method,
              exchange->url);
    finish(client, exchange, CURLE_OK);
}

static void list(struct http_client *client, struct http_exchange *exchange)
{
    atomic_fetch_add(&exchange->references, 1);
    exchange->listed = true;
    exchange->host = host_get(client, exchange->url);
    TAILQ_INSERT_TAIL(&client->listed, exchange, listed_link);
    TAILQ_INSERT_TAIL(&exchange->host->waiting, exchange, waiting_link);
    http_client_note_due(client, http_exchange_due_us(exchange));
    give_turns(client, exchange->host);
}

static void resume(struct http_client *client, struct http_exchange *exchange)
{
    if (!exchange->read_paused && !exchange->data_paused)
        return;
    exchange->read_paused = exchange->data_paused = false;
    exchange->progress_us = clock_monotonic_us(clock_system());
    http_client_note_due(client, http_exchange_due_us(exchange));
    // This may call on_data with what curl holds back, and so fail as a transfer does.
    CURLcode result = curl_easy_pause(exchange->easy, CURLPAUSE_CONT);
    if (result != CURLE_OK)
        finish(client, exchange, result);
}

static void attend(struct http_client *client)
{
    for (;;) {
        struct http_exchange *exchange;
        bool wants_start, wants_cancel, wants_resume, stopping;
        {
            LOCK_GUARD(&client->lock);
            exchange = TAILQ_FIRST(&client->attention);
            if (!exchange)
                return;
            TAILQ_REMOVE(&client->attention, exchange, attention_link);
            wants_start = exchange->wants_start;
            wants_cancel = exchange->wants_cancel;
            wants_resume = exchange->wants_resume;
            exchange->queued = exchange->wants_start = exchange->wants_cancel = exchange->wants_resume =
                false;
            stopping = client->stopping;
        }
        if (exchange->finished) {
            // what was asked for came too late
        } else if (wants_cancel || stopping) {
            cancel(client, exchange, stopping ? GRAFT_DETAIL_STOPPING : GRAFT_DETAIL_NONE);
        } else if (wants_start) {
            list(client, exchange);
        } else if (wants_resume) {
            resume(client, exchange);
        }
        http_exchange_unref(exchange);
    }
}

static void collect(struct http_client *client)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(client->multi, &left))) {
        // The message is gone once its handle is removed.
        CURLcode result = message->data.result;
        char *exchange = NULL;
        CHECK(message->msg == CURLMSG_DONE);
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &exchange);
        finish(client, (struct http_exchange *)exchange, result);
    }
}

// Looks at every exchange, but only when one may be due: at most once a deadline or stall time.
static void expire(struct http_client *client)
{
    struct http_exchange *exchange, *next;
    uint64_t now_us = clock_monotonic_us(clock_system());
    if (now_us < client->next_due_us)
        return;
    client->next_due_us = UINT64_MAX;
    for (exchange = TAILQ_FIRST(&client->listed); exchange; exchange = next) {
        next = TAILQ_NEXT(exchange, listed_link);
        uint64_t due_us = http_exchange_due_us(exchange);
        if (due_us > now_us) {
            http_client_note_due(client, due_us);
            continue;
        }
        http_exchange_expire(exchange, now_us);
        finish(client, exchange, CURLE_OK);
    }
}

static int poll_ms(const struct http_client *client)
{
    uint64_t now_us = clock_monotonic_us(clock_system());
    if (client->next_due_us <= now_us)
        return 0;
    return (int)MIN((client->next_due_us - now_us) / 1000 + 1, (uint64_t)POLL_MAX_MS);
}

static void run(struct worker *worker, void *context)
{
    struct http_client *client = context;
    while (!worker_stopping(worker)) {
        int running;
        attend(client);
        curl_multi_perform(client->multi, &running);
        collect(client);
        expire(client);
        curl_multi_poll(client->multi, NULL, 0, poll_ms(client), NULL);
    }
    // `stopping` was set before: nothing new comes, whatever the callbacks try.
    struct http_exchange *exchange;
    while ((exchange = TAILQ_FIRST(&client->listed)))
        cancel(client, exchange, GRAFT_DETAIL_STOPPING);
    attend(client);
}

// ---- life ---------------------------------------------------------------------------------------------

static void add_metrics(struct http_client *client, struct metrics *metrics)
{
    client->exchanges =
        metrics_counter(metrics, "graft_http_client_exchanges_total", NULL, "HTTP requests made");
    client->failures = metrics_counter(metrics, "graft_http_client_failures_total", NULL,
                                       "HTTP requests that did not end in a 2xx");
    client->sent_bytes =
        metrics_counter(metrics, "graft_http_client_sent_bytes_total", NULL, "Bytes of request bodies sent");
    client->received_bytes =
        metrics_counter(metrics, "graft_http_client_received_bytes_total", NULL, "Bytes of answers received");
    client->in_flight =
        metrics_gauge(metrics, "graft_http_client_in_flight", NULL, "HTTP requests under way");
    client->duration = metrics_histogram(metrics, "graft_http_client_seconds", NULL,
                                         "Time from a request's start to its end");
}

enum graft_status http_client_new(const struct http_client_settings *settings,
                                  struct http_client **ret_client, struct graft_error *err)
{
    pthread_once(&curl_once, init_curl);
    if (curl_init_result != CURLE_OK)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NONE, "libcurl does not start: %s",
                         curl_easy_strerror(curl_init_result));
    struct http_client *client = calloc(1, sizeof *client);
    CURLM *multi = curl_multi_init();
    if (!client || !multi) {
        curl_multi_cleanup(multi);
        free(client);
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for an HTTP client");
    }
    client->multi = multi;
    client->connections_per_host_max = settings->connections_per_host_max ? settings->connections_per_host_max
                                                                          : CONNECTIONS_PER_HOST_DEFAULT;
    // Idle ones are kept for several hosts; curl's own bound would shrink with the requests under way.
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, 4L * (long)client->connections_per_host_max);
    client->connect_timeout_ms =
        settings->connect_timeout_ms ? settings->connect_timeout_ms : CONNECT_TIMEOUT_DEFAULT_MS;
    snprintf(client->user_agent, sizeof client->user_agent, "%s",
             settings->user_agent ? settings->user_agent : "graft/" GRAFT_VERSION);
    add_metrics(client, settings->metrics);
    mutex_init(&client->lock, RANK_HTTP_CLIENT);
    cond_init(&client->stopped);
    TAILQ_INIT(&client->attention);
    TAILQ_INIT(&client->listed);
    client->next_due_us = UINT64_MAX;
    enum graft_status status = worker_start(&client->worker, "http-client", run, client, err);
    if (status != GRAFT_OK) {
        http_client_free(client);
        return status;
    }
    *ret_client = client;
    return GRAFT_OK;
}

void http_client_stop(struct http_client *client)
{
    {
        LOCK_GUARD(&client->lock);
        client->stopping = true;
        cond_broadcast(&client->stopped);
    }
    worker_request_stop(&client->worker);
    curl_multi_wakeup(client->multi);
}

void http_client_free(struct http_client *client)
{
    if (!client)
        return;
    http_client_stop(client);
    worker_join(&client->worker);
    // A resume or cancel that came after the thread's last look is for an exchange that is done.
    attend(client);
    curl_multi_cleanup(client->multi);
    cond_release(&client->stopped);
    mutex_release(&client->lock);
    free(client);
}

bool http_client_wait(struct http_client *client, uint32_t wait_ms)
{
    uint64_t until_us = clock_monotonic_us(clock_system()) + wait_ms * 1000ull;
    bool time_left = true;
    LOCK_GUARD(&client->lock);
    while (!client->stopping && time_left)
        time_left = cond_wait_until(&client->stopped, &client->lock, until_us);
    return !client->stopping;
}

// ---- waiting for an answer ----------------------------------------------------------------------------

struct waiter {
    struct mutex lock;
    struct cond done_changed;
    bool done; // lock
    struct http_outcome outcome;
    struct buffer *body;
    struct graft_error body_error;
};

static void wake_waiter(void *context, const struct http_outcome *outcome)
{
    struct waiter *waiter = context;
    LOCK_GUARD(&waiter->lock);
    waiter->outcome = *outcome;
    waiter->outcome.body = (struct bytes){0};
    // The error of an exchange says more than that its body found no room.
    if (buffer_append(waiter->body, outcome->body.data, outcome->body.size, &waiter->body_error) !=
            GRAFT_OK &&
        outcome->error.status == GRAFT_OK)
        waiter->outcome.error = waiter->body_error;
    waiter->done = true;
    // The waiter's memory is gone as soon as it can take the lock: signal while holding it.
    cond_signal(&waiter->done_changed);
}

enum graft_status http_client_call(struct http_client *client, const struct http_exchange_spec *spec,
                                   struct buffer *ret_body, struct http_outcome *ret_outcome,
                                   struct graft_error *err)
{
    struct waiter waiter = {.body = ret_body};
    CHECK(!spec->on_done);
    CHECK(!pthread_equal(pthread_self(), client->worker.thread));
    buffer_init(ret_body, MAX(spec->response_max, (uint64_t)ERROR_RESPONSE_SIZE_MAX));
    *ret_outcome = (struct http_outcome){0};
    mutex_init(&waiter.lock, RANK_LEAF);
    cond_init(&waiter.done_changed);
    enum graft_status status = start(client, spec, wake_waiter, &waiter, NULL, err);
    if (status == GRAFT_OK) {
        mutex_lock(&waiter.lock);
        while (!waiter.done)
            cond_wait(&waiter.done_changed, &waiter.lock);
        mutex_unlock(&waiter.lock);
        *ret_outcome = waiter.outcome;
        status = error_copy(err, &waiter.outcome.error);
    } else if (err) {
        ret_outcome->error = *err;
    }
    cond_release(&waiter.done_changed);
    mutex_release(&waiter.lock);
    return status;
}

// ---- backoff ------------------------------------------------------------------------------------------

uint32_t backoff_next_ms(struct backoff *backoff)
{
    struct rng rng;
    uint64_t delay_ms = backoff->base_ms;
    for (unsigned i = 0; i < backoff->attempt && delay_ms < backoff->cap_ms; i++)
        delay_ms *= 2;
    delay_ms = MIN(delay_ms, (uint64_t)backoff->cap_ms);
    backoff->attempt++;
    rng_seed(&rng, backoff->seed);
    backoff->seed = rng_next(&rng);
    return (uint32_t)(delay_ms - rng_below(&rng, delay_ms / 2 + 1));
}

void backoff_reset(struct backoff *backoff)
{
    backoff->attempt = 0;
}
