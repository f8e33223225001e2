/* What every kernel shares. Plain C11 with GNU vector extensions; neither Python nor torch is known here.
 *
 * A kernel works on float32 in row-major order, takes raw pointers and sizes, and touches one sample, or some rows of
 * one, a call: the caller runs the calls in parallel, each writing to its own part of the results. */
#ifndef GEOSSL_H
#define GEOSSL_H

#include <stddef.h>
#include <stdint.h>

/* Raised whenever a signature or the meaning of an argument changes; library.py refuses any other. */
#define GEOSSL_ABI 11

#if defined(_WIN32)
#define GEOSSL_EXPORT __declspec(dllexport)
#else
#define GEOSSL_EXPORT __attribute__((visibility("default")))
#endif

/* One binary for every x86-64: the loader picks the clone that the machine can run. What the marked function calls must
 * be inlined into it (GEOSSL_INLINE) to be cloned with it. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define GEOSSL_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define GEOSSL_CLONES
#endif

/* Before a loop over pixels whose iterations do not depend on each other: `restrict` is lost where functions are inlined. */
#if defined(__clang__)
#define GEOSSL_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define GEOSSL_INDEPENDENT _Pragma("GCC ivdep")
#endif

#define GEOSSL_INLINE static inline __attribute__((always_inline))

/* Where an output position samples along an axis: between `low` and the next, at `weight` from the first. */
typedef struct {
    int low;
    float weight;
} Sampled;

GEOSSL_INLINE Sampled sampled(int position, double scale, int size) {
    double at = (position + 0.5) * scale - 0.5;
    at = at > 0 ? at : 0;
    at = at < size - 1 ? at : size - 1;
    int low = (int)at;
    Sampled found = {low, (float)(at - low)};
    return found;
}

typedef float Quad __attribute__((vector_size(16), aligned(4), may_alias));

/* Four vectors as rows of a matrix -> its columns. */
GEOSSL_INLINE void transpose(const Quad *rows, Quad *columns) {
    const Quad low = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
    const Quad low2 = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
    const Quad high = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
    const Quad high2 = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
    columns[0] = __builtin_shufflevector(low, low2, 0, 1, 4, 5);
    columns[1] = __builtin_shufflevector(low, low2, 2, 3, 6, 7);
    columns[2] = __builtin_shufflevector(high, high2, 0, 1, 4, 5);
    columns[3] = __builtin_shufflevector(high, high2, 2, 3, 6, 7);
}

/* Reads floats once in the order of memory, in which the processor fetches far ahead. Pixels that read them in an order
 * of their own later would wait for every cache line, and a processor need not follow hints to prefetch. */
GEOSSL_INLINE void fetch(const float *row, size_t count) {
    for (size_t x = 0; x < count; x += 16) (void)*(const volatile float *)(row + x);
}

#endif
