// SPDX-License-Identifier: Apache-2.0
//
// Counters, gauges and histograms, printed as Prometheus text (exposition format 0.0.4). A daemon has one registry;
// modules take `struct metrics *`, which may be NULL, and keep the metrics they are given: all calls on a NULL metric do
// nothing, so the library runs the same code without a registry. Updates are atomic and lock-free.
#ifndef COMMON_BASE_METRICS_H
#define COMMON_BASE_METRICS_H

#include <stdint.h>

#include "common/base/buffer.h"

struct metrics;
struct metric;

struct metrics *metrics_new(void);
void metrics_free(struct metrics *metrics); // and all its metrics; NULL is fine

// Names and help are literals that outlive the registry. `labels` is NULL or text such as `call="commit"`, copied. Asking
// for the same name and labels again returns the same metric. Counters end in _total, times are in seconds.
struct metric *metrics_counter(struct metrics *metrics, const char *name, const char *labels,
                               const char *help);
struct metric *metrics_gauge(struct metrics *metrics, const char *name, const char *labels, const char *help);
// Buckets of latency: powers of 4 from 16 µs to 16 s. Observations are in microseconds, printed in seconds.
struct metric *metrics_histogram(struct metrics *metrics, const char *name, const char *labels,
                                 const char *help);

void metric_add(struct metric *metric, int64_t by);
void metric_set(struct metric *metric, int64_t value);
void metric_observe_us(struct metric *metric, uint64_t value_us);
int64_t metric_value(const struct metric *metric); // of a histogram: the sum in µs; 0 for NULL

// A gauge whose value is asked for at each print.
void metrics_gauge_fn(struct metrics *metrics, const char *name, const char *labels, const char *help,
                      int64_t (*read)(void *context), void *context);

// Process-wide gauges: resident memory, its peak, open descriptors, CPU seconds, start time.
void metrics_add_process(struct metrics *metrics);

enum graft_status metrics_print(struct metrics *metrics, struct buffer *to, struct graft_error *err);

#endif
