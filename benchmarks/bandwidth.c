// Reads `megabytes` of memory with `threads` threads, `passes` times; prints bytes a second of the fastest pass.

#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { ACCUMULATORS = 32 };  // independent sums, so that the additions never hold up the loads

typedef struct {
    const uint64_t *begin;
    size_t count;
    uint64_t sum;
} Slice;

static void *read_slice(void *argument) {
    Slice *slice = argument;
    uint64_t sums[ACCUMULATORS] = {0};
    for (size_t i = 0; i + ACCUMULATORS <= slice->count; i += ACCUMULATORS)
        for (size_t j = 0; j < ACCUMULATORS; j++) sums[j] += slice->begin[i + j];
    for (size_t j = 0; j < ACCUMULATORS; j++) slice->sum += sums[j];
    return NULL;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: bandwidth THREADS MEGABYTES PASSES\n"), 2;
    const int threads = atoi(argv[1]), passes = atoi(argv[3]);
    const size_t bytes = (size_t)atol(argv[2]) << 20, each = bytes / sizeof(uint64_t) / (size_t)threads;
    uint64_t *data = aligned_alloc((size_t)2 << 20, bytes);
    Slice *slices = calloc((size_t)threads, sizeof(Slice));
    pthread_t *workers = calloc((size_t)threads, sizeof(pthread_t));
    if (!data || !slices || !workers) return fprintf(stderr, "out of memory\n"), 1;
    madvise(data, bytes, MADV_HUGEPAGE);  // fewer page walks between the loads; without it the figure is lower
    memset(data, 1, bytes);
    double best = 0;
    for (int pass = 0; pass < passes; pass++) {
        const double began = now();
        for (int t = 0; t < threads; t++) {
            slices[t] = (Slice){data + (size_t)t * each, each, 0};
            if (pthread_create(&workers[t], NULL, read_slice, &slices[t])) return 1;
        }
        uint64_t sum = 0;
        for (int t = 0; t < threads; t++) {
            pthread_join(workers[t], NULL);
            sum += slices[t].sum;
        }
        const double rate = (double)bytes / (now() - began);
        if (sum == 0) return 1;  // also keeps the reads from being optimised away
        if (rate > best) best = rate;
    }
    printf("%.0f\n", best);
    return 0;
}
