/* The algebra of the Winograd convolutions (cpu-kernels.md section 1): four schemes that differ in
 * a tile's size and in the transforms along one axis, each of which is applied to rows and columns.
 *
 * SCHEME_SAME  F(4x4, 3x3) on the points {0, +-sqrt2, +-1/sqrt2, infinity}: from windows of 6
 *     pixels at stride 4, 6 products for 4 outputs. Reversing a 3-tap filter only permutes its
 *     transform on these points, so that backward-data is the same scheme with the same weights.
 * SCHEME_SMALL  F(2x2, 3x3) on {0, 1, -1, infinity}, likewise: windows of 4 pixels at stride 2, 4
 *     products for 2 outputs. Less than half the weight's bytes, 16/9 of the products.
 * SCHEME_UPSAMPLE  the same filter over a picture whose pixels are doubled. Output 2i is E0 x[i-1]
 * + E1 x[i] and output 2i-1 is O0 x[i-1] + O1 x[i] with E0 = w0, E1 = w1+w2, O0 = w0+w1, O1 = w2;
 *     E0+E1 = O0+O1 = S. With p, q, r = x[2t-1 .. 2t+1], a = p-q, b = r-q, outputs 4t-1 .. 4t+2 are
 *     S q + {O0 a, E0 a, O1 b, E1 b}: 5 products for 4 outputs.
 * SCHEME_UPSAMPLE_BACKWARD  its transpose. With e[i] = dy[4t+2i], o[i] = dy[4t-1+2i]:
 *     dx[2t] = S(e1+o1) + E1(e0-e1) + O1(o0-o1), dx[2t+1] = S(e1+o1) + E0(e2-e1) + O0(o2-o1). */
#ifndef KERNELS_CPU_WINOGRAD_H
#define KERNELS_CPU_WINOGRAD_H

#include "kernels/cpu/conv2d.h"

#define SQRT2 1.41421356237309505f

enum scheme { SCHEME_SAME, SCHEME_SMALL, SCHEME_UPSAMPLE, SCHEME_UPSAMPLE_BACKWARD };

/* Along one axis; every window begins one pixel before a multiple of `step`. */
struct axis {
    int window, step;    /* input pixels of a tile, and from tile to tile */
    int planes;          /* combinations of them */
    int products;        /* of filters with combinations */
    int outputs, before; /* outputs of a tile, the first one this much before outputs*t */
};

enum { MOST_WINDOW = 6, MOST_PRODUCTS = 6, MOST_OUTPUTS = 4 };

ALWAYS_INLINE struct axis axis_of(enum scheme scheme)
{
    switch (scheme) {
    case SCHEME_SMALL:
        return (struct axis){4, 2, 4, 4, 2, 0};
    case SCHEME_UPSAMPLE:
        return (struct axis){3, 2, 3, 5, 4, 1};
    case SCHEME_UPSAMPLE_BACKWARD:
        return (struct axis){6, 4, 5, 5, 2, 0};
    default:
        return (struct axis){6, 4, 6, 6, 4, 0};
    }
}

/* Which combination a product takes. */
static inline int plane_of(enum scheme scheme, int product)
{
    static const int upsample[5] = {0, 0, 1, 2, 2};
    return scheme == SCHEME_UPSAMPLE ? upsample[product] : product;
}

/* Which product of the packed weight backward-data takes for one of its own. */
static inline int rotated(enum scheme scheme, int product)
{
    static const int same[6] = {5, 3, 4, 1, 2, 0}, small[4] = {3, 1, 2, 0};
    return scheme == SCHEME_SAME    ? same[product]
           : scheme == SCHEME_SMALL ? small[product]
                                    : product;
}

/* A window along one line, pixels `step` apart, to its combinations. */
ALWAYS_INLINE void transform_input(enum scheme scheme, const vector_f32 *d, int step, vector_f32 *t,
                                   int out_step)
{
    vector_f32 d0 = d[0], d1 = d[step], d2 = d[2 * step];
    if (scheme == SCHEME_UPSAMPLE) {
        t[0] = d0 - d1;
        t[out_step] = d1;
        t[2 * out_step] = d2 - d1;
        return;
    }
    vector_f32 d3 = d[3 * step];
    if (scheme == SCHEME_SMALL) {
        t[0] = d0 - d2;
        t[out_step] = d1 + d2;
        t[2 * out_step] = d2 - d1;
        t[3 * out_step] = d3 - d1;
        return;
    }
    vector_f32 d4 = d[4 * step], d5 = d[5 * step];
    if (scheme == SCHEME_UPSAMPLE_BACKWARD) {
        t[0] = d4 - d2;
        t[out_step] = d5 - d3;
        t[2 * out_step] = d2 + d3;
        t[3 * out_step] = d0 - d2;
        t[4 * out_step] = d1 - d3;
        return;
    }
    vector_f32 e = d4 - 0.5f * d2, o = SQRT2 * (d3 - 0.5f * d1);
    vector_f32 f = 2.0f * d2 - d4, p = SQRT2 * (d1 - 0.5f * d3);
    t[0] = d0 - 2.5f * d2 + d4;
    t[out_step] = e + o;
    t[2 * out_step] = e - o;
    t[3 * out_step] = f + p;
    t[4 * out_step] = f - p;
    t[5 * out_step] = d1 - 2.5f * d3 + d5;
}

/* Products along one line to outputs. */
ALWAYS_INLINE void transform_output(enum scheme scheme, const vector_f32 *m, int step,
                                    vector_f32 *y, int out_step)
{
    if (scheme == SCHEME_UPSAMPLE) {
        y[0] = m[2 * step] + m[0];
        y[out_step] = m[2 * step] + m[step];
        y[2 * out_step] = m[2 * step] + m[3 * step];
        y[3 * out_step] = m[2 * step] + m[4 * step];
        return;
    }
    if (scheme == SCHEME_UPSAMPLE_BACKWARD) {
        y[0] = m[2 * step] + (m[4 * step] + m[3 * step]);
        y[out_step] = m[2 * step] + (m[step] + m[0]);
        return;
    }
    if (scheme == SCHEME_SMALL) {
        y[0] = m[0] + m[step] + m[2 * step];
        y[out_step] = m[step] - m[2 * step] + m[3 * step];
        return;
    }
    vector_f32 p = m[step] + m[2 * step], q = m[step] - m[2 * step];
    vector_f32 r = m[3 * step] + m[4 * step], t = m[3 * step] - m[4 * step];
    y[0] = m[0] + p + 2.0f * r;
    y[out_step] = SQRT2 * (q + t);
    y[2 * out_step] = 2.0f * p + r;
    y[3 * out_step] = SQRT2 * (2.0f * q + 0.5f * t) + m[5 * step];
}

/* u = G g G^T of a 3x3 filter, in double. */
static inline void transform_filter(enum scheme scheme, const float *g,
                                    double u[MOST_PRODUCTS * MOST_PRODUCTS])
{
    const double s = 1.4142135623730951 / 6;
    const double same[6][3] = {{1, 0, 0},           {1. / 6, s, 1. / 3},  {1. / 6, -s, 1. / 3},
                               {1. / 3, s, 1. / 6}, {1. / 3, -s, 1. / 6}, {0, 0, 1}};
    const double small[4][3] = {{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}};
    const double doubled[5][3] = {{1, 1, 0}, {1, 0, 0}, {1, 1, 1}, {0, 0, 1}, {0, 1, 1}};
    const double(*G)[3] = scheme == SCHEME_SAME ? same : scheme == SCHEME_SMALL ? small : doubled;
    int products = axis_of(scheme).products;
    for (int i = 0; i < products; i++)
        for (int j = 0; j < products; j++) {
            double sum = 0;
            for (int r = 0; r < 3; r++)
                for (int c = 0; c < 3; c++)
                    sum += G[i][r] * (double)g[r * 3 + c] * G[j][c];
            u[i * products + j] = sum;
        }
}

#endif
