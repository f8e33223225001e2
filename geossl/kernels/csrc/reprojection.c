/* Warp, SSIM and L1, least error over views and auto-mask for rows of one sample, with the gradient of the mean error to
 * depth and to each view's projection. Nothing is stored but that: row y is warped, row y - 1 compared, row y - 2
 * differentiated, from rings of three rows that stay in the L2 cache. */
#include "rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_VIEWS 8
#define SUMS_OF_VIEW 12 /* gradients to the homography (9) and to the epipole (3) */
#define TOLERANCE 1e-3f /* pixel; as geometry.pixels.in_image */
#define AHEAD 16 /* rows that few motions cross */

/* Mirrored by kernels/photometric.py. B samples, V views; images are of one size. */
typedef struct {
    const float *depth;      /* (B, H, W) */
    const float *target;     /* (B, 3, H, W) */
    const float *sources;    /* (V, B, H, W, 4), see geossl_pack */
    const float *homography; /* (V, B, 3, 3), pixel -> direction in the source's pixels */
    const float *epipole;    /* (V, B, 3) */
    const float *still;      /* (B, H, W) error of standing still, or NULL */
    float *grad_depth;       /* (B, H, W) */
    float *error;            /* (B, H, W), or NULL: what is minimised */
    uint8_t *moving;         /* (B, H, W), or NULL: where it is the warp's */
    float *warped;           /* (B, 3, H, W) of the first view, or NULL */
    int32_t batch, height, width, views;
    int32_t minimum; /* over views; else the mean of those that see the point */
    int32_t ignore;  /* views that do not see a point have no error there */
    float ssim_weight, min_z, grad_scale;
} Reprojection;

/* Rings of three rows, and rows that are used at once. Padded on either side. */
typedef struct {
    float *warped[3][COLOURS], *dx[3][COLOURS], *dy[3][COLOURS]; /* and the derivatives along u and v */
    float *gradient[3][COLOURS][3]; /* of the error to the means, mean squares and mean products of windows */
    float *share[3];           /* of the pixel's error that is this view's */
    float *hidden[3];          /* 0, or infinity where an unseen point is ignored */
    float *error;
} View;

typedef struct {
    View view[MAX_VIEWS];
    float *sum_b[COLOURS], *square_b[COLOURS], *mean_b[COLOURS], *variance_b[COLOURS];
    float *sum, *square, *product, *best, *count, *total, *grad_u, *grad_v, *inside_u, *inside_v, *weight_u, *weight_v;
    float *zeros, *column[3];
    int32_t *corner;
    float *memory;
} Scratch;

GEOSSL_INLINE float *next_row(float **free_memory, size_t stride) {
    float *row = *free_memory + PADDING;
    *free_memory += stride;
    return row;
}

static void allocate(Scratch *s, int views, int width) {
    size_t stride = padded_stride(width), rows = (size_t)views * (27 + 27 + 6 + 1) + 12 + 17;
    s->memory = new_rows(rows, stride);
    float *at = s->memory;
    for (int v = 0; v < views; v++) {
        View *w = &s->view[v];
        for (int slot = 0; slot < 3; slot++) {
            for (int c = 0; c < COLOURS; c++) {
                w->warped[slot][c] = next_row(&at, stride);
                w->dx[slot][c] = next_row(&at, stride);
                w->dy[slot][c] = next_row(&at, stride);
                for (int k = 0; k < 3; k++) w->gradient[slot][c][k] = next_row(&at, stride);
            }
            w->share[slot] = next_row(&at, stride);
            w->hidden[slot] = next_row(&at, stride);
        }
        w->error = next_row(&at, stride);
    }
    for (int c = 0; c < COLOURS; c++) {
        s->sum_b[c] = next_row(&at, stride);
        s->square_b[c] = next_row(&at, stride);
        s->mean_b[c] = next_row(&at, stride);
        s->variance_b[c] = next_row(&at, stride);
    }
    float **single[] = {&s->sum,    &s->square,   &s->product,  &s->best,     &s->count,    &s->total, &s->grad_u,
                        &s->grad_v, &s->inside_u, &s->inside_v, &s->weight_u, &s->weight_v, &s->zeros};
    for (size_t i = 0; i < sizeof single / sizeof *single; i++) *single[i] = next_row(&at, stride);
    for (int k = 0; k < 3; k++) s->column[k] = next_row(&at, stride);
    s->corner = (int32_t *)next_row(&at, stride);
}

/* The view's projection of row y: pixel x of depth d lies at d (slope x + start) + epipole, to be divided by its z. */
typedef struct {
    float slope[3], start[3], epipole[3];
} Line;

GEOSSL_INLINE Line line_of(const Reprojection *r, int sample, int view, int y) {
    const float *A = r->homography + ((size_t)view * r->batch + sample) * 9;
    const float *e = r->epipole + ((size_t)view * r->batch + sample) * 3;
    Line line;
    for (int i = 0; i < 3; i++) {
        line.slope[i] = A[3 * i];
        line.start[i] = A[3 * i + 1] * (float)y + A[3 * i + 2];
        line.epipole[i] = e[i];
    }
    return line;
}

/* Where row y of the target lies in the source: the upper left of four pixels, and the weights of the others. */
GEOSSL_INLINE void locate(const Reprojection *r, Line line, In depth, Scratch *s, Out hidden) {
    int width = r->width;
    float right = (float)(width - 1), bottom = (float)(r->height - 1), unseen = r->ignore ? INFINITY : 0, min_z = r->min_z;
    int last_x = width - 2, last_y = r->height - 2;
    int32_t *restrict corner = s->corner;
    Out wu = s->weight_u, wv = s->weight_v, iu = s->inside_u, iv = s->inside_v;
    GEOSSL_INDEPENDENT
    for (int x = 0; x < width; x++) {
        float d = depth[x], column = (float)x;
        float X = d * (line.slope[0] * column + line.start[0]) + line.epipole[0];
        float Y = d * (line.slope[1] * column + line.start[1]) + line.epipole[1];
        float Z = d * (line.slope[2] * column + line.start[2]) + line.epipole[2];
        int front = Z > min_z;
        float inverse = 1 / (front ? Z : 1), u = X * inverse, v = Y * inverse;
        /* Written so that NaN becomes 0: no pixel outside the image may ever be read. */
        float cu = u > 0 ? u : 0, cv = v > 0 ? v : 0;
        cu = cu < right ? cu : right;
        cv = cv < bottom ? cv : bottom;
        int x0 = (int)cu, y0 = (int)cv;
        x0 = x0 < last_x ? x0 : last_x; /* the last column is the right neighbour of the one before, with weight 1 */
        y0 = y0 < last_y ? y0 : last_y;
        corner[x] = y0 * width + x0;
        wu[x] = cu - (float)x0;
        wv[x] = cv - (float)y0;
        iu[x] = (u > 0) & (u < right) ? 1 : 0; /* a clamped coordinate has no gradient */
        iv[x] = (v > 0) & (v < bottom) ? 1 : 0;
        int seen = front & (u >= -TOLERANCE) & (u <= right + TOLERANCE) & (v >= -TOLERANCE) & (v <= bottom + TOLERANCE);
        hidden[x] = seen ? 0 : unseen;
    }
}

/* Four pixels' colours, and 0, side by side -> each colour's four pixels. */
GEOSSL_INLINE void store_colours(const Quad *pixels, float *red, float *green, float *blue) {
    Quad colours[4];
    transpose(pixels, colours);
    *(Quad *)red = colours[0];
    *(Quad *)green = colours[1];
    *(Quad *)blue = colours[2];
}

/* Bilinear samples at `locate`'s places, with their derivatives. */
GEOSSL_INLINE void sample(const float *source, int width, const Scratch *s, float *const *warped, float *const *dx,
                          float *const *dy) {
    const float *below = source + 4 * (size_t)width;
    const int32_t *corner = s->corner;
    const float *weight_u = s->weight_u, *weight_v = s->weight_v, *inside_u = s->inside_u, *inside_v = s->inside_v;
    float *w0 = warped[0], *w1 = warped[1], *w2 = warped[2];
    float *x0 = dx[0], *x1 = dx[1], *x2 = dx[2], *y0 = dy[0], *y1 = dy[1], *y2 = dy[2];
    for (int x = 0; x < width; x += 4) { /* rows have room for more than their width, and corners there are 0 */
        Quad value[4], along_u[4], along_v[4];
        for (int i = 0; i < 4; i++) {
            size_t at = 4 * (size_t)corner[x + i];
            float wu = weight_u[x + i], wv = weight_v[x + i];
            Quad left = *(const Quad *)(source + at), right = *(const Quad *)(source + at + 4);
            Quad down_left = *(const Quad *)(below + at) - left, down_right = *(const Quad *)(below + at + 4) - right;
            left += wv * down_left;
            Quad along = right + wv * down_right - left;
            value[i] = left + wu * along;
            along_u[i] = along * inside_u[x + i];
            along_v[i] = (down_left + wu * (down_right - down_left)) * inside_v[x + i];
        }
        store_colours(value, w0 + x, w1 + x, w2 + x);
        store_colours(along_u, x0 + x, x1 + x, x2 + x);
        store_colours(along_v, y0 + x, y1 + x, y2 + x);
    }
}

/* Errors of every view on row y; the target's moments are shared by the views. */
GEOSSL_INLINE void compare_views(const Reprojection *r, const float *target, int y, Scratch *s) {
    int width = r->width, height = r->height;
    float of_ssim = r->ssim_weight * (1.0f / COLOURS), of_l1 = (1 - r->ssim_weight) * (1.0f / COLOURS);
    for (int v = 0; v < r->views; v++) memcpy(s->view[v].error, s->view[v].hidden[y % 3], sizeof(float) * width);
    for (int c = 0; c < COLOURS; c++) {
        const float *b[3];
        rows_around(target + (size_t)c * height * width, y, height, width, b);
        column_sums(b, s->sum_b[c], s->square_b[c], width);
        window_moments(s->sum_b[c], s->square_b[c], s->mean_b[c], s->variance_b[c], width);
        for (int v = 0; v < r->views; v++) {
            View *w = &s->view[v];
            const float *a[3];
            for (int k = -1; k <= 1; k++) a[k + 1] = w->warped[reflected(y + k, height) % 3][c];
            column_sums_with(a, b, s->sum, s->square, s->product, width);
            compare(s->sum, s->square, s->product, s->mean_b[c], s->variance_b[c], a[1], b[1], of_ssim, of_l1, w->error,
                    w->gradient[y % 3][c], width);
        }
    }
}

/* best: the least error over views; count: of views that share it, or that have an error; total: what they share. */
GEOSSL_INLINE void combine_views(const Reprojection *r, Scratch *s) {
    int width = r->width;
    Out best = s->best, count = s->count, total = s->total;
    memcpy(best, s->view[0].error, sizeof(float) * width);
    for (int v = 1; v < r->views; v++) {
        In e = s->view[v].error;
        GEOSSL_INDEPENDENT
        for (int x = 0; x < width; x++) best[x] = e[x] < best[x] ? e[x] : best[x];
    }
    memset(count, 0, sizeof(float) * width);
    memset(total, 0, sizeof(float) * width);
    for (int v = 0; v < r->views; v++) {
        In e = s->view[v].error;
        if (r->minimum)
            GEOSSL_INDEPENDENT
            for (int x = 0; x < width; x++) count[x] += e[x] == best[x] ? 1 : 0;
        else
            GEOSSL_INDEPENDENT
            for (int x = 0; x < width; x++) {
                count[x] += e[x] < INFINITY ? 1 : 0;
                total[x] += e[x] < INFINITY ? e[x] : 0;
            }
    }
    if (r->minimum)
        memcpy(total, best, sizeof(float) * width);
    else
        GEOSSL_INDEPENDENT
        for (int x = 0; x < width; x++) total[x] = best[x] < INFINITY ? total[x] / count[x] : INFINITY;
}

/* What the row's error is, whose it is (`share` of every view), and its sums. */
GEOSSL_INLINE void decide(const Reprojection *r, int sample, int y, Scratch *s, int counted, double *sums) {
    int width = r->width, slot = y % 3;
    size_t at = ((size_t)sample * r->height + y) * width;
    In still = r->still ? r->still + at : s->zeros, best = s->best;
    Out count = s->count, total = s->total;
    int masks = r->still != NULL;
    float loss = 0, least = 0, finite = 0;
    GEOSSL_INDEPENDENT
    for (int x = 0; x < width; x++) {
        int moves = (total[x] < INFINITY) & (!masks | (total[x] < still[x]));
        count[x] = moves ? 1 / count[x] : 0;
        total[x] = moves ? total[x] : still[x]; /* still pixels keep their constant error; without a mask it is 0 */
        loss += total[x];
        least += best[x] < INFINITY ? best[x] : 0;
        finite += best[x] < INFINITY ? 1 : 0;
    }
    for (int v = 0; v < r->views; v++) {
        In e = s->view[v].error;
        Out share = s->view[v].share[slot];
        if (r->minimum)
            GEOSSL_INDEPENDENT
            for (int x = 0; x < width; x++) share[x] = e[x] == best[x] ? count[x] : 0;
        else
            GEOSSL_INDEPENDENT
            for (int x = 0; x < width; x++) share[x] = e[x] < INFINITY ? count[x] : 0;
    }
    if (!counted) return; /* a neighbouring call's row */
    sums[0] += loss;
    sums[1] += least;
    sums[2] += finite;
    if (r->error) memcpy(r->error + at, total, sizeof(float) * width);
    if (r->moving)
        GEOSSL_INDEPENDENT
        for (int x = 0; x < width; x++) r->moving[at + x] = count[x] > 0;
}

/* Column sums of one colour's gradients around row y, each weighted by the view's share of the error there. */
GEOSSL_INLINE void gather_view(const View *w, int c, int y, int height, int width, const float *zeros,
                               float *const *column) {
    const float *share[3], *windows[3][3];
    for (int k = 0; k < 3; k++) {
        int slot = (y + k + 2) % 3, inside = y + k - 1 >= 0 && y + k - 1 < height;
        share[k] = inside ? w->share[slot] : zeros;
        for (int moment = 0; moment < 3; moment++) windows[k][moment] = w->gradient[slot][c][moment];
    }
    gather_columns(windows, share, y, height, width, column);
}

/* Gradient of the mean error to the pixel that row y of a view is sampled at: grad_u, grad_v. */
GEOSSL_INLINE void to_pixels(const Reprojection *r, const float *target, int y, View *w, Scratch *s) {
    int width = r->width, height = r->height, slot = y % 3;
    float of_l1 = (1 - r->ssim_weight) * (1.0f / COLOURS);
    float *grad_u = s->grad_u, *grad_v = s->grad_v;
    memset(grad_u, 0, sizeof(float) * width);
    memset(grad_v, 0, sizeof(float) * width);
    for (int c = 0; c < COLOURS; c++) {
        gather_view(w, c, y, height, width, s->zeros, s->column);
        const float *of_mean = s->column[0], *of_square = s->column[1], *of_product = s->column[2];
        const float *a = w->warped[slot][c], *dx = w->dx[slot][c], *dy = w->dy[slot][c], *share = w->share[slot];
        const float *b = target + ((size_t)c * height + y) * width;
        GEOSSL_INDEPENDENT
        for (int x = 0; x < width; x++) {
            float g = pixel_gradient(of_mean, of_square, of_product, a[x], b[x], of_l1 * share[x], x);
            grad_u[x] += g * dx[x];
            grad_v[x] += g * dy[x];
        }
        int beside[2] = {1, width - 2}, border[2] = {0, width - 1};
        for (int i = 0; i < 2; i++) {
            int x = beside[i], o = border[i];
            float g = border_gradient(of_mean, of_square, of_product, a[x], b[x], o);
            grad_u[x] += g * dx[x];
            grad_v[x] += g * dy[x];
        }
    }
}

/* On to depth (added) and to the view's projection (summed), through u = X / Z, v = Y / Z. */
GEOSSL_INLINE void to_depth(const Reprojection *r, Line line, int y, In depth, Scratch *s, Out grad_depth, double *sums) {
    In grad_u = s->grad_u, grad_v = s->grad_v;
    float scale = r->grad_scale, min_z = r->min_z;
    float e0 = 0, e1 = 0, e2 = 0, d0 = 0, d1 = 0, d2 = 0, x0 = 0, x1 = 0, x2 = 0;
    GEOSSL_INDEPENDENT
    for (int x = 0; x < r->width; x++) {
        float d = depth[x], column = (float)x;
        float a0 = line.slope[0] * column + line.start[0], X = d * a0 + line.epipole[0];
        float a1 = line.slope[1] * column + line.start[1], Y = d * a1 + line.epipole[1];
        float a2 = line.slope[2] * column + line.start[2], Z = d * a2 + line.epipole[2];
        int front = Z > min_z;
        float inverse = 1 / (front ? Z : 1);
        float gX = grad_u[x] * inverse * scale, gY = grad_v[x] * inverse * scale;
        float gZ = front ? -(gX * X + gY * Y) * inverse : 0; /* behind, nothing is divided */
        grad_depth[x] += gX * a0 + gY * a1 + gZ * a2;
        e0 += gX;
        e1 += gY;
        e2 += gZ;
        d0 += gX * d;
        d1 += gY * d;
        d2 += gZ * d;
        x0 += gX * d * column;
        x1 += gY * d * column;
        x2 += gZ * d * column;
    }
    float along[3] = {x0, x1, x2}, once[3] = {d0, d1, d2}, epipole[3] = {e0, e1, e2};
    for (int i = 0; i < 3; i++) {
        sums[3 * i] += along[i];
        sums[3 * i + 1] += (double)once[i] * y;
        sums[3 * i + 2] += once[i];
        sums[9 + i] += epipole[i];
    }
}

/* Rows first .. last - 1 of a sample. sums: 3 + 12 V, set to those of the error (loss), of its least over views where
 * any sees the point, of such points, and gradients to every view's homography and epipole. H, W >= 2. */
GEOSSL_CLONES GEOSSL_EXPORT void geossl_reprojection(const Reprojection *r, int sample_index, int first, int last,
                                                     double *sums) {
    int height = r->height, width = r->width;
    size_t plane = (size_t)height * width;
    const float *depth = r->depth + sample_index * plane, *target = r->target + sample_index * plane * COLOURS;
    Scratch scratch, *s = &scratch;
    allocate(s, r->views, width);
    memset(sums, 0, sizeof(double) * (3 + SUMS_OF_VIEW * r->views));
    int from = first >= 2 ? first - 2 : 0, until = last + 2 <= height ? last + 2 : height;
    int fetched = from > AHEAD ? from - AHEAD : 0;
    for (int y = from; y < last + 2; y++) {
        for (; fetched < height && fetched <= y + AHEAD; fetched++)
            for (int v = 0; v < r->views; v++) {
                size_t pixel = ((size_t)v * r->batch + sample_index) * plane + (size_t)fetched * width;
                fetch(r->sources + 4 * pixel, 4 * (size_t)width);
            }
        if (y < until)
            for (int v = 0; v < r->views; v++) {
                View *w = &s->view[v];
                int slot = y % 3;
                locate(r, line_of(r, sample_index, v, y), depth + (size_t)y * width, s, w->hidden[slot]);
                const float *source = r->sources + ((size_t)v * r->batch + sample_index) * plane * 4;
                sample(source, width, s, w->warped[slot], w->dx[slot], w->dy[slot]);
                if (v == 0 && r->warped && y >= first && y < last)
                    for (int c = 0; c < COLOURS; c++)
                        memcpy(r->warped + ((size_t)sample_index * COLOURS + c) * plane + (size_t)y * width,
                               w->warped[slot][c], sizeof(float) * width);
            }
        int compared = y - 1, differentiated = y - 2;
        if (compared >= 0 && compared >= first - 1 && compared < height && compared <= last) {
            compare_views(r, target, compared, s);
            combine_views(r, s);
            decide(r, sample_index, compared, s, compared >= first && compared < last, sums);
        }
        if (differentiated >= first && differentiated < last) {
            float *grad = r->grad_depth + sample_index * plane + (size_t)differentiated * width;
            memset(grad, 0, sizeof(float) * width);
            for (int v = 0; v < r->views; v++) {
                to_pixels(r, target, differentiated, &s->view[v], s);
                to_depth(r, line_of(r, sample_index, v, differentiated), differentiated,
                         depth + (size_t)differentiated * width, s, grad, sums + 3 + SUMS_OF_VIEW * v);
            }
        }
    }
    free(s->memory);
}
