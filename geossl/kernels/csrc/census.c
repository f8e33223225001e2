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

/* What the differences of a pair add to the loss, by their sizes: 2 c s gap B^(3/2) / (c A B + gap^2)^2 that in `a`,
 * -2 c s gap A^(3/2) / (c A B + gap^2)^2 that in `b`. */
GEOSSL_INLINE void slopes(const float *restrict here_a, const float *restrict there_a, const float *restrict here_b,
                          const float *restrict there_b, const float *restrict at_here, const float *restrict at_there,
                          float *restrict slope_a, float *restrict slope_b, int count, const int both) {
    for (int x = 0; x < count; x++) {
        const float da = there_a[x] - here_a[x], db = there_b[x] - here_b[x];
        const float square_a = SIGN + da * da, square_b = SIGN + db * db;
        const float root_a = sqrtf(square_a), root_b = sqrtf(square_b);
        const float gap = numerator(da, db, root_a, root_b);
        const float bend = 1 / (HAMMING * square_a * square_b + gap * gap);
        const float factor = 2 * HAMMING * SIGN * gap * (at_here[x] + at_there[x]);
        slope_a[x] = factor * (bend * square_b) * (bend * root_b);
        if (both) slope_b[x] = -factor * (bend * square_a) * (bend * root_a);
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

/* Rows that are worked on at once, by the radius: what is kept of them stays in the cache, and few rows of pairs are
 * compared for two of them. */
#define ROWS 32

GEOSSL_INLINE void distance_rows(const float *a, const float *b, float *distance, float *scratch, int height,
                                 int width, int radius, int first, int end) {
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

GEOSSL_INLINE void put_colours(const float *of_grey, float *of_image, int height, int width, int first, int end) {
    for (int c = 0; c < 3; c++) {
        float *to = of_image + ((size_t)c * height + first) * width;
        for (size_t i = 0; i < (size_t)(end - first) * width; i++) to[i] = LUMA[c] * of_grey[i];
    }
}

GEOSSL_INLINE void gradient_rows(const float *a, const float *b, const float *of_distance, float *of_a, float *of_b,
                                 float *scratch, int height, int width, int radius, int first, int end,
                                 const int both) {
    const int top = most(first - radius, 0), bottom = least(end + radius, height);
    const size_t size = (size_t)(bottom - top) * width, inner = (size_t)(end - first) * width;
    float *grey_a = scratch, *grey_b = grey_a + size, *weight = grey_b + size, *slope_a = weight + size;
    float *slope_b = slope_a + width, *of_grey_a = slope_b + width, *of_grey_b = of_grey_a + inner;
    grey_rows(a, grey_a, height, width, top, bottom);
    grey_rows(b, grey_b, height, width, top, bottom);
    memset(weight, 0, size * sizeof(float));
    memset(of_grey_a, 0, (both ? 2 : 1) * inner * sizeof(float));
    for (int y = most(top, radius); y < least(bottom, height - radius) && width > 2 * radius; y++)
        memcpy(weight + (size_t)(y - top) * width + radius, of_distance + (size_t)y * width + radius,
               (width - 2 * radius) * sizeof(float));
    for (int y = top; y < end; y++) {
        for (int dy = most(first - y, 0); dy <= radius && y + dy < height; dy++) {
            for (int dx = dy ? -radius : 1; dx <= radius; dx++) {
                const int left = most(-dx, 0), count = width - most(dx, -dx);
                const size_t here = (size_t)(y - top) * width + left, there = here + (size_t)dy * width + dx;
                const size_t above = (size_t)(first - top) * width; /* rows of which no gradient is wanted here */
                slopes(grey_a + here, grey_a + there, grey_b + here, grey_b + there, weight + here, weight + there,
                       slope_a, slope_b, count, both);
                if (y >= first) subtract(of_grey_a + here - above, slope_a, count);
                if (y + dy < end) add(of_grey_a + there - above, slope_a, count);
                if (both && y >= first) subtract(of_grey_b + here - above, slope_b, count);
                if (both && y + dy < end) add(of_grey_b + there - above, slope_b, count);
            }
        }
    }
    put_colours(of_grey_a, of_a, height, width, first, end);
    if (both) put_colours(of_grey_b, of_b, height, width, first, end);
}

/* Rows `first` to `end` of the distance (height, width), 0 in the outermost `radius` rows and columns.
 *
 * a, b: (3, height, width). scratch: 2 (ROWS + 2) radius + 1 rows. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_census(const float *a, const float *b, float *distance, float *scratch,
                                               int height, int width, int radius, int first, int end) {
    memset(distance + (size_t)first * width, 0, (size_t)(end - first) * width * sizeof(float));
    const int last = least(end, height - radius), rows = ROWS * radius;
    for (int y = most(first, radius); y < last && width > 2 * radius; y += rows)
        distance_rows(a, b, distance, scratch, height, width, radius, y, least(y + rows, last));
}

/* Rows `first` to `end` of the gradients (3, height, width) to `a`, and to `b` unless `of_b` is NULL, from that to the
 * distance (height, width).
 *
 * scratch: 3 (ROWS + 2) radius + 2 ROWS radius + 2 rows. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_census_backward(const float *a, const float *b, const float *of_distance,
                                                        float *of_a, float *of_b, float *scratch, int height,
                                                        int width, int radius, int first, int end) {
    const int rows = ROWS * radius;
    for (int y = first; y < end; y += rows) {
        const int to = least(y + rows, end);
        if (of_b) gradient_rows(a, b, of_distance, of_a, of_b, scratch, height, width, radius, y, to, 1);
        else gradient_rows(a, b, of_distance, of_a, of_b, scratch, height, width, radius, y, to, 0);
    }
}
