// SPDX-License-Identifier: Apache-2.0
//
// One exchange of the HTTP client: its curl handle, what curl calls back, and what came of it. Only http_client.c and
// http_exchange.c include this. An exchange is made on the thread that starts it; from then on everything but the fields
// under the client's lock belongs to the client's thread.
#ifndef COMMON_NET_HTTP_EXCHANGE_H
#define COMMON_NET_HTTP_EXCHANGE_H

#include <curl/curl.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "common/net/http_client.h"

typedef void http_done_fn(void *context, const struct http_outcome *outcome);

struct http_exchange {
    struct http_client *client;
    atomic_uint references;

    // constant
    struct http_exchange_spec spec; // its strings but `accept` are gone; url and method are below
    http_done_fn *on_done;
    void *done_context;
    char *url;
    char method[16];
    char accept[64]; // "": anything
    struct buffer body;
    CURL *easy;
    struct curl_slist *headers;
    uint64_t started_us;
    uint64_t deadline_us; // UINT64_MAX: none

    // the client's thread
    struct http_host *host; // while it is listed: whose turns it takes
    bool listed;            // among the client's exchanges, which hold a reference
    bool active;            // in curl's hands; listed and not active: waits for its turn at its host
    bool finished;          // on_done was or is being called
    bool sent;              // something of the request may have left
    bool head_whole;        // the empty line after the headers was seen
    bool answer_seen;       // `code` and `answer_fits` are known
    bool answer_fits;       // a 2xx code and a type that `accept` allows
    bool read_paused;       // read_body had nothing
    bool data_paused;       // on_data took nothing
    int code;
    uint64_t progress_us; // when the last byte passed
    uint64_t header_size, received_size;
    struct buffer response;
    struct graft_error failure; // why we ended it; status GRAFT_OK: we did not
    char curl_message[CURL_ERROR_SIZE];
    TAILQ_ENTRY(http_exchange) listed_link, waiting_link;

    // the client's lock
    bool queued; // in the client's attention list, which holds a reference
    bool wants_start, wants_cancel, wants_resume;
    TAILQ_ENTRY(http_exchange) attention_link;
};

TAILQ_HEAD(http_exchange_list, http_exchange);

// Makes an exchange with one reference, its curl handle ready to be added. INVALID for a spec that no request can be made
// of. The client outlives it until it is finished.
enum graft_status http_exchange_new(struct http_client *client, const char *user_agent,
                                    uint32_t connect_timeout_ms, const struct http_exchange_spec *spec,
                                    struct http_exchange **ret_exchange, struct graft_error *err);

// When it must be looked at: its deadline, or the moment from which it counts as stalled. UINT64_MAX: never.
uint64_t http_exchange_due_us(const struct http_exchange *exchange);
// Notes that its time is up.
void http_exchange_expire(struct http_exchange *exchange, uint64_t now_us);

// What came of it, after curl's `result` or our own failure. The body borrows from the exchange.
void http_exchange_outcome(struct http_exchange *exchange, CURLcode result, struct http_outcome *ret_outcome);

// Called by an exchange on the client's thread when its due time may have come nearer.
void http_client_note_due(struct http_client *client, uint64_t due_us);

#endif
