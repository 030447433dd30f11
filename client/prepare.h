// SPDX-License-Identifier: Apache-2.0
//
// Prepared writes: files prepared/<VID> in the data directory, each with what one writer holds, for transactions that a file
// elsewhere decides (graft_writer_prepare()). docs/FORMATS.md has the layout.
//
//          prepare                  the witness is removed           commit
//     ─────────────▶ file here, witness there ──▶ file here, no witness ──▶ head moved, file removed
//                          │ abort, or graft_open(): dropped      │ graft_open(): committed
//
// As long as the file is here the head is its base, or it was committed already: whoever opens the directory settles it
// before anything else is done.
#ifndef CLIENT_PREPARE_H
#define CLIENT_PREPARE_H

#include "client/client.h"
#include "common/base/pageset.h"

struct prepare {
    const struct gid *vid;
    uint64_t base_lsn;
    uint32_t page_count;
    uint32_t cut; // the lowest page_count that the writer had
    const struct pageset *pages;
    const char *witness;
    uint32_t page_size;
};

// Writes the file, durably; its pages come from the writer. BUSY if the volume has one.
enum graft_status prepare_write(struct graft *client, const struct prepare *prepare,
                                struct graft_writer *writer, struct graft_error *err);
// Removes it. `durably`: it must not come back after a power failure.
enum graft_status prepare_remove(struct graft *client, const struct gid *vid, bool durably,
                                 struct graft_error *err);
// Commits or drops what an earlier process left.
enum graft_status prepare_settle_all(struct graft *client, struct graft_error *err);

#endif
