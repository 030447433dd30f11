// SPDX-License-Identifier: Apache-2.0
//
// Pages are read from the store and encoded while the HTTP client asks for the next bytes, so that READ_SIZE of them
// are in memory at a time. A call is ended after PUSH_REQUEST_SIZE_MAX; one that fails is made again from its
// first page. What the digest has seen it does not see again.
//
//     Begin │ header page │ header page │ … │ End        the body of one call: `piece` is the part being
//     copied out
#include "client/push_upload.h"

#include <stdlib.h>

#include "client/patience.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"

#define READ_SIZE (256 * KIB) // of pages, read at once

struct upload {
    struct graft_volume *volume;
    struct store_pin *pin;
    struct pageset *pages;
    struct page_codec *codec;
    struct commit_digest *digest;
    uint32_t digested; // last page that the digest has
    uint8_t *bytes;    // READ_SIZE
    struct store_read *reads;
    size_t read_count, read_next; // pages read ahead

    // What was uploaded: the answers own the references.
    Graft__WritePagesResponse **answers;
    size_t answer_count;
    size_t reference_count;

    // The call under way.
    struct pageset_cursor cursor;
    uint64_t call_size, call_pages;
    struct pageset *sent; // pages of this call
    enum { PART_BEGIN, PART_PAGES, PART_END, PART_DONE } part;
    uint8_t header[PAGE_FRAME_HEADER_SIZE_MAX];
    struct bytes piece, next_piece; // what is left of a header, and the page behind it
    struct buffer end;
    struct graft_error error; // why reading stopped
};

static void upload_release(struct upload *upload)
{
    for (size_t i = 0; i < upload->answer_count; i++)
        message_free(&upload->answers[i]->base);
    free(upload->answers);
    buffer_release(&upload->end);
    pageset_free(upload->sent);
    pageset_free(upload->pages);
    commit_digest_free(upload->digest);
    page_codec_free(upload->codec);
    store_pin_release(upload->pin);
    free(upload->bytes);
    free(upload->reads);
}

static enum graft_status upload_init(struct upload *upload, struct graft_volume *volume,
                                     const struct store_push *push, struct graft_error *err)
{
    const struct gid *vid = &volume->source.vid;

    *upload = (struct upload){.volume = volume, .end = BUFFER_INIT(4 * KIB)};
    enum graft_status status = store_push_pages(volume->store, &upload->pages, err);
    if (status == GRAFT_OK)
        status = store_pin_open_push(volume->store, &upload->pin, err);
    if (status != GRAFT_OK)
        return status;
    CHECK(store_pin_lsn(upload->pin) == push->to_lsn);
    CHECK(pageset_max(upload->pages) <= push->page_count);
    upload->codec = page_codec_new();
    upload->digest =
        commit_digest_new(vid, push->base.lsn, push->page_count, push->cut, pageset_count(upload->pages));
    upload->bytes = malloc(READ_SIZE);
    upload->reads = calloc(READ_SIZE / volume->source.page_size, sizeof *upload->reads);
    if (!upload->codec || !upload->digest || !upload->bytes || !upload->reads)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to push volume %s",
                         gid_format(vid).text);
    upload->cursor = pageset_cursor(upload->pages);
    return GRAFT_OK;
}

// ---- the body of one call -----------------------------------------------------------------------

// The page, which the cursor just passed, read with those that follow it. *ret_read borrows from the upload until the next
// call.
static enum graft_status read_ahead(struct upload *upload, uint32_t pageidx,
                                    const struct store_read **ret_read, struct graft_error *err)
{
    uint32_t page_size = upload->volume->source.page_size;
    struct pageset_cursor ahead = upload->cursor;

    // A call that is made again begins elsewhere.
    if (upload->read_next == upload->read_count || upload->reads[upload->read_next].pageidx != pageidx) {
        size_t count = 0;
        upload->read_count = upload->read_next = 0;
        do {
            upload->reads[count] =
                (struct store_read){.pageidx = pageidx, .to = upload->bytes + count * page_size};
        } while (++count < READ_SIZE / page_size && pageset_next(&ahead, &pageidx));
        enum graft_status status = store_read_many(upload->pin, upload->reads, count, err);
        if (status != GRAFT_OK)
            return status;
        upload->read_count = count;
    }
    *ret_read = &upload->reads[upload->read_next++];
    return GRAFT_OK;
}

// Reads the page and makes it the next two pieces.
static enum graft_status stage_page(struct upload *upload, uint32_t pageidx, struct graft_error *err)
{
    const struct fetch_source *source = &upload->volume->source;
    const struct store_read *read;
    struct bytes data;

    enum graft_status status = read_ahead(upload, pageidx, &read, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "reading page %u to push it", pageidx);
    // What was written here and not pushed is here; an empty page can only be one of size 0.
    struct store_page page = read->page;
    if (page.state == STORE_PAGE_PENDING || (page.state == STORE_PAGE_EMPTY && !source->variable))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
                         "page %u of volume %s was written here, but the local store does not have it",
                         pageidx, gid_format(&source->vid).text);
    struct bytes plain = {read->to, page.state == STORE_PAGE_AVAILABLE ? page.size : 0};
    struct page_header header = {.pageidx = pageidx,
                                 .state = PAGE_STATE_STORED,
                                 .page_class = PAGE_CLASS_UNKNOWN,
                                 .raw_size = (uint32_t)plain.size,
                                 .checksum = page_checksum(&source->vid, pageidx, plain.data, plain.size)};
    if (pageidx > upload->digested) {
        commit_digest_add(upload->digest, pageidx, plain.data, plain.size);
        upload->digested = pageidx;
    }
    page_codec_encode(upload->codec, plain, &header.encoding, &data);
    upload->piece =
        (struct bytes){upload->header, page_stream_put_page(upload->header, &header, (uint32_t)data.size)};
    upload->next_piece = data;
    upload->call_size += upload->piece.size + data.size;
    upload->call_pages++;
    pageset_add(upload->sent, pageidx);
    return GRAFT_OK;
}

// Makes the next frame. The part is PART_DONE when there is none.
static enum graft_status stage_frame(struct upload *upload, struct graft_error *err)
{
    uint32_t pageidx;

    switch (upload->part) {
    case PART_BEGIN:
        upload->piece = (struct bytes){
            upload->header, page_stream_put_begin(upload->header, &upload->volume->source.vid, 0, NULL)};
        upload->part = PART_PAGES;
        return GRAFT_OK;
    case PART_PAGES:
        if (upload->call_size < PUSH_REQUEST_SIZE_MAX - PAGE_FRAME_SIZE_MAX &&
            upload->call_pages < WRITE_PAGES_PAGES_MAX && pageset_next(&upload->cursor, &pageidx))
            return stage_page(upload, pageidx, err);
        buffer_clear(&upload->end);
        upload->part = PART_END;
        enum graft_status status = page_stream_append_end(&upload->end, upload->call_pages, NULL, err);
        upload->piece = buffer_bytes(&upload->end);
        return status;
    case PART_END:
    case PART_DONE:
        upload->part = PART_DONE;
        return GRAFT_OK;
    }
    return GRAFT_OK;
}

static long upload_read(void *context, void *to, size_t size)
{
    struct upload *upload = context;
    uint8_t *at = to;
    size_t left = size;

    while (left > 0) {
        if (upload->piece.size == 0) {
            upload->piece = upload->next_piece;
            upload->next_piece = (struct bytes){0};
        }
        if (upload->piece.size == 0) {
            if (stage_frame(upload, &upload->error) != GRAFT_OK)
                return HTTP_ABORT;
            if (upload->part == PART_DONE)
                break;
            continue;
        }
        size_t count = MIN(left, upload->piece.size);
        memcpy(at, upload->piece.data, count);
        upload->piece.data += count;
        upload->piece.size -= count;
        at += count;
        left -= count;
    }
    return (long)(size - left);
}

// ---- calls --------------------------------------------------------------------------------------

// The references must name exactly the pages that were sent, filed under this volume.
static enum graft_status answer_check(const struct upload *upload, const Graft__WritePagesResponse *answer,
                                      struct graft_error *err)
{
    const struct gid *vid = &upload->volume->source.vid;
    _cleanup_(pageset_free_p) struct pageset *all = pageset_new();
    bool sound = true;

    for (size_t i = 0; i < answer->n_segments && sound; i++) {
        const Graft__SegmentRef *reference = answer->segments[i];
        _cleanup_(pageset_free_p) struct pageset *pages = NULL;
        struct gid owner;
        sound = gid_from_bytes(bytes_of(&reference->owner), GID_VOLUME, "owner", &owner, NULL) == GRAFT_OK &&
                gid_equal(&owner, vid) &&
                pageset_decode(bytes_of(&reference->pages), PAGESET_RUNS_MAX, "pages", &pages, NULL) ==
                    GRAFT_OK &&
                !pageset_intersects(all, pages);
        if (sound)
            pageset_union(all, pages);
    }
    if (sound && pageset_equal(all, upload->sent))
        return GRAFT_OK;
    return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                     "write_pages: the pagestore's references do not name the pages that were sent");
}

static enum graft_status answer_keep(struct upload *upload, Graft__WritePagesResponse *answer,
                                     struct graft_error *err)
{
    size_t references = upload->reference_count + answer->n_segments;
    Graft__WritePagesResponse **answers =
        reallocarray(upload->answers, upload->answer_count + 1, sizeof(Graft__WritePagesResponse *));

    if (answers)
        upload->answers = answers;
    if (!answers || references > COMMIT_SEGMENTS_MAX) {
        message_free(&answer->base);
        if (!answers)
            return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to push");
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "this push needs more than %u segments: commit and push smaller parts",
                         COMMIT_SEGMENTS_MAX);
    }
    upload->answers[upload->answer_count++] = answer;
    upload->reference_count = references;
    return GRAFT_OK;
}

// One call, from the cursor on.
static enum graft_status upload_once(struct upload *upload, uint32_t *ret_retry_after_ms,
                                     Graft__WritePagesResponse **ret_answer, struct graft_error *err)
{
    Graft__WritePagesResponse *answer = NULL;

    pageset_free(upload->sent);
    upload->sent = pageset_new();
    upload->call_size = upload->call_pages = 0;
    upload->part = PART_BEGIN;
    upload->piece = upload->next_piece = (struct bytes){0};
    upload->error = (struct graft_error){0};
    enum graft_status status = remote_write_pages(&upload->volume->client->remote, upload_read, upload,
                                                  &answer, ret_retry_after_ms, err);
    if (upload->error.status != GRAFT_OK) {
        if (status == GRAFT_OK)
            message_free(&answer->base);
        return error_copy(err, &upload->error);
    }
    if (status != GRAFT_OK)
        return status;
    status = upload->part == PART_DONE || upload->part == PART_END
                 ? answer_check(upload, answer, err)
                 : error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                             "write_pages: the pagestore answered before it had every page");
    if (status != GRAFT_OK) {
        message_free(&answer->base);
        return status;
    }
    FAILPOINT("push.after_segments");
    *ret_answer = answer;
    return GRAFT_OK;
}

static enum graft_status upload_call(struct upload *upload, uint32_t patience_ms, struct graft_error *err)
{
    const struct pageset_cursor start = upload->cursor;
    Graft__WritePagesResponse *answer = NULL;
    struct patience patience;
    struct graft_error why;

    patience_init(&patience, upload->volume->client->remote.http, patience_ms);
    for (;;) {
        uint32_t retry_after_ms = 0;
        upload->cursor = start;
        if (upload_once(upload, &retry_after_ms, &answer, &why) == GRAFT_OK)
            return answer_keep(upload, answer, err);
        upload->volume->retry_after_ms = retry_after_ms;
        if (!patience_wait(&patience, &why, retry_after_ms))
            return error_copy(err, &why);
    }
}

// ---- the request --------------------------------------------------------------------------------

static enum graft_status serialize(struct upload *upload, const struct store_push *push,
                                   const struct hash128 *digest, struct buffer *to, struct graft_error *err)
{
    Graft__CommitRequest request = GRAFT__COMMIT_REQUEST__INIT;
    const struct gid *cid = store_cid(upload->volume->client->store);
    size_t count = 0;

    _cleanup_(free_p) Graft__SegmentRef **references =
        calloc(upload->reference_count + 1, sizeof(Graft__SegmentRef *));
    if (!references)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to push");
    for (size_t i = 0; i < upload->answer_count; i++) {
        for (size_t j = 0; j < upload->answers[i]->n_segments; j++)
            references[count++] = upload->answers[i]->segments[j];
    }
    request.vid = binary_of(upload->volume->source.vid.bytes, GID_SIZE);
    request.base_lsn = push->base.lsn;
    request.base_chain = binary_of(push->base.chain.bytes, HASH_SIZE);
    request.token = binary_of(push->token.bytes, TOKEN_SIZE);
    request.digest = binary_of(digest->bytes, HASH_SIZE);
    request.cid = binary_of(cid->bytes, GID_SIZE);
    request.page_count = push->page_count;
    request.cut = push->cut;
    request.segments = references;
    request.n_segments = count;
    return message_encode(&request.base, to, err);
}

enum graft_status push_upload(struct graft_volume *volume, const struct store_push *push,
                              uint32_t patience_ms, struct buffer *to, struct hash128 *ret_digest,
                              struct graft_error *err)
{
    _cleanup_(upload_release) struct upload upload;

    enum graft_status status = upload_init(&upload, volume, push, err);
    uint32_t last = status == GRAFT_OK ? pageset_max(upload.pages) : 0;
    while (status == GRAFT_OK && upload.cursor.next <= last)
        status = upload_call(&upload, patience_ms, err);
    if (status != GRAFT_OK)
        return status;
    FAILPOINT("push.uploaded");
    struct hash128 digest = commit_digest_finish(TAKE(upload.digest));
    status = serialize(&upload, push, &digest, to, err);
    if (status == GRAFT_OK)
        *ret_digest = digest;
    return status;
}
