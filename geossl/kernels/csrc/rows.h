/* Rows of a 3x3 box over reflected borders, one colour at a time: what SSIM is made of, and its adjoint.
 *
 * A row is `width` floats; a padded row has one more on either side, so that `row[-1]` and `row[width]` exist. */
#ifndef GEOSSL_ROWS_H
#define GEOSSL_ROWS_H

#include "geossl.h"

#include <stdlib.h>
#include <string.h>

#define COLOURS 3
#define SSIM_C1 (0.01f * 0.01f)
#define SSIM_C2 (0.03f * 0.03f)

typedef const float *restrict In;
typedef float *restrict Out;

#define PADDING 16 /* floats before a row, and at least as many after it: rows begin at cache lines */

/* From one padded row to the next. */
GEOSSL_INLINE size_t padded_stride(int width) { return ((size_t)width + 2 * PADDING + 15) / 16 * 16; }

/* Memory of so many padded rows, all 0; the first begins PADDING floats further on. */
static inline float *new_rows(size_t count, size_t stride) {
    size_t bytes = count * stride * sizeof(float);
    float *rows = aligned_alloc(64, bytes);
    if (!rows) abort(); /* a few hundred kB: nothing else would run either */
    memset(rows, 0, bytes);
    return rows;
}

/* The row that a row outside the image mirrors. */
GEOSSL_INLINE int reflected(int row, int height) { return row < 0 ? -row : row >= height ? 2 * height - 2 - row : row; }

GEOSSL_INLINE void reflect_ends(float *row, int width) {
    row[-1] = row[1];
    row[width] = row[width - 2];
}

GEOSSL_INLINE float sum3(const float *row, int x) { return row[x - 1] + row[x] + row[x + 1]; }

/* Sums over three rows of x, and of x squared. `sum` and `square` are padded. */
GEOSSL_INLINE void column_sums(const float *const *a, Out sum, Out square, int width) {
    In a0 = a[0], a1 = a[1], a2 = a[2];
    GEOSSL_INDEPENDENT
    for (int x = 0; x < width; x++) {
        sum[x] = a0[x] + a1[x] + a2[x];
        square[x] = a0[x] * a0[x] + a1[x] * a1[x] + a2[x] * a2[x];
    }
    reflect_ends(sum, width);
    reflect_ends(square, width);
}

/* The same, and sums over three rows of the product with b. */
GEOSSL_INLINE void column_sums_with(const float *const *a, const float *const *b, Out sum, Out square, Out product,
                                    int width) {
    In a0 = a[0], a1 = a[1], a2 = a[2], b0 = b[0], b1 = b[1], b2 = b[2];
    GEOSSL_INDEPENDENT
    for (int x = 0; x < width; x++) {
        sum[x] = a0[x] + a1[x] + a2[x];
        square[x] = a0[x] * a0[x] + a1[x] * a1[x] + a2[x] * a2[x];
        product[x] = a0[x] * b0[x] + a1[x] * b1[x] + a2[x] * b2[x];
    }
    reflect_ends(sum, width);
    reflect_ends(square, width);
    reflect_ends(product, width);
}

/* The rows of b above, at and below y, mirrored at the borders. */
GEOSSL_INLINE void rows_around(const float *plane, int y, int height, int width, const float **rows) {
    for (int k = -1; k <= 1; k++) rows[k + 1] = plane + (size_t)reflected(y + k, height) * width;
}

/* Mean and variance of every window from its column sums. */
GEOSSL_INLINE void window_moments(In sum, In square, Out mean, Out variance, int width) {
    GEOSSL_INDEPENDENT
    for (int x = 0; x < width; x++) {
        float m = sum3(sum, x) * (1.0f / 9);
        mean[x] = m;
        variance[x] = sum3(square, x) * (1.0f / 9) - m * m;
    }
}

#endif
