// SPDX-License-Identifier: Apache-2.0
//
// store-soak DIRECTORY SEED SECONDS PAGES: a local store of 20 volumes of all page sizes at random work, beside a model of it
// in memory. Commits small and large, truncations, pulls, resets, pushes, fetches, snapshots held open and released, evictions,
// volumes deleted and made, the directory closed and opened. Whatever is read must be what the model says. Before each close
// the page files are checked against the index, and at the end, when no snapshot is held, what lives in them is what the
// model has, to the byte.
//
// Prints TAP. The seed decides what is done; how often, the machine.
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/store_check.h"
#include "client/store_internal.h"
#include "client/store_space.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/random.h"

#define VOLUMES 20u
#define SNAPSHOTS 24u
#define COMMIT_MAX 64u        // pages of a usual commit
#define LARGE_SIZE (10 * MIB) // of one that is staged
#define CACHE_LIMIT (24 * MIB)
#define SAMPLE 4000u // pages read at each opening

#define LOCAL (UINT64_C(1) << 63) // the bytes must be here
#define SEED(cell) ((cell) & ~LOCAL)

struct image {
    uint32_t count;
    uint64_t *cells; // by page number: 0: never written; else what its bytes are made of, and LOCAL
};

struct replica {
    struct gid vid;
    uint32_t page_size, pages_max;
    bool variable;
    struct store_volume *volume;
    struct image now;
    struct image servers;    // at the mapping
    struct pageset *touched; // since
    uint64_t remote_lsn;
};

struct held {
    struct store_pin *pin;
    struct replica *replica;
    struct image image;
};

static struct soak {
    struct store_settings settings;
    struct store *store;
    struct rng rng;
    struct replica replicas[VOLUMES];
    struct held held[SNAPSHOTS];
    uint64_t next_seed;
    uint32_t next_vid;
    uint8_t page[PAGE_SIZE_MAX], expected[PAGE_SIZE_MAX];
    uint64_t cleaned, moved, waits;
    uint64_t commits, large, cuts, pulls, resets, pushes, fetches, reads, snapshots, openings, deletions,
        checks;
} soak;

_noreturn_ _printf_(1, 2) static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("# ");
    vprintf(format, arguments);
    va_end(arguments);
    printf("\nnot ok 1 - store_soak: contents and space equal the model's\n");
    exit(1);
}

#define OK(call)                                                                           \
    do {                                                                                   \
        struct graft_error err = {.message = ""};                                          \
        if ((call) != GRAFT_OK)                                                            \
            fail("line %d: %s: %s", __LINE__, graft_detail_name(err.detail), err.message); \
    } while (0)

static uint32_t below(uint64_t bound)
{
    return (uint32_t)rng_below(&soak.rng, MAX(bound, UINT64_C(1)));
}

// ---- contents -------------------------------------------------------------------------------------------------------

static size_t content_size(const struct replica *replica, uint64_t seed)
{
    return replica->variable ? seed * UINT64_C(0x9e3779b97f4a7c15) % (replica->page_size + 1)
                             : replica->page_size;
}

static size_t content(const struct replica *replica, uint32_t pageidx, uint64_t seed, uint8_t *to)
{
    size_t size = content_size(replica, seed);
    uint64_t word = seed * UINT64_C(0xd6e8feb86659fd93) + pageidx;
    for (size_t at = 0; at < size; at += 8) {
        word = word * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        memcpy(to + at, &word, MIN(size - at, (size_t)8));
    }
    return size;
}

static struct image image_new(uint32_t pages_max)
{
    struct image image = {.cells = calloc(pages_max + 1, sizeof *image.cells)};
    CHECK(image.cells);
    return image;
}

static void image_copy(struct image *to, const struct image *from, uint32_t pages_max)
{
    to->count = from->count;
    memcpy(to->cells, from->cells, (pages_max + 1) * sizeof *to->cells);
}

static void image_cut(struct image *image, uint32_t count)
{
    for (uint32_t page = count + 1; page <= image->count; page++)
        image->cells[page] = 0;
    image->count = MIN(image->count, count);
}

static struct store_remote remote_of(const struct replica *replica, uint64_t lsn, uint32_t page_count)
{
    struct store_remote remote = {.lsn = lsn, .page_count = page_count};
    put_be64(remote.chain.bytes, lsn);
    memcpy(remote.chain.bytes + 8, replica->vid.bytes, 8);
    return remote;
}

// ---- reading --------------------------------------------------------------------------------------------------------

static void fetch(struct replica *replica, uint32_t pageidx, uint64_t mark_lsn, uint64_t seed)
{
    _cleanup_(store_arrivals_free_p) struct store_arrivals *arrivals = NULL;
    OK(store_arrivals_new(replica->volume, &arrivals, &err));
    if (seed == 0) {
        OK(store_arrivals_add_empty(arrivals, pageidx, mark_lsn, &err));
    } else {
        size_t size = content(replica, pageidx, seed, soak.expected);
        OK(store_arrivals_add(arrivals, pageidx, mark_lsn, soak.expected, size, &err));
    }
    OK(store_arrivals_flush(arrivals, &err));
    soak.fetches++;
}

static void read_page(struct replica *replica, struct store_pin *pin, const struct image *image,
                      uint32_t pageidx)
{
    uint64_t cell = pageidx <= image->count ? image->cells[pageidx] : 0;
    struct store_page found;
    OK(store_read(pin, pageidx, soak.page, sizeof soak.page, &found, &err));
    // A page that came may be evicted before it is read.
    for (unsigned round = 0; round < 16 && found.state == STORE_PAGE_PENDING; round++) {
        if (cell & LOCAL)
            fail("page %u: a local commit's bytes are gone", pageidx);
        fetch(replica, pageidx, found.mark_lsn, SEED(cell));
        OK(store_read(pin, pageidx, soak.page, sizeof soak.page, &found, &err));
    }
    soak.reads++;
    if (SEED(cell) == 0) {
        if (found.state != STORE_PAGE_EMPTY)
            fail("page %u was never written and has state %d", pageidx, (int)found.state);
        return;
    }
    size_t size = content(replica, pageidx, SEED(cell), soak.expected);
    if (found.state != STORE_PAGE_AVAILABLE || found.size != size ||
        memcmp(soak.page, soak.expected, size) != 0)
        fail("page %u of %u-byte pages: state %d, %u bytes, not the %zu that were written", pageidx,
             replica->page_size, (int)found.state, found.size, size);
}

static void read_some(struct replica *replica, struct store_pin *pin, const struct image *image,
                      uint32_t count)
{
    if (store_pin_page_count(pin) != image->count)
        fail("a snapshot has %u pages, not %u", store_pin_page_count(pin), image->count);
    for (uint32_t i = 0; i < count && image->count > 0; i++)
        read_page(replica, pin, image, 1 + below(image->count + 1));
}

static void read_head(struct replica *replica, uint32_t count)
{
    _cleanup_(store_pin_release_p) struct store_pin *pin = NULL;
    OK(store_pin_open(replica->volume, &pin, &err));
    read_some(replica, pin, &replica->now, count);
}

// ---- snapshots ------------------------------------------------------------------------------------------------------

static void let_go(struct held *held)
{
    store_pin_release(TAKE(held->pin));
    free(held->image.cells);
    *held = (struct held){.pin = NULL};
}

static void hold_or_let_go(struct replica *replica)
{
    struct held *held = &soak.held[below(SNAPSHOTS)];
    if (held->pin) {
        read_some(held->replica, held->pin, &held->image, 20);
        if (below(2) == 0)
            let_go(held);
        return;
    }
    *held = (struct held){.replica = replica, .image = image_new(replica->pages_max)};
    image_copy(&held->image, &replica->now, replica->pages_max);
    OK(store_pin_open(replica->volume, &held->pin, &err));
    soak.snapshots++;
}

static void let_all_go(const struct replica *replica) // NULL: of all
{
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        if (soak.held[i].pin && (!replica || soak.held[i].replica == replica))
            let_go(&soak.held[i]);
    }
}

// ---- writing --------------------------------------------------------------------------------------------------------

static void write_page(struct replica *replica, struct store_writer *writer, uint32_t pageidx)
{
    uint64_t seed = ++soak.next_seed;
    size_t size = content(replica, pageidx, seed, soak.page);
    OK(store_writer_write(writer, pageidx, soak.page, size, &err));
    replica->now.count = MAX(replica->now.count, pageidx);
    replica->now.cells[pageidx] = seed | LOCAL;
    pageset_add(replica->touched, pageidx);
}

static void cut_pages(struct replica *replica, struct store_writer *writer)
{
    uint32_t count = replica->now.count - below(replica->now.count / 16 + 1);
    OK(store_writer_truncate(writer, count, &err));
    if (count < replica->now.count)
        pageset_add_run(replica->touched, count + 1, replica->now.count - count);
    image_cut(&replica->now, count);
    soak.cuts++;
}

static void commit(struct replica *replica, uint32_t count, bool in_order)
{
    struct store_writer *writer;
    OK(store_writer_begin(replica->volume, &writer, &err));
    uint32_t at = 1 + below(replica->pages_max);
    for (uint32_t i = 0; i < count; i++) {
        write_page(replica, writer, at);
        at = in_order ? at % replica->pages_max + 1 : 1 + below(replica->pages_max);
    }
    if (below(12) == 0)
        cut_pages(replica, writer);
    OK(store_writer_commit(writer, NULL, &err));
    soak.commits++;
}

// ---- the servers ----------------------------------------------------------------------------------------------------

static bool is_clean(const struct replica *replica)
{
    struct store_state state;
    store_volume_state(replica->volume, &state);
    return state.local_lsn == state.mapped_lsn;
}

static void forget_touched(struct replica *replica)
{
    pageset_free(replica->touched);
    replica->touched = pageset_new();
    image_copy(&replica->servers, &replica->now, replica->pages_max);
}

// The servers' next commit, taken over. A reset drops what was not pushed.
static void pull(struct replica *replica, bool reset)
{
    struct image *now = &replica->now;
    struct pageset_cursor cursor = pageset_cursor(replica->touched);
    uint32_t page, first = 1 + below(replica->pages_max), before = replica->servers.count;
    _cleanup_(pageset_free_p) struct pageset *changed = pageset_new();
    if (reset) {
        for (uint32_t touched; pageset_next(&cursor, &touched);)
            now->cells[touched] = replica->servers.cells[touched] & ~LOCAL;
        now->count = before;
    }
    if (below(8) == 0)
        image_cut(now, before - below(before / 16 + 1));
    uint32_t cut = now->count;
    for (page = first; page <= replica->pages_max && page < first + 200; page += 1 + below(3)) {
        now->count = MAX(now->count, page);
        now->cells[page] = ++soak.next_seed;
        pageset_add(changed, page);
    }
    struct store_pull said = {.after_lsn = replica->remote_lsn,
                              .head = remote_of(replica, replica->remote_lsn + 1, now->count),
                              .changed = changed,
                              .cut = cut};
    if (reset)
        OK(store_apply_reset(replica->volume, &said, &err));
    else
        OK(store_apply_pull(replica->volume, &said, &err));
    replica->remote_lsn++;
    forget_touched(replica);
    *(reset ? &soak.resets : &soak.pulls) += 1;
}

static void push(struct replica *replica)
{
    struct store_push begun;
    struct token token;
    struct hash128 digest = {{1}};
    uint8_t request[64] = {1};
    random_bytes(&token, sizeof token);
    OK(store_push_begin(replica->volume, &token, &begun, &err));
    OK(store_push_committing(replica->volume, &digest, (struct bytes){request, sizeof request}, &err));
    struct store_remote landed = remote_of(replica, ++replica->remote_lsn, replica->now.count);
    OK(store_push_settle(replica->volume, &landed, &err));
    forget_touched(replica);
    soak.pushes++;
}

// ---- volumes --------------------------------------------------------------------------------------------------------

static void begin_replica(struct replica *replica)
{
    replica->vid = gid_make(GID_VOLUME, 1000 + ++soak.next_vid);
    replica->touched = pageset_new();
    replica->now = image_new(replica->pages_max);
    replica->servers = image_new(replica->pages_max);
    replica->remote_lsn = 0;
    enum graft_volume_kind kind = replica->variable ? GRAFT_VARIABLE : GRAFT_FIXED;
    struct store_remote head = {.lsn = 0};
    if (below(3) == 0) { // what the servers have already
        replica->now.count = replica->pages_max / 2;
        for (uint32_t page = 1; page <= replica->now.count; page++)
            replica->now.cells[page] = ++soak.next_seed;
        head = remote_of(replica, replica->remote_lsn = 1, replica->now.count);
        image_copy(&replica->servers, &replica->now, replica->pages_max);
    }
    OK(store_volume_clone(soak.store, &replica->vid, replica->page_size, kind, &head, &replica->volume,
                          &err));
}

static void end_replica(struct replica *replica)
{
    store_volume_close(TAKE(replica->volume));
    pageset_free(replica->touched);
    free(replica->now.cells);
    free(replica->servers.cells);
}

static void replace_volume(struct replica *replica)
{
    let_all_go(replica);
    store_volume_close(TAKE(replica->volume));
    OK(store_volume_delete(soak.store, &replica->vid, &err));
    end_replica(replica);
    begin_replica(replica);
    soak.deletions++;
}

// ---- space ----------------------------------------------------------------------------------------------------------

static void visit_damage(void *context, const struct graft_local_damage *damage)
{
    printf("# %s\n", damage->why->message);
}

static uint64_t files_size(const char *name)
{
    char path[4096];
    uint64_t size = 0;
    snprintf(path, sizeof path, "%s/%s", soak.settings.directory, name);
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        struct stat info;
        if (fstatat(dirfd(directory), entry->d_name, &info, 0) == 0 && S_ISREG(info.st_mode))
            size += (uint64_t)info.st_size;
    }
    if (directory)
        closedir(directory);
    return size;
}

static struct graft_local_counts check_space(void)
{
    const struct store_check_sink sink = {.damaged = visit_damage};
    struct graft_local_counts counts;
    // Nothing moves, so that the sums are of one moment.
    store_space_settle(soak.store->space);
    OK(store_check(soak.store, &sink, &counts, &err));
    if (counts.damaged > 0)
        fail("the check found %lu damaged places", (unsigned long)counts.damaged);
    if (counts.size != counts.live + counts.dead + counts.headers + counts.unused + counts.free)
        fail("the bytes of the page files do not add up");
    if (counts.size != files_size("pages") + files_size("cache"))
        fail("%lu bytes were accounted for and the page files have %lu", (unsigned long)counts.size,
             (unsigned long)(files_size("pages") + files_size("cache")));
    if (files_size("cache") > CACHE_LIMIT)
        fail("fetched pages occupy %lu bytes", (unsigned long)files_size("cache"));
    struct extents_usage usage;
    extents_usage(soak.store->pages, &usage);
    soak.checks++;
    return counts;
}

// What lives is what the model has, once nobody needs anything else.
static void check_everything(void)
{
    uint64_t size = 0, pages = 0;
    let_all_go(NULL);
    for (unsigned i = 0; i < VOLUMES; i++) {
        struct replica *replica = &soak.replicas[i];
        commit(replica, 1, false); // so that what a cut hid is forgotten
        store_sweep(replica->volume, SIZE_MAX);
        _cleanup_(store_pin_release_p) struct store_pin *pin = NULL;
        OK(store_pin_open(replica->volume, &pin, &err));
        for (uint32_t page = 1; page <= replica->now.count; page++) {
            uint64_t cell = replica->now.cells[page];
            size_t here = cell & LOCAL ? content_size(replica, SEED(cell)) : 0;
            pages += here > 0;
            size += here;
            if (cell & LOCAL)
                read_page(replica, pin, &replica->now, page);
        }
    }
    struct graft_local_counts counts = check_space();
    struct extents_usage usage;
    extents_usage(soak.store->pages, &usage);
    if (usage.live != size || counts.pages != pages)
        fail("%lu pages with %lu bytes live in the page files; the model has %lu with %lu",
             (unsigned long)counts.pages, (unsigned long)usage.live, (unsigned long)pages,
             (unsigned long)size);
    // Bounded by what lives, whatever was written before.
    uint64_t most = size + size / 4 + 160 * MIB;
    if (files_size("pages") > most)
        fail("%lu bytes live and the page files have %lu", (unsigned long)size,
             (unsigned long)files_size("pages"));
}

// ---- the run --------------------------------------------------------------------------------------------------------

static void open_store(void)
{
    OK(store_open(&soak.settings, &soak.store, &err));
    OK(store_cache_limit_set(soak.store, CACHE_LIMIT, &err));
    soak.openings++;
}

static void note_cleaning(void)
{
    struct store_space_counts space;
    store_space_counts(soak.store->space, &space);
    soak.cleaned += space.cleaned_extents;
    soak.moved += space.moved_pages;
    soak.waits += space.waits;
}

static void reopen(void)
{
    check_space();
    note_cleaning();
    let_all_go(NULL);
    for (unsigned i = 0; i < VOLUMES; i++)
        store_volume_close(TAKE(soak.replicas[i].volume));
    store_close(TAKE(soak.store));
    soak.settings.durability = below(2) ? GRAFT_DURABILITY_FULL : GRAFT_DURABILITY_NORMAL;
    open_store();
    for (unsigned i = 0; i < VOLUMES; i++) {
        OK(store_volume_open(soak.store, &soak.replicas[i].vid, &soak.replicas[i].volume, &err));
        read_head(&soak.replicas[i], SAMPLE / VOLUMES);
    }
}

static void step(void)
{
    struct replica *replica = &soak.replicas[below(VOLUMES)];
    uint32_t chance = below(1000);
    if (chance < 500) {
        commit(replica, 1 + below(chance < 250 ? 4 : COMMIT_MAX), below(2) == 0);
    } else if (chance < 506) {
        commit(replica, (uint32_t)(LARGE_SIZE / replica->page_size), true);
        soak.large++;
    } else if (chance < 600) {
        hold_or_let_go(replica);
    } else if (chance < 650 && is_clean(replica)) {
        pull(replica, false);
    } else if (chance < 665) {
        pull(replica, true);
    } else if (chance < 720 && !is_clean(replica)) {
        push(replica);
        if (below(2) == 0)
            pull(replica, false);
    } else if (chance < 722) {
        reopen();
    } else if (chance < 724) {
        replace_volume(replica);
    } else {
        read_head(replica, 20);
    }
}

static void fill(uint32_t pages)
{
    static const uint32_t page_sizes[VOLUMES] = {4096, 4096,  4096, 4096, 512,   512,   1024,
                                                 4096, 16384, 4096, 4096, 512,   65536, 16384,
                                                 4096, 1024,  2048, 4096, 32768, 512};
    for (unsigned i = 0; i < VOLUMES; i++) {
        struct replica *replica = &soak.replicas[i];
        uint32_t page_size = page_sizes[i];
        // The large pages are fewer, so that the small ones are many.
        *replica = (struct replica){.page_size = page_size,
                                    .pages_max = page_size > 4096 ? pages / VOLUMES / (page_size / 2048)
                                                                  : pages * 5 / 4 / VOLUMES,
                                    .variable = i % 7 == 3};
        begin_replica(replica);
        for (uint32_t done = 0; done < replica->pages_max; done += 500)
            commit(replica, 500, true);
    }
}

// Everything once, however short the run is.
static void do_each(void)
{
    struct replica *replica = &soak.replicas[below(VOLUMES)];
    hold_or_let_go(replica);
    commit(replica, 10, false);
    pull(replica, true);
    commit(replica, 10, true);
    push(replica);
    pull(replica, false);
    replace_volume(&soak.replicas[below(VOLUMES)]);
    reopen();
}

static double seconds_since(uint64_t began_us)
{
    return (double)(clock_monotonic_us(clock_system()) - began_us) / 1e6;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: store-soak DIRECTORY SEED SECONDS PAGES\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("1..1\n");
    soak.settings = (struct store_settings){.directory = argv[1]};
    rng_seed(&soak.rng, strtoull(argv[2], NULL, 10));
    double seconds = strtod(argv[3], NULL);
    uint64_t began = clock_monotonic_us(clock_system());
    open_store();
    fill((uint32_t)strtoul(argv[4], NULL, 10));
    printf("# filled in %.1f s\n", seconds_since(began));
    do_each();
    began = clock_monotonic_us(clock_system());
    while (seconds_since(began) < seconds)
        step();
    reopen();
    check_everything();
    note_cleaning();
    printf(
        "# %lu commits, %lu large, %lu cuts, %lu pulls, %lu resets, %lu pushes, %lu fetches, %lu reads, %lu "
        "snapshots, %lu openings, %lu deletions, %lu checks\n",
        soak.commits, soak.large, soak.cuts, soak.pulls, soak.resets, soak.pushes, soak.fetches, soak.reads,
        soak.snapshots, soak.openings, soak.deletions, soak.checks);
    printf("# page files: %lu bytes; %lu extents cleaned, %lu pages moved, %lu commits waited for it\n",
           (unsigned long)files_size("pages"), soak.cleaned, soak.moved, soak.waits);
    for (unsigned i = 0; i < VOLUMES; i++)
        end_replica(&soak.replicas[i]);
    store_close(soak.store);
    printf("ok 1 - store_soak: contents and space equal the model's\n");
    return 0;
}
