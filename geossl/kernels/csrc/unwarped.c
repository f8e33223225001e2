/* The photometric error of unwarped views, without gradient; and images made ready for sampling. */
#include "rows.h"

#include <math.h>

/* A row of a packed image, colours apart. */
GEOSSL_INLINE void unpack(const float *packed, float *const *colours, int width) {
    for (int c = 0; c < COLOURS; c++) {
        float *colour = colours[c];
        GEOSSL_INDEPENDENT
        for (int x = 0; x < width; x++) colour[x] = packed[4 * x + c];
    }
}

/* source: (H, W, 4), see geossl_pack; target: (3, H, W), of one sample. out: (H, W), of which rows first .. last - 1 are
 * written. H, W >= 2. */
GEOSSL_CLONES GEOSSL_EXPORT void geossl_unwarped_error(const float *source, const float *target, float *out, int height,
                                                       int width, float ssim_weight, int first, int last) {
    size_t plane = (size_t)height * width, stride = padded_stride(width);
    float *rows = new_rows(7 + 9, stride), *at = rows + PADDING, *ring[3][COLOURS];
    float *sum_a = at, *square_a = at += stride, *product = at += stride, *sum_b = at += stride;
    float *square_b = at += stride, *mean_b = at += stride, *variance_b = at += stride;
    for (int slot = 0; slot < 3; slot++)
        for (int c = 0; c < COLOURS; c++) ring[slot][c] = at += stride;
    for (int y = first > 0 ? first - 1 : 0; y <= last; y++) {
        if (y < height) unpack(source + 4 * (size_t)y * width, ring[y % 3], width);
        int row = y - 1;
        if (row < first) continue;
        float *error = out + (size_t)row * width;
        memset(error, 0, sizeof(float) * width);
        for (int c = 0; c < COLOURS; c++) {
            const float *a[3], *b[3];
            for (int k = -1; k <= 1; k++) a[k + 1] = ring[reflected(row + k, height) % 3][c];
            rows_around(target + c * plane, row, height, width, b);
            column_sums(b, sum_b, square_b, width);
            window_moments(sum_b, square_b, mean_b, variance_b, width);
            column_sums_with(a, b, sum_a, square_a, product, width);
            add_error(sum_a, square_a, product, mean_b, variance_b, a[1], b[1], ssim_weight * (1.0f / COLOURS),
                      (1 - ssim_weight) * (1.0f / COLOURS), error, width);
        }
    }
    free(rows);
}

/* image: one sample of 3 colours, its strides in floats. out: (H, W, 4), the colours of a pixel side by side, and 0. */
GEOSSL_EXPORT void geossl_pack(const float *image, int64_t colour_stride, int64_t row_stride, int64_t pixel_stride,
                               float *restrict out, int height, int width) {
    for (int y = 0; y < height; y++) {
        const float *row = image + y * row_stride;
        for (int x = 0; x < width; x++, out += 4) {
            const float *pixel = row + x * pixel_stride;
            out[0] = pixel[0];
            out[1] = pixel[colour_stride];
            out[2] = pixel[2 * colour_stride];
            out[3] = 0;
        }
    }
}
