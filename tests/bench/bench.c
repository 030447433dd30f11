// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/watchers.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void bench_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

void bench_check(enum graft_status status, const struct graft_error *error, const char *doing)
{
    if (status != GRAFT_OK)
        bench_fail("%s: %s", doing, error ? error->message : "no memory");
}

void *bench_alloc(size_t size)
{
    void *memory = calloc(1, size);
    if (!memory)
        bench_fail("no memory for %zu bytes", size);
    return memory;
}

double bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct sockaddr_in bench_address(const char *address)
{
    char host[64];
    unsigned port;
    struct sockaddr_in peer = {.sin_family = AF_INET};
    if (sscanf(address, "%63[^:]:%u", host, &port) != 2 || inet_pton(AF_INET, host, &peer.sin_addr) != 1)
        bench_fail("not an address: %s", address);
    peer.sin_port = htons((uint16_t)port);
    return peer;
}

// ---- results --------------------------------------------------------------------------------------------------------

void samples_add(struct samples *samples, double value)
{
    if (samples->count == ROUNDS_MAX)
        bench_fail("more than %d rounds", ROUNDS_MAX);
    samples->values[samples->count++] = value;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double samples_median(const struct samples *samples)
{
    struct samples sorted = *samples;
    qsort(sorted.values, sorted.count, sizeof sorted.values[0], compare_doubles);
    return sorted.values[sorted.count / 2];
}

static void print(const struct row *row, const char *ratio, double subject, const char *baseline)
{
    printf("%s\t%s\t%s\t%.4g %s\t%s\n", row->name, ratio, row->target, subject * row->scale, row->unit,
           baseline);
    fflush(stdout);
}

void row_print(const struct row *row, const struct samples *subject, const struct samples *baseline)
{
    struct samples ratios = {0};
    char ratio[32], text[64];
    for (unsigned i = 0; i < subject->count && i < baseline->count; i++)
        samples_add(&ratios, subject->values[i] / baseline->values[i]);
    snprintf(ratio, sizeof ratio, "%.2f", samples_median(&ratios));
    snprintf(text, sizeof text, "%.4g %s", samples_median(baseline) * row->scale, row->unit);
    print(row, ratio, samples_median(subject), text);
}

void row_print_single(const struct row *row, const struct samples *subject)
{
    print(row, "-", samples_median(subject), "-");
}

// ---- the program ----------------------------------------------------------------------------------------------------

static const struct {
    const char *name;
    void (*run)(struct cluster *cluster);
} rows[] = {
    {"reads", bench_reads},         {"uploads", bench_uploads}, {"commits", bench_commits},
    {"watchers", bench_watchers},   {"history", bench_history}, {"local", bench_local},
    {"rewriting", bench_rewriting}, {"volumes", bench_volumes}, {"load", bench_load},
    {"memory", bench_memory},
};

static bool is_wanted(const char *name, int count, char **names)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0)
            return true;
    }
    return count == 0;
}

int main(int argc, char **argv)
{
    struct cluster cluster;
    if (argc == 4 && strcmp(argv[1], "--load") == 0)
        return bench_load_child(argv[2], argv[3]);
    for (int i = 1; i < argc; i++) {
        bool known = false;
        for (size_t j = 0; j < ARRAY_COUNT(rows); j++)
            known |= strcmp(argv[i], rows[j].name) == 0;
        if (!known)
            bench_fail(
                "no rows named %s; there are reads, uploads, commits, watchers, history, local, rewriting, volumes, "
                "load, memory",
                argv[i]);
    }
    watchers_raise_limit();
    cluster_start(&cluster, NULL);
    printf("row\tratio\ttarget\tgraft\tbaseline\n");
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        double began = bench_now();
        if (!is_wanted(rows[i].name, argc - 1, argv + 1))
            continue;
        rows[i].run(&cluster);
        fprintf(stderr, "bench: %s took %.1f s\n", rows[i].name, bench_now() - began);
    }
    cluster_stop(&cluster);
    return 0;
}
