// SPDX-License-Identifier: Apache-2.0
//
// A MANIFEST is a log of RocksDB's: blocks of 32 KiB, each with whole records
//     masked CRC-32C of what follows the size (4) | size (2) | type (1) | bytes
// and zeros where fewer than 7 bytes are left. A longer record goes through several blocks: first, middle …, last.
#include "common/store/rocksdb_manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/bytes.h"
#include "common/base/compiler.h"
#include "common/base/files.h"
#include "common/base/limits.h"

#define BLOCK_SIZE 32768u
#define HEADER_SIZE 7u
#define SECTOR_SIZE 512u
#define PATH_SIZE_MAX 4096u
#define MANIFEST_SIZE_MAX (64 * MIB) // a new one begins at 4 MiB (rocksdb_util.c)
// What one append left unsynced is far smaller.
#define TORN_SIZE_MAX (64 * KIB)

enum record_type { RECORD_FULL = 1, RECORD_FIRST = 2, RECORD_MIDDLE = 3, RECORD_LAST = 4 };

static uint32_t crc32c(const uint8_t *data, size_t size)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0x82f63b78u & -(crc & 1));
    }
    return ~crc;
}

// The size of the sound record at `from`; 0: there is none.
static size_t record_at(struct bytes log, size_t from)
{
    size_t left = MIN(log.size - from, BLOCK_SIZE - from % BLOCK_SIZE);
    if (left < HEADER_SIZE)
        return 0;
    const uint8_t *header = log.data + from;
    size_t size = HEADER_SIZE + (header[4] | (size_t)header[5] << 8);
    if (header[6] < RECORD_FULL || header[6] > RECORD_LAST || size > left)
        return 0;
    uint32_t crc = crc32c(header + 6, size - 6);
    return get_le32(header) == ((crc >> 15) | (crc << 17)) + 0xa282ead8u ? size : 0;
}

// Where the sound records end, and the last whole one that may have several parts.
static void find_end(struct bytes log, size_t *ret_damage, size_t *ret_whole)
{
    size_t at = 0, whole = 0;
    for (;;) {
        size_t left = BLOCK_SIZE - at % BLOCK_SIZE;
        if (left < HEADER_SIZE)
            at = MIN(at + left, log.size);
        size_t size = at < log.size ? record_at(log, at) : 0;
        if (size == 0)
            break;
        enum record_type type = log.data[at + 6];
        at += size;
        if (type == RECORD_FULL || type == RECORD_LAST)
            whole = at;
    }
    *ret_damage = at;
    *ret_whole = whole;
}

// A sector that did not reach the disk reads as zeros. Damage of what was synced looks otherwise.
static bool lacks_a_sector(struct bytes log, size_t from, size_t to)
{
    while (from < to) {
        size_t end = MIN((from / SECTOR_SIZE + 1) * SECTOR_SIZE, log.size);
        size_t zeros = 0;
        while (from + zeros < end && log.data[from + zeros] == 0)
            zeros++;
        if (end <= to && from + zeros == end)
            return true;
        from = end;
    }
    return false;
}

// Is the first damaged record one of which a sector is missing? What follows it was not synced either then, sound or not.
static bool has_torn_end(struct bytes log, size_t *ret_whole)
{
    size_t damage;
    find_end(log, &damage, ret_whole);
    if (damage == log.size || log.size - damage > TORN_SIZE_MAX || *ret_whole == 0)
        return false;
    size_t next = damage + 1;
    while (next < log.size && record_at(log, next) == 0)
        next++;
    return lacks_a_sector(log, damage, next);
}

static enum graft_status cut_file(const char *path, size_t size, struct graft_error *err)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return error_from_errno(err, errno, "opening %s", path);
    enum graft_status status = GRAFT_OK;
    if (ftruncate(fd, (off_t)size) != 0 || fsync(fd) != 0)
        status = error_from_errno(err, errno, "cutting the torn end of %s", path);
    close(fd);
    return status;
}

enum graft_status rocks_cut_manifest(const char *path, bool *ret_cut, struct graft_error *err)
{
    char file[PATH_SIZE_MAX];
    _cleanup_(buffer_release) struct buffer current = BUFFER_INIT(NAME_MAX);
    if (snprintf(file, sizeof file, "%s/CURRENT", path) >= (int)sizeof file)
        return error_from_errno(err, ENAMETOOLONG, "opening the manifest in %s", path);
    enum graft_status status = files_read(file, &current, err);
    if (status != GRAFT_OK)
        return status;
    *ret_cut = false;
    struct bytes name = buffer_bytes(&current);
    static const char prefix[] = "MANIFEST-";
    if (name.size < sizeof prefix || memcmp(name.data, prefix, sizeof prefix - 1) != 0 ||
        memchr(name.data, '/', name.size) || name.data[name.size - 1] != '\n')
        return GRAFT_OK;
    if (snprintf(file, sizeof file, "%s/%.*s", path, (int)name.size - 1, (const char *)name.data) >=
        (int)sizeof file)
        return error_from_errno(err, ENAMETOOLONG, "opening the manifest in %s", path);
    _cleanup_(buffer_release) struct buffer manifest = BUFFER_INIT(MANIFEST_SIZE_MAX);
    status = files_read(file, &manifest, err);
    size_t whole;
    if (status != GRAFT_OK || !has_torn_end(buffer_bytes(&manifest), &whole))
        return status;
    status = cut_file(file, whole, err);
    *ret_cut = status == GRAFT_OK;
    return status;
}
