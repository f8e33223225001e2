/* Scalar products of features with those around the same place, and their gradients: networks/correlation.py.
 *
 * Both ways one column of 16 pixels of one sample, a cache line of results, is computed a call. What it reads is
 * gathered in the order of use, with zeros outside the image, so that it stays in the cache and no sum has a border
 * case. Several rows that read the same features are summed at once, 8 pixels of each, and each sum stays in a
 * register. Sums of 16 pixels are no faster: most of their loads would cross a cache line, and where registers hold 8
 * floats they take five times as long. */
#include <string.h>

#include "geossl.h"

#define LANES 8
#define COLUMN 16
#define MOST_ROWS 3
#define MOST_STEPS 9
#define MOST_CHANNELS 8

typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));
#define LOAD(from) (*(const Lanes *)(from))

/* Displacements are -reach, ..., reach times the step, in both directions; `steps` of them, 2 reach + 1. */
typedef struct {
    int channels, height, width, reach, step, column;
    float scale;
} Shape;

GEOSSL_INLINE int least(int a, int b) { return a < b ? a : b; }

/* Pixels `from` to `from + count` of a row, 0 outside of it. */
GEOSSL_INLINE void gather_row(const float *row, float *to, int width, int from, int count) {
    if (from >= 0 && from + count <= width) {
        memcpy(to, row + from, count * sizeof(float));
    } else {
        for (int x = 0; x < count; x++) to[x] = from + x >= 0 && from + x < width ? row[from + x] : 0;
    }
}

/* Columns `from` to `from + pitch` of (channels, height, width) as (height, channels, pitch). */
GEOSSL_INLINE void gather(const float *maps, float *to, const Shape *s, int from, int pitch) {
    for (int y = 0; y < s->height; y++)
        for (int c = 0; c < s->channels; c++, to += pitch)
            gather_row(maps + ((size_t)c * s->height + y) * s->width, to, s->width, from, pitch);
}

/* The column's part of a row of maps as (channels, COLUMN). */
GEOSSL_INLINE void gather_own(const float *maps, float *to, const Shape *s, int row) {
    for (int c = 0; c < s->channels; c++)
        gather_row(maps + ((size_t)c * s->height + row) * s->width, to + c * COLUMN, s->width, s->column, COLUMN);
}

/* The column's part of a row of the gradients of costs as (costs, COLUMN): by the place in `a`, or, with the
 * displacements in the opposite order, by that in `b`, where they come from all around. */
GEOSSL_INLINE void gather_gradients(const float *of_costs, float *to, const Shape *s, int row, int by_b) {
    const int steps = 2 * s->reach + 1, costs = steps * steps;
    for (int k = 0; k < costs; k++) {
        const int dv = by_b ? (k / steps - s->reach) * s->step : 0, du = by_b ? (k % steps - s->reach) * s->step : 0;
        const float *from = of_costs + (size_t)(by_b ? costs - 1 - k : k) * s->height * s->width;
        const int inside = row + dv >= 0 && row + dv < s->height;
        if (inside)
            gather_row(from + (size_t)(row + dv) * s->width, to + k * COLUMN, s->width, s->column + du, COLUMN);
        else memset(to + k * COLUMN, 0, COLUMN * sizeof(float));
    }
}

/* Scaled sums into a row of a map, from pixel `from` of the column on. */
GEOSSL_INLINE void put(float *row, const Shape *s, int from, const Lanes *sum) {
    const Lanes scaled = *sum * s->scale;
    const int u = s->column + from;
    if (u + LANES <= s->width) *(Lanes *)(row + u) = scaled;
    else if (u < s->width) memcpy(row + u, &scaled, (s->width - u) * sizeof(float));
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
                sum[i * count + j] += LOAD(own + ((size_t)i * s->channels + c) * COLUMN) * there;
        }
    }
#pragma GCC unroll 27
    for (int k = 0; k < rows * count; k++) sums[k] = sum[k];
}

/* Costs of the rows v, v + step, ... with row y of `b`, where they are within reach. */
GEOSSL_INLINE void meet(const float *own, const float *b, float *costs, const Shape *s, int v, int y, int pitch,
                        const int rows, const int together) {
    const int steps = 2 * s->reach + 1, inside = least(COLUMN, s->width - s->column);
    for (int j = 0, count; j < steps; j += count) {
        count = steps - j >= together ? together : steps - j >= 3 ? 3 : 1;
        for (int from = 0; from < inside; from += LANES) {
            Lanes sums[MOST_ROWS * MOST_STEPS];
            const float *there = b + (size_t)y * s->channels * pitch + j * s->step + from;
            if (y < 0 || y >= s->height) memset(sums, 0, sizeof sums);
            else if (count == together) sum_channels(own + from, there, s, pitch, sums, rows, together);
            else if (count == 3) sum_channels(own + from, there, s, pitch, sums, rows, 3);
            else sum_channels(own + from, there, s, pitch, sums, rows, 1);
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
GEOSSL_INLINE void sum_displacements(const float *other, const float *of_costs, const float *zeros, float *of_maps,
                                     const Shape *s, int v, int c, int pitch, int from, const int rows,
                                     const int count) {
    const int steps = 2 * s->reach + 1;
    Lanes sum[MOST_ROWS * MOST_CHANNELS];
#pragma GCC unroll 24
    for (int k = 0; k < rows * count; k++) sum[k] = (Lanes){0};
    for (int m = -s->reach; m < s->reach + rows; m++) {
        const int y = v + m * s->step;
        if (y < 0 || y >= s->height) continue;
        const float *there = other + ((size_t)y * s->channels + c) * pitch + from, *weight[MOST_ROWS];
        for (int i = 0; i < rows; i++) {
            const int k = m - i + s->reach, row = v + i * s->step;
            const int meets = k >= 0 && k < steps && row < s->height;
            weight[i] = meets ? of_costs + (size_t)(i * steps + k) * steps * COLUMN + from : zeros;
        }
        for (int j = 0; j < steps; j++) {
#pragma GCC unroll 8
            for (int l = 0; l < count; l++) {
                const Lanes feature = LOAD(there + (size_t)l * pitch + j * s->step);
#pragma GCC unroll 3
                for (int i = 0; i < rows; i++) sum[i * count + l] += LOAD(weight[i] + j * COLUMN) * feature;
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

GEOSSL_INLINE void all_costs(const float *a, const float *around, float *own, float *costs, const Shape *s, int pitch,
                             const int rows, const int together) {
    for (int first = 0; first < s->height; first += rows * s->step) {
        for (int v = first; v < least(first + s->step, s->height); v++) {
            for (int i = 0; i < rows && v + i * s->step < s->height; i++)
                gather_own(a, own + (size_t)i * s->channels * COLUMN, s, v + i * s->step);
            for (int m = -s->reach; m < s->reach + rows; m++)
                meet(own, around, costs, s, v, v + m * s->step, pitch, rows, together);
        }
    }
}

GEOSSL_INLINE void all_gradients(const float *of_costs, const float *around, float *weights, const float *zeros,
                                 float *of_maps, const Shape *s, int pitch, int by_b, const int rows,
                                 const int together) {
    const int steps = 2 * s->reach + 1, inside = least(COLUMN, s->width - s->column);
    for (int first = 0; first < s->height; first += rows * s->step) {
        for (int v = first; v < least(first + s->step, s->height); v++) {
            for (int i = 0; i < rows && v + i * s->step < s->height; i++)
                gather_gradients(of_costs, weights + (size_t)i * steps * steps * COLUMN, s, v + i * s->step, by_b);
            int c = 0;
            for (; c + together <= s->channels; c += together)
                for (int from = 0; from < inside; from += LANES)
                    sum_displacements(around, weights, zeros, of_maps, s, v, c, pitch, from, rows, together);
            for (; c < s->channels; c++)
                for (int from = 0; from < inside; from += LANES)
                    sum_displacements(around, weights, zeros, of_maps, s, v, c, pitch, from, rows, 1);
        }
    }
}

/* The costs (steps^2, height, width) of a column, times `scale`.
 *
 * a, b: (channels, height, width). scratch: channels * (3 COLUMN + height * (COLUMN + 2 reach * step)). */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_correlation(const float *a, const float *b, float *costs, float *scratch,
                                                    int channels, int height, int width, int reach, int step,
                                                    int column, float scale) {
    const Shape s = {channels, height, width, reach, step, column, scale};
    const int halo = reach * step, pitch = COLUMN + 2 * halo;
    float *own = scratch, *around = own + (size_t)MOST_ROWS * channels * COLUMN;
    memset(own, 0, (size_t)MOST_ROWS * channels * COLUMN * sizeof(float));
    gather(b, around, &s, column - halo, pitch);
    if (many_registers()) all_costs(a, around, own, costs, &s, pitch, 3, 9);
    else all_costs(a, around, own, costs, &s, pitch, 2, 3);
}

/* The gradient to `a` (`by_b` 0, `other` is b) or `b` (`by_b` 1, `other` is a) of a column, times `scale`.
 *
 * scratch: (3 steps + 1) * steps * COLUMN + channels * height * (COLUMN + 2 reach * step). */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_correlation_backward(const float *other, const float *of_costs, float *of_maps,
                                                             float *scratch, int channels, int height, int width,
                                                             int reach, int step, int column, int by_b, float scale) {
    const Shape s = {channels, height, width, reach, step, column, scale};
    const int halo = reach * step, pitch = COLUMN + 2 * halo, steps = 2 * reach + 1;
    float *weights = scratch, *zeros = weights + (size_t)MOST_ROWS * steps * steps * COLUMN;
    float *around = zeros + steps * COLUMN;
    gather(other, around, &s, column - halo, pitch);
    memset(zeros, 0, steps * COLUMN * sizeof(float));
    if (many_registers()) all_gradients(of_costs, around, weights, zeros, of_maps, &s, pitch, by_b, 3, 8);
    else all_gradients(of_costs, around, weights, zeros, of_maps, &s, pitch, by_b, 2, 2);
}
