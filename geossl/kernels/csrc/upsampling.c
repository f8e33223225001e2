/* The adjoint of bilinear resizing between maps whose pixel areas are aligned: what torch does value by value. */
#include "rows.h"

/* grad: (H, W) gradient to the output. out: (h, w), gradient to the input. */
GEOSSL_CLONES GEOSSL_EXPORT void geossl_upsample_backward(const float *grad, float *out, int height, int width,
                                                          int out_height, int out_width) {
    size_t stride = padded_stride(width);
    float *rows = new_rows(4, stride), *weight = rows + 2 * stride;
    int32_t *low = (int32_t *)(weight + stride);
    const double scale_x = (double)out_width / width, scale_y = (double)out_height / height;
    for (int x = 0; x < width; x++) {
        const Sampled at = sampled(x, scale_x, out_width);
        low[x] = at.low;
        weight[x] = at.weight;
    }
    memset(out, 0, sizeof(float) * out_height * out_width);
    float *here = rows, *below = rows + stride; /* gradients to two rows of the input, still as wide as the output */
    int y = 0;
    for (int r = 0; r < out_height; r++, out += out_width) {
        for (Sampled at; y < height && (at = sampled(y, scale_y, out_height)).low == r; y++) {
            In g = grad + (size_t)y * width;
            GEOSSL_INDEPENDENT
            for (int x = 0; x < width; x++) {
                here[x] += (1 - at.weight) * g[x];
                below[x] += at.weight * g[x];
            }
        }
        for (int x = 0; x < width; x++) {
            int right = low[x] + (low[x] < out_width - 1);
            out[low[x]] += (1 - weight[x]) * here[x];
            out[right] += weight[x] * here[x];
        }
        float *done = here;
        here = below;
        below = done;
        memset(below, 0, sizeof(float) * width);
    }
    free(rows);
}
