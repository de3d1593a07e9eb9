/* Winograd convolutions by the schemes of winograd.h: windows of input pixels are transformed to
 * planes, a matrix product over the channels follows for each position of a tile, and each tile of
 * outputs is transformed back. Backward-data reads the same packed weight at permuted positions,
 * transposed block by block.
 *
 * The tiles are worked on strip by strip. A thread keeps a strip to itself where its V and M fit
 * into the second-level cache, that is with few channels. Otherwise (1) units transform a block of
 * tiles for some channels into V[plane][tile][channel], which stays in the third-level cache;
 * (2) units multiply a block of tiles by some panels of the weight into M[position][tile][lane] in
 * the second-level cache and store its output tiles. */
#include "kernels/cpu/winograd.h"

#include <omp.h>
#include <string.h>

enum {
    STRIP_PLANES = 264 * 36, /* tiles of a strip times planes of V */
    INPUT_TILES = 12,        /* of an input unit: whole blocks of TILE_ROWS */
    INPUT_CHANNELS = 64,     /* of an input unit */
    UNIT_PANELS = 2,         /* of an output unit */
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
    enum scheme scheme;
    struct axis axis;
    int positions, planes; /* of M and V: products and combinations along both axes */
    int64_t n, x_h, x_w, y_h, y_w;
    int64_t channels, outputs; /* of x and y */
    bool backward;             /* the weight is read transposed */
    bool own_strips;
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
    int64_t weight_floats = g->panels * g->positions * panel_floats;
    int64_t unit = g->own_strips ? g->strip_tiles : TRANSPOSING_UNIT_TILES;
    if (g->tiles > 2 * unit && weight_floats * (int64_t)sizeof(float) <= TRANSPOSE_BYTES)
        g->transposed_floats = weight_floats;
    else
        g->panel_floats = panel_floats;
}

static void divide_work(struct winograd *g)
{
    int64_t tile_floats =
        g->planes * ceil_divide(g->channels, LINE) * LINE + g->positions * UNIT_COLUMNS;
    int64_t own_tiles = OWN_BYTES / (tile_floats * (int64_t)sizeof(float));
    int64_t strip_tiles = STRIP_PLANES / g->planes / INPUT_TILES * INPUT_TILES;
    int64_t panel_units = ceil_divide(g->panels, UNIT_PANELS);
    g->own_strips = own_tiles >= OWN_LEAST_TILES && g->tiles >= LEAST_UNITS * OWN_LEAST_TILES;
    g->strip_tiles =
        g->own_strips ? part_tiles(g->tiles, own_tiles, 1) : least(g->tiles, strip_tiles);
    if (g->backward)
        divide_transposition(g);
    int64_t most = g->panel_floats > 0 ? TRANSPOSING_UNIT_TILES : UNIT_TILES;
    g->unit_tiles = g->own_strips
                        ? g->strip_tiles
                        : part_tiles(g->strip_tiles, most, ceil_divide(LEAST_UNITS, panel_units));
}

static enum scheme scheme_of(enum weight_form form, bool backward)
{
    if (form == WEIGHT_UPSAMPLE)
        return backward ? SCHEME_UPSAMPLE_BACKWARD : SCHEME_UPSAMPLE;
    return form == WEIGHT_WINOGRAD_SMALL ? SCHEME_SMALL : SCHEME_SAME;
}

static void describe(struct winograd *g, const struct kernel_call *call, bool backward)
{
    const int64_t *x = call->input[0].shape, *y = call->output[0].shape;
    memset(g, 0, sizeof *g);
    g->x = call->input[0].data;
    g->weight = call->input[1].data;
    g->bias = backward ? NULL : call->input[2].data;
    g->residual = backward ? NULL : call->input[3].data;
    g->y = call->output[0].data;
    g->backward = backward;
    g->scheme = scheme_of(call->attributes->conv2d.form, backward);
    g->axis = axis_of(g->scheme);
    g->positions = g->axis.products * g->axis.products;
    g->planes = g->axis.planes * g->axis.planes;
    g->n = x[0];
    g->x_h = x[1], g->x_w = x[2], g->y_h = y[1], g->y_w = y[2];
    g->channels = x[3], g->outputs = y[3];
    g->tile_rows = ceil_divide(g->y_h + g->axis.before, g->axis.outputs);
    g->tile_columns = ceil_divide(g->y_w + g->axis.before, g->axis.outputs);
    g->tiles = g->n * g->tile_rows * g->tile_columns;
    g->panels = ceil_divide(g->outputs, TILE_COLUMNS);
    g->zeros_floats = ceil_divide(g->channels, LINE) * LINE;
    g->panel_rows = g->channels;
    divide_work(g);
    g->v_plane = ceil_divide(g->strip_tiles, INPUT_TILES) * INPUT_TILES / TILE_ROWS *
                     block_floats(g->channels) +
                 PAD_FLOATS;
    g->m_plane = g->unit_tiles * UNIT_COLUMNS + PAD_FLOATS;
    g->v_floats = g->planes * g->v_plane;
    g->m_floats = g->positions * g->m_plane;
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

/* A tile's picture and place among its tiles. */
struct tile_place {
    int64_t n, row, column;
};

static struct tile_place place_of(const struct winograd *g, int64_t tile)
{
    int64_t per_picture = g->tile_rows * g->tile_columns;
    return (struct tile_place){tile / per_picture, tile % per_picture / g->tile_columns,
                               tile % g->tile_columns};
}

/* Step 1 */

enum { WINDOW_PIXELS = MOST_WINDOW * MOST_WINDOW };

/* Where each pixel of a tile's window begins. */
static void window_pixels(const struct winograd *g, int64_t tile, const float *pixel[WINDOW_PIXELS])
{
    struct tile_place at = place_of(g, tile);
    int window = g->axis.window;
    for (int i = 0; i < window; i++) {
        int64_t h = at.row * g->axis.step - 1 + i;
        const float *row = g->x + (at.n * g->x_h + h) * g->x_w * g->channels;
        for (int j = 0; j < window; j++) {
            int64_t w = at.column * g->axis.step - 1 + j;
            bool inside = h >= 0 && h < g->x_h && w >= 0 && w < g->x_w;
            pixel[i * window + j] = inside ? row + w * g->channels : g->zeros;
        }
    }
}

ALWAYS_INLINE void transform_pixels(enum scheme scheme, const float *const pixel[WINDOW_PIXELS],
                                    int64_t channel, int64_t left, float *v, int64_t v_plane)
{
    const struct axis axis = axis_of(scheme);
    vector_f32 d[MOST_WINDOW], t[MOST_PRODUCTS * MOST_WINDOW], line[MOST_PRODUCTS];
    for (int column = 0; column < axis.window; column++) {
        for (int row = 0; row < axis.window; row++)
            d[row] = vector_load_some(pixel[row * axis.window + column] + channel, left);
        transform_input(scheme, d, 1, t + column, axis.window);
    }
    for (int row = 0; row < axis.planes; row++) {
        transform_input(scheme, t + row * axis.window, 1, line, 1);
        for (int column = 0; column < axis.planes; column++)
            vector_store(v + (row * axis.planes + column) * v_plane, line[column]);
    }
}

/* The windows of tiles [first, end) for channels [channel, channel_end). */
ALWAYS_INLINE void transform_windows(const struct winograd *g, enum scheme scheme, int64_t strip,
                                     int64_t first, int64_t end, int64_t channel,
                                     int64_t channel_end)
{
    for (int64_t tile = first; tile < end; tile++) {
        const float *pixel[WINDOW_PIXELS];
        window_pixels(g, tile, pixel);
        for (int64_t c = channel; c < channel_end; c += LANES) {
            float *v = g->v + row_offset(tile - strip, c, g->channels);
            if (c + LANES <= channel_end)
                transform_pixels(scheme, pixel, c, LANES, v, g->v_plane);
            else
                transform_pixels(scheme, pixel, c, channel_end - c, v, g->v_plane);
        }
    }
}

/* Rows behind the strip's last tile, up to a whole block, become zeros. */
static void clear_row(const struct winograd *g, float *v, int64_t row, int64_t channel,
                      int64_t channel_end)
{
    for (int plane = 0; plane < g->planes; plane++)
        for (int64_t c = channel; c < channel_end; c += LANES)
            vector_store(v + plane * g->v_plane + row_offset(row, c, g->channels), (vector_f32){0});
}

static void input_unit(const struct winograd *g, int64_t strip, int64_t first, int64_t end,
                       int64_t channel, int64_t channel_end)
{
    if (g->scheme == SCHEME_SAME)
        transform_windows(g, SCHEME_SAME, strip, first, end, channel, channel_end);
    else if (g->scheme == SCHEME_SMALL)
        transform_windows(g, SCHEME_SMALL, strip, first, end, channel, channel_end);
    else if (g->scheme == SCHEME_UPSAMPLE)
        transform_windows(g, SCHEME_UPSAMPLE, strip, first, end, channel, channel_end);
    else
        transform_windows(g, SCHEME_UPSAMPLE_BACKWARD, strip, first, end, channel, channel_end);
    for (int64_t row = end - strip; row % TILE_ROWS; row++)
        clear_row(g, g->v, row, channel, channel_end);
}

/* Step 2 */

/* A position's plane of V. */
static int plane_at(const struct winograd *g, int position)
{
    int products = g->axis.products;
    return plane_of(g->scheme, position / products) * g->axis.planes +
           plane_of(g->scheme, position % products);
}

/* The position of the packed weight that backward-data takes. */
static int rotated_position(const struct winograd *g, int position)
{
    int products = g->axis.products;
    return rotated(g->scheme, position / products) * products +
           rotated(g->scheme, position % products);
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
               (rotated_position(g, position) * g->outputs + panel * TILE_COLUMNS) * TILE_COLUMNS;
    return g->weight + (panel * g->positions + position) * g->panel_rows * TILE_COLUMNS;
}

static int64_t weight_step(const struct winograd *g)
{
    return (g->backward ? g->positions * g->outputs : TILE_COLUMNS) * TILE_COLUMNS;
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
    for (int64_t i = 0; i < g->panels * g->positions; i++)
        transpose_panel(g, (int)(i % g->positions), i / g->positions,
                        g->transposed + i * transposed_rows(g) * TILE_COLUMNS);
}

ALWAYS_INLINE void store_outputs(const struct winograd *g, const struct axis *axis,
                                 const struct tile_place *at, int64_t channel, int64_t left,
                                 const vector_f32 *y)
{
    vector_f32 bias = {0};
    if (g->bias)
        bias = vector_load_some(g->bias + channel, left);
    for (int i = 0; i < axis->outputs * axis->outputs; i++) {
        int64_t h = at->row * axis->outputs - axis->before + i / axis->outputs;
        int64_t w = at->column * axis->outputs - axis->before + i % axis->outputs;
        if (h < 0 || h >= g->y_h || w < 0 || w >= g->y_w)
            continue;
        int64_t offset = ((at->n * g->y_h + h) * g->y_w + w) * g->outputs + channel;
        vector_f32 result = y[i] + bias;
        if (g->residual)
            result += vector_load_some(g->residual + offset, left);
        vector_store_some(g->y + offset, result, left);
    }
}

/* One tile's lanes of M back to pixels. */
ALWAYS_INLINE void output_vector(const struct winograd *g, enum scheme scheme, const float *m,
                                 const struct tile_place *at, int64_t channel, int64_t left)
{
    const struct axis axis = axis_of(scheme);
    vector_f32 d[MOST_PRODUCTS], t[MOST_OUTPUTS * MOST_PRODUCTS], y[MOST_OUTPUTS * MOST_OUTPUTS];
    for (int column = 0; column < axis.products; column++) {
        for (int row = 0; row < axis.products; row++)
            d[row] = vector_load(m + (row * axis.products + column) * g->m_plane);
        transform_output(scheme, d, 1, t + column, axis.products);
    }
    for (int row = 0; row < axis.outputs; row++)
        transform_output(scheme, t + row * axis.products, 1, y + row * axis.outputs, 1);
    store_outputs(g, &axis, at, channel, left, y);
}

ALWAYS_INLINE void output_tile(const struct winograd *g, enum scheme scheme, const float *m,
                               int64_t tile, int64_t channel, int64_t channel_end)
{
    struct tile_place at = place_of(g, tile);
    for (int64_t c = channel; c < channel_end; c += LANES) {
        if (channel_end - c >= LANES)
            output_vector(g, scheme, m + c - channel, &at, c, LANES);
        else
            output_vector(g, scheme, m + c - channel, &at, c, channel_end - c);
    }
}

ALWAYS_INLINE void output_tiles(const struct winograd *g, enum scheme scheme, int64_t first,
                                int64_t end, int64_t channel)
{
    for (int64_t tile = first; tile < end; tile++)
        output_tile(g, scheme, g->m + (tile - first) * UNIT_COLUMNS, tile, channel,
                    least(g->outputs, channel + UNIT_COLUMNS));
}

/* M of one unit. Whatever comes next, in order of work, is fetched meanwhile. */
static void multiply_unit(const struct winograd *g, const float *v, int64_t blocks, int64_t panel)
{
    int64_t panels = least(UNIT_PANELS, g->panels - panel);
    struct product product = {.blocks = blocks,
                              .depth = g->channels,
                              .c_stride = UNIT_COLUMNS,
                              .next_b_step = weight_step(g)};
    int steps = g->positions * (int)panels;
    for (int step = 0; step < steps; step++) {
        int position = (int)(step / panels), next = (step + 1) % steps;
        int64_t p = step % panels;
        product.a = v + plane_at(g, position) * g->v_plane;
        product.b = weight_at(g, position, panel + p);
        if (g->backward) {
            transpose_panel(g, position, panel + p, g->panel);
            product.b = g->panel;
        }
        product.c = g->m + position * g->m_plane + p * TILE_COLUMNS;
        product.next_a = v + plane_at(g, (position + 1) % g->positions) * g->v_plane;
        product.next_b = weight_at(g, (int)(next / panels), panel + next % panels);
        multiply(&product);
    }
}

static void store_unit(const struct winograd *g, int64_t first, int64_t end, int64_t panel)
{
    int64_t channel = panel * TILE_COLUMNS;
    if (g->scheme == SCHEME_SAME)
        output_tiles(g, SCHEME_SAME, first, end, channel);
    else if (g->scheme == SCHEME_SMALL)
        output_tiles(g, SCHEME_SMALL, first, end, channel);
    else if (g->scheme == SCHEME_UPSAMPLE)
        output_tiles(g, SCHEME_UPSAMPLE, first, end, channel);
    else
        output_tiles(g, SCHEME_UPSAMPLE_BACKWARD, first, end, channel);
}

static void output_unit(const struct winograd *g, int64_t strip, int64_t first, int64_t end,
                        int64_t panel)
{
    multiply_unit(g, g->v + row_offset(first - strip, 0, g->channels),
                  ceil_divide(end - first, TILE_ROWS), panel);
    store_unit(g, first, end, panel);
}

/* A strip for this thread alone. */
static void run_own_strip(const struct winograd *g, int64_t strip)
{
    int64_t end = least(g->tiles, strip + g->strip_tiles);
    input_unit(g, strip, strip, end, 0, g->channels);
    for (int64_t panel = 0; panel < g->panels; panel += UNIT_PANELS)
        output_unit(g, strip, strip, end, panel);
}

/* V of a strip, by all threads. */
static void transform_strip(const struct winograd *g, int64_t strip)
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
}

/* A strip for all threads. */
static void run_strip(const struct winograd *g, int64_t strip)
{
    int64_t end = least(g->tiles, strip + g->strip_tiles);
    transform_strip(g, strip);
    int64_t blocks = ceil_divide(end - strip, g->unit_tiles);
    int64_t panel_units = ceil_divide(g->panels, UNIT_PANELS);
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < blocks * panel_units; unit++) {
        int64_t first = strip + unit % blocks * g->unit_tiles;
        output_unit(g, strip, first, least(end, first + g->unit_tiles),
                    unit / blocks * UNIT_PANELS);
    }
}

/* Turns a copy of the work into one thread's part of it. */
static void own_work(struct winograd *g, int thread)
{
    g->v += g->own_strips ? thread * g->v_floats : 0;
    g->m += thread * g->m_floats;
    g->panel += thread * g->panel_floats;
}

/* From here on the weight is the transposed one, which `make` first makes. */
static void use_transposed(struct winograd *g, bool make)
{
    if (make)
        transpose_weight(g);
    g->weight = g->transposed;
    g->panel_rows = transposed_rows(g);
    g->backward = false;
}

static void run_thread(struct winograd *g, int thread)
{
    own_work(g, thread);
    if (g->transposed_floats)
        use_transposed(g, true);
    if (g->own_strips) {
#pragma omp for schedule(dynamic)
        for (int64_t strip = 0; strip < g->tiles; strip += g->strip_tiles)
            run_own_strip(g, strip);
        return;
    }
    for (int64_t strip = 0; strip < g->tiles; strip += g->strip_tiles)
        run_strip(g, strip);
}

static void open_work(struct winograd *g, const struct kernel_call *call, bool backward)
{
    describe(g, call, backward);
    g->zeros = call->workspace;
    g->transposed = g->zeros + g->zeros_floats;
    g->v = g->transposed + g->transposed_floats;
    g->m = g->v + (g->own_strips ? call->threads : 1) * g->v_floats;
    g->panel = g->m + call->threads * g->m_floats;
    memset(g->zeros, 0, (size_t)g->zeros_floats * sizeof(float));
}

void ISA_NAME(conv2d_winograd)(const struct kernel_call *call, bool backward)
{
    struct winograd g;
    open_work(&g, call, backward);
#pragma omp parallel num_threads(call->threads)
    {
        struct winograd own = g;
        run_thread(&own, omp_get_thread_num());
    }
}

/* Packing: transformed in double, rounded once. */

static int packed_positions(enum weight_form form)
{
    int products = axis_of(scheme_of(form, false)).products;
    return products * products;
}

size_t ISA_NAME(conv2d_winograd_bytes)(const int64_t shape[4], enum weight_form form)
{
    int64_t panel_floats = packed_positions(form) * shape[1] * TILE_COLUMNS;
    return (size_t)(ceil_divide(shape[0], TILE_COLUMNS) * panel_floats) * sizeof(float);
}

void ISA_NAME(conv2d_winograd_pack)(const int64_t shape[4], enum weight_form form,
                                    const float *oihw, float *packed, int threads)
{
    int64_t panels = ceil_divide(shape[0], TILE_COLUMNS), positions = packed_positions(form);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t panel = 0; panel < panels; panel++)
        for (int64_t i = 0; i < shape[1] * TILE_COLUMNS; i++) {
            int64_t output = panel * TILE_COLUMNS + i % TILE_COLUMNS, input = i / TILE_COLUMNS;
            double u[MOST_PRODUCTS * MOST_PRODUCTS] = {0};
            if (output < shape[0])
                transform_filter(scheme_of(form, false), oihw + (output * shape[1] + input) * 9, u);
            for (int64_t position = 0; position < positions; position++)
                packed[((panel * positions + position) * shape[1] + input) * TILE_COLUMNS +
                       i % TILE_COLUMNS] = (float)u[position];
        }
}
