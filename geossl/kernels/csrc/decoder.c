/* What a decoder's 3x3 convolution reads: ELU, nearest upsampling, joining a feature and mirrored borders in one pass,
 * and its adjoint: networks/depth_decoder.py.
 *
 * Maps are in channels_last, of float32 or bfloat16. Every row of the map below is independent: it is written to all
 * places where it ends up, and its gradient is collected from all of them. ELU's slope is that of the written values,
 * which the convolution keeps anyway. */
#include <string.h>

#include "geossl.h"

/* No vector is ever passed: all that take or return one are inlined. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

#define LANES 8
#define MOST_COPIES 4

typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(LANES * sizeof(int32_t))));
typedef uint32_t Bits __attribute__((vector_size(LANES * sizeof(uint32_t))));
typedef uint16_t Halves __attribute__((vector_size(LANES * sizeof(uint16_t))));

/* The map below is (batch, height, width, channels); with `factor` 2 it is upsampled, and the feature that joins it and
 * the result, without its border, are twice as large. `joined` are the feature's channels, 0 where there is none.
 * `half`: numbers are bfloat16. */
typedef struct {
    int height, width, channels, joined, factor, half;
} Shape;

GEOSSL_INLINE int least(int a, int b) { return a < b ? a : b; }

/* A whole vector in one instruction, else `bytes` of it. */
GEOSSL_INLINE void copy(void *to, const void *from, size_t bytes, const size_t whole) {
    if (bytes == whole) memcpy(to, from, whole);
    else memcpy(to, from, bytes);
}

/* `count` numbers from the `at`-th on, at most LANES; the other lanes are 0. */
GEOSSL_INLINE Lanes load(const void *from, size_t at, int count, const int half) {
    Lanes found = {0};
    if (half) {
        Halves halves = {0};
        copy(&halves, (const uint16_t *)from + at, count * sizeof(uint16_t), sizeof halves);
        found = (Lanes)(__builtin_convertvector(halves, Bits) << 16);
    } else {
        copy(&found, (const float *)from + at, count * sizeof(float), sizeof found);
    }
    return found;
}

/* To bfloat16 by rounding to the nearest, ties to even. A NaN of these functions has no low bits that could carry. */
GEOSSL_INLINE void store(void *to, size_t at, int count, const int half, Lanes value) {
    if (half) {
        const Bits bits = (Bits)value;
        const Halves halves = __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, Halves);
        copy((uint16_t *)to + at, &halves, count * sizeof(uint16_t), sizeof halves);
    } else {
        copy((float *)to + at, &value, count * sizeof(float), sizeof value);
    }
}

GEOSSL_INLINE Lanes choose(Ints where, Lanes yes, Lanes no) { return (Lanes)((where & (Ints)yes) | (~where & (Ints)no)); }

/* x for x > 0, else exp(x) - 1, within 2e-7 of its size: with x = n log 2 + r, 2^n (exp(r) - 1) + (2^n - 1). For n = 0
 * the sum would, in another order, lose what a small x is. */
GEOSSL_INLINE Lanes elu(Lanes x) {
    const Lanes low = choose(x < -80.0f, (Lanes){0} - 80.0f, x);
    const Ints n = __builtin_convertvector(low * 1.44269504f - 0.5f, Ints); /* to the nearest, for negative numbers */
    const Lanes whole = __builtin_convertvector(n, Lanes);
    const Lanes r = low - whole * 0.693147181f;
    Lanes series = r * (1.0f / 5040) + 1.0f / 720;
    series = series * r + 1.0f / 120;
    series = series * r + 1.0f / 24;
    series = series * r + 1.0f / 6;
    series = series * r + 0.5f;
    series = series * r * r + r;
    const Lanes power = (Lanes)((Ints)((Bits)(n + 127) << 23));
    return choose(x > 0.0f, x, choose(n == 0, series, power * series + (power - 1.0f)));
}

/* Which rows (or columns) of the padded result a row of a map of `length` rows is copied to. */
typedef struct {
    int count, at[MOST_COPIES];
} Copies;

GEOSSL_INLINE Copies copies(int index, int length, const int factor) {
    Copies found = {0};
    for (int k = 0; k < factor; k++) {
        const int here = index * factor + k, end = length * factor;
        found.at[found.count++] = here + 1;
        if (here == 1) found.at[found.count++] = 0;
        if (here == end - 2) found.at[found.count++] = end + 1;
    }
    return found;
}

/* `count` channels of one pixel of the map below into the factor^2 pixels of the result that show it. */
GEOSSL_INLINE void spread(const void *x, size_t from, void *out, size_t to, size_t line, size_t pixel, int count,
                          const int factor, const int half) {
    for (int c = 0; c < count; c += LANES) {
        const int lanes = least(count - c, LANES);
        const Lanes value = elu(load(x, from + c, lanes, half));
        for (int i = 0; i < factor; i++)
            for (int j = 0; j < factor; j++) store(out, to + i * line + j * pixel + c, lanes, half, value);
    }
}

GEOSSL_INLINE void write_rows(const void *x, const char *feature, char *out, const Shape *s, int first, int end,
                              const int factor, const int half) {
    const int height = factor * s->height, width = factor * s->width;
    const size_t size = half ? sizeof(uint16_t) : sizeof(float);
    const size_t pixel = s->channels + s->joined, line = (width + 2) * pixel, joined = s->joined * size;
    for (int index = first; index < end; index++) {
        const int sample = index / s->height, y = index % s->height;
        char *image = out + (size_t)sample * (height + 2) * line * size;
        const size_t from = (size_t)index * s->width * s->channels, to = ((size_t)factor * y + 1) * line + pixel;
        if (factor == 1 && !joined) {
            spread(x, from, image, to, line, pixel, s->width * s->channels, 1, half);
        } else {
            for (int u = 0; u < s->width; u++)
                spread(x, from + (size_t)u * s->channels, image, to + (size_t)u * factor * pixel, line, pixel,
                       s->channels, factor, half);
        }
        for (int v = factor * y; v < factor * (y + 1); v++) {
            char *row = image + (v + 1) * line * size;
            const char *join = joined ? feature + ((size_t)sample * height + v) * width * joined : NULL;
            for (int u = 0; join && u < width; u++)
                memcpy(row + ((u + 1) * pixel + s->channels) * size, join + u * joined, joined);
            memcpy(row, row + 2 * pixel * size, pixel * size);
            memcpy(row + (width + 1) * pixel * size, row + (width - 1) * pixel * size, pixel * size);
            if (v == 1) memcpy(image, row, line * size);
            if (v == height - 2) memcpy(image + (height + 1) * line * size, row, line * size);
        }
    }
}

/* Rows `first` to `end` of all samples' rows of `x`, into every place of the padded result that shows them.
 *
 * x: (batch, height, width, channels). feature: (batch, factor height, factor width, joined).
 * out: (batch, factor height + 2, factor width + 2, channels + joined). */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_decoder_input(const void *x, const void *feature, void *out,
                                                      const Shape *shape, int first, int end) {
    const Shape s = *shape;
    if (s.half && s.factor == 2) write_rows(x, feature, out, &s, first, end, 2, 1);
    else if (s.half) write_rows(x, feature, out, &s, first, end, 1, 1);
    else if (s.factor == 2) write_rows(x, feature, out, &s, first, end, 2, 0);
    else write_rows(x, feature, out, &s, first, end, 1, 0);
}

/* The gradient to `count` channels of one pixel: the sum over the padded pixels that show it, times ELU's slope there if
 * `activated`. */
GEOSSL_INLINE void collect(const void *grad, const void *out, void *to, size_t at, const Copies *rows,
                           const Copies *columns, size_t line, size_t pixel, int channel, int count,
                           const int activated, const int half) {
    for (int c = 0; c < count; c += LANES) {
        const int lanes = least(count - c, LANES);
        Lanes sum = {0};
        for (int i = 0; i < rows->count; i++)
            for (int j = 0; j < columns->count; j++)
                sum += load(grad, rows->at[i] * line + columns->at[j] * pixel + channel + c, lanes, half);
        if (activated) {
            const Lanes shown = load(out, rows->at[0] * line + columns->at[0] * pixel + c, lanes, half);
            sum *= choose(shown > 0.0f, (Lanes){0} + 1.0f, shown + 1.0f);
        }
        store(to, at + c, lanes, half, sum);
    }
}

/* A row of the gradient to a map of `width` pixels of `count` channels, which begin at `channel` in the result. */
GEOSSL_INLINE void collect_row(const void *grad, const void *out, void *to, size_t at, const Copies *rows, int width,
                               size_t line, size_t pixel, int channel, int count, const int factor,
                               const int activated, const int half) {
    int u = 0;
    while (u < width) {
        const int inside = u >= 2 && u < width - 2;
        const int pixels = inside && factor == 1 && pixel == (size_t)count ? width - 2 - u : 1;
        if (inside) {
            const Copies columns = {factor, {factor * u + 1, factor * u + 2}};
            collect(grad, out, to, at + (size_t)u * count, rows, &columns, line, pixel, channel, pixels * count,
                    activated, half);
        } else {
            const Copies columns = copies(u, width, factor);
            collect(grad, out, to, at + (size_t)u * count, rows, &columns, line, pixel, channel, count, activated,
                    half);
        }
        u += pixels;
    }
}

GEOSSL_INLINE void collect_rows(const char *grad, const char *out, void *of_x, void *of_feature, const Shape *s,
                                int first, int end, const int factor, const int half) {
    const int height = factor * s->height, width = factor * s->width;
    const size_t size = half ? sizeof(uint16_t) : sizeof(float);
    const size_t pixel = s->channels + s->joined, line = (width + 2) * pixel;
    for (int index = first; index < end; index++) {
        const int sample = index / s->height, y = index % s->height;
        const size_t image = (size_t)sample * (height + 2) * line * size;
        if (of_x) {
            const Copies rows = copies(y, s->height, factor);
            collect_row(grad + image, out + image, of_x, (size_t)index * s->width * s->channels, &rows, s->width, line,
                        pixel, 0, s->channels, factor, 1, half);
        }
        for (int v = factor * y; of_feature && v < factor * (y + 1); v++) {
            const Copies rows = copies(v, height, 1);
            collect_row(grad + image, NULL, of_feature, ((size_t)sample * height + v) * width * s->joined, &rows,
                        width, line, pixel, s->channels, s->joined, 1, 0, half);
        }
    }
}

/* Rows `first` to `end` of all samples' rows of the gradient to `x`, and the feature's rows that join them.
 *
 * grad, out: as the result, and the result itself. of_x, of_feature: as `x` and `feature`; NULL where none is wanted. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_decoder_input_backward(const void *grad, const void *out, void *of_x,
                                                               void *of_feature, const Shape *shape, int first,
                                                               int end) {
    const Shape s = *shape;
    if (s.half && s.factor == 2) collect_rows(grad, out, of_x, of_feature, &s, first, end, 2, 1);
    else if (s.half) collect_rows(grad, out, of_x, of_feature, &s, first, end, 1, 1);
    else if (s.factor == 2) collect_rows(grad, out, of_x, of_feature, &s, first, end, 2, 0);
    else collect_rows(grad, out, of_x, of_feature, &s, first, end, 1, 0);
}
