// SPDX-License-Identifier: Apache-2.0
//
// Background synchronisation: a few threads per client, one job per volume.
#ifndef CLIENT_SYNC_H
#define CLIENT_SYNC_H

#include "client/client.h"

struct sync;

void sync_end(struct sync *sync);  // stops the threads; NULL is fine
void sync_free(struct sync *sync); // no volume is left; NULL is fine
// A local commit was made: a volume that pushes by itself does so now.
void sync_note_commit(struct graft_volume *volume);
// The volume's head may move again, and a pull or reset was refused while it might not.
void sync_note_thaw(struct graft_volume *volume);
// Takes the volume out, waits for what is being done for it. Nothing if it is not in.
void sync_remove(struct graft *client, struct graft_volume *volume);

// Until the next attempt, where `asked_ms` is what the servers asked for.
uint32_t sync_pause_ms(uint32_t backoff_ms, uint32_t asked_ms);

#endif
