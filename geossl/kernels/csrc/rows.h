/* Rows of a 3x3 box over reflected borders, one colour at a time: what SSIM is made of, and its adjoint.
 *
 * A row is `width` floats; a padded row has one more on either side, so that `row[-1]` and `row[width]` exist. */
#ifndef GEOSSL_ROWS_H
#define GEOSSL_ROWS_H

#include "geossl.h"

#include <math.h>
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

/* Adds the error of one colour to `error`, of which SSIM and L1 have these weights; `b`'s moments are known. */
GEOSSL_INLINE void add_error(In sum, In square, In product, In mean_b, In variance_b, In a, In b, float of_ssim,
                             float of_l1, Out error, int width) {
    GEOSSL_INDEPENDENT
    for (int x = 0; x < width; x++) {
        float ma = sum3(sum, x) * (1.0f / 9), mb = mean_b[x];
        float va = sum3(square, x) * (1.0f / 9) - ma * ma, cov = sum3(product, x) * (1.0f / 9) - ma * mb;
        float ssim = (2 * ma * mb + SSIM_C1) * (2 * cov + SSIM_C2) /
                     ((ma * ma + mb * mb + SSIM_C1) * (va + variance_b[x] + SSIM_C2));
        float raw = (1 - ssim) * 0.5f, low = raw < 0 ? 0 : raw, e = low > 1 ? 1 : low;
        error[x] += of_ssim * e + of_l1 * fabsf(a[x] - b[x]);
    }
}

/* The same, and the gradient of its SSIM part to the mean, mean square and mean product of a's window: the factor 1/9 of
 * the box is in them. */
GEOSSL_INLINE void compare(In sum, In square, In product, In mean_b, In variance_b, In a, In b, float of_ssim,
                           float of_l1, Out error, float *const *gradient, int width) {
    const float ninth = 1.0f / 9;
    Out to_mean = gradient[0], to_square = gradient[1], to_product = gradient[2];
    GEOSSL_INDEPENDENT
    for (int x = 0; x < width; x++) {
        float ma = sum3(sum, x) * ninth, mb = mean_b[x];
        float va = sum3(square, x) * ninth - ma * ma, cov = sum3(product, x) * ninth - ma * mb;
        float n1 = 2 * ma * mb + SSIM_C1, n2 = 2 * cov + SSIM_C2;
        float d1 = ma * ma + mb * mb + SSIM_C1, d2 = va + variance_b[x] + SSIM_C2;
        float inverse = 1 / (d1 * d2), ssim = n1 * n2 * inverse;
        float raw = (1 - ssim) * 0.5f, low = raw < 0 ? 0 : raw, e = low > 1 ? 1 : low;
        float g = (raw >= 0) & (raw <= 1) ? -0.5f * of_ssim * ninth * inverse : 0;
        error[x] += of_ssim * e + of_l1 * fabsf(a[x] - b[x]);
        to_mean[x] = 2 * g * (mb * (n2 - n1) - ssim * ma * (d2 - d1));
        to_square[x] = -g * ssim * d1;
        to_product[x] = 2 * g * n1;
    }
}

/* Column sums of one colour's gradients (see `compare`) around row y. `windows`: those of the rows above, at and below y,
 * by moment; `share`: what each pixel's error weighs there, 0 where there is no row. `column` is padded. */
GEOSSL_INLINE void gather_columns(const float *windows[3][3], const float *const *share, int y, int height,
                                  int width, float *const *column) {
    /* The windows of the border rows see the row next to it twice. */
    float above = y == 1 ? 2 : 1, below = y == height - 2 ? 2 : 1;
    In share_above = share[0], share_here = share[1], share_below = share[2];
    for (int moment = 0; moment < 3; moment++) {
        In p = windows[0][moment], m = windows[1][moment], n = windows[2][moment];
        Out sum = column[moment];
        GEOSSL_INDEPENDENT
        for (int x = 0; x < width; x++)
            sum[x] = above * share_above[x] * p[x] + share_here[x] * m[x] + below * share_below[x] * n[x];
        sum[-1] = sum[width] = 0;
    }
}

/* Gradient to a pixel of a from `gather_columns`; of_l1: the weight of its L1 part. */
GEOSSL_INLINE float pixel_gradient(const float *of_mean, const float *of_square, const float *of_product, float a,
                                   float b, float of_l1, int x) {
    float sign = a > b ? of_l1 : a < b ? -of_l1 : 0;
    return sum3(of_mean, x) + 2 * a * sum3(of_square, x) + b * sum3(of_product, x) + sign;
}

/* What the windows of the border column add to the pixel next to it, which they see twice. */
GEOSSL_INLINE float border_gradient(const float *of_mean, const float *of_square, const float *of_product, float a,
                                    float b, int border) {
    return of_mean[border] + 2 * a * of_square[border] + b * of_product[border];
}

#endif
