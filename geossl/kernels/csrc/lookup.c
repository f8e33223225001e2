/* RAFT's lookup in a volume of correlations, and its gradient: networks/raft.py.
 *
 * The (2 radius + 1)^2 places of a pixel are whole pixels apart, so that all have the same bilinear weights: (2 radius
 * + 2)^2 correlations are read once, and two passes of sums do for all places. Blocks of 16 pixels are turned over
 * between the order of the volume, pixels outermost, and that of the results, pixels innermost. */
#include <math.h>
#include <string.h>

#include "geossl.h"

#define BLOCK 16
#define LANES 16
#define MOST_RADIUS 7
#define MOST_SIDE (2 * MOST_RADIUS + 1)

typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));
#define LOAD(from) (*(const Lanes *)(from))
#define STORE(to) (*(Lanes *)(to))

/* The neighbourhood of a place: top-left pixel and weights, or, where all of it is outside, `empty`. */
typedef struct {
    int left, top, empty;
    float right, below;
} Place;

GEOSSL_INLINE Place place_of(float u, float v, int height, int width, int radius) {
    const float reach = radius + 1;
    if (!(u > -reach && u < width + reach - 1 && v > -reach && v < height + reach - 1)) {
        const float weight = u != u || v != v ? NAN : 0;
        return (Place){0, 0, 1, weight, weight};
    }
    const float left = floorf(u), top = floorf(v);
    return (Place){(int)left - radius, (int)top - radius, 0, u - left, v - top};
}

GEOSSL_INLINE int least(int a, int b) { return a < b ? a : b; }
GEOSSL_INLINE int most(int a, int b) { return a > b ? a : b; }

/* The columns of a row of the volume around a place, 0 outside. */
GEOSSL_INLINE void read_row(const float *map, float *row, const Place *p, int y, int height, int width,
                            const int taps) {
    if (p->empty || y < 0 || y >= height) {
        memset(row, 0, taps * sizeof(float));
        return;
    }
    const float *from = map + (ptrdiff_t)y * width + p->left;
    if (p->left >= 0 && p->left + taps <= width) memcpy(row, from, taps * sizeof(float));
    else
        for (int j = 0; j < taps; j++) row[j] = p->left + j >= 0 && p->left + j < width ? from[j] : 0;
}

GEOSSL_INLINE void look_up(const float *volume, const float *pixels, float *found, int count, int height, int width,
                           float scale, int first, int end, const int radius) {
    const int side = 2 * radius + 1, taps = side + 1;
    float block[MOST_SIDE * MOST_SIDE * BLOCK], row[2 * LANES] = {0}, sums[LANES];
    for (int from = first; from < end; from += BLOCK) {
        const int here = least(BLOCK, end - from);
        for (int i = 0; i < here; i++) {
            const size_t pixel = from + i;
            const Place p = place_of(scale * pixels[pixel], scale * pixels[count + pixel], height, width, radius);
            const float *map = volume + pixel * height * width;
            Lanes above = {0};
            for (int k = 0; k < taps; k++) {
                read_row(map, row, &p, p.top + k, height, width, taps);
                const Lanes across = LOAD(row) * (1 - p.right) + LOAD(row + 1) * p.right;
                STORE(sums) = above * (1 - p.below) + across * p.below;
                above = across;
                for (int j = 0; k > 0 && j < side; j++) block[(j * side + k - 1) * BLOCK + i] = sums[j];
            }
        }
        for (int k = 0; k < side * side; k++)
            memcpy(found + (size_t)k * count + from, block + k * BLOCK, here * sizeof(float));
    }
}

GEOSSL_INLINE void spread(float *of_volume, const float *pixels, const float *of_found, int count, int height,
                          int width, float scale, int first, int end, const int radius) {
    const int side = 2 * radius + 1, taps = side + 1;
    float block[MOST_SIDE * MOST_SIDE * BLOCK], row[2 * LANES] = {0}, sums[LANES];
    float *gradients = row + 1; /* of a row of places; row[0] stays 0 */
    for (int from = first; from < end; from += BLOCK) {
        const int here = least(BLOCK, end - from);
        for (int k = 0; k < side * side; k++)
            memcpy(block + k * BLOCK, of_found + (size_t)k * count + from, here * sizeof(float));
        for (int i = 0; i < here; i++) {
            const size_t pixel = from + i;
            const Place p = place_of(scale * pixels[pixel], scale * pixels[count + pixel], height, width, radius);
            if (p.empty) continue;
            float *map = of_volume + pixel * height * width;
            const int left = most(0, -p.left), right = least(taps, width - p.left);
            Lanes above = {0};
            for (int k = 0; k < taps; k++) {
                for (int j = 0; j < side; j++) gradients[j] = k < side ? block[(j * side + k) * BLOCK + i] : 0;
                const Lanes across = LOAD(row + 1) * (1 - p.right) + LOAD(row) * p.right;
                STORE(sums) = across * (1 - p.below) + above * p.below;
                above = across;
                if (p.top + k < 0 || p.top + k >= height) continue;
                float *to = map + (ptrdiff_t)(p.top + k) * width + p.left;
                if (right - left == taps)
                    for (int j = 0; j < taps; j++) to[j] += sums[j];
                else
                    for (int j = left; j < right; j++) to[j] += sums[j];
            }
        }
    }
}

/* Correlations of pixels `first` to `end` around their places, (2 radius + 1)^2 each, columns outermost: bilinear
 * values of maps that are 0 outside.
 *
 * volume: (count, height, width), a map a pixel. pixels: (2, count) places, in pixels of the maps once multiplied by
 * `scale`. found: ((2 radius + 1)^2, count). radius: at most 7. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_lookup(const float *volume, const float *pixels, float *found, int count,
                                               int height, int width, float scale, int radius, int first, int end) {
    /* constants, of which the compiler unrolls the loops: RAFT's two radii */
    if (radius == 4) look_up(volume, pixels, found, count, height, width, scale, first, end, 4);
    else if (radius == 3) look_up(volume, pixels, found, count, height, width, scale, first, end, 3);
    else look_up(volume, pixels, found, count, height, width, scale, first, end, radius);
}

/* Adds to the gradient of the volume what follows from that of `found`: nothing where a place is no number. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_lookup_backward(float *of_volume, const float *pixels, const float *of_found,
                                                        int count, int height, int width, float scale, int radius,
                                                        int first, int end) {
    if (radius == 4) spread(of_volume, pixels, of_found, count, height, width, scale, first, end, 4);
    else if (radius == 3) spread(of_volume, pixels, of_found, count, height, width, scale, first, end, 3);
    else spread(of_volume, pixels, of_found, count, height, width, scale, first, end, radius);
}
