// SPDX-License-Identifier: Apache-2.0
//
// segment list, segment show: the pagestore's own calls.
#include <inttypes.h>
#include <stdio.h>

#include "cli/commands.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/gid.h"
#include "common/net/rpc.h"

static void http_client_free_p(struct http_client **client)
{
    http_client_free(*client);
}

static enum graft_status call(const struct cli *cli, const char *name, const ProtobufCMessage *request,
                              const ProtobufCMessageDescriptor *response, ProtobufCMessage **ret_response,
                              struct graft_error *err)
{
    _cleanup_(http_client_free_p) struct http_client *http = NULL;
    enum graft_status status = http_client_new(&(struct http_client_settings){0}, &http, err);
    if (status != GRAFT_OK)
        return status;
    struct rpc_target target = {
        .http = http, .url = cli->settings.pagestore, .deadline_ms = (uint32_t)cli->settings.deadline_ms};
    return rpc_call(&target, name, request, response, ret_response, NULL, err);
}

static enum graft_status sid_text(const ProtobufCBinaryData *bytes, struct gid_text *ret_text,
                                  struct graft_error *err)
{
    struct gid sid;
    enum graft_status status = gid_from_bytes(bytes_of(bytes), GID_SEGMENT, "sid", &sid, err);
    if (status == GRAFT_OK)
        *ret_text = gid_format(&sid);
    return status;
}

static enum graft_status print_segments(const Graft__ListSegmentsResponse *page, struct cli_list *list,
                                        struct graft_error *err)
{
    for (size_t i = 0; i < page->n_segments; i++) {
        const Graft__SegmentInfo *info = page->segments[i];
        struct gid_text sid;
        enum graft_status status = sid_text(&info->sid, &sid, err);
        if (status != GRAFT_OK)
            return status;
        if (list->cli->settings.json)
            cli_list_add(list,
                         json_pack("{s:s, s:I, s:s}", "sid", sid.text, "size", (json_int_t)info->object_size,
                                   "created", clock_format(info->created_ms).text));
        else
            printf("%s  %" PRIu64 " bytes  %s\n", sid.text, info->object_size,
                   clock_format(info->created_ms).text);
    }
    return GRAFT_OK;
}

static enum exit_code run_list(struct cli *cli, char **arguments, int argument_count)
{
    struct cli_list list = {.cli = cli};
    struct graft_error err;
    enum graft_status status;
    uint8_t after[GID_SIZE];
    size_t after_size = 0;
    do {
        _cleanup_(message_free_p) ProtobufCMessage *response = NULL;
        Graft__ListSegmentsRequest request = GRAFT__LIST_SEGMENTS_REQUEST__INIT;
        request.after = binary_of(after, after_size);
        status =
            call(cli, "segments", &request.base, &graft__list_segments_response__descriptor, &response, &err);
        if (status != GRAFT_OK)
            break;
        const Graft__ListSegmentsResponse *page = (const Graft__ListSegmentsResponse *)response;
        status = print_segments(page, &list, &err);
        bool is_more = page->next.len == GID_SIZE;
        if (status == GRAFT_OK && is_more && after_size && memcmp(page->next.data, after, GID_SIZE) <= 0)
            status = error_set(&err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
                               "the pagestore's list of segments goes in circles");
        after_size = is_more ? GID_SIZE : 0;
        if (is_more)
            memcpy(after, page->next.data, GID_SIZE);
    } while (status == GRAFT_OK && after_size && !ferror(stdout));
    return status == GRAFT_OK ? cli_list_end(&list) : cli_list_fail(&list, &err);
}

const struct cli_command command_segment_list = {
    .name = "segment list",
    .arguments = "",
    .summary = "the segments that the pagestore holds",
    .about = "Lists the pagestore's segments, oldest first.",
    .run = run_list,
};

static const char *class_text(uint32_t page_class, char text[static 24])
{
    if (page_class >= 2)
        snprintf(text, 24, "structural %" PRIu32, page_class - 2);
    else
        snprintf(text, 24, "%s", page_class == 1 ? "leaf" : "unknown");
    return text;
}

static enum graft_status print_volume(const Graft__SegmentVolume *volume, json_t *volumes,
                                      struct graft_error *err)
{
    struct gid vid;
    enum graft_status status = gid_from_bytes(bytes_of(&volume->vid), GID_VOLUME, "vid", &vid, err);
    if (status != GRAFT_OK)
        return status;
    json_t *pages = volumes ? json_array() : NULL;
    if (!volumes)
        printf("volume %s: %zu pages\n", gid_format(&vid).text, volume->n_pages);
    for (size_t i = 0; i < volume->n_pages; i++) {
        const Graft__SegmentPage *page = volume->pages[i];
        const char *encoding = page->encoding == GRAFT__PAGE_ENCODING__PAGE_ZSTD ? "zstd" : "raw";
        char text[24];
        if (pages)
            json_array_append_new(pages, json_pack("{s:I, s:I, s:I, s:I, s:s, s:s}", "pageidx",
                                                   (json_int_t)page->pageidx, "offset",
                                                   (json_int_t)page->offset, "size", (json_int_t)page->size,
                                                   "raw_size", (json_int_t)page->raw_size, "encoding",
                                                   encoding, "class", class_text(page->class_, text)));
        else
            printf("  page %-10" PRIu32 " at %-10" PRIu64 " %6" PRIu32 " bytes, %s of %" PRIu32
                   ", %s, checksum %016" PRIx64 "\n",
                   page->pageidx, page->offset, page->size, encoding, page->raw_size,
                   class_text(page->class_, text), page->checksum);
    }
    if (volumes)
        json_array_append_new(volumes, json_pack("{s:s, s:o}", "vid", gid_format(&vid).text, "pages", pages));
    return GRAFT_OK;
}

static enum exit_code run_show(struct cli *cli, char **arguments, int argument_count)
{
    _cleanup_(message_free_p) ProtobufCMessage *response = NULL;
    struct graft_error err;
    struct gid sid;
    if (gid_parse(arguments[0], GID_SEGMENT, &sid, &err) != GRAFT_OK) {
        cli_fail(cli, &err);
        return EXIT_USAGE;
    }
    Graft__SegmentRequest request = GRAFT__SEGMENT_REQUEST__INIT;
    request.sid = binary_of(sid.bytes, GID_SIZE);
    if (call(cli, "segment", &request.base, &graft__segment_response__descriptor, &response, &err) !=
        GRAFT_OK)
        return cli_fail(cli, &err);
    const Graft__SegmentResponse *segment = (const Graft__SegmentResponse *)response;
    json_t *volumes = cli->settings.json ? json_array() : NULL;
    uint64_t size = segment->info ? segment->info->object_size : 0;
    if (!volumes)
        printf("segment %s: %" PRIu64 " bytes, index of %" PRIu32 " bytes at %" PRIu64 "\n", arguments[0],
               size, segment->index_size, segment->index_offset);
    for (size_t i = 0; i < segment->n_volumes; i++) {
        if (print_volume(segment->volumes[i], volumes, &err) != GRAFT_OK) {
            json_decref(volumes);
            return cli_fail(cli, &err);
        }
    }
    if (volumes)
        cli_print_json(json_pack("{s:s, s:I, s:I, s:I, s:o}", "sid", arguments[0], "size", (json_int_t)size,
                                 "index_offset", (json_int_t)segment->index_offset, "index_size",
                                 (json_int_t)segment->index_size, "volumes", volumes));
    return EXIT_DONE;
}

const struct cli_command command_segment_show = {
    .name = "segment show",
    .arguments = "SID",
    .summary = "a segment's index",
    .about = "Lists the volumes and pages that a segment holds and where they lie in it.",
    .argument_min = 1,
    .argument_max = 1,
    .run = run_show,
};
