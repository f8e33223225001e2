/* LiDAR scans as depth maps, resized maps in few pixels, their middle values, and sums of depth's metrics. */
#include "geossl.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define BLOCK 256 /* points or pixels that are computed side by side */

/* Points of a scan, and where they fall in pixels. */
typedef struct {
    int count;
    float x[BLOCK], y[BLOCK], z[BLOCK];
    double u[BLOCK], v[BLOCK], depth[BLOCK];
} Points;

/* Projects points until a block is full, and returns how many it has gone through.
 *
 * points: (count, stride), the first three x, y, z. P: (3, 4). ahead: 1 leaves out those behind the LiDAR. */
GEOSSL_INLINE int64_t project(const float *points, int64_t count, int stride, const double *P, int ahead, Points *to) {
    int64_t read = 0;
    int n = 0;
    for (; read < count && n < BLOCK; read++) {
        const float *point = points + read * stride;
        if (ahead && !(point[0] >= 0)) continue;
        to->x[n] = point[0], to->y[n] = point[1], to->z[n] = point[2];
        n++;
    }
    to->count = n;
    for (int k = 0; k < n; k++) {
        double x = to->x[k], y = to->y[k], z = to->z[k], depth = P[8] * x + P[9] * y + P[10] * z + P[11];
        to->u[k] = (P[0] * x + P[1] * y + P[2] * z + P[3]) / depth;
        to->v[k] = (P[4] * x + P[5] * y + P[6] * z + P[7]) / depth;
        to->depth[k] = depth;
    }
    return read;
}

/* The nearer of what a pixel holds, 0 where nothing, and a value. */
GEOSSL_INLINE void keep_least(float *pixel, float value) {
    if (*pixel == 0 || value < *pixel) *pixel = value;
}

/* map: (H, W), all 0. The rest as in `project`. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_lidar_map(const float *points, int64_t count, int stride, const double *P,
                                                  float *map, int height, int width) {
    Points at;
    for (int64_t done = 0; done < count;) {
        done += project(points + done * stride, count - done, stride, P, 0, &at);
        for (int k = 0; k < at.count; k++) {
            double column = floor(at.u[k] + 0.5), row = floor(at.v[k] + 0.5);
            if (!(at.depth[k] > 0 && column >= 0 && row >= 0 && column < width && row < height)) continue;
            keep_least(map + (size_t)row * width + (size_t)column, (float)at.depth[k]);
        }
    }
}

/* A pixel at the end of a row and the first of the next, which the published index takes for one. */
typedef struct {
    int32_t first; /* 1 + the pixel in which a point fell first; 0 if none did */
    float least;
} Seam;

#define NO_DEPTH FLT_MIN /* a value of 0, told from a pixel without a point until the end */

/* The same by the published steps, see evaluation/lidar.py: the least of every pixel's points, but of a seam's two
 * pixels the first gets the least of both, and the other keeps its last.
 *
 * forward: 1 stores x, 0 stores z. seams: (H + 1,), all 0, the one before the first row included. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_lidar_map_eigen(const float *points, int64_t count, int stride,
                                                        const double *P, int forward, float *map, Seam *seams,
                                                        int height, int width) {
    Points at;
    int zeros = 0;
    for (int64_t done = 0; done < count;) {
        done += project(points + done * stride, count - done, stride, P, 1, &at);
        for (int k = 0; k < at.count; k++) {
            double u = at.u[k], v = at.v[k];
            if (!(u > 0 && v > 0 && u < width + 1.0 && v < height + 1.0)) continue;
            int column = (int)nearbyint(u) - 1, row = (int)nearbyint(v) - 1;
            if (column < 0 || row < 0 || column >= width || row >= height) continue;
            float value = forward ? at.x[k] : (float)at.depth[k];
            if (!(value > 0)) value = NO_DEPTH, zeros = 1;
            const int pixel = row * width + column, last = column == width - 1;
            if (column > 0 && !last) {
                keep_least(map + pixel, value);
                continue;
            }
            Seam *seam = seams + (width > 1 ? row + last : 0); /* of one column all rows share an index */
            if (!seam->first) seam->first = pixel + 1;
            keep_least(&seam->least, value);
            map[pixel] = value;
        }
    }
    for (int i = 0; i <= height; i++)
        if (seams[i].first) map[seams[i].first - 1] = seams[i].least;
    for (int pixel = 0; zeros && pixel < height * width; pixel++)
        if (map[pixel] == NO_DEPTH) map[pixel] = 0;
}

/* Bilinear values of a map (h, w), resized to (H, W), edges aligned, in the pixels row * W + column, which ascend.
 * inverse: 1 interpolates 1 / value instead of value. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_resized_at(const float *map, int h, int w, int height, int width,
                                                   const int64_t *pixels, int64_t count, int inverse, float *out) {
    const double scale_x = (double)w / width, scale_y = (double)h / height;
    const float *fetched = NULL;
    for (int64_t from = 0; from < count;) {
        const int64_t row = pixels[from] / width, begin = row * width;
        const Sampled y = sampled((int)row, scale_y, h);
        const float *above = map + (size_t)y.low * w, *below = y.low + 1 < h ? above + w : above;
        if (below != fetched) fetch(below, w);
        fetched = below;
        int n = 0, left[BLOCK];
        float right[BLOCK], corner[4][BLOCK];
        while (n < BLOCK && from + n < count && pixels[from + n] < begin + width) n++;
        for (int k = 0; k < n; k++) {
            const Sampled x = sampled((int)(pixels[from + k] - begin), scale_x, w);
            left[k] = x.low;
            right[k] = x.weight;
        }
        for (int k = 0; k < n; k++) {
            const int low = left[k], high = low + 1 < w ? low + 1 : low;
            corner[0][k] = above[low], corner[1][k] = above[high];
            corner[2][k] = below[low], corner[3][k] = below[high];
        }
        for (int k = 0; k < n; k++) {
            float a = corner[0][k], b = corner[1][k], c = corner[2][k], d = corner[3][k], t = right[k];
            if (inverse) a = 1 / a, b = 1 / b, c = 1 / c, d = 1 / d;
            float upper = a * (1 - t) + b * t, lower = c * (1 - t) + d * t;
            float value = upper * (1 - y.weight) + lower * y.weight;
            out[from + k] = inverse ? 1 / value : value;
        }
        from += n;
    }
}

#define DIGIT 11 /* bits; of the 33 that three digits have, the first is always 0 */

/* Which digit the number of rank *rank has, of bit patterns from `shift` on; takes those with less from the rank. */
GEOSSL_INLINE uint32_t digit_of_rank(const uint32_t *bits, int64_t count, int shift, int64_t *rank) {
    enum { HISTOGRAMS = 4, DIGITS = 1 << DIGIT }; /* several, as one would wait for its own counts */
    uint32_t counts[HISTOGRAMS][DIGITS] = {0};
    for (int64_t i = 0; i < count; i++) counts[i % HISTOGRAMS][bits[i] >> shift & (DIGITS - 1)]++;
    for (uint32_t digit = 0;; digit++) {
        const int64_t here = (int64_t)counts[0][digit] + counts[1][digit] + counts[2][digit] + counts[3][digit];
        if (*rank < here) return digit;
        *rank -= here;
    }
}

/* The middle values of positive numbers, the same one twice where their count is odd: found digit by digit, as the bits
 * of such numbers have their order.
 *
 * values: (count,), at least one. scratch: (count,). middle: (2,). */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_middle(const float *values, int64_t count, uint32_t *scratch, float *middle) {
    int64_t rank = (count - 1) / 2, left = count;
    memcpy(scratch, values, sizeof(float) * count);
    uint32_t lower = 0;
    for (int shift = 2 * DIGIT; shift >= 0; shift -= DIGIT) {
        const uint32_t digit = digit_of_rank(scratch, left, shift, &rank);
        int64_t kept = 0;
        for (int64_t i = 0; i < left; i++) {
            const uint32_t bits = scratch[i];
            scratch[kept] = bits;
            kept += (bits >> shift & ((1 << DIGIT) - 1)) == digit;
        }
        left = kept;
        lower |= digit << shift;
    }
    memcpy(&middle[0], &lower, sizeof lower);
    middle[1] = middle[0];
    if (count % 2 || rank + 1 < left) return; /* `left` are equal to it, of which it is number `rank` */
    float next = INFINITY;
    for (int64_t i = 0; i < count; i++) {
        const float larger = values[i] > middle[0] ? values[i] : INFINITY;
        next = larger < next ? larger : next;
    }
    middle[1] = next;
}

/* The natural logarithm of a positive, normal number to 1e-15, in steps that vectorise: x = m 2^e with m in
 * [sqrt(1/2), sqrt(2)), and log m = 2 artanh((m - 1) / (m + 1)). */
GEOSSL_INLINE double log_of(double x) {
    const uint64_t half_root = 0x3fe6a09e667f3bcd, one = 0x3ff0000000000000, mantissa_bits = 52;
    uint64_t bits;
    memcpy(&bits, &x, sizeof x);
    const uint64_t biased = (bits + (one - half_root)) >> mantissa_bits; /* e + 1023 */
    const uint64_t of_m = bits + one - (biased << mantissa_bits);
    const uint64_t of_e = biased | 0x4330000000000000; /* as a double, 2^52 + e + 1023 */
    double m, e;
    memcpy(&m, &of_m, sizeof m);
    memcpy(&e, &of_e, sizeof e);
    const double s = (m - 1) / (m + 1), t = s * s;
    double series = 1.0 / 19;
    for (int odd = 17; odd > 0; odd -= 2) series = series * t + 1.0 / odd;
    return (e - (4503599627370496.0 + 1023)) * 0.69314718055994531 + 2 * s * series;
}

/* Sums over the pixels of |p - g| / g, (p - g)^2 / g, (p - g)^2 and log(p / g)^2, and how many have max(p / g, g / p)
 * below each threshold: what evaluation/depth_scores.py makes metrics of.
 *
 * prediction, truth: (count,), positive. sums: (7,). */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_depth_sums(const double *prediction, const double *truth, int64_t count,
                                                   const double *thresholds, double *sums) {
    const double t1 = thresholds[0], t2 = thresholds[1], t3 = thresholds[2];
    double relative = 0, squared_relative = 0, squared = 0, squared_log = 0, below1 = 0, below2 = 0, below3 = 0;
    for (int64_t i = 0; i < count; i++) {
        const double p = prediction[i], g = truth[i], error = fabs(p - g), quotient = p / g, inverse = g / p;
        const double ratio = quotient > inverse ? quotient : inverse, logarithm = log_of(quotient);
        relative += error / g;
        squared_relative += error * error / g;
        squared += error * error;
        squared_log += logarithm * logarithm;
        below1 += ratio < t1 ? 1.0 : 0.0;
        below2 += ratio < t2 ? 1.0 : 0.0;
        below3 += ratio < t3 ? 1.0 : 0.0;
    }
    const double all[] = {relative, squared_relative, squared, squared_log, below1, below2, below3};
    memcpy(sums, all, sizeof all);
}
