/* SSIM and L1 of two images, averaged over colours, and the gradient to one of them: nothing but the images is stored. */
#include "rows.h"

#include <math.h>

/* The error of one row, and with `gradient` what every window's moments of `a` contribute to it. */
GEOSSL_INLINE void compare_row(const float *a_image, const float *b_image, int y, int height, int width, float of_ssim,
                               float of_l1, float *const *sums, Out error, float *gradient[COLOURS][3]) {
    size_t plane = (size_t)height * width;
    float *sum = sums[0], *square = sums[1], *product = sums[2], *sum_b = sums[3], *square_b = sums[4];
    float *mean_b = sums[5], *variance_b = sums[6];
    memset(error, 0, sizeof(float) * width);
    for (int c = 0; c < COLOURS; c++) {
        const float *a[3], *b[3];
        rows_around(a_image + c * plane, y, height, width, a);
        rows_around(b_image + c * plane, y, height, width, b);
        column_sums(b, sum_b, square_b, width);
        window_moments(sum_b, square_b, mean_b, variance_b, width);
        column_sums_with(a, b, sum, square, product, width);
        if (gradient)
            compare(sum, square, product, mean_b, variance_b, a[1], b[1], of_ssim, of_l1, error, gradient[c], width);
        else
            add_error(sum, square, product, mean_b, variance_b, a[1], b[1], of_ssim, of_l1, error, width);
    }
}

#define SUMS 7

/* a, b: (3, H, W) of one sample. out: (H, W), of which rows first .. last - 1 are written. of_ssim, of_l1: weights of
 * one colour. H, W >= 2. */
GEOSSL_CLONES GEOSSL_EXPORT void geossl_ssim_l1(const float *a, const float *b, float *out, int height, int width,
                                                float of_ssim, float of_l1, int first, int last) {
    size_t stride = padded_stride(width);
    float *rows = new_rows(SUMS, stride), *sums[SUMS];
    for (int i = 0; i < SUMS; i++) sums[i] = rows + PADDING + i * stride;
    for (int y = first; y < last; y++)
        compare_row(a, b, y, height, width, of_ssim, of_l1, sums, out + (size_t)y * width, NULL);
    free(rows);
}

/* grad: (H, W) gradient to geossl_ssim_l1's out. grad_a: (3, H, W), of which rows first .. last - 1 are written. */
GEOSSL_CLONES GEOSSL_EXPORT void geossl_ssim_l1_backward(const float *a, const float *b, const float *grad,
                                                         float *grad_a, int height, int width, float of_ssim,
                                                         float of_l1, int first, int last) {
    size_t plane = (size_t)height * width, stride = padded_stride(width);
    float *rows = new_rows(SUMS + 2 + 3 + 3 * COLOURS * 3, stride), *at = rows + PADDING, *sums[SUMS];
    float *error = at, *zeros = at += stride, *column[3], *gradient[3][COLOURS][3];
    for (int i = 0; i < SUMS; i++) sums[i] = at += stride;
    for (int k = 0; k < 3; k++) column[k] = at += stride;
    for (int slot = 0; slot < 3; slot++)
        for (int c = 0; c < COLOURS; c++)
            for (int k = 0; k < 3; k++) gradient[slot][c][k] = at += stride;
    for (int y = first > 0 ? first - 1 : 0; y <= last; y++) {
        if (y < height) compare_row(a, b, y, height, width, of_ssim, of_l1, sums, error, gradient[y % 3]);
        int row = y - 1;
        if (row < first) continue;
        const float *share[3]; /* of the row above, of this one, of the one below: a row outside has no windows */
        for (int k = -1; k <= 1; k++)
            share[k + 1] = row + k < 0 || row + k >= height ? zeros : grad + (size_t)(row + k) * width;
        for (int c = 0; c < COLOURS; c++) {
            const float *windows[3][3];
            for (int k = 0; k < 3; k++)
                for (int moment = 0; moment < 3; moment++) windows[k][moment] = gradient[(row + k + 2) % 3][c][moment];
            gather_columns(windows, share, row, height, width, column);
            size_t start = c * plane + (size_t)row * width;
            In of_mean = column[0], of_square = column[1], of_product = column[2], a_row = a + start, b_row = b + start;
            In weight = share[1];
            Out out = grad_a + start;
            GEOSSL_INDEPENDENT
            for (int x = 0; x < width; x++)
                out[x] = pixel_gradient(of_mean, of_square, of_product, a_row[x], b_row[x], of_l1 * weight[x], x);
            int beside[2] = {1, width - 2}, border[2] = {0, width - 1};
            for (int i = 0; i < 2; i++)
                out[beside[i]] += border_gradient(of_mean, of_square, of_product, a_row[beside[i]], b_row[beside[i]], border[i]);
        }
    }
    free(rows);
}
