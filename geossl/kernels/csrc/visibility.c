/* What one view can see of another, by flow: geometry/visibility.py, where the formulas are.
 *
 * A flow may lead anywhere, be infinite or no number: memory is only touched where a comparison has said that the
 * place is inside, which it says of no NaN. */
#include <math.h>

#include "geossl.h"

#define BLOCK 512 /* pixels whose places are computed at once */
#define TOLERANCE 1e-3f

/* Shares of the four pixels around a place of which some are outside. */
GEOSSL_INLINE void land_at_border(float *landed, float u, float v, int height, int width) {
    const float left = floorf(u), top = floorf(v);
    if (!(left >= -1 && left <= width - 1 && top >= -1 && top <= height - 1)) return;
    for (int k = 0; k < 4; k++) {
        const int x = (int)left + k % 2, y = (int)top + k / 2;
        if (x < 0 || x >= width || y < 0 || y >= height) continue;
        landed[(size_t)y * width + x] += (1 - fabsf(u - x)) * (1 - fabsf(v - y));
    }
}

/* Adds to `landed` (height, width) what rows `first` to `end` of the other view bring there: 1 a pixel, spread over
 * the four around the place.
 *
 * flow: (2, height, width). */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_range_map(const float *flow, float *landed, int height, int width, int first,
                                                  int end) {
    const float *flow_u = flow, *flow_v = flow + (size_t)height * width;
    for (int y = first; y < end; y++) {
        for (int from = 0; from < width; from += BLOCK) {
            const int count = width - from < BLOCK ? width - from : BLOCK;
            const size_t start = (size_t)y * width + from;
            float u[BLOCK], v[BLOCK], right[BLOCK], below[BLOCK];
            int index[BLOCK];
            for (int i = 0; i < count; i++) {
                u[i] = (float)(from + i) + flow_u[start + i];
                v[i] = (float)y + flow_v[start + i];
                const float left = floorf(u[i]), top = floorf(v[i]);
                const int inside = (left >= 0) & (left <= width - 2) & (top >= 0) & (top <= height - 2);
                right[i] = u[i] - left;
                below[i] = v[i] - top;
                index[i] = inside ? (int)(inside ? top : 0) * width + (int)(inside ? left : 0) : -1;
            }
            for (int i = 0; i < count; i++) {
                if (index[i] < 0) {
                    land_at_border(landed, u[i], v[i], height, width);
                    continue;
                }
                float *at = landed + index[i];
                const float lower = below[i], upper = 1 - lower;
                at[0] += (1 - right[i]) * upper;
                at[1] += right[i] * upper;
                at[width] += (1 - right[i]) * lower;
                at[width + 1] += right[i] * lower;
            }
        }
    }
}

/* Whether rows `first` to `end` of a flow and the other view's flow, read where it leads, bring a pixel back.
 *
 * flow, backward: (2, height, width). visible: (height, width) of 0 and 1. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_forward_backward(const float *flow, const float *backward, uint8_t *visible,
                                                         int height, int width, float relative, float absolute,
                                                         int first, int end) {
    const size_t plane = (size_t)height * width;
    const float *back_u = backward, *back_v = backward + plane;
    const float last_u = width - 1, last_v = height - 1;
    for (int y = first; y < end; y++) {
        const float *flow_u = flow + (size_t)y * width, *flow_v = flow_u + plane;
        uint8_t *row = visible + (size_t)y * width;
        GEOSSL_INDEPENDENT
        for (int x = 0; x < width; x++) {
            float u = (float)x + flow_u[x], v = (float)y + flow_v[x];
            const int inside = (u >= -TOLERANCE) & (u <= last_u + TOLERANCE) & (v >= -TOLERANCE) &
                               (v <= last_v + TOLERANCE);
            u = u > 0 ? u : 0, u = u < last_u ? u : last_u;
            v = v > 0 ? v : 0, v = v < last_v ? v : last_v;
            const int left = (int)u, top = (int)v;
            const int to_right = left < width - 1, to_below = top < height - 1 ? width : 0, at = top * width + left;
            const float right = u - left, below = v - top;
            const float upper_left = (1 - right) * (1 - below), upper_right = right * (1 - below);
            const float lower_left = (1 - right) * below, lower_right = right * below;
            const float du = back_u[at] * upper_left + back_u[at + to_right] * upper_right +
                             back_u[at + to_below] * lower_left + back_u[at + to_below + to_right] * lower_right;
            const float dv = back_v[at] * upper_left + back_v[at + to_right] * upper_right +
                             back_v[at + to_below] * lower_left + back_v[at + to_below + to_right] * lower_right;
            const float off_u = flow_u[x] + du, off_v = flow_v[x] + dv;
            const float size = flow_u[x] * flow_u[x] + flow_v[x] * flow_v[x] + (du * du + dv * dv);
            row[x] = inside & (off_u * off_u + off_v * off_v <= relative * size + absolute);
        }
    }
}
