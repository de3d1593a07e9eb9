/* F(4x4, 3x3) on the points {0, +-sqrt2, +-1/sqrt2, infinity} (cpu-kernels.md section 1): input
 * tiles of 6x6 pixels at stride 4 are transformed to 36 positions, 36 matrix products over the
 * channels follow, and each 4x4 output tile is transformed back. Reversing a 3-tap filter only
 * permutes its transform on these points, so backward-data is the same convolution of the output's
 * gradient that reads the same packed weight at permuted positions, transposed block by block.
 *
 * The tiles are worked on strip by strip. A thread keeps a strip to itself where its V and M fit
 * into the second-level cache, that is with few channels. Otherwise (1) units transform a block of
 * tiles for some channels into V[position][tile][channel], which stays in the third-level cache;
 * (2) units multiply a block of tiles by some panels of the weight into M[position][tile][lane] in
 * the second-level cache and store its output tiles. */
#include "kernels/cpu/conv2d.h"

#include <omp.h>
#include <string.h>

#define SQRT2 1.41421356237309505f

enum {
    STRIP_TILES = 264,
    INPUT_TILES = 12,    /* of an input unit: whole blocks of TILE_ROWS */
    INPUT_CHANNELS = 64, /* of an input unit */
    UNIT_PANELS = 2,     /* of an output unit */
    UNIT_COLUMNS = UNIT_PANELS * TILE_COLUMNS,
    LEAST_UNITS = 4, /* of output in a strip, if it has the tiles */
    /* V and M of a strip that a thread works on alone, and its least tiles: fewer would read the
     * weight too often */
    OWN_BYTES = VECTOR_BYTES == 64 ? 768 << 10 : 384 << 10,
    OWN_LEAST_TILES = 24,
    /* tiles of an output unit, at most; more where it transposes its panel of the weight anew */
    UNIT_TILES = 72,
    TRANSPOSING_UNIT_TILES = 132,
    TRANSPOSE_BYTES = 12 << 20 /* a weight that backward transposes whole, at most */
};

struct winograd {
    const float *x, *weight, *bias, *residual;
    float *y;
    int64_t n, h, w, channels;  /* the convolution's own size, upsampled; its input channels */
    int64_t outputs;            /* its output channels */
    int64_t x_h, x_w, y_h, y_w; /* of the tensors in memory */
    bool backward;              /* the weight is read transposed */
    bool own_strips;
    int input_shift;  /* 1: pixels are read from a picture half the size */
    int output_shift; /* 1: sums of 2x2 outputs go to a picture half the size */
    int64_t tile_rows, tile_columns, tiles;
    int64_t strip_tiles, unit_tiles;
    int64_t v_plane, m_plane;   /* PAD_FLOATS more than needed, against strides of 4096 bytes */
    int64_t panels, panel_rows; /* of the weight that is read: panels of outputs, rows of one */
    /* zeros: a pixel of the padding; weight: the transposed one, whole; v: one, or one per thread;
     * m: one per thread; panel: a transposed one per thread */
    float *zeros, *transposed, *v, *m, *panel;
    int64_t zeros_floats, transposed_floats, v_floats, m_floats, panel_floats;
};

/* The equal parts, whole blocks of TILE_ROWS and at most `most` tiles, into which to cut `tiles`.
 */
static int64_t part_tiles(int64_t tiles, int64_t most, int64_t least_parts)
{
    int64_t parts = ceil_divide(tiles, most / TILE_ROWS * TILE_ROWS);
    parts = parts < least_parts ? least_parts : parts;
    return ceil_divide(ceil_divide(tiles, parts), TILE_ROWS) * TILE_ROWS;
}

/* Rows of a transposed panel, whose last ones may be zeros. */
static int64_t transposed_rows(const struct winograd *g)
{
    return ceil_divide(g->channels, TILE_COLUMNS) * TILE_COLUMNS;
}

/* Backward transposes a small weight once for all units of tiles, if there are several. */
static void divide_transposition(struct winograd *g)
{
    int64_t panel_floats = transposed_rows(g) * TILE_COLUMNS;
    int64_t weight_floats = g->panels * POSITIONS * panel_floats;
    int64_t unit = g->own_strips ? g->strip_tiles : TRANSPOSING_UNIT_TILES;
    if (g->tiles > 2 * unit && weight_floats * (int64_t)sizeof(float) <= TRANSPOSE_BYTES)
        g->transposed_floats = weight_floats;
    else
        g->panel_floats = panel_floats;
}

static void divide_work(struct winograd *g)
{
    int64_t channel_floats = ceil_divide(g->channels, LINE) * LINE + UNIT_COLUMNS;
    int64_t own_tiles = OWN_BYTES / (POSITIONS * channel_floats * (int64_t)sizeof(float));
    int64_t panel_units = ceil_divide(g->panels, UNIT_PANELS);
    g->own_strips = own_tiles >= OWN_LEAST_TILES && g->tiles >= LEAST_UNITS * OWN_LEAST_TILES;
    g->strip_tiles =
        g->own_strips ? part_tiles(g->tiles, own_tiles, 1) : least(g->tiles, STRIP_TILES);
    if (g->backward)
        divide_transposition(g);
    int64_t most = g->panel_floats > 0 ? TRANSPOSING_UNIT_TILES : UNIT_TILES;
    g->unit_tiles = g->own_strips
                        ? g->strip_tiles
                        : part_tiles(g->strip_tiles, most, ceil_divide(LEAST_UNITS, panel_units));
}

static void describe(struct winograd *g, const struct kernel_call *call, bool backward)
{
    const int64_t *x = call->input[0].shape, *y = call->output[0].shape;
    int upsample = call->attributes->conv2d.upsample;
    memset(g, 0, sizeof *g);
    g->x = call->input[0].data;
    g->weight = call->input[1].data;
    g->bias = backward ? NULL : call->input[2].data;
    g->residual = backward ? NULL : call->input[3].data;
    g->y = call->output[0].data;
    g->backward = backward;
    g->input_shift = !backward && upsample == 2;
    g->output_shift = backward && upsample == 2;
    g->n = x[0];
    g->x_h = x[1], g->x_w = x[2], g->y_h = y[1], g->y_w = y[2];
    g->h = x[1] << g->input_shift, g->w = x[2] << g->input_shift;
    g->channels = x[3], g->outputs = y[3];
    g->tile_rows = ceil_divide(g->h, 4), g->tile_columns = ceil_divide(g->w, 4);
    g->tiles = g->n * g->tile_rows * g->tile_columns;
    g->panels = ceil_divide(g->outputs, TILE_COLUMNS);
    g->zeros_floats = ceil_divide(g->channels, LINE) * LINE;
    g->panel_rows = g->channels;
    divide_work(g);
    g->v_plane = ceil_divide(g->strip_tiles, INPUT_TILES) * INPUT_TILES / TILE_ROWS *
                     block_floats(g->channels) +
                 PAD_FLOATS;
    g->m_plane = g->unit_tiles * UNIT_COLUMNS + PAD_FLOATS;
    g->v_floats = POSITIONS * g->v_plane;
    g->m_floats = POSITIONS * g->m_plane;
}

size_t ISA_NAME(conv2d_winograd_workspace)(const struct kernel_call *call, bool backward)
{
    struct winograd g;
    describe(&g, call, backward);
    int64_t vs = g.own_strips ? call->threads : 1;
    return (size_t)(g.zeros_floats + g.transposed_floats + vs * g.v_floats +
                    call->threads * (g.m_floats + g.panel_floats)) *
           sizeof(float);
}

/* One line of B^T: d[0..5] (step apart) to t[0..5] (out_step apart). */
ALWAYS_INLINE void transform_input(const vector_f32 *d, int step, vector_f32 *t, int out_step)
{
    vector_f32 d0 = d[0], d1 = d[step], d2 = d[2 * step];
    vector_f32 d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    vector_f32 e = d4 - 0.5f * d2, o = SQRT2 * (d3 - 0.5f * d1);
    vector_f32 f = 2.0f * d2 - d4, p = SQRT2 * (d1 - 0.5f * d3);
    t[0] = d0 - 2.5f * d2 + d4;
    t[out_step] = e + o;
    t[2 * out_step] = e - o;
    t[3 * out_step] = f + p;
    t[4 * out_step] = f - p;
    t[5 * out_step] = d1 - 2.5f * d3 + d5;
}

/* One line of A^T: m[0..5] to y[0..3]. */
ALWAYS_INLINE void transform_output(const vector_f32 *m, int step, vector_f32 *y, int out_step)
{
    vector_f32 p = m[step] + m[2 * step], q = m[step] - m[2 * step];
    vector_f32 r = m[3 * step] + m[4 * step], t = m[3 * step] - m[4 * step];
    y[0] = m[0] + p + 2.0f * r;
    y[out_step] = SQRT2 * (q + t);
    y[2 * out_step] = 2.0f * p + r;
    y[3 * out_step] = SQRT2 * (2.0f * q + 0.5f * t) + m[5 * step];
}

struct tile_place {
    int64_t n, row, column; /* of the tile's first output pixel */
};

static struct tile_place place_of(const struct winograd *g, int64_t tile)
{
    int64_t per_picture = g->tile_rows * g->tile_columns;
    return (struct tile_place){tile / per_picture, tile % per_picture / g->tile_columns * 4,
                               tile % g->tile_columns * 4};
}

/* Step 1 */

/* Where each pixel of the input tile begins. */
static void input_pixels(const struct winograd *g, int64_t tile, const float *pixel[POSITIONS])
{
    struct tile_place at = place_of(g, tile);
    int64_t column[6];
    for (int j = 0; j < 6; j++) {
        int64_t w = at.column - 1 + j;
        column[j] = w >= 0 && w < g->w ? (w >> g->input_shift) * g->channels : -1;
    }
    for (int i = 0; i < 6; i++) {
        int64_t h = at.row - 1 + i;
        bool inside = h >= 0 && h < g->h;
        const float *row =
            g->x + (at.n * g->x_h + (inside ? h >> g->input_shift : 0)) * g->x_w * g->channels;
        for (int j = 0; j < 6; j++)
            pixel[i * 6 + j] = inside && column[j] >= 0 ? row + column[j] : g->zeros;
    }
}

ALWAYS_INLINE void transform_pixels(const float *const pixel[POSITIONS], int64_t channel,
                                    int64_t left, float *v, int64_t v_plane)
{
    vector_f32 d[6], t[POSITIONS], line[6];
    for (int column = 0; column < 6; column++) {
        for (int row = 0; row < 6; row++)
            d[row] = vector_load_some(pixel[row * 6 + column] + channel, left);
        transform_input(d, 1, t + column, 6);
    }
    for (int row = 0; row < 6; row++) {
        transform_input(t + row * 6, 1, line, 1);
        for (int column = 0; column < 6; column++)
            vector_store(v + (row * 6 + column) * v_plane, line[column]);
    }
}

/* Rows behind the strip's last tile, up to a whole block, become zeros. */
static void clear_row(const struct winograd *g, float *v, int64_t row, int64_t channel,
                      int64_t channel_end)
{
    for (int position = 0; position < POSITIONS; position++)
        for (int64_t c = channel; c < channel_end; c += LANES)
            vector_store(v + position * g->v_plane + row_offset(row, c, g->channels),
                         (vector_f32){0});
}

static void input_unit(const struct winograd *g, int64_t strip, int64_t first, int64_t end,
                       int64_t channel, int64_t channel_end)
{
    for (int64_t tile = first; tile < end; tile++) {
        const float *pixel[POSITIONS];
        input_pixels(g, tile, pixel);
        for (int64_t c = channel; c < channel_end; c += LANES) {
            float *v = g->v + row_offset(tile - strip, c, g->channels);
            if (c + LANES <= channel_end)
                transform_pixels(pixel, c, LANES, v, g->v_plane);
            else
                transform_pixels(pixel, c, channel_end - c, v, g->v_plane);
        }
    }
    for (int64_t row = end - strip; row % TILE_ROWS; row++)
        clear_row(g, g->v, row, channel, channel_end);
}

/* Step 2 */

/* Position (i, j) of the weight's transform as the rotated filter has it. */
static int rotated_position(int position)
{
    static const int permutation[6] = {5, 3, 4, 1, 2, 0};
    return permutation[position / 6] * 6 + permutation[position % 6];
}

/* Lane l of the two rows that exchange bit s of row and lane number (of row p with the bit clear,
 * of q with it set). */
#define LOW(l, s)     ((l) & (s) ? LANES + (l) - (s) : (l))
#define HIGH(l, s)    ((l) & (s) ? LANES + (l) : (l) + (s))
#define FOUR(m, l, s) m((l), s), m((l) + 1, s), m((l) + 2, s), m((l) + 3, s)
#if VECTOR_BYTES == 16
#define EACH_LANE(m, s) FOUR(m, 0, s)
#elif VECTOR_BYTES == 32
#define EACH_LANE(m, s) FOUR(m, 0, s), FOUR(m, 4, s)
#else
#define EACH_LANE(m, s) FOUR(m, 0, s), FOUR(m, 4, s), FOUR(m, 8, s), FOUR(m, 12, s)
#endif
#define EXCHANGE_BIT(a, s)                                                                         \
    for (int i = 0; i < LANES; i++)                                                                \
        if (!(i & (s))) {                                                                          \
            vector_f32 p = a[i], q = a[i | (s)];                                                   \
            a[i] = __builtin_shufflevector(p, q, EACH_LANE(LOW, s));                               \
            a[i | (s)] = __builtin_shufflevector(p, q, EACH_LANE(HIGH, s));                        \
        }

/* LANES x LANES numbers at `from` to `to`, transposed; rows lie `stride` apart in both. */
ALWAYS_INLINE void transpose_square(const float *from, float *to, int64_t stride)
{
    vector_f32 a[LANES];
    for (int i = 0; i < LANES; i++)
        a[i] = vector_load(from + i * stride);
    EXCHANGE_BIT(a, 1)
    EXCHANGE_BIT(a, 2)
#if VECTOR_BYTES >= 32
    EXCHANGE_BIT(a, 4)
#endif
#if VECTOR_BYTES >= 64
    EXCHANGE_BIT(a, 8)
#endif
    for (int i = 0; i < LANES; i++)
        vector_store(to + i * stride, a[i]);
}

/* Where the weight of a position and panel begins. A backward panel is a block of TILE_COLUMNS rows
 * out of every forward panel, weight_step() apart. */
static const float *weight_at(const struct winograd *g, int position, int64_t panel)
{
    if (g->backward)
        return g->weight +
               (rotated_position(position) * g->outputs + panel * TILE_COLUMNS) * TILE_COLUMNS;
    return g->weight + (panel * POSITIONS + position) * g->panel_rows * TILE_COLUMNS;
}

static int64_t weight_step(const struct winograd *g)
{
    return (g->backward ? POSITIONS * g->outputs : TILE_COLUMNS) * TILE_COLUMNS;
}

/* The transposed panel as [channel][lane]: `channel` counts the forward outputs, `lane` the forward
 * inputs from panel*TILE_COLUMNS on. */
static void transpose_panel(const struct winograd *g, int position, int64_t panel, float *to)
{
    const float *from = weight_at(g, position, panel);
    int64_t lanes = least(TILE_COLUMNS, g->outputs - panel * TILE_COLUMNS);
    for (int64_t c = 0; c < g->channels; c += TILE_COLUMNS) {
        for (int i = 0; i < 2 && lanes == TILE_COLUMNS; i++)
            for (int j = 0; j < 2; j++)
                transpose_square(from + i * LANES * TILE_COLUMNS + j * LANES,
                                 to + j * LANES * TILE_COLUMNS + i * LANES, TILE_COLUMNS);
        for (int64_t k = 0; k < TILE_COLUMNS && lanes < TILE_COLUMNS; k++)
            for (int64_t lane = 0; lane < TILE_COLUMNS; lane++)
                to[k * TILE_COLUMNS + lane] = lane < lanes ? from[lane * TILE_COLUMNS + k] : 0;
        from += weight_step(g);
        to += TILE_COLUMNS * TILE_COLUMNS;
    }
}

/* The whole weight, as the forward convolution has it. */
static void transpose_weight(const struct winograd *g)
{
#pragma omp for schedule(static)
    for (int64_t i = 0; i < g->panels * POSITIONS; i++)
        transpose_panel(g, (int)(i % POSITIONS), i / POSITIONS,
                        g->transposed + i * transposed_rows(g) * TILE_COLUMNS);
}

ALWAYS_INLINE void store_outputs(const struct winograd *g, const struct tile_place *at,
                                 int64_t channel, int64_t left, const vector_f32 y[16])
{
    vector_f32 bias = {0};
    if (g->bias)
        bias = vector_load_some(g->bias + channel, left);
    for (int i = 0; i < 16; i++) {
        int64_t h = at->row + i / 4, w = at->column + i % 4;
        if (h >= g->h || w >= g->w)
            continue;
        int64_t offset = ((at->n * g->y_h + h) * g->y_w + w) * g->outputs + channel;
        vector_f32 result = y[i] + bias;
        if (g->residual)
            result += vector_load_some(g->residual + offset, left);
        vector_store_some(g->y + offset, result, left);
    }
}

ALWAYS_INLINE void store_sums(const struct winograd *g, const struct tile_place *at,
                              int64_t channel, int64_t left, const vector_f32 y[16])
{
    for (int i = 0; i < 4; i++) {
        int64_t h = at->row / 2 + i / 2, w = at->column / 2 + i % 2;
        const vector_f32 *corner = y + i / 2 * 8 + i % 2 * 2;
        if (h < g->y_h && w < g->y_w)
            vector_store_some(g->y + ((at->n * g->y_h + h) * g->y_w + w) * g->outputs + channel,
                              corner[0] + corner[1] + corner[4] + corner[5], left);
    }
}

/* One tile's lanes of M back to pixels. */
ALWAYS_INLINE void output_vector(const struct winograd *g, const float *m,
                                 const struct tile_place *at, int64_t channel, int64_t left)
{
    vector_f32 d[6], t[24], y[16];
    for (int column = 0; column < 6; column++) {
        for (int row = 0; row < 6; row++)
            d[row] = vector_load(m + (row * 6 + column) * g->m_plane);
        transform_output(d, 1, t + column, 6);
    }
    for (int row = 0; row < 4; row++)
        transform_output(t + row * 6, 1, y + row * 4, 1);
    if (g->output_shift)
        store_sums(g, at, channel, left, y);
    else
        store_outputs(g, at, channel, left, y);
}

static void output_tile(const struct winograd *g, const float *m, int64_t tile, int64_t channel,
                        int64_t channel_end)
{
    struct tile_place at = place_of(g, tile);
    for (int64_t c = channel; c < channel_end; c += LANES) {
        if (channel_end - c >= LANES)
            output_vector(g, m + c - channel, &at, c, LANES);
        else
            output_vector(g, m + c - channel, &at, c, channel_end - c);
    }
}

/* M of one unit. Whatever comes next, in order of work, is fetched meanwhile. */
static void multiply_unit(const struct winograd *g, const float *v, int64_t blocks, int64_t panel)
{
    int64_t panels = least(UNIT_PANELS, g->panels - panel);
    struct product product = {.blocks = blocks,
                              .depth = g->channels,
                              .c_stride = UNIT_COLUMNS,
                              .next_b_step = weight_step(g)};
    for (int step = 0; step < POSITIONS * panels; step++) {
        int position = (int)(step / panels), next = (step + 1) % (POSITIONS * (int)panels);
        int64_t p = step % panels;
        product.a = v + position * g->v_plane;
        product.b = weight_at(g, position, panel + p);
        if (g->backward) {
            transpose_panel(g, position, panel + p, g->panel);
            product.b = g->panel;
        }
        product.c = g->m + position * g->m_plane + p * TILE_COLUMNS;
        product.next_a = v + (position + 1) % POSITIONS * g->v_plane;
        product.next_b = weight_at(g, (int)(next / panels), panel + next % panels);
        multiply(&product);
    }
}

static void output_unit(const struct winograd *g, int64_t strip, int64_t first, int64_t end,
                        int64_t panel)
{
    multiply_unit(g, g->v + row_offset(first - strip, 0, g->channels),
                  ceil_divide(end - first, TILE_ROWS), panel);
    int64_t channel = panel * TILE_COLUMNS;
    for (int64_t tile = first; tile < end; tile++)
        output_tile(g, g->m + (tile - first) * UNIT_COLUMNS, tile, channel,
                    least(g->outputs, channel + UNIT_COLUMNS));
}

/* A strip for this thread alone. */
static void run_own_strip(const struct winograd *g, int64_t strip)
{
    int64_t end = least(g->tiles, strip + g->strip_tiles);
    input_unit(g, strip, strip, end, 0, g->channels);
    for (int64_t panel = 0; panel < g->panels; panel += UNIT_PANELS)
        output_unit(g, strip, strip, end, panel);
}

/* A strip for all threads. */
static void run_strip(const struct winograd *g, int64_t strip)
{
    int64_t end = least(g->tiles, strip + g->strip_tiles);
    int64_t tile_units = ceil_divide(end - strip, INPUT_TILES);
    int64_t channel_units = ceil_divide(g->channels, INPUT_CHANNELS);
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < tile_units * channel_units; unit++) {
        int64_t first = strip + unit % tile_units * INPUT_TILES;
        int64_t channel = unit / tile_units * INPUT_CHANNELS;
        input_unit(g, strip, first, least(end, first + INPUT_TILES), channel,
                   least(g->channels, channel + INPUT_CHANNELS));
    }
    int64_t blocks = ceil_divide(end - strip, g->unit_tiles);
    int64_t panel_units = ceil_divide(g->panels, UNIT_PANELS);
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < blocks * panel_units; unit++) {
        int64_t first = strip + unit % blocks * g->unit_tiles;
        output_unit(g, strip, first, least(end, first + g->unit_tiles),
                    unit / blocks * UNIT_PANELS);
    }
}

/* One thread's part; g is its own copy. */
static void run_thread(struct winograd *g, int thread)
{
    g->v += g->own_strips ? thread * g->v_floats : 0;
    g->m += thread * g->m_floats;
    g->panel += thread * g->panel_floats;
    if (g->transposed_floats) {
        transpose_weight(g);
        g->weight = g->transposed;
        g->panel_rows = transposed_rows(g);
        g->backward = false;
    }
    if (g->own_strips) {
#pragma omp for schedule(dynamic)
        for (int64_t strip = 0; strip < g->tiles; strip += g->strip_tiles)
            run_own_strip(g, strip);
        return;
    }
    for (int64_t strip = 0; strip < g->tiles; strip += g->strip_tiles)
        run_strip(g, strip);
}

void ISA_NAME(conv2d_winograd)(const struct kernel_call *call, bool backward)
{
    struct winograd g;
    describe(&g, call, backward);
    g.zeros = call->workspace;
    g.transposed = g.zeros + g.zeros_floats;
    g.v = g.transposed + g.transposed_floats;
    g.m = g.v + (g.own_strips ? call->threads : 1) * g.v_floats;
    g.panel = g.m + call->threads * g.m_floats;
    memset(g.zeros, 0, (size_t)g.zeros_floats * sizeof(float));
#pragma omp parallel num_threads(call->threads)
    {
        struct winograd own = g;
        run_thread(&own, omp_get_thread_num());
    }
}

/* Packing: U = G g G^T in double, rounded once. */

static void transform_filter(const float *g, double u[POSITIONS])
{
    const double s = 1.4142135623730951 / 6;
    const double G[6][3] = {{1, 0, 0},           {1. / 6, s, 1. / 3},  {1. / 6, -s, 1. / 3},
                            {1. / 3, s, 1. / 6}, {1. / 3, -s, 1. / 6}, {0, 0, 1}};
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++) {
            double sum = 0;
            for (int r = 0; r < 3; r++)
                for (int c = 0; c < 3; c++)
                    sum += G[i][r] * (double)g[r * 3 + c] * G[j][c];
            u[i * 6 + j] = sum;
        }
}

size_t ISA_NAME(conv2d_winograd_bytes)(const int64_t shape[4])
{
    return (size_t)(ceil_divide(shape[0], TILE_COLUMNS) * TILE_COLUMNS * shape[1] * POSITIONS) *
           sizeof(float);
}

void ISA_NAME(conv2d_winograd_pack)(const int64_t shape[4], const float *oihw, float *packed,
                                    int threads)
{
    int64_t panels = ceil_divide(shape[0], TILE_COLUMNS);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t panel = 0; panel < panels; panel++)
        for (int64_t i = 0; i < shape[1] * TILE_COLUMNS; i++) {
            int64_t output = panel * TILE_COLUMNS + i % TILE_COLUMNS, input = i / TILE_COLUMNS;
            double u[POSITIONS] = {0};
            if (output < shape[0])
                transform_filter(oihw + (output * shape[1] + input) * 9, u);
            for (int position = 0; position < POSITIONS; position++)
                packed[((panel * POSITIONS + position) * shape[1] + input) * TILE_COLUMNS +
                       i % TILE_COLUMNS] = (float)u[position];
        }
}
