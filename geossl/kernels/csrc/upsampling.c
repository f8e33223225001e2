/* The adjoint of bilinear resizing between maps whose pixel areas are aligned: what torch does value by value. */
#include "rows.h"

/* Where an output row or column is read: `low` and the next, which counts `weight`; as torch.nn.functional.interpolate. */
GEOSSL_INLINE void source_of(int at, float ratio, int size, int *low, float *weight) {
    float place = ratio * ((float)at + 0.5f) - 0.5f;
    place = place > 0 ? place : 0;
    *low = (int)place < size - 1 ? (int)place : size - 1;
    *weight = *low < size - 1 ? place - (float)*low : 0;
}

/* grad: (H, W) gradient to the output. out: (h, w), gradient to the input. */
GEOSSL_CLONES GEOSSL_EXPORT void geossl_upsample_backward(const float *grad, float *out, int height, int width,
                                                          int out_height, int out_width) {
    size_t stride = padded_stride(width);
    float *rows = new_rows(4, stride), *weight = rows + 2 * stride; /* gradients to two rows of the input, still as wide */
    int32_t *low = (int32_t *)(weight + stride);
    for (int x = 0; x < width; x++) source_of(x, (float)out_width / (float)width, out_width, &low[x], &weight[x]);
    memset(out, 0, sizeof(float) * out_height * out_width);
    float *here = rows, *below = rows + stride;
    int y = 0, row;
    float of_below;
    source_of(0, (float)out_height / (float)height, out_height, &row, &of_below);
    for (int r = 0; r < out_height; r++, out += out_width) {
        while (y < height && row == r) {
            In g = grad + (size_t)y * width;
            GEOSSL_INDEPENDENT
            for (int x = 0; x < width; x++) {
                here[x] += (1 - of_below) * g[x];
                below[x] += of_below * g[x];
            }
            source_of(++y, (float)out_height / (float)height, out_height, &row, &of_below);
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
