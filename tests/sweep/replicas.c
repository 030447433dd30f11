// SPDX-License-Identifier: Apache-2.0
#include "tests/sweep/replicas.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"

#define PATIENCE_MS 20000u
#define RETRY_MS 10
#define DEADLINE_MS 5000u
#define DEAD_DEADLINE_MS 300u

static struct steps_settings settings;
static struct volume volumes[VOLUMES_MAX];
static struct graft *clients[CLIENTS_MAX];

void steps_begin(const struct steps_settings *given)
{
    settings = *given;
    steps_let_pagestore_lag(false); // a process that was killed may have left it so
}

uint64_t steps_seed(void)
{
    return settings.seed;
}

void steps_let_pagestore_lag(bool lag)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/../pagestore-lags", settings.folder);
    if (!lag) {
        unlink(path);
        return;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
}

// ---- volumes

struct volume *volume_of(unsigned volume)
{
    CHECK(volume < VOLUMES_MAX);
    return &volumes[volume];
}

struct stranger {
    char vid[GRAFT_VID_SIZE];
    unsigned count;
};

static bool note_stranger(void *context, const char *vid)
{
    struct stranger *stranger = context;
    for (unsigned v = 0; v < VOLUMES_MAX; v++)
        if (strcmp(volumes[v].vid, vid) == 0)
            return true;
    snprintf(stranger->vid, sizeof stranger->vid, "%s", vid);
    stranger->count++;
    return true;
}

bool volume_find_stranger(unsigned client, char ret_vid[GRAFT_VID_SIZE])
{
    struct stranger stranger = {.count = 0};
    struct graft_error err;
    if (graft_volume_list(client_of(client), note_stranger, &stranger, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "listing volumes: %s", err.message);
    if (stranger.count > 1)
        ledger_fail(LEDGER_EXIT_FAILED, "client %u has %u volumes that nobody made", client, stranger.count);
    if (stranger.count == 1)
        memcpy(ret_vid, stranger.vid, GRAFT_VID_SIZE);
    return stranger.count == 1;
}

// ---- clients

void client_open(unsigned client, enum reach reach)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/client-%u", settings.folder, client);
    struct graft_settings graft = {
        .data = path, .deadline_ms = DEADLINE_MS, .cache_limit = (uint64_t)CACHE_LIMIT_MIB << 20};
    struct graft_error err;
    if (reach != REACH_NOBODY) {
        graft.metastore = reach == REACH_ALL ? settings.metastore : DEAD_METASTORE;
        graft.pagestore = settings.pagestore;
        graft.deadline_ms = reach == REACH_ALL ? DEADLINE_MS : DEAD_DEADLINE_MS;
    }
    CHECK(client < CLIENTS_MAX && !clients[client]);
    if (graft_open(&graft, &clients[client], &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "opening %s: %s", path, err.message);
}

struct graft *client_of(unsigned client)
{
    CHECK(client < CLIENTS_MAX);
    if (!clients[client])
        client_open(client, REACH_ALL);
    return clients[client];
}

void client_close(unsigned client)
{
    graft_close(clients[client]);
    clients[client] = NULL;
}

void steps_close(void)
{
    for (unsigned c = 0; c < CLIENTS_MAX; c++)
        client_close(c);
}

// ---- calls that are made again

struct attempts attempts_begin(void)
{
    return (struct attempts){clock_monotonic_ms(clock_system()) + PATIENCE_MS};
}

static bool is_passing(const struct graft_error *err)
{
    return err->status == GRAFT_UNAVAILABLE || err->status == GRAFT_UNKNOWN ||
           err->status == GRAFT_CANCELLED ||
           (err->status == GRAFT_BUSY && err->detail == GRAFT_DETAIL_PUSH_PENDING);
}

bool attempts_again(const struct attempts *attempts, const char *what, const struct graft_error *err)
{
    if (is_passing(err) && clock_monotonic_ms(clock_system()) < attempts->deadline_ms) {
        poll(NULL, 0, RETRY_MS);
        return true;
    }
    ledger_fail(LEDGER_EXIT_AGAIN, "%s: %s / %s: %s", what, graft_status_text(err->status),
                graft_detail_text(err->detail), err->message);
}

// ---- replicas

struct graft_volume *replica_open(unsigned client, unsigned volume)
{
    const char *vid = volume_of(volume)->vid;
    struct graft *in = client_of(client);
    struct graft_volume *opened = NULL;
    struct graft_error err;
    uint64_t id = journal_invoke(client, "open", vid);
    enum graft_status status = graft_volume_open(in, vid, &opened, &err);
    journal_complete("open", id, opened, status, &err);
    if (status != GRAFT_OK)
        ledger_fail(status == GRAFT_NOT_FOUND ? LEDGER_EXIT_FAILED : LEDGER_EXIT_AGAIN,
                    "opening volume %u: %s", volume, err.message);
    return opened;
}

struct graft_volume_info replica_info(struct graft_volume *opened)
{
    struct graft_volume_info info;
    struct graft_error err;
    if (graft_volume_info(opened, &info, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "asking about a volume: %s", err.message);
    return info;
}

void replica_read(unsigned client, unsigned volume)
{
    static struct journal_pages pages;
    static uint8_t page[PAGE_SIZE_MAX];
    struct graft_volume *opened = replica_open(client, volume);
    struct graft_snapshot *snapshot;
    struct graft_error err;
    uint64_t id = journal_invoke(client, "read", volume_of(volume)->vid);
    if (graft_snapshot_open(opened, &snapshot, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "opening a snapshot: %s", err.message);
    struct graft_page_range all = {1, graft_snapshot_page_count(snapshot)};
    struct attempts attempts = attempts_begin();
    while (graft_hydrate(snapshot, &all, 1, &err) != GRAFT_OK && attempts_again(&attempts, "hydrating", &err))
        continue;
    pages.count = 0;
    for (uint32_t pageidx = 1; pageidx <= all.count; pageidx++) {
        size_t size;
        while (graft_snapshot_read(snapshot, pageidx, page, sizeof page, &size, &err) != GRAFT_OK &&
               attempts_again(&attempts, "reading", &err))
            continue;
        journal_note_page(&pages, pageidx, page, size);
    }
    journal_complete_read(id, volume_of(volume)->vid, snapshot, &pages);
    graft_snapshot_release(snapshot);
    graft_volume_close(opened);
}

void replicas_before_step(unsigned client, unsigned volume)
{
    if (!ledger_resuming())
        return;
    for (unsigned v = 0; v < VOLUMES_MAX; v++)
        for (unsigned c = 0; c < CLIENTS_MAX; c++)
            if (volumes[v].here[c] && !volumes[v].deleted && (c != client || v != volume))
                replica_read(c, v);
}
