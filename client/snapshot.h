// SPDX-License-Identifier: Apache-2.0
#ifndef CLIENT_SNAPSHOT_H
#define CLIENT_SNAPSHOT_H

#include "client/client.h"

// [network, if the page is not here] Reads a page as the pin shows it, as graft_snapshot_read() says.
enum graft_status snapshot_read_pin(struct graft_volume *volume, struct store_pin *pin, uint32_t pageidx,
                                    void *to, size_t to_size, size_t *ret_size, struct graft_error *err);

#endif
