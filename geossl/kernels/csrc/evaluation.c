/* LiDAR scans as depth maps, and resized maps in few pixels. */
#include "geossl.h"

#include <math.h>

/* Where a point falls, in pixels, by a (3, 4) projection; and its z. */
typedef struct {
    double u, v, z;
} Pixel;

GEOSSL_INLINE Pixel project(const float *point, const double *P) {
    double x = point[0], y = point[1], z = point[2], depth = P[8] * x + P[9] * y + P[10] * z + P[11];
    Pixel at = {(P[0] * x + P[1] * y + P[2] * z + P[3]) / depth, (P[4] * x + P[5] * y + P[6] * z + P[7]) / depth, depth};
    return at;
}

/* points: (N, stride), the first three x, y, z. P: (3, 4). map: (H, W), all 0. */
GEOSSL_EXPORT void geossl_lidar_map(const float *points, int64_t count, int stride, const double *P, float *map,
                                    int height, int width) {
    for (int64_t i = 0; i < count; i++) {
        Pixel at = project(points + i * stride, P);
        double column = floor(at.u + 0.5), row = floor(at.v + 0.5);
        if (!(at.z > 0 && column >= 0 && row >= 0 && column < width && row < height)) continue;
        float *pixel = map + (size_t)row * width + (size_t)column, z = (float)at.z;
        if (*pixel == 0 || z < *pixel) *pixel = z;
    }
}

/* The same by the published steps, see evaluation/lidar.py.
 *
 * forward: 1 stores x, 0 stores z. least: (H, W), need not be set. first: (H, W), all 0. shared: (N,), need not be
 * set. */
GEOSSL_EXPORT void geossl_lidar_map_eigen(const float *points, int64_t count, int stride, const double *P, int forward,
                                          float *map, float *least, int32_t *first, int32_t *shared, int height,
                                          int width) {
    int64_t sharing = 0;
    for (int64_t i = 0; i < count; i++) {
        const float *point = points + i * stride;
        if (!(point[0] >= 0)) continue;
        Pixel at = project(point, P);
        if (!(at.u > 0 && at.v > 0 && at.u < width + 1.0 && at.v < height + 1.0)) continue;
        int column = (int)nearbyint(at.u) - 1, row = (int)nearbyint(at.v) - 1;
        if (column < 0 || row < 0 || column >= width || row >= height) continue;
        float value = forward ? point[0] : (float)at.z;
        if (!(value > 0)) value = 0;
        int pixel = row * width + column, index = row * (width - 1) + column;
        map[pixel] = value; /* the last point of a pixel stays */
        if (!first[index]) {
            first[index] = pixel + 1;
            least[index] = value;
        } else {
            if (value < least[index]) least[index] = value;
            shared[sharing++] = index;
        }
    }
    for (int64_t i = 0; i < sharing; i++) map[first[shared[i]] - 1] = least[shared[i]];
}

/* Where an output position samples along an axis: between `low` and `high`, at `weight` from the first. */
typedef struct {
    int low, high;
    float weight;
} Sampled;

GEOSSL_INLINE Sampled sampled(int position, double scale, int size) {
    double at = (position + 0.5) * scale - 0.5;
    if (at < 0) at = 0;
    if (at > size - 1) at = size - 1;
    int low = (int)at;
    Sampled found = {low, low + 1 < size ? low + 1 : low, (float)(at - low)};
    return found;
}

/* Bilinear values of a map (h, w), resized to (H, W), edges aligned, in the pixels row * W + column, which ascend.
 * inverse: 1 interpolates 1 / value instead of value. */
GEOSSL_EXPORT void geossl_resized_at(const float *map, int h, int w, int height, int width, const int64_t *pixels,
                                     int64_t count, int inverse, float *out) {
    double scale_x = (double)w / width, scale_y = (double)h / height;
    const float *above = map, *below = map;
    int64_t row_begin = 0, row_end = 0;
    float down = 0;
    for (int64_t i = 0; i < count; i++) {
        if (pixels[i] >= row_end) {
            int row = (int)(pixels[i] / width);
            Sampled y = sampled(row, scale_y, h);
            above = map + (size_t)y.low * w;
            below = map + (size_t)y.high * w;
            down = y.weight;
            row_begin = (int64_t)row * width;
            row_end = row_begin + width;
        }
        Sampled x = sampled((int)(pixels[i] - row_begin), scale_x, w);
        float a = above[x.low], b = above[x.high], c = below[x.low], d = below[x.high];
        if (inverse) a = 1 / a, b = 1 / b, c = 1 / c, d = 1 / d;
        float upper = a * (1 - x.weight) + b * x.weight, lower = c * (1 - x.weight) + d * x.weight;
        float value = upper * (1 - down) + lower * down;
        out[i] = inverse ? 1 / value : value;
    }
}
