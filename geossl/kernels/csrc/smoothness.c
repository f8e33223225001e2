/* What differences of a map cost where its image has edges: losses/smoothness.py. */
#include "geossl.h"

#define LOG2_E 1.44269504f
#define LOG_2 0.693147181f
#define FURTHEST 87.0f /* exp(-87) is about the least normal number; what is less is 0 */

/* exp(-x) of a number that is not negative, within 2e-7 of it: with x = n log 2 - r, 2^-n exp(r). */
GEOSSL_INLINE float falling_exponential(float x) {
    const int nearest = (int)(x * LOG2_E + 0.5f), n = nearest < 126 ? nearest : 126;
    const float r = (float)n * LOG_2 - x;
    const union {
        int32_t bits;
        float value;
    } power = {(127 - n) << 23};
    float series = r * (1.0f / 720) + 1.0f / 120;
    series = series * r + 1.0f / 24;
    series = series * r + 1.0f / 6;
    series = series * r + 0.5f;
    return x < FURTHEST ? power.value * (series * r * r + r + 1) : 0;
}

GEOSSL_INLINE void weigh(const float *image, const float *there, size_t plane, float edge, float *weight, int count) {
    const float *green = image + plane, *blue = green + plane, *green_there = there + plane;
    const float *blue_there = green_there + plane;
    GEOSSL_INDEPENDENT
    for (int x = 0; x < count; x++)
        weight[x] = falling_exponential(edge * (__builtin_fabsf(there[x] - image[x]) +
                                                __builtin_fabsf(green_there[x] - green[x]) +
                                                __builtin_fabsf(blue_there[x] - blue[x])));
}

/* exp(-edge mean |dI|) of differences over `stride` pixels along rows and columns.
 *
 * image: (3, height, width). along_x: (height, width - stride), along_y: (height - stride, width), of which rows `first`
 * to `end` are written. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_edge_weights(const float *image, float *along_x, float *along_y, int height,
                                                     int width, int stride, float edge, int first, int end) {
    const size_t plane = (size_t)height * width;
    for (int y = first; y < end; y++) {
        const float *row = image + (size_t)y * width;
        weigh(row, row + stride, plane, edge / 3, along_x + (size_t)y * (width - stride), width - stride);
        if (y + stride < height)
            weigh(row, row + (size_t)stride * width, plane, edge / 3, along_y + (size_t)y * width, width);
    }
}
