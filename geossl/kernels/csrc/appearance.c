/* Colour jitter of an image: brightness, contrast, saturation and hue in two passes; the formulas are appearance.py's. */
#include "geossl.h"

GEOSSL_INLINE float least(float a, float b) { return a < b ? a : b; }
GEOSSL_INLINE float largest(float a, float b) { return a > b ? a : b; }
GEOSSL_INLINE float unit(float x) { return least(largest(x, 0.0f), 1.0f); }
GEOSSL_INLINE float grey(float r, float g, float b) { return 0.2989f * r + 0.587f * g + 0.114f * b; }

/* One channel of the turned hue; sixths: hue plus the channel's offset, in [-8, 16). */
GEOSSL_INLINE float turned(float value, float chroma, float sixths) {
    float k = sixths - 6.0f * __builtin_floorf(sixths * (1.0f / 6.0f));
    return value - chroma * unit(least(k, 4.0f - k));
}

/* in, out: (3, pixels), which may be the same. turn: full circles, in [-1, 1]. */
GEOSSL_EXPORT GEOSSL_CLONES void geossl_jitter(const float *in, float *out, int pixels, float brightness,
                                               float contrast, float saturation, float turn) {
    const float *ri = in, *gi = in + pixels, *bi = gi + pixels;
    float *ro = out, *go = out + pixels, *bo = go + pixels;
    double sum = 0;
    for (int i = 0; i < pixels; i++)
        sum += grey(unit(ri[i] * brightness), unit(gi[i] * brightness), unit(bi[i] * brightness));
    const float mean = (float)(sum / pixels);
    GEOSSL_INDEPENDENT
    for (int i = 0; i < pixels; i++) {
        float r = unit(mean + contrast * (unit(ri[i] * brightness) - mean));
        float g = unit(mean + contrast * (unit(gi[i] * brightness) - mean));
        float b = unit(mean + contrast * (unit(bi[i] * brightness) - mean));
        const float luma = grey(r, g, b);
        r = unit(luma + saturation * (r - luma));
        g = unit(luma + saturation * (g - luma));
        b = unit(luma + saturation * (b - luma));
        const float value = largest(r, largest(g, b)), chroma = value - least(r, least(g, b));
        const float inverse = 1.0f / (chroma > 0 ? chroma : 1.0f);
        const float of_blue = (r - g) * inverse + 4.0f, of_green = (b - r) * inverse + 2.0f;
        const float of_red = (g - b) * inverse;
        const float sixths = (value == r ? of_red : value == g ? of_green : of_blue) + 6.0f * turn;
        ro[i] = turned(value, chroma, sixths + 5.0f);
        go[i] = turned(value, chroma, sixths + 3.0f);
        bo[i] = turned(value, chroma, sixths + 1.0f);
    }
}
