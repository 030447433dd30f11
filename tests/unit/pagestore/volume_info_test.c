// SPDX-License-Identifier: Apache-2.0
#include "pagestore/volume_info.h"

#include <criterion/criterion.h>
#include <stdatomic.h>

#include "common/base/mutex.h"

static atomic_uint fetched;

static enum graft_status fetch(void *context, const struct gid *vid, struct volume_info *ret_info,
                               struct graft_error *err)
{
    atomic_fetch_add(&fetched, 1);
    if (vid->bytes[1] == 255)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NO_SUCH_VOLUME, "no volume");
    *ret_info = (struct volume_info){512u << vid->bytes[1] % 8, vid->bytes[1] % 2};
    return GRAFT_OK;
}

static struct volume_infos *infos;

static void set_up(void)
{
    cr_assert_eq(volume_infos_new(fetch, NULL, 4, &infos, NULL), GRAFT_OK);
}

static void tear_down(void)
{
    volume_infos_free(infos);
}

TestSuite(volume_info, .init = set_up, .fini = tear_down);

static struct gid vid_of(unsigned number)
{
    return (struct gid){{GID_VOLUME, (uint8_t)number}};
}

static uint32_t page_size_of(unsigned number)
{
    struct gid vid = vid_of(number);
    struct volume_info info;
    cr_assert_eq(volume_infos_wait(infos, &vid, &info, NULL), GRAFT_OK);
    return info.page_size;
}

static bool is_known(unsigned number)
{
    struct gid vid = vid_of(number);
    struct volume_info info;
    return volume_infos_get(infos, &vid, &info);
}

Test(volume_info, is_asked_for_once)
{
    cr_assert_not(is_known(3));
    cr_assert_eq(page_size_of(3), 4096);
    cr_assert_eq(page_size_of(3), 4096);
    cr_assert(is_known(3));
    cr_assert_eq(fetched, 1);
}

Test(volume_info, a_volume_that_is_not_there_is_asked_for_again)
{
    struct gid vid = vid_of(255);
    struct volume_info info;
    struct graft_error err;
    cr_assert_eq(volume_infos_wait(infos, &vid, &info, &err), GRAFT_NOT_FOUND);
    cr_assert_eq(volume_infos_wait(infos, &vid, &info, &err), GRAFT_NOT_FOUND);
    cr_assert_eq(fetched, 2);
}

Test(volume_info, the_one_least_recently_used_is_forgotten)
{
    for (unsigned i = 0; i < 4; i++)
        page_size_of(i);
    page_size_of(0);
    page_size_of(9);
    cr_assert(is_known(0) && is_known(2) && is_known(3) && is_known(9));
    cr_assert_not(is_known(1));
}

struct asked {
    struct volume_query query;
    struct volume_info info;
    enum graft_status status;
    struct mutex *lock;
    struct cond *changed;
    unsigned *answered;
};

static void answer(struct volume_query *query, const struct volume_info *info,
                   const struct graft_error *error)
{
    struct asked *asked = CONTAINER_OF(query, struct asked, query);
    asked->info = *info;
    asked->status = error->status;
    LOCK_GUARD(asked->lock);
    ++*asked->answered;
    cond_signal(asked->changed);
}

Test(volume_info, questions_are_answered_once_each)
{
    enum { COUNT = 200 };
    static struct asked asked[COUNT];
    struct mutex lock;
    struct cond changed;
    unsigned answered = 0;
    mutex_init(&lock, RANK_LEAF);
    cond_init(&changed);
    for (unsigned i = 0; i < COUNT; i++) {
        asked[i] = (struct asked){.lock = &lock, .changed = &changed, .answered = &answered};
        asked[i].query.vid = vid_of(i % 5 == 4 ? 255 : i % 5);
        asked[i].query.done = answer;
        cr_assert_eq(volume_infos_ask(infos, &asked[i].query, NULL), GRAFT_OK);
    }
    mutex_lock(&lock);
    while (answered < COUNT)
        cond_wait(&changed, &lock);
    mutex_unlock(&lock);
    for (unsigned i = 0; i < COUNT; i++) {
        cr_assert_eq(asked[i].status, i % 5 == 4 ? GRAFT_NOT_FOUND : GRAFT_OK);
        if (asked[i].status == GRAFT_OK)
            cr_assert_eq(asked[i].info.page_size, 512u << i % 5);
    }
    cond_release(&changed);
    mutex_release(&lock);
}
