// SPDX-License-Identifier: Apache-2.0
//
// The first byte says how the rest is cut into pieces; the cutting must make no difference. Pages are decoded
// as far as they can be, views must lie within the bounds that the header promises.
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/page_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// What a run over a stream came to.
struct summary {
    enum graft_status status;
    uint64_t events, pages, bytes;
    bool ended;
};

static void look_at_page(const struct page_event *event, struct page_codec *codec, const struct gid *owner)
{
    struct graft_error err;
    struct bytes plain;
    CHECK(event->page.pageidx > 0);
    CHECK(event->data.size <= PAGE_FRAME_SIZE_MAX);
    if (event->page.state != PAGE_STATE_STORED) {
        CHECK(event->data.size == 0);
        CHECK((event->page.state == PAGE_STATE_DAMAGED) == (event->error.status != GRAFT_OK));
        return;
    }
    CHECK(event->page.raw_size <= PAGE_SIZE_MAX);
    if (page_codec_decode(codec, owner, &event->page, event->data, &plain, &err) == GRAFT_OK)
        CHECK(plain.size == event->page.raw_size);
}

static void take(struct page_decoder *decoder, struct bytes piece, struct page_codec *codec,
                 struct summary *summary)
{
    struct page_event event;
    struct graft_error err;
    struct gid owner = {{GID_VOLUME}};
    for (;;) {
        summary->status = page_decoder_next(decoder, &piece, &event, &err);
        if (summary->status != GRAFT_OK) {
            CHECK(err.status == summary->status && err.message[0]);
            return;
        }
        if (event.type == PAGE_EVENT_NEED_MORE)
            break;
        summary->events++;
        if (event.type == PAGE_EVENT_PAGE) {
            summary->pages++;
            summary->bytes += event.data.size;
            look_at_page(&event, codec, &owner);
        }
        summary->ended |= event.type == PAGE_EVENT_END;
    }
    CHECK(piece.size == 0);
}

static struct summary run(struct bytes stream, size_t piece_size, struct page_codec *codec)
{
    struct summary summary = {.status = GRAFT_OK};
    struct page_decoder *decoder = page_decoder_new();
    for (size_t at = 0; at < stream.size && summary.status == GRAFT_OK; at += piece_size) {
        // A piece of its own, so that the sanitizer sees a view that outgrows it.
        size_t size = MIN(piece_size, stream.size - at);
        uint8_t *piece = malloc(size);
        memcpy(piece, stream.data + at, size);
        take(decoder, (struct bytes){piece, size}, codec, &summary);
        free(piece);
    }
    CHECK((page_decoder_finish(decoder, NULL) == GRAFT_OK) == (summary.ended && summary.status == GRAFT_OK));
    page_decoder_free(decoder);
    return summary;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct page_codec *codec;
    if (!codec)
        codec = page_codec_new();
    if (size == 0)
        return 0;
    struct bytes stream = {data + 1, size - 1};
    struct summary whole = run(stream, size, codec);
    struct summary pieces = run(stream, 1u + data[0], codec);
    CHECK(whole.status == pieces.status && whole.events == pieces.events && whole.pages == pieces.pages &&
          whole.bytes == pieces.bytes);
    return 0;
}
