// SPDX-License-Identifier: Apache-2.0
//
// A registry is a list, and a metric once in it stays until the registry goes: that is why a print may walk
// it without the lock, taking it only for each step, and may call the functions of gauges with no lock held.
#include "common/base/metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"

#define BUCKETS 11 // 16 µs × 4^0 … 4^10; what is longer is counted by the histogram's count alone
#define BUCKET_FIRST_US 16

enum metric_type {
    METRIC_COUNTER,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
};

enum metric_unit {
    UNIT_ONE,
    UNIT_MICROSECONDS, // printed in seconds
};

struct metric {
    TAILQ_ENTRY(metric) link; // under the registry's lock
    const char *name, *help;
    const char *labels; // the registry's copy, or NULL
    enum metric_type type;
    enum metric_unit unit;
    int64_t (*read)(void *context); // of a gauge that is asked
    void *context;
    _Atomic int64_t value; // of a histogram: the sum of its observations, in microseconds
    _Atomic uint64_t count;
    _Atomic uint64_t buckets[BUCKETS]; // each by itself; cumulated when printed
};

TAILQ_HEAD(metric_list, metric);

struct metrics {
    struct mutex lock; // RANK_METRICS; guards the list
    struct metric_list list;
};

struct metrics *metrics_new(void)
{
    struct metrics *metrics = calloc(1, sizeof *metrics);
    CHECK(metrics);
    mutex_init(&metrics->lock, RANK_METRICS);
    TAILQ_INIT(&metrics->list);
    return metrics;
}

void metrics_free(struct metrics *metrics)
{
    if (!metrics)
        return;
    struct metric *metric;
    while ((metric = TAILQ_FIRST(&metrics->list))) {
        TAILQ_REMOVE(&metrics->list, metric, link);
        free((char *)metric->labels);
        free(metric);
    }
    mutex_release(&metrics->lock);
    free(metrics);
}

static bool same_labels(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

// The metric of that name and those labels; made where there is none, behind the last of its name, since all
// of a name must be printed together.
static struct metric *metrics_get(struct metrics *metrics, struct metric wanted)
{
    if (!metrics)
        return NULL;
    LOCK_GUARD(&metrics->lock);
    struct metric *metric, *last_of_name = NULL;
    TAILQ_FOREACH (metric, &metrics->list, link) {
        if (strcmp(metric->name, wanted.name) != 0)
            continue;
        CHECK(metric->type == wanted.type);
        if (same_labels(metric->labels, wanted.labels))
            return metric;
        last_of_name = metric;
    }
    metric = malloc(sizeof *metric);
    CHECK(metric);
    *metric = wanted;
    if (wanted.labels) {
        metric->labels = strdup(wanted.labels);
        CHECK(metric->labels);
    }
    if (last_of_name)
        TAILQ_INSERT_AFTER(&metrics->list, last_of_name, metric, link);
    else
        TAILQ_INSERT_TAIL(&metrics->list, metric, link);
    return metric;
}

struct metric *metrics_counter(struct metrics *metrics, const char *name, const char *labels,
                               const char *help)
{
    return metrics_get(metrics, (struct metric){
                                    .name = name,
                                    .labels = labels,
                                    .help = help,
                                    .type = METRIC_COUNTER,
                                });
}

struct metric *metrics_gauge(struct metrics *metrics, const char *name, const char *labels, const char *help)
{
    return metrics_get(metrics, (struct metric){
                                    .name = name,
                                    .labels = labels,
                                    .help = help,
                                    .type = METRIC_GAUGE,
                                });
}

struct metric *metrics_histogram(struct metrics *metrics, const char *name, const char *labels,
                                 const char *help)
{
    return metrics_get(metrics, (struct metric){
                                    .name = name,
                                    .labels = labels,
                                    .help = help,
                                    .type = METRIC_HISTOGRAM,
                                    .unit = UNIT_MICROSECONDS,
                                });
}

void metrics_gauge_fn(struct metrics *metrics, const char *name, const char *labels, const char *help,
                      int64_t (*read)(void *context), void *context)
{
    metrics_get(metrics, (struct metric){
                             .name = name,
                             .labels = labels,
                             .help = help,
                             .type = METRIC_GAUGE,
                             .read = read,
                             .context = context,
                         });
}

void metric_add(struct metric *metric, int64_t by)
{
    if (metric)
        atomic_fetch_add_explicit(&metric->value, by, memory_order_relaxed);
}

void metric_set(struct metric *metric, int64_t value)
{
    if (metric)
        atomic_store_explicit(&metric->value, value, memory_order_relaxed);
}

void metric_observe_us(struct metric *metric, uint64_t value_us)
{
    if (!metric)
        return;
    CHECK(metric->type == METRIC_HISTOGRAM);
    uint64_t bound_us = BUCKET_FIRST_US;
    for (int i = 0; i < BUCKETS; i++, bound_us *= 4) {
        if (value_us <= bound_us) {
            atomic_fetch_add_explicit(&metric->buckets[i], 1, memory_order_relaxed);
            break;
        }
    }
    atomic_fetch_add_explicit(&metric->value, (int64_t)value_us, memory_order_relaxed);
    atomic_fetch_add_explicit(&metric->count, 1, memory_order_relaxed);
}

int64_t metric_value(const struct metric *metric)
{
    if (!metric)
        return 0;
    return metric->read ? metric->read(metric->context)
                        : atomic_load_explicit(&metric->value, memory_order_relaxed);
}

static enum graft_status print_sample(const struct metric *metric, struct buffer *to, struct graft_error *err)
{
    int64_t value = metric_value(metric);
    const char *open = metric->labels ? "{" : "", *close = metric->labels ? "}" : "";
    const char *labels = metric->labels ? metric->labels : "";
    if (metric->unit == UNIT_MICROSECONDS)
        return buffer_printf(to, err, "%s%s%s%s %" PRId64 ".%06" PRId64 "\n", metric->name, open, labels,
                             close, value / 1000000, value % 1000000);
    return buffer_printf(to, err, "%s%s%s%s %" PRId64 "\n", metric->name, open, labels, close, value);
}

static enum graft_status print_histogram(const struct metric *metric, struct buffer *to,
                                         struct graft_error *err)
{
    const char *labels = metric->labels ? metric->labels : "";
    const char *comma = metric->labels ? "," : "";
    enum graft_status status = GRAFT_OK;
    uint64_t bound_us = BUCKET_FIRST_US, cumulated = 0;
    // The count is read first and never printed smaller than its buckets, which others go on filling
    // meanwhile.
    uint64_t count = atomic_load_explicit(&metric->count, memory_order_relaxed);
    for (int i = 0; status == GRAFT_OK && i < BUCKETS; i++, bound_us *= 4) {
        cumulated += atomic_load_explicit(&metric->buckets[i], memory_order_relaxed);
        status =
            buffer_printf(to, err, "%s_bucket{%s%sle=\"%" PRIu64 ".%06" PRIu64 "\"} %" PRIu64 "\n",
                          metric->name, labels, comma, bound_us / 1000000, bound_us % 1000000, cumulated);
    }
    count = MAX(count, cumulated);
    if (status == GRAFT_OK)
        status = buffer_printf(to, err, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", metric->name, labels,
                               comma, count);
    const char *open = metric->labels ? "{" : "", *close = metric->labels ? "}" : "";
    int64_t sum_us = metric_value(metric);
    if (status == GRAFT_OK)
        status = buffer_printf(to, err,
                               "%s_sum%s%s%s %" PRId64 ".%06" PRId64 "\n"
                               "%s_count%s%s%s %" PRIu64 "\n",
                               metric->name, open, labels, close, sum_us / 1000000, sum_us % 1000000,
                               metric->name, open, labels, close, count);
    return status;
}

static struct metric *next_metric(struct metrics *metrics, struct metric *metric)
{
    LOCK_GUARD(&metrics->lock);
    return metric ? TAILQ_NEXT(metric, link) : TAILQ_FIRST(&metrics->list);
}

enum graft_status metrics_print(struct metrics *metrics, struct buffer *to, struct graft_error *err)
{
    static const char *const type_names[] = {"counter", "gauge", "histogram"};
    enum graft_status status = GRAFT_OK;
    const char *name = "";
    struct metric *metric = NULL;
    while (status == GRAFT_OK && (metric = next_metric(metrics, metric))) {
        if (strcmp(metric->name, name) != 0) {
            name = metric->name;
            status = buffer_printf(to, err, "# HELP %s %s\n# TYPE %s %s\n", name, metric->help, name,
                                   type_names[metric->type]);
        }
        if (status == GRAFT_OK)
            status = metric->type == METRIC_HISTOGRAM ? print_histogram(metric, to, err)
                                                      : print_sample(metric, to, err);
    }
    return status;
}

static int64_t read_resident(void *context)
{
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    long long total = 0, resident = 0;
    int fields = fscanf(file, "%lld %lld", &total, &resident);
    fclose(file);
    return fields == 2 ? resident * sysconf(_SC_PAGESIZE) : 0;
}

static int64_t read_resident_peak(void *context)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}

static int64_t read_open_descriptors(void *context)
{
    DIR *folder = opendir("/proc/self/fd");
    if (!folder)
        return 0;
    int64_t count = 0;
    for (struct dirent *entry; (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count - 1; // without the one that was opened to count
}

static int64_t read_cpu_us(void *context)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
    return (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_usec;
}

void metrics_add_process(struct metrics *metrics)
{
    metrics_gauge_fn(metrics, "process_resident_memory_bytes", NULL, "Resident memory.", read_resident, NULL);
    metrics_gauge_fn(metrics, "process_resident_memory_peak_bytes", NULL, "The most that was ever resident.",
                     read_resident_peak, NULL);
    metrics_gauge_fn(metrics, "process_open_fds", NULL, "Open file descriptors.", read_open_descriptors,
                     NULL);
    metrics_get(metrics, (struct metric){
                             .name = "process_cpu_seconds_total",
                             .help = "User and system time spent.",
                             .type = METRIC_COUNTER,
                             .unit = UNIT_MICROSECONDS,
                             .read = read_cpu_us,
                         });
    struct metric *start =
        metrics_gauge(metrics, "process_start_time_seconds", NULL, "When the process started, since 1970.");
    metric_set(start, (int64_t)(clock_wall_ms(clock_system()) / 1000));
}
