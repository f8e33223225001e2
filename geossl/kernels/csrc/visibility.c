/* What one view can see of another, by flow: geometry/visibility.py, where the formulas are.
 *
 * A flow may lead anywhere, be infinite or no number: memory is only touched where a comparison has said that the
 * place is inside, which it says of no NaN. */
#include <math.h>

#include "geossl.h"

#define BLOCK 512 /* pixels whose places are computed at once */
#define TOLERANCE 1e-3f
#define AHEAD 32 /* rows that few flows cross */

typedef float Pair __attribute__((vector_size(8), aligned(4), may_alias)); /* two pixels side by side */

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

/* Pixels side by side of a row of both components: u, u, v, v. */
GEOSSL_INLINE Quad read_pairs(const float *u, const float *v) {
    return __builtin_shufflevector(*(const Pair *)u, *(const Pair *)v, 0, 1, 2, 3);
}

/* Bilinear samples of both components for four pixels, each of which reads pairs of two rows. */
GEOSSL_INLINE void sample_four(const float *back_u, const float *back_v, const int *upper, const int *lower,
                               const float *right, const float *below, float *du, float *dv) {
    Quad pixels[4], side[4]; /* left u, right u, left v, right v: of a pixel; of all four */
    for (int k = 0; k < 4; k++) {
        const Quad above = read_pairs(back_u + upper[k], back_v + upper[k]);
        const Quad beneath = read_pairs(back_u + lower[k], back_v + lower[k]);
        pixels[k] = above + below[k] * (beneath - above);
    }
    transpose(pixels, side);
    const Quad share = *(const Quad *)right;
    *(Quad *)du = side[0] + share * (side[1] - side[0]);
    *(Quad *)dv = side[2] + share * (side[3] - side[2]);
}

/* Whether rows `first` to `end` of a flow and the other view's flow, read where it leads, bring a pixel back.
 *
 * Places and comparisons are computed for many pixels at once. What lies in between is not: to gather eight numbers a
 * pixel takes longer than to load four pairs.
 *
 * flow, backward: (2, height, width), width at least 2. visible: (height, width) of 0 and 1. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_forward_backward(const float *flow, const float *backward, uint8_t *visible,
                                                         int height, int width, float relative, float absolute,
                                                         int first, int end) {
    const size_t plane = (size_t)height * width;
    const float *back_u = backward, *back_v = backward + plane;
    const float last_u = width - 1, last_v = height - 1;
    int fetched = first > AHEAD ? first - AHEAD : 0;
    float right[BLOCK] = {0}, below[BLOCK] = {0}, du[BLOCK], dv[BLOCK];
    int upper[BLOCK] = {0}, lower[BLOCK] = {0}, inside[BLOCK];
    for (int y = first; y < end; y++) {
        for (; fetched < height && fetched <= y + AHEAD; fetched++) {
            fetch(back_u + (size_t)fetched * width, width);
            fetch(back_v + (size_t)fetched * width, width);
        }
        for (int from = 0; from < width; from += BLOCK) {
            const int count = width - from < BLOCK ? width - from : BLOCK;
            const float *flow_u = flow + (size_t)y * width + from, *flow_v = flow_u + plane;
            uint8_t *row = visible + (size_t)y * width + from;
            GEOSSL_INDEPENDENT
            for (int i = 0; i < count; i++) {
                float u = (float)(from + i) + flow_u[i], v = (float)y + flow_v[i];
                inside[i] = (u >= -TOLERANCE) & (u <= last_u + TOLERANCE) & (v >= -TOLERANCE) &
                            (v <= last_v + TOLERANCE);
                u = u > 0 ? u : 0, u = u < last_u ? u : last_u;
                v = v > 0 ? v : 0, v = v < last_v ? v : last_v;
                const int left = (int)u < width - 2 ? (int)u : width - 2, top = (int)v;
                right[i] = u - left;
                below[i] = v - top;
                upper[i] = top * width + left;
                lower[i] = top < height - 1 ? upper[i] + width : upper[i];
            }
            for (int i = 0; i < count; i += 4) /* beyond the row places are of before, or 0 */
                sample_four(back_u, back_v, upper + i, lower + i, right + i, below + i, du + i, dv + i);
            GEOSSL_INDEPENDENT
            for (int i = 0; i < count; i++) {
                const float off_u = flow_u[i] + du[i], off_v = flow_v[i] + dv[i];
                const float size = flow_u[i] * flow_u[i] + flow_v[i] * flow_v[i] + (du[i] * du[i] + dv[i] * dv[i]);
                row[i] = inside[i] & (off_u * off_u + off_v * off_v <= relative * size + absolute);
            }
        }
    }
}
