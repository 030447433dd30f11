// SPDX-License-Identifier: Apache-2.0
//
// The committer: one thread takes whatever waits, decides each operation against the database and against
// what the same batch holds before it, writes one synced batch and calls everybody back. While it syncs, the
// next batch gathers; so a lone writer pays for one sync, and 64 of them share it.
//
// Invariants
//   1. Operations take effect in the order of their arrival; each is decided on the outcome of all before it.
//   2. No answer leaves before the batch that it depends on is durable: a CONFLICT with a key of the same
//   batch waits
//      with it. Conflicts with older keys rest on batches that are durable already.
//   3. After a failed write nothing is decided any more: RocksDB has no way back that its C API reaches.
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/store/objstore_rocksdb.h"

#define BATCH_OPS_MAX 4096u
#define WAITING_OPS_MAX 65536u
#define OP_OVERHEAD 128 // bytes of a batch that an operation takes beside its key and data, at most

// What one operation of the batch came to, and what its key is after it.
struct outcome {
    struct objstore_op *op;
    struct graft_error error;
    bool exists;
    struct record record; // without its data
    UT_hash_handle hh;    // by key: the last outcome for it in this batch
};

struct committer {
    struct rocksdb_store *store;
    struct worker worker;

    struct mutex lock;   // RANK_OBJSTORE; guards waiting and waiting_count
    struct cond arrived; // signalled when waiting was empty, and to stop
    struct objstore_ops waiting;
    unsigned waiting_count;

    // the worker's own
    rocksdb_writebatch_t *batch;
    struct outcome outcomes[BATCH_OPS_MAX];
    struct outcome *by_key;
    struct rng rng;
};

static struct rocks *rocks_of(const struct committer *committer)
{
    return committer->store->rocks;
}

static struct bytes key_bytes(const char *key)
{
    return (struct bytes){(const uint8_t *)key, strlen(key)};
}

// ---- deciding

// What the key is now: by this batch, or else by the database.
static enum graft_status look_up(struct committer *committer, const char *key, bool *ret_exists,
                                 struct record *ret_record, struct graft_error *err)
{
    struct outcome *earlier;
    HASH_FIND_STR(committer->by_key, key, earlier);
    if (earlier) {
        *ret_exists = earlier->exists;
        *ret_record = earlier->record;
        return GRAFT_OK;
    }
    struct rocks *rocks = rocks_of(committer);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
    enum graft_status status =
        rocks_get(rocks->db, rocks->families[FAMILY_OBJECTS], rocks->read, key_bytes(key), &value, err);
    if (status != GRAFT_OK)
        return status;
    *ret_exists = value != NULL;
    if (!value)
        return GRAFT_OK;
    status = record_decode(rocks_slice(value), key, ret_record, err);
    ret_record->data = (struct bytes){0};
    return status;
}

static void put_record(struct committer *committer, const char *key, const struct record *record,
                       struct bytes data)
{
    uint8_t header[RECORD_HEADER_SIZE];
    record_encode_header(record, header);
    const char *keys[] = {key}, *values[] = {(const char *)header, (const char *)data.data};
    size_t key_sizes[] = {strlen(key)}, value_sizes[] = {sizeof header, data.size};
    rocksdb_writebatch_putv_cf(committer->batch, rocks_of(committer)->families[FAMILY_OBJECTS], 1, keys,
                               key_sizes, data.size > 0 ? 2 : 1, values, value_sizes);
}

static void put_part(struct committer *committer, const struct version *version, uint32_t number,
                     struct bytes data)
{
    uint8_t key[PART_KEY_SIZE];
    part_key(version, number, key);
    rocks_batch_put(committer->batch, rocks_of(committer)->families[FAMILY_PARTS],
                    (struct bytes){key, sizeof key}, data);
}

// Point deletes: parts are only ever read by their whole key, so no scan will have to step over them.
static void delete_parts(struct committer *committer, const struct version *version, uint32_t count)
{
    for (uint32_t number = 0; number < count; number++) {
        uint8_t key[PART_KEY_SIZE];
        part_key(version, number, key);
        rocks_batch_delete(committer->batch, rocks_of(committer)->families[FAMILY_PARTS],
                           (struct bytes){key, sizeof key});
    }
}

static void delete_old_parts(struct committer *committer, const struct record *record)
{
    if (record->layout == LAYOUT_PARTS)
        delete_parts(committer, &record->version, record_part_count(record->size));
}

static void write_data(struct committer *committer, const struct objstore_op *op, struct record *ret_record)
{
    *ret_record = (struct record){
        .layout = op->data.size <= INLINE_SIZE_MAX ? LAYOUT_INLINE : LAYOUT_PARTS,
        .size = op->data.size,
        .version = version_make(clock_wall_ms(clock_system()), rng_next(&committer->rng)),
    };
    if (ret_record->layout == LAYOUT_INLINE)
        return put_record(committer, op->key, ret_record, op->data);
    put_record(committer, op->key, ret_record, (struct bytes){0});
    for (uint32_t number = 0; number < record_part_count(op->data.size); number++) {
        size_t from = (size_t)number * PART_SIZE;
        put_part(committer, &ret_record->version, number,
                 (struct bytes){op->data.data + from, MIN((size_t)PART_SIZE, op->data.size - from)});
    }
}

static void write_upload(struct committer *committer, const struct objstore_op *op, struct record *ret_record)
{
    const struct rocksdb_upload *upload = (const struct rocksdb_upload *)op->upload;
    struct bytes rest = buffer_bytes(&upload->gathered);
    *ret_record = (struct record){
        .layout = upload->parts == 0 && upload->size <= INLINE_SIZE_MAX ? LAYOUT_INLINE : LAYOUT_PARTS,
        .size = upload->size,
        .version = upload->version,
    };
    if (ret_record->layout == LAYOUT_INLINE)
        return put_record(committer, op->key, ret_record, rest);
    put_record(committer, op->key, ret_record, (struct bytes){0});
    if (rest.size > 0)
        put_part(committer, &upload->version, upload->parts, rest);
    rocks_batch_delete(committer->batch, rocks_of(committer)->families[FAMILY_UPLOADS],
                       (struct bytes){upload->version.bytes, VERSION_SIZE});
}

static void drop_upload(struct committer *committer, const struct rocksdb_upload *upload)
{
    if (upload->parts == 0)
        return;
    delete_parts(committer, &upload->version, upload->parts);
    rocks_batch_delete(committer->batch, rocks_of(committer)->families[FAMILY_UPLOADS],
                       (struct bytes){upload->version.bytes, VERSION_SIZE});
}

static bool is_version(const struct record *record, const char *tag)
{
    char text[OBJSTORE_TAG_SIZE + 1];
    version_format(&record->version, text);
    return strcmp(text, tag) == 0;
}

static enum graft_status decide(struct committer *committer, struct outcome *outcome)
{
    struct objstore_op *op = outcome->op;
    struct graft_error *err = &outcome->error;
    bool exists;
    struct record before = {0};
    enum graft_status status = look_up(committer, op->key, &exists, &before, err);
    if (status != GRAFT_OK)
        return status;

    switch (op->kind) {
    case OBJSTORE_CREATE:
        if (exists)
            return objstore_conflict(op, err);
        write_data(committer, op, &outcome->record);
        break;
    case OBJSTORE_COMMIT:
        if (exists)
            return objstore_conflict(op, err);
        write_upload(committer, op, &outcome->record);
        break;
    case OBJSTORE_REPLACE:
        if (!exists || !is_version(&before, op->other))
            return objstore_conflict(op, err);
        FAILPOINT("committer.replace");
        delete_old_parts(committer, &before);
        write_data(committer, op, &outcome->record);
        break;
    case OBJSTORE_REMOVE:
        FAILPOINT("committer.remove");
        if (exists) {
            delete_old_parts(committer, &before);
            rocks_batch_delete(committer->batch, rocks_of(committer)->families[FAMILY_OBJECTS],
                               key_bytes(op->key));
        }
        break;
    case OBJSTORE_GET:
    case OBJSTORE_LIST:
        CHECK(false);
    }
    outcome->exists = op->kind != OBJSTORE_REMOVE;
    struct outcome *earlier;
    HASH_FIND_STR(committer->by_key, op->key, earlier);
    if (earlier)
        HASH_DEL(committer->by_key, earlier);
    HASH_ADD_KEYPTR(hh, committer->by_key, op->key, strlen(op->key), outcome);
    return GRAFT_OK;
}

// ---- writing

static void complete(struct outcome *outcome)
{
    struct objstore_op *op = outcome->op;
    struct objstore_result result = {.error = outcome->error};
    if (outcome->error.status == GRAFT_OK && outcome->exists)
        version_format(&outcome->record.version, result.tag);
    if (op->upload)
        rocksdb_upload_free((struct rocksdb_upload *)op->upload);
    objstore_complete(op, &result);
}

static void fail_batch(struct committer *committer, unsigned count, const struct graft_error *error)
{
    bool first = store_fate_seal(&committer->store->fate, error);
    for (unsigned i = 0; i < count; i++) {
        struct graft_error *each = &committer->outcomes[i].error;
        error_set(each, GRAFT_UNKNOWN, error->detail, "writing the object %s: %s",
                  committer->outcomes[i].op->key, error->message);
        complete(&committer->outcomes[i]);
    }
    if (first)
        store_fate_tell(&committer->store->fate);
}

static void refuse_batch(struct committer *committer, unsigned count, const struct graft_error *error)
{
    for (unsigned i = 0; i < count; i++) {
        committer->outcomes[i].error = *error;
        complete(&committer->outcomes[i]);
    }
}

static void commit_batch(struct committer *committer, unsigned count)
{
    struct graft_error error;
    if (store_fate_check(&committer->store->fate, &error) != GRAFT_OK)
        return refuse_batch(committer, count, &error);

    for (unsigned i = 0; i < count; i++) {
        struct outcome *outcome = &committer->outcomes[i];
        enum graft_status status = decide(committer, outcome);
        if (status != GRAFT_OK && outcome->op->upload)
            drop_upload(committer, (struct rocksdb_upload *)outcome->op->upload);
    }
    HASH_CLEAR(hh, committer->by_key);

    enum graft_status status = GRAFT_OK;
    if (rocksdb_writebatch_count(committer->batch) > 0)
        status = FAILPOINT_ERROR("committer.sync.before", &error);
    if (status == GRAFT_OK && rocksdb_writebatch_count(committer->batch) > 0)
        status =
            rocks_write(rocks_of(committer)->db, rocks_of(committer)->write_synced, committer->batch, &error);
    rocksdb_writebatch_clear(committer->batch);
    if (status != GRAFT_OK)
        return fail_batch(committer, count, &error);
    FAILPOINT("committer.sync.after");
    for (unsigned i = 0; i < count; i++)
        complete(&committer->outcomes[i]);
    FAILPOINT("committer.answered");
}

static size_t batch_size_of(const struct objstore_op *op)
{
    size_t size = OP_OVERHEAD + 2 * strlen(op->key) + op->data.size;
    if (op->upload)
        size += ((struct rocksdb_upload *)op->upload)->gathered.size;
    return size;
}

// Moves what waits into outcomes: at least one, then as long as the batch stays within its size. 0: stopping.
static unsigned take_batch(struct committer *committer)
{
    LOCK_GUARD(&committer->lock);
    while (STAILQ_EMPTY(&committer->waiting) && !worker_stopping(&committer->worker))
        cond_wait(&committer->arrived, &committer->lock);
    unsigned count = 0;
    size_t size = 0;
    for (struct objstore_op *op; count < BATCH_OPS_MAX && (op = STAILQ_FIRST(&committer->waiting));) {
        size += batch_size_of(op);
        if (count > 0 && size > COMMITTER_BATCH_SIZE)
            break;
        STAILQ_REMOVE_HEAD(&committer->waiting, link);
        struct outcome *outcome = &committer->outcomes[count++];
        outcome->op = op;
        outcome->error = (struct graft_error){0};
        outcome->exists = false;
    }
    committer->waiting_count -= count;
    return count;
}

static void run(struct worker *worker, void *context)
{
    struct committer *committer = context;
    for (unsigned count; (count = take_batch(committer)) > 0;)
        commit_batch(committer, count);
}

// ---- from outside

void committer_submit(struct committer *committer, struct objstore_op *op)
{
    mutex_lock(&committer->lock);
    bool full = committer->waiting_count == WAITING_OPS_MAX;
    bool wake = STAILQ_EMPTY(&committer->waiting);
    if (!full) {
        STAILQ_INSERT_TAIL(&committer->waiting, op, link);
        committer->waiting_count++;
    }
    mutex_unlock(&committer->lock);
    if (full) {
        struct graft_error error;
        error_set(&error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED,
                  "%u writes wait for the disk already: try again later", WAITING_OPS_MAX);
        if (op->upload)
            rocksdb_upload_free((struct rocksdb_upload *)op->upload);
        objstore_fail(op, &error);
    } else if (wake) {
        cond_signal(&committer->arrived);
    }
}

enum graft_status committer_new(struct rocksdb_store *store, struct committer **ret_committer,
                                struct graft_error *err)
{
    struct committer *committer = calloc(1, sizeof *committer);
    if (!committer)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the committer");
    committer->store = store;
    committer->batch = rocksdb_writebatch_create();
    mutex_init(&committer->lock, RANK_OBJSTORE);
    cond_init(&committer->arrived);
    STAILQ_INIT(&committer->waiting);
    uint64_t seed;
    random_bytes(&seed, sizeof seed);
    rng_seed(&committer->rng, seed);

    enum graft_status status = worker_start(&committer->worker, "committer", run, committer, err);
    if (status != GRAFT_OK) {
        committer_free(committer);
        return status;
    }
    *ret_committer = committer;
    return GRAFT_OK;
}

void committer_free(struct committer *committer)
{
    if (!committer)
        return;
    mutex_lock(&committer->lock);
    worker_request_stop(&committer->worker);
    mutex_unlock(&committer->lock);
    cond_signal(&committer->arrived);
    worker_join(&committer->worker);
    CHECK(STAILQ_EMPTY(&committer->waiting));
    rocks_batch_free(committer->batch);
    cond_release(&committer->arrived);
    mutex_release(&committer->lock);
    free(committer);
}
