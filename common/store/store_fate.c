// SPDX-License-Identifier: Apache-2.0
#include "common/store/store_fate.h"

#include "common/base/compiler.h"

void store_fate_init(struct store_fate *fate,
                     void (*on_fatal)(void *context, const struct graft_error *error), void *context)
{
    mutex_init(&fate->lock, RANK_LEAF);
    fate->on_fatal = on_fatal;
    fate->context = context;
}

void store_fate_release(struct store_fate *fate)
{
    mutex_release(&fate->lock);
}

bool store_fate_seal(struct store_fate *fate, const struct graft_error *error)
{
    LOCK_GUARD(&fate->lock);
    if (fate->failed)
        return false;
    fate->error = *error;
    fate->failed = true;
    return true;
}

void store_fate_tell(struct store_fate *fate)
{
    if (fate->on_fatal)
        fate->on_fatal(fate->context, &fate->error);
}

enum graft_status store_fate_check(struct store_fate *fate, struct graft_error *err)
{
    if (LIKELY(!fate->failed))
        return GRAFT_OK;
    LOCK_GUARD(&fate->lock);
    return error_set(err, GRAFT_UNAVAILABLE, fate->error.detail, "the store failed earlier and is closed: %s",
                     fate->error.message);
}
