// SPDX-License-Identifier: Apache-2.0
#include "client/prepare.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/checksum.h"
#include "common/base/failpoint.h"
#include "common/base/files.h"

static const char magic[8] = "grftprp1";

#define HEADER_SIZE 52u // before the witness and its checksum
#define FRAME_SIZE 16u  // before a page's bytes
#define FOLDER "prepared"

struct file_at {
    char path[PATH_MAX];
    int fd;
    uint64_t offset;
};

static void file_at_close(struct file_at *file)
{
    if (file->fd >= 0)
        close(file->fd);
}

static void close_volume_p(struct graft_volume **volume)
{
    graft_volume_close(*volume);
}

static void abort_writer_p(struct graft_writer **writer)
{
    graft_writer_abort(*writer);
}

static enum graft_status path_of(const struct graft *client, const char *name, const char *suffix,
                                 char path[PATH_MAX], struct graft_error *err)
{
    int size = snprintf(path, PATH_MAX, "%s/%s%s%s%s", client->data, FOLDER, *name ? "/" : "", name, suffix);
    if (size < PATH_MAX)
        return GRAFT_OK;
    return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "the path of the data directory is too long");
}

// ---- writing ------------------------------------------------------------------------------------

static enum graft_status put(struct file_at *file, const void *data, size_t size, struct graft_error *err)
{
    enum graft_status status = files_pwrite_all(file->fd, data, size, file->offset, file->path, err);
    if (status == GRAFT_OK)
        file->offset += size;
    return status;
}

static enum graft_status put_header(struct file_at *file, const struct prepare *prepare,
                                    struct graft_error *err)
{
    uint8_t header[HEADER_SIZE + PATH_MAX + sizeof(uint64_t)];
    size_t witness_size = strlen(prepare->witness);

    if (witness_size >= PATH_MAX || prepare->witness[0] != '/')
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "the path of a witness is absolute and shorter than %d: %s", PATH_MAX,
                         prepare->witness);
    memcpy(header, magic, sizeof magic);
    memcpy(header + 8, prepare->vid->bytes, GID_SIZE);
    put_le64(header + 24, prepare->base_lsn);
    put_le32(header + 32, prepare->page_size);
    put_le32(header + 36, prepare->page_count);
    put_le32(header + 40, prepare->cut);
    put_le32(header + 44, (uint32_t)pageset_count(prepare->pages));
    put_le32(header + 48, (uint32_t)witness_size);
    memcpy(header + HEADER_SIZE, prepare->witness, witness_size);
    put_le64(header + HEADER_SIZE + witness_size, checksum64(header, HEADER_SIZE + witness_size));
    return put(file, header, HEADER_SIZE + witness_size + sizeof(uint64_t), err);
}

static enum graft_status put_pages(struct file_at *file, const struct prepare *prepare,
                                   struct graft_writer *writer, struct graft_error *err)
{
    _cleanup_(free_p) uint8_t *frame = malloc(FRAME_SIZE + prepare->page_size);
    struct pageset_cursor cursor = pageset_cursor(prepare->pages);
    enum graft_status status = GRAFT_OK;
    uint32_t pageidx;
    size_t size;

    if (!frame)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a page");
    while (status == GRAFT_OK && pageset_next(&cursor, &pageidx)) {
        status = graft_writer_read(writer, pageidx, frame + FRAME_SIZE, prepare->page_size, &size, err);
        if (status != GRAFT_OK)
            break;
        put_le32(frame, pageidx);
        put_le32(frame + 4, (uint32_t)size);
        put_le64(frame + 8, page_checksum(prepare->vid, pageidx, frame + FRAME_SIZE, size));
        status = put(file, frame, FRAME_SIZE + size, err);
    }
    return status;
}

enum graft_status prepare_write(struct graft *client, const struct prepare *prepare,
                                struct graft_writer *writer, struct graft_error *err)
{
    _cleanup_(file_at_close) struct file_at file = {.fd = -1};
    char folder[PATH_MAX], path[PATH_MAX];
    struct gid_text vid = gid_format(prepare->vid);
    const char *name = vid.text;

    enum graft_status status = path_of(client, "", "", folder, err);
    if (status == GRAFT_OK)
        status = path_of(client, name, "", path, err);
    if (status == GRAFT_OK)
        status = path_of(client, name, ".part", file.path, err);
    if (status == GRAFT_OK)
        status = files_make_folder(folder, err);
    if (status != GRAFT_OK)
        return status;
    if (access(path, F_OK) == 0)
        return error_set(err, GRAFT_BUSY, GRAFT_DETAIL_NONE,
                         "volume %s has a prepared write that is not settled; open the data directory anew",
                         name);
    file.fd = open(file.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file.fd < 0)
        return error_from_errno(err, errno, "making %s", file.path);
    status = put_header(&file, prepare, err);
    if (status == GRAFT_OK)
        status = put_pages(&file, prepare, writer, err);
    if (status == GRAFT_OK)
        status = FAILPOINT_ERROR("prepare.sync.before", err);
    if (status == GRAFT_OK && fsync(file.fd) != 0)
        status = error_from_errno(err, errno, "syncing %s", file.path);
    if (status == GRAFT_OK && rename(file.path, path) != 0)
        status = error_from_errno(err, errno, "renaming %s", file.path);
    if (status != GRAFT_OK) {
        unlink(file.path);
        return status;
    }
    FAILPOINT("prepare.renamed");
    status = files_sync_folder(folder, err);
    if (status != GRAFT_OK)
        unlink(path);
    return status;
}

enum graft_status prepare_remove(struct graft *client, const struct gid *vid, bool durably,
                                 struct graft_error *err)
{
    char folder[PATH_MAX], path[PATH_MAX];

    enum graft_status status = path_of(client, "", "", folder, err);
    if (status == GRAFT_OK)
        status = path_of(client, gid_format(vid).text, "", path, err);
    if (status != GRAFT_OK)
        return status;
    FAILPOINT("prepare.remove");
    if (unlink(path) != 0 && errno != ENOENT)
        return error_from_errno(err, errno, "removing %s", path);
    return durably ? files_sync_folder(folder, err) : GRAFT_OK;
}

// ---- settling -----------------------------------------------------------------------------------

struct header {
    struct gid vid;
    uint64_t base_lsn;
    uint32_t page_size, page_count, cut, frames;
    char witness[PATH_MAX];
};

static enum graft_status damaged(const struct file_at *file, struct graft_error *err)
{
    return error_set(
        err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
        "%s is damaged: a transaction that may be committed cannot be read; remove the file to give it up",
        file->path);
}

// Takes exactly `size` bytes.
static enum graft_status take(struct file_at *file, void *to, size_t size, struct graft_error *err)
{
    size_t got = 0;
    enum graft_status status = files_pread_all(file->fd, to, size, file->offset, file->path, &got, err);
    file->offset += got;
    return status == GRAFT_OK && got < size ? damaged(file, err) : status;
}

static enum graft_status take_header(struct file_at *file, struct header *header, struct graft_error *err)
{
    uint8_t bytes[HEADER_SIZE + PATH_MAX + sizeof(uint64_t)];

    enum graft_status status = take(file, bytes, HEADER_SIZE, err);
    if (status != GRAFT_OK)
        return status;
    uint32_t witness_size = get_le32(bytes + 48);
    if (memcmp(bytes, magic, sizeof magic) != 0 || witness_size == 0 || witness_size >= PATH_MAX)
        return damaged(file, err);
    status = take(file, bytes + HEADER_SIZE, witness_size + sizeof(uint64_t), err);
    if (status != GRAFT_OK)
        return status;
    if (get_le64(bytes + HEADER_SIZE + witness_size) != checksum64(bytes, HEADER_SIZE + witness_size))
        return damaged(file, err);
    memcpy(header->vid.bytes, bytes + 8, GID_SIZE);
    header->base_lsn = get_le64(bytes + 24);
    header->page_size = get_le32(bytes + 32);
    header->page_count = get_le32(bytes + 36);
    header->cut = get_le32(bytes + 40);
    header->frames = get_le32(bytes + 44);
    memcpy(header->witness, bytes + HEADER_SIZE, witness_size);
    header->witness[witness_size] = '\0';
    return header->page_size >= PAGE_SIZE_MIN && header->page_size <= PAGE_SIZE_MAX ? GRAFT_OK
                                                                                    : damaged(file, err);
}

static enum graft_status take_pages(struct file_at *file, const struct header *header,
                                    struct graft_writer *writer, struct graft_error *err)
{
    _cleanup_(free_p) uint8_t *frame = malloc(FRAME_SIZE + header->page_size);
    enum graft_status status = GRAFT_OK;

    if (!frame)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a page");
    for (uint32_t i = 0; i < header->frames && status == GRAFT_OK; i++) {
        status = take(file, frame, FRAME_SIZE, err);
        if (status != GRAFT_OK)
            break;
        uint32_t pageidx = get_le32(frame), size = get_le32(frame + 4);
        if (size > header->page_size)
            return damaged(file, err);
        status = take(file, frame + FRAME_SIZE, size, err);
        if (status == GRAFT_OK &&
            get_le64(frame + 8) != page_checksum(&header->vid, pageidx, frame + FRAME_SIZE, size))
            status = damaged(file, err);
        if (status == GRAFT_OK)
            status = graft_writer_write(writer, pageidx, frame + FRAME_SIZE, size, err);
    }
    return status;
}

static enum graft_status commit_file(struct file_at *file, const struct header *header,
                                     struct graft_volume *volume, struct graft_error *err)
{
    _cleanup_(abort_writer_p) struct graft_writer *writer = NULL;

    enum graft_status status = graft_writer_begin(volume, &writer, err);
    if (status == GRAFT_OK && header->cut < graft_writer_page_count(writer))
        status = graft_writer_truncate(writer, header->cut, err);
    if (status == GRAFT_OK)
        status = take_pages(file, header, writer, err);
    if (status == GRAFT_OK && graft_writer_page_count(writer) != header->page_count)
        status = graft_writer_truncate(writer, header->page_count, err);
    FAILPOINT("prepare.settle.commit");
    if (status == GRAFT_OK)
        status = graft_writer_commit(TAKE(writer), NULL, err);
    return status;
}

// The witness decides. A head that is not the base is the commit itself: nothing else moves it while the file is there.
static enum graft_status settle_header(struct graft *client, struct file_at *file,
                                       const struct header *header, struct graft_error *err)
{
    _cleanup_(close_volume_p) struct graft_volume *volume = NULL;
    struct graft_volume_head head;
    struct graft_error why;

    if (access(header->witness, F_OK) == 0)
        return GRAFT_OK;
    if (errno != ENOENT && errno != ENOTDIR)
        return error_from_errno(err, errno, "looking for %s, which decides a transaction", header->witness);
    enum graft_status status = volume_acquire(client, &header->vid, &volume, &why);
    if (status == GRAFT_NOT_FOUND)
        return GRAFT_OK; // it was deleted since
    if (status != GRAFT_OK)
        return error_copy(err, &why);
    status = graft_volume_head(volume, &head, err);
    if (status != GRAFT_OK || head.local_lsn != header->base_lsn)
        return status;
    return commit_file(file, header, volume, err);
}

static enum graft_status settle(struct graft *client, const char *name, struct graft_error *err)
{
    _cleanup_(file_at_close) struct file_at file = {.fd = -1};
    struct header *header = NULL;

    enum graft_status status = path_of(client, name, "", file.path, err);
    if (status != GRAFT_OK)
        return status;
    file.fd = open(file.path, O_RDONLY | O_CLOEXEC);
    if (file.fd < 0)
        return error_from_errno(err, errno, "opening %s", file.path);
    header = calloc(1, sizeof *header);
    if (!header)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to settle a transaction");
    status = take_header(&file, header, err);
    if (status == GRAFT_OK)
        status = settle_header(client, &file, header, err);
    if (status == GRAFT_OK)
        status = prepare_remove(client, &header->vid, true, err);
    free(header);
    return status == GRAFT_OK ? status : error_context(err, status, "settling a prepared transaction");
}

static bool is_vid(const char *name)
{
    struct gid vid;
    return gid_parse(name, GID_VOLUME, &vid, NULL) == GRAFT_OK;
}

// What was not written to its end was not prepared.
static void remove_part(const struct graft *client, const char *name)
{
    char path[PATH_MAX];
    size_t size = strlen(name), suffix = sizeof ".part" - 1;

    if (size > suffix && strcmp(name + size - suffix, ".part") == 0 &&
        path_of(client, name, "", path, NULL) == GRAFT_OK)
        unlink(path);
}

enum graft_status prepare_settle_all(struct graft *client, struct graft_error *err)
{
    struct dirent **entries = NULL;
    char folder[PATH_MAX];

    enum graft_status status = path_of(client, "", "", folder, err);
    if (status != GRAFT_OK)
        return status;
    int count = scandir(folder, &entries, NULL, NULL);
    if (count < 0)
        return errno == ENOENT ? GRAFT_OK : error_from_errno(err, errno, "listing %s", folder);
    for (int i = 0; i < count; i++) {
        if (!is_vid(entries[i]->d_name))
            remove_part(client, entries[i]->d_name);
        else if (status == GRAFT_OK)
            status = settle(client, entries[i]->d_name, err);
        free(entries[i]);
    }
    free(entries);
    return status;
}
