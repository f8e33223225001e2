/* The soft census distance of two images and its gradient: losses/census.py, where the formulas are.
 *
 * Of every two opposite neighbours only the later in reading order is compared: a pixel and its neighbour see the same
 * difference with opposite signs. The gradient compares anew, so that nothing but the images has to be kept. */
#include <math.h>
#include <string.h>

#include "geossl.h"

/* Roots and quotients by the estimate of the processor and a Newton step, within 3e-7 of the exact ones. In the order
 * written: two equal differences must cancel. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fast-math", "no-associative-math")
#endif

static const float LUMA[3] = {255 * 0.2989f, 255 * 0.5870f, 255 * 0.1140f};
#define SIGN 0.81f
#define HAMMING 0.1f

/* Rows `first` to `end` of a (3, height, width) image as grey levels. */
GEOSSL_INLINE void grey_rows(const float *restrict image, float *restrict grey, int height, int width, int first,
                             int end) {
    const size_t plane = (size_t)height * width, from = (size_t)first * width, count = (size_t)(end - first) * width;
    const float *red = image + from, *green = red + plane, *blue = green + plane;
    for (size_t i = 0; i < count; i++) grey[i] = LUMA[0] * red[i] + LUMA[1] * green[i] + LUMA[2] * blue[i];
}

/* With A = s + da^2 and B = s + db^2 the gap of the signs is (da sqrt(B) - db sqrt(A)) / sqrt(AB), so that one
 * division does for all. The numerator is summed so that equal differences give exactly 0. */
GEOSSL_INLINE float numerator(float da, float db, float root_a, float root_b) {
    return (da - db) * root_b + db * (root_b - root_a);
}

GEOSSL_INLINE void compare(const float *restrict here_a, const float *restrict there_a, const float *restrict here_b,
                           const float *restrict there_b, float *restrict distance, int count) {
    for (int x = 0; x < count; x++) {
        const float da = there_a[x] - here_a[x], db = there_b[x] - here_b[x];
        const float square_a = SIGN + da * da, square_b = SIGN + db * db;
        const float gap = numerator(da, db, sqrtf(square_a), sqrtf(square_b));
        distance[x] = gap * gap / (HAMMING * square_a * square_b + gap * gap);
    }
}

/* What the difference in `a` of a pair adds to the loss, by its size: 2 c s gap B^(3/2) / (c A B + gap^2)^2. */
GEOSSL_INLINE void slopes(const float *restrict here_a, const float *restrict there_a, const float *restrict here_b,
                          const float *restrict there_b, const float *restrict at_here, const float *restrict at_there,
                          float *restrict slope, int count) {
    for (int x = 0; x < count; x++) {
        const float da = there_a[x] - here_a[x], db = there_b[x] - here_b[x];
        const float square_a = SIGN + da * da, square_b = SIGN + db * db, root_b = sqrtf(square_b);
        const float gap = numerator(da, db, sqrtf(square_a), root_b);
        const float bend = 1 / (HAMMING * square_a * square_b + gap * gap);
        slope[x] = 2 * HAMMING * SIGN * gap * (bend * square_b) * (bend * root_b) * (at_here[x] + at_there[x]);
    }
}

GEOSSL_INLINE void add(float *restrict to, const float *restrict what, int count) {
    for (int x = 0; x < count; x++) to[x] += what[x];
}

GEOSSL_INLINE void subtract(float *restrict from, const float *restrict what, int count) {
    for (int x = 0; x < count; x++) from[x] -= what[x];
}

GEOSSL_INLINE int least(int a, int b) { return a < b ? a : b; }
GEOSSL_INLINE int most(int a, int b) { return a > b ? a : b; }

/* Rows `first` to `end` of the distance (height, width), 0 in the outermost `radius` rows and columns.
 *
 * a, b: (3, height, width). scratch: 2 (end - first + 2 radius) + 1 rows. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_census(const float *a, const float *b, float *distance, float *scratch,
                                               int height, int width, int radius, int first, int end) {
    memset(distance + (size_t)first * width, 0, (size_t)(end - first) * width * sizeof(float));
    first = most(first, radius), end = least(end, height - radius);
    if (first >= end || width <= 2 * radius) return;
    const int top = first - radius, bottom = end + radius;
    float *grey_a = scratch, *grey_b = grey_a + (size_t)(bottom - top) * width;
    float *found = grey_b + (size_t)(bottom - top) * width;
    grey_rows(a, grey_a, height, width, top, bottom);
    grey_rows(b, grey_b, height, width, top, bottom);
    for (int y = top; y < end; y++) {
        for (int dy = most(first - y, 0); dy <= radius; dy++) {
            for (int dx = dy ? -radius : 1; dx <= radius; dx++) {
                const int left = most(-dx, 0), count = width - most(dx, -dx);
                const size_t here = (size_t)(y - top) * width + left, there = here + (size_t)dy * width + dx;
                compare(grey_a + here, grey_a + there, grey_b + here, grey_b + there, found, count);
                float *at = distance + (size_t)y * width + left;
                if (y >= first) add(at, found, count);
                if (y + dy < end) add(at + (size_t)dy * width + dx, found, count);
            }
        }
    }
    for (int y = first; y < end; y++) {
        float *row = distance + (size_t)y * width;
        memset(row, 0, radius * sizeof(float));
        memset(row + width - radius, 0, radius * sizeof(float));
    }
}

/* Rows `first` to `end` of the gradient (3, height, width) to `a`, from that to the distance (height, width).
 *
 * scratch: 3 (end - first + 2 radius) + (end - first) + 1 rows. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_census_backward(const float *a, const float *b, const float *of_distance,
                                                        float *of_a, float *scratch, int height, int width,
                                                        int radius, int first, int end) {
    const int top = most(first - radius, 0), bottom = least(end + radius, height);
    const size_t size = (size_t)(bottom - top) * width, plane = (size_t)height * width;
    float *grey_a = scratch, *grey_b = grey_a + size, *weight = grey_b + size, *of_grey = weight + size;
    float *found = of_grey + (size_t)(end - first) * width;
    grey_rows(a, grey_a, height, width, top, bottom);
    grey_rows(b, grey_b, height, width, top, bottom);
    memset(weight, 0, size * sizeof(float));
    memset(of_grey, 0, (size_t)(end - first) * width * sizeof(float));
    for (int y = most(top, radius); y < least(bottom, height - radius) && width > 2 * radius; y++)
        memcpy(weight + (size_t)(y - top) * width + radius, of_distance + (size_t)y * width + radius,
               (width - 2 * radius) * sizeof(float));
    for (int y = top; y < end; y++) {
        for (int dy = most(first - y, 0); dy <= radius && y + dy < height; dy++) {
            for (int dx = dy ? -radius : 1; dx <= radius; dx++) {
                const int left = most(-dx, 0), count = width - most(dx, -dx);
                const size_t here = (size_t)(y - top) * width + left, there = here + (size_t)dy * width + dx;
                slopes(grey_a + here, grey_a + there, grey_b + here, grey_b + there, weight + here, weight + there,
                       found, count);
                if (y >= first) subtract(of_grey + here - (size_t)(first - top) * width, found, count);
                if (y + dy < end) add(of_grey + there - (size_t)(first - top) * width, found, count);
            }
        }
    }
    for (int c = 0; c < 3; c++) {
        float *to = of_a + c * plane + (size_t)first * width;
        for (size_t i = 0; i < (size_t)(end - first) * width; i++) to[i] = LUMA[c] * of_grey[i];
    }
}
