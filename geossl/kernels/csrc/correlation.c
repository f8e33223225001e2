/* Scalar products of features with those around the same place, and their gradients: networks/correlation.py.
 *
 * A block of a sample, some columns of 16 pixels, is computed a call from its first row to its last. What it reads is
 * gathered in the order of use, with zeros outside the image, so that the rows in use stay in the cache and no sum has a
 * border case. Several rows that read the same features are summed at once, 8 pixels of each, and each sum stays in a
 * register. Sums of 16 pixels are no faster: most of their loads would cross a cache line, and where registers hold 8
 * floats they take five times as long. */
#include <string.h>

#include "geossl.h"

#define LANES 8
#define COLUMN 16
#define BLOCK (4 * COLUMN)
#define OWN (BLOCK + COLUMN) /* from one channel to the next: with 64 floats many channels would share few cache sets */
#define MOST_ROWS 3
#define MOST_STEPS 9
#define MOST_CHANNELS 8

typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));
#define LOAD(from) (*(const Lanes *)(from))

/* Displacements are -reach, ..., reach times the step, in both directions; `steps` of them, 2 reach + 1. Pixels `first`
 * to `end` of every row are computed. */
typedef struct {
    int channels, height, width, reach, step, first, end;
    float scale;
} Shape;

/* The rows of the other maps that are in use: pixels `from` to `from + pitch` as (rows, channels, pitch), row y in place
 * y % rows. */
typedef struct {
    float *memory;
    int rows, from, pitch, known; /* rows before `known` were gathered */
} Ring;

GEOSSL_INLINE int least(int a, int b) { return a < b ? a : b; }

/* Pixels `from` to `from + count` of a row, 0 outside of it; `count` is a multiple of LANES. */
GEOSSL_INLINE void gather_row(const float *row, float *to, int width, int from, int count) {
    if (from >= 0 && from + count <= width) {
        for (int x = 0; x < count; x += LANES) *(Lanes *)(to + x) = LOAD(row + from + x);
    } else {
        const int first = from < 0 ? least(-from, count) : 0, end = least(count, width - from);
        for (int x = 0; x < count; x += LANES) *(Lanes *)(to + x) = (Lanes){0};
        if (first < end) memcpy(to + first, row + from + first, (end - first) * sizeof(float));
    }
}

GEOSSL_INLINE float *row_in(const Ring *ring, const Shape *s, int y) {
    return ring->memory + (size_t)(y % ring->rows) * s->channels * ring->pitch;
}

/* Gathers what is missing of the rows before `end`. */
GEOSSL_INLINE void gather_rows(Ring *ring, const float *maps, const Shape *s, int end) {
    for (; ring->known < least(end, s->height); ring->known++) {
        float *to = row_in(ring, s, ring->known);
        for (int c = 0; c < s->channels; c++, to += ring->pitch)
            gather_row(maps + ((size_t)c * s->height + ring->known) * s->width, to, s->width, ring->from, ring->pitch);
    }
}

/* The block's part of a row of maps as (channels, OWN). */
GEOSSL_INLINE void gather_own(const float *maps, float *to, const Shape *s, int row) {
    for (int c = 0; c < s->channels; c++)
        gather_row(maps + ((size_t)c * s->height + row) * s->width, to + c * OWN, s->width, s->first, BLOCK);
}

/* The block's part of a row of the gradients of costs as (costs, OWN): by the place in `a`, or, with the displacements
 * in the opposite order, by that in `b`, where they come from all around. */
GEOSSL_INLINE void gather_gradients(const float *of_costs, float *to, const Shape *s, int row, int by_b) {
    const int steps = 2 * s->reach + 1, costs = steps * steps;
    for (int k = 0; k < costs; k++) {
        const int dv = by_b ? (k / steps - s->reach) * s->step : 0, du = by_b ? (k % steps - s->reach) * s->step : 0;
        const float *from = of_costs + (size_t)(by_b ? costs - 1 - k : k) * s->height * s->width;
        const int inside = row + dv >= 0 && row + dv < s->height;
        if (inside) gather_row(from + (size_t)(row + dv) * s->width, to + k * OWN, s->width, s->first + du, BLOCK);
        else memset(to + k * OWN, 0, BLOCK * sizeof(float));
    }
}

/* Scaled sums into a row of a map, from pixel `from` of the block on. */
GEOSSL_INLINE void put(float *row, const Shape *s, int from, const Lanes *sum) {
    const Lanes scaled = *sum * s->scale;
    const int u = s->first + from;
    if (u + LANES <= s->end) *(Lanes *)(row + u) = scaled;
    else memcpy(row + u, &scaled, (s->end - u) * sizeof(float));
}

/* `count` neighbouring displacements of `rows` rows of `a` that meet in one row of `b`: sums over the channels. */
GEOSSL_INLINE void sum_channels(const float *own, const float *b, const Shape *s, int pitch, Lanes *sums,
                                const int rows, const int count) {
    Lanes sum[MOST_ROWS * MOST_STEPS];
#pragma GCC unroll 27
    for (int k = 0; k < rows * count; k++) sum[k] = (Lanes){0};
    for (int c = 0; c < s->channels; c++) {
#pragma GCC unroll 9
        for (int j = 0; j < count; j++) {
            const Lanes there = LOAD(b + (size_t)c * pitch + j * s->step);
#pragma GCC unroll 3
            for (int i = 0; i < rows; i++)
                sum[i * count + j] += LOAD(own + ((size_t)i * s->channels + c) * OWN) * there;
        }
    }
#pragma GCC unroll 27
    for (int k = 0; k < rows * count; k++) sums[k] = sum[k];
}

/* Costs of pixels `column` to `column + COLUMN` of the block, in the rows v, v + step, ..., with row y of `b`, where they
 * are within reach. */
GEOSSL_INLINE void meet(const float *own, const Ring *ring, float *costs, const Shape *s, int v, int y, int column,
                        const int rows, const int together) {
    const int steps = 2 * s->reach + 1, end = least(column + COLUMN, s->end - s->first);
    const float *b = row_in(ring, s, y < 0 ? 0 : y);
    for (int j = 0, count; j < steps; j += count) {
        count = steps - j >= together ? together : steps - j >= 3 ? 3 : 1;
        for (int from = column; from < end; from += LANES) {
            Lanes sums[MOST_ROWS * MOST_STEPS];
            const float *there = b + j * s->step + from;
            if (y < 0 || y >= s->height) memset(sums, 0, sizeof sums);
            else if (count == together) sum_channels(own + from, there, s, ring->pitch, sums, rows, together);
            else if (count == 3) sum_channels(own + from, there, s, ring->pitch, sums, rows, 3);
            else sum_channels(own + from, there, s, ring->pitch, sums, rows, 1);
            for (int i = 0; i < rows; i++) {
                const int row = v + i * s->step, k = (y - row) / s->step + s->reach;
                if (row >= s->height || k < 0 || k >= steps) continue;
                float *to = costs + ((size_t)(k * steps + j) * s->height + row) * s->width;
                for (int l = 0; l < count; l++, to += (size_t)s->height * s->width)
                    put(to, s, from, sums + i * count + l);
            }
        }
    }
}

/* `count` channels of the gradients to `rows` rows: sums over the displacements. */
GEOSSL_INLINE void sum_displacements(const Ring *ring, const float *of_costs, const float *zeros, float *of_maps,
                                     const Shape *s, int v, int c, int from, const int rows, const int count) {
    const int steps = 2 * s->reach + 1;
    Lanes sum[MOST_ROWS * MOST_CHANNELS];
#pragma GCC unroll 24
    for (int k = 0; k < rows * count; k++) sum[k] = (Lanes){0};
    for (int m = -s->reach; m < s->reach + rows; m++) {
        const int y = v + m * s->step;
        if (y < 0 || y >= s->height) continue;
        const float *there = row_in(ring, s, y) + (size_t)c * ring->pitch + from, *weight[MOST_ROWS];
        for (int i = 0; i < rows; i++) {
            const int k = m - i + s->reach, row = v + i * s->step;
            const int meets = k >= 0 && k < steps && row < s->height;
            weight[i] = meets ? of_costs + (size_t)(i * steps + k) * steps * OWN + from : zeros;
        }
        for (int j = 0; j < steps; j++) {
#pragma GCC unroll 8
            for (int l = 0; l < count; l++) {
                const Lanes feature = LOAD(there + (size_t)l * ring->pitch + j * s->step);
#pragma GCC unroll 3
                for (int i = 0; i < rows; i++) sum[i * count + l] += LOAD(weight[i] + j * OWN) * feature;
            }
        }
    }
    for (int i = 0; i < rows && v + i * s->step < s->height; i++)
        for (int l = 0; l < count; l++)
            put(of_maps + ((size_t)(c + l) * s->height + v + i * s->step) * s->width, s, from,
                sum + i * count + l);
}

/* In 32 registers three rows of nine displacements (or eight channels) fit, in 16 fewer do. */
GEOSSL_INLINE int many_registers(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    return __builtin_cpu_supports("avx512f");
#else
    return 0;
#endif
}

GEOSSL_INLINE void all_costs(const float *a, const float *b, float *own, Ring *ring, float *costs, const Shape *s,
                             const int rows, const int together) {
    for (int first = 0; first < s->height; first += rows * s->step) {
        gather_rows(ring, b, s, first + (rows + s->reach) * s->step);
        for (int v = first; v < least(first + s->step, s->height); v++) {
            for (int i = 0; i < rows && v + i * s->step < s->height; i++)
                gather_own(a, own + (size_t)i * s->channels * OWN, s, v + i * s->step);
            for (int column = 0; column < s->end - s->first; column += COLUMN)
                for (int m = -s->reach; m < s->reach + rows; m++)
                    meet(own, ring, costs, s, v, v + m * s->step, column, rows, together);
        }
    }
}

GEOSSL_INLINE void all_gradients(const float *of_costs, const float *other, float *weights, const float *zeros,
                                 Ring *ring, float *of_maps, const Shape *s, int by_b, const int rows,
                                 const int together) {
    const int steps = 2 * s->reach + 1, inside = s->end - s->first;
    for (int first = 0; first < s->height; first += rows * s->step) {
        gather_rows(ring, other, s, first + (rows + s->reach) * s->step);
        for (int v = first; v < least(first + s->step, s->height); v++) {
            for (int i = 0; i < rows && v + i * s->step < s->height; i++)
                gather_gradients(of_costs, weights + (size_t)i * steps * steps * OWN, s, v + i * s->step, by_b);
            for (int column = 0; column < inside; column += COLUMN) {
                const int end = least(column + COLUMN, inside);
                int c = 0;
                for (; c + together <= s->channels; c += together)
                    for (int from = column; from < end; from += LANES)
                        sum_displacements(ring, weights, zeros, of_maps, s, v, c, from, rows, together);
                for (; c < s->channels; c++)
                    for (int from = column; from < end; from += LANES)
                        sum_displacements(ring, weights, zeros, of_maps, s, v, c, from, rows, 1);
            }
        }
    }
}

/* Where neighbouring displacements are one pixel apart and few, as in pyramids, the distances between what a sum reads
 * are known to the compiler; else they take registers from the sums. */
#define NEAR 4
GEOSSL_INLINE int is_near(const Shape *s) { return s->step == 1 && s->reach <= NEAR; }

GEOSSL_INLINE Ring ring_of(float *memory, const Shape *s, int near, int rows) {
    const int halo = s->reach * s->step, pitch = (BLOCK + 2 * halo + LANES - 1) / LANES * LANES;
    return (Ring){memory, 2 * halo + rows * s->step, s->first - halo, near ? BLOCK + 2 * NEAR : pitch, 0};
}

GEOSSL_INLINE void costs_of(const float *a, const float *b, float *costs, float *scratch, Shape s, const int near,
                            const int rows, const int together) {
    float *own = scratch, *around = own + (size_t)MOST_ROWS * s.channels * OWN;
    memset(own, 0, (size_t)MOST_ROWS * s.channels * OWN * sizeof(float));
    if (near) s.step = 1;
    Ring ring = ring_of(around, &s, near, rows);
    all_costs(a, b, own, &ring, costs, &s, rows, together);
}

GEOSSL_INLINE void gradients_of(const float *other, const float *of_costs, float *of_maps, float *scratch, Shape s,
                                int by_b, const int near, const int rows, const int together) {
    const int steps = 2 * s.reach + 1;
    float *weights = scratch, *zeros = weights + (size_t)MOST_ROWS * steps * steps * OWN;
    float *around = zeros + steps * OWN;
    memset(zeros, 0, steps * OWN * sizeof(float));
    if (near) s.step = 1;
    Ring ring = ring_of(around, &s, near, rows);
    all_gradients(of_costs, other, weights, zeros, &ring, of_maps, &s, by_b, rows, together);
}

/* The costs (steps^2, height, width) of pixels `first` to `end`, BLOCK at most, of every row, times `scale`.
 *
 * a, b: (channels, height, width). scratch: channels * (3 OWN + (2 reach + 3) step * (BLOCK + 2 reach step + LANES)). */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_correlation(const float *a, const float *b, float *costs, float *scratch,
                                                    int channels, int height, int width, int reach, int step,
                                                    int first, int end, float scale) {
    const Shape s = {channels, height, width, reach, step, first, end, scale};
    if (many_registers() && is_near(&s)) costs_of(a, b, costs, scratch, s, 1, 3, 9);
    else if (many_registers()) costs_of(a, b, costs, scratch, s, 0, 3, 9);
    else if (is_near(&s)) costs_of(a, b, costs, scratch, s, 1, 2, 3);
    else costs_of(a, b, costs, scratch, s, 0, 2, 3);
}

/* The gradient to `a` (`by_b` 0, `other` is b) or `b` (`by_b` 1, `other` is a) of such pixels, times `scale`.
 *
 * scratch: (3 steps + 1) * steps * OWN + channels * (2 reach + 3) step * (BLOCK + 2 reach step + LANES). */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_correlation_backward(const float *other, const float *of_costs, float *of_maps,
                                                             float *scratch, int channels, int height, int width,
                                                             int reach, int step, int first, int end, int by_b,
                                                             float scale) {
    const Shape s = {channels, height, width, reach, step, first, end, scale};
    if (many_registers() && is_near(&s)) gradients_of(other, of_costs, of_maps, scratch, s, by_b, 1, 3, 8);
    else if (many_registers()) gradients_of(other, of_costs, of_maps, scratch, s, by_b, 0, 3, 8);
    else if (is_near(&s)) gradients_of(other, of_costs, of_maps, scratch, s, by_b, 1, 2, 2);
    else gradients_of(other, of_costs, of_maps, scratch, s, by_b, 0, 2, 2);
}
