// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/metrics.h"
#include "common/base/mutex.h"
#include "common/base/worker.h"

static struct metrics *metrics;

static void setup(void)
{
    metrics = metrics_new();
}

static void teardown(void)
{
    metrics_free(metrics);
}

TestSuite(metrics, .init = setup, .fini = teardown);

static const char *printed(void)
{
    static char text[65536];
    _cleanup_(buffer_release) struct buffer buffer = BUFFER_INIT(sizeof text - 1);
    cr_assert_eq(metrics_print(metrics, &buffer, NULL), GRAFT_OK);
    if (buffer.size > 0)
        memcpy(text, buffer.data, buffer.size);
    text[buffer.size] = '\0';
    return text;
}

Test(metrics, counters_and_gauges_are_printed_by_name)
{
    struct metric *commits = metrics_counter(metrics, "calls_total", "call=\"commit\"", "Calls.");
    metric_set(metrics_gauge(metrics, "open", NULL, "What is open."), -3);
    struct metric *pulls = metrics_counter(metrics, "calls_total", "call=\"pull\"", "Calls.");
    metric_add(commits, 2);
    metric_add(commits, 3);
    metric_add(pulls, 1);
    cr_assert_eq(metric_value(commits), 5);
    cr_assert_str_eq(printed(), "# HELP calls_total Calls.\n# TYPE calls_total counter\n"
                                "calls_total{call=\"commit\"} 5\ncalls_total{call=\"pull\"} 1\n"
                                "# HELP open What is open.\n# TYPE open gauge\nopen -3\n");
}

Test(metrics, the_same_name_and_labels_are_the_same_metric)
{
    struct metric *a = metrics_counter(metrics, "x_total", "a=\"1\"", "X.");
    cr_assert_eq(a, metrics_counter(metrics, "x_total", "a=\"1\"", "X."));
    cr_assert_neq(a, metrics_counter(metrics, "x_total", "a=\"2\"", "X."));
    cr_assert_neq(a, metrics_counter(metrics, "x_total", NULL, "X."));
}

Test(metrics, one_name_of_two_types_aborts, .signal = SIGABRT)
{
    metrics_counter(metrics, "x", NULL, "X.");
    metrics_gauge(metrics, "x", "a=\"1\"", "X.");
}

Test(metrics, histograms_cumulate_buckets_in_seconds)
{
    struct metric *plain = metrics_histogram(metrics, "t_seconds", NULL, "Time.");
    metrics_histogram(metrics, "t_seconds", "call=\"a\"", "Time.");
    static const uint64_t observed[] = {0, 16, 17, 64, 1000, 16777216, 16777217, 100000000};
    for (size_t i = 0; i < ARRAY_COUNT(observed); i++)
        metric_observe_us(plain, observed[i]);
    const char *text = printed();
    static const char *const lines[] = {
        "# TYPE t_seconds histogram\n",
        "\nt_seconds_bucket{le=\"0.000016\"} 2\n",
        "\nt_seconds_bucket{le=\"0.000064\"} 4\n",
        "\nt_seconds_bucket{le=\"0.000256\"} 4\n",
        "\nt_seconds_bucket{le=\"0.001024\"} 5\n",
        "\nt_seconds_bucket{le=\"4.194304\"} 5\n",
        "\nt_seconds_bucket{le=\"16.777216\"} 6\n",
        "\nt_seconds_bucket{le=\"+Inf\"} 8\n",
        "\nt_seconds_sum 133.555530\n",
        "\nt_seconds_count 8\n",
        "\nt_seconds_bucket{call=\"a\",le=\"+Inf\"} 0\n",
        "\nt_seconds_sum{call=\"a\"} 0.000000\n",
        "\nt_seconds_count{call=\"a\"} 0\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++)
        cr_assert(strstr(text, lines[i]), "%s is not in %s", lines[i], text);
}

static int64_t read_value(void *context)
{
    struct mutex *outer = context;
    LOCK_GUARD(outer); // aborts if the registry's lock is held: its rank is higher
    return 42;
}

Test(metrics, gauges_are_asked_without_a_lock)
{
    struct mutex outer;
    mutex_init(&outer, RANK_CLIENT);
    metrics_gauge_fn(metrics, "asked", NULL, "Asked.", read_value, &outer);
    cr_assert(strstr(printed(), "\nasked 42\n"));
    mutex_release(&outer);
}

Test(metrics, nothing_happens_without_a_registry)
{
    struct metric *metric = metrics_counter(NULL, "x", NULL, "X.");
    cr_assert_null(metric);
    cr_assert_null(metrics_gauge(NULL, "x", NULL, "X."));
    cr_assert_null(metrics_histogram(NULL, "x", NULL, "X."));
    metrics_gauge_fn(NULL, "x", NULL, "X.", read_value, NULL);
    metric_add(metric, 1);
    metric_set(metric, 1);
    metric_observe_us(metric, 1);
    cr_assert_eq(metric_value(metric), 0);
    metrics_free(NULL);
}

Test(metrics, a_buffer_that_is_full_is_an_error)
{
    _cleanup_(buffer_release) struct buffer small = BUFFER_INIT(100);
    metrics_histogram(metrics, "t_seconds", NULL, "Time.");
    cr_assert_eq(metrics_print(metrics, &small, NULL), GRAFT_LIMIT);
}

// The value of the line that begins with `name` and a space, -1: there is none.
static double sample(const char *text, const char *name)
{
    char start[100];
    snprintf(start, sizeof start, "\n%s ", name);
    const char *line = strstr(text, start);
    return line ? strtod(line + strlen(start), NULL) : -1;
}

Test(metrics, the_process_is_measured)
{
    metrics_add_process(metrics);
    volatile unsigned spin = 0;
    while (spin < 30000000)
        spin = spin + 1;
    const char *text = printed();
    cr_assert_gt(sample(text, "process_resident_memory_bytes"), 100000);
    cr_assert_geq(sample(text, "process_resident_memory_peak_bytes"), 100000);
    cr_assert_geq(sample(text, "process_open_fds"), 3);
    cr_assert_gt(sample(text, "process_cpu_seconds_total"), 0.001);
    cr_assert_lt(sample(text, "process_cpu_seconds_total"), 1000);
    cr_assert_gt(sample(text, "process_start_time_seconds"), 1.5e9);
}

static void update_and_register(struct worker *worker, void *context)
{
    static const char *const labels[] = {"n=\"0\"", "n=\"1\"", "n=\"2\"", "n=\"3\"", "n=\"4\""};
    for (int i = 0; i < 5000; i++) {
        metric_add(metrics_counter(metrics, "shared_total", labels[i % 5], "Shared."), 1);
        metric_observe_us(metrics_histogram(metrics, "shared_seconds", NULL, "Shared."), (uint64_t)i);
    }
}

Test(metrics, may_be_used_and_printed_by_many_threads)
{
    struct worker workers[3] = {0};
    for (int i = 0; i < 3; i++)
        worker_start(&workers[i], "update", update_and_register, NULL, NULL);
    for (int i = 0; i < 20; i++)
        printed();
    for (int i = 0; i < 3; i++)
        worker_join(&workers[i]);
    cr_assert_eq(metric_value(metrics_counter(metrics, "shared_total", "n=\"3\"", "Shared.")), 3000);
    cr_assert(strstr(printed(), "\nshared_seconds_count 15000\n"));
}
