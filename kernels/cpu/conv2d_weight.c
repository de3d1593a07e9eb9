/* The convolution's gradient with respect to its weight, as one matrix product per tap whose depth
 * is the output pixels: dw[o][i] = sum dy[pixel][o] * x[source of the pixel][i].
 *
 * A unit is a group of output channels, some panels of input channels, and a part of the output
 * rows. It goes through its rows by strips of at most STRIP_PIXELS pixels, a few strips at a time:
 * dy is copied into blocks of TILE_ROWS channels, and for each row of taps the panel's source
 * pixels, zeros in the padding, where all taps of the row find theirs a constant away. A register
 * tile adds up a tap's products over these strips and is then added to the unit's sums. Parts fold
 * in order.
 */
#include "kernels/cpu/conv2d.h"

#include <omp.h>
#include <string.h>

enum {
    STRIP_PIXELS = 128, /* of all strips that go together, at most */
    UNIT_OUTPUTS = 8 * TILE_ROWS,
    LEAST_TILES = 16, /* for each that is copied of dy */
    LEAST_UNITS = 8
};

struct weight_gradient {
    const float *x, *dy;
    float *dw, *sums, *scratch; /* sums: [part][panel][tap][output][lane of the panel] */
    struct conv2d_attributes a;
    int64_t x_shape[4], dy_shape[4];
    int64_t taps, outputs; /* outputs: in whole tiles */
    int64_t panels, unit_panels, panel_groups, groups, parts;
    int64_t rows, part_rows; /* rows of output pixels of all pictures */
    int64_t strip, strips;   /* pixels of a strip, strips that go together */
    int64_t strip_sources;   /* upsampled source pixels that a row of taps meets in a strip */
};

static void describe(struct weight_gradient *g, const struct kernel_call *call)
{
    memset(g, 0, sizeof *g);
    g->a = call->attributes->conv2d;
    g->x = call->input[0].data;
    g->dy = call->input[1].data;
    g->dw = call->output[0].data;
    memcpy(g->x_shape, call->input[0].shape, sizeof g->x_shape);
    memcpy(g->dy_shape, call->input[1].shape, sizeof g->dy_shape);
    g->taps = (int64_t)g->a.kernel_height * g->a.kernel_width;
    g->outputs = ceil_divide(g->dy_shape[3], TILE_ROWS) * TILE_ROWS;
    g->panels = ceil_divide(g->x_shape[3], TILE_COLUMNS);
    g->unit_panels = least(g->panels, ceil_divide(LEAST_TILES, g->taps));
    g->panel_groups = ceil_divide(g->panels, g->unit_panels);
    g->groups = ceil_divide(g->outputs, UNIT_OUTPUTS);
    g->rows = g->dy_shape[0] * g->dy_shape[1];
    int64_t parts = ceil_divide(LEAST_UNITS, g->panel_groups * g->groups);
    g->part_rows = ceil_divide(g->rows, least(g->rows, parts));
    g->parts = ceil_divide(g->rows, g->part_rows);
    g->strip = least(g->dy_shape[2], STRIP_PIXELS);
    g->strips = STRIP_PIXELS / g->strip;
    g->strip_sources = (g->strip - 1) * g->a.stride + g->a.kernel_width;
    g->sums = call->workspace;
    g->scratch = g->sums + g->parts * g->panels * g->taps * g->outputs * TILE_COLUMNS;
}

/* Per thread: the strips of dy, then those of x. */
static int64_t scratch_floats(const struct weight_gradient *g)
{
    return g->strips * (g->strip * UNIT_OUTPUTS + g->strip_sources * TILE_COLUMNS);
}

/* Strips that go together, and the blocks of output channels of their unit. */
struct work {
    const struct weight_gradient *g;
    int64_t first_panel, panels, first_output, blocks, part;
    int64_t row[STRIP_PIXELS], first[STRIP_PIXELS], pixels[STRIP_PIXELS]; /* of each strip */
    bool padding[STRIP_PIXELS]; /* a strip that the present row of taps misses */
    int64_t strips;
    float *dy, *x;
};

/* [block][strip][pixel][channel of the block] */
static float *dy_strip(const struct work *work, int64_t block, int64_t strip)
{
    return work->dy + (block * work->g->strips + strip) * work->g->strip * TILE_ROWS;
}

/* A block's channels of a row of pixels, zeros beyond the last one. */
static void copy_block(float *to, const float *from, int64_t pixels, int64_t channels, int64_t left)
{
    if (left >= TILE_ROWS)
        for (int64_t p = 0; p < pixels; p++)
            memcpy(to + p * TILE_ROWS, from + p * channels, TILE_ROWS * sizeof(float));
    else
        for (int64_t p = 0; p < pixels; p++)
            for (int64_t c = 0; c < TILE_ROWS; c++)
                to[p * TILE_ROWS + c] = c < left ? from[p * channels + c] : 0;
}

static void copy_dy(const struct work *work, int64_t strip)
{
    const struct weight_gradient *g = work->g;
    int64_t channels = g->dy_shape[3], pixel = work->row[strip] * g->dy_shape[2];
    const float *from = g->dy + (pixel + work->first[strip]) * channels;
    for (int64_t block = 0; block < work->blocks; block++) {
        int64_t first = work->first_output + block * TILE_ROWS;
        copy_block(dy_strip(work, block, strip), from + first, work->pixels[strip], channels,
                   channels - first);
    }
}

ALWAYS_INLINE void copy_panel(float *to, const float *from, int64_t count)
{
    vector_store(to, from ? vector_load_some(from, count) : (vector_f32){0});
    vector_store(to + LANES, from && count > LANES ? vector_load_some(from + LANES, count - LANES)
                                                   : (vector_f32){0});
}

/* The source pixels that taps of row r meet from the strip's first pixel on. */
static void copy_x(struct work *work, int64_t strip, int64_t panel, int r)
{
    const struct weight_gradient *g = work->g;
    const int64_t *shape = g->x_shape;
    int64_t picture = work->row[strip] / g->dy_shape[1], p = work->row[strip] % g->dy_shape[1];
    int64_t h = p * g->a.stride + r - g->a.pad_top, channel = panel * TILE_COLUMNS;
    work->padding[strip] = h < 0 || h >= shape[1] * g->a.upsample;
    if (work->padding[strip])
        return;
    const float *row =
        g->x + (picture * shape[1] + h / g->a.upsample) * shape[2] * shape[3] + channel;
    float *to = work->x + strip * g->strip_sources * TILE_COLUMNS;
    int64_t first = work->first[strip] * g->a.stride - g->a.pad_left;
    int64_t count = (work->pixels[strip] - 1) * g->a.stride + g->a.kernel_width;
    for (int64_t w = first; w < first + count; w++, to += TILE_COLUMNS) {
        bool inside = w >= 0 && w < shape[2] * g->a.upsample;
        copy_panel(to, inside ? row + w / g->a.upsample * shape[3] : NULL, shape[3] - channel);
    }
}

ALWAYS_INLINE void pixel_steps(const float *dy, const float *x, int64_t x_step, int64_t pixels,
                               vector_f32 sum[TILE_ROWS][2])
{
    for (int64_t p = 0; p < pixels; p++, dy += TILE_ROWS, x += x_step) {
        vector_f32 x0 = vector_load(x), x1 = vector_load(x + LANES);
#pragma GCC unroll 12
        for (int r = 0; r < TILE_ROWS; r++) {
            vector_f32 broadcast = vector_set(dy[r]);
            sum[r][0] += broadcast * x0;
            sum[r][1] += broadcast * x1;
        }
    }
}

/* The sums of one tap, of a block of outputs and of the panel. */
static void add_tile(const struct work *work, int64_t block, int s, float *sums)
{
    const struct weight_gradient *g = work->g;
    vector_f32 sum[TILE_ROWS][2] = {{{0}}};
    for (int64_t strip = 0; strip < work->strips; strip++)
        if (!work->padding[strip])
            pixel_steps(dy_strip(work, block, strip),
                        work->x + (strip * g->strip_sources + s) * TILE_COLUMNS,
                        g->a.stride * TILE_COLUMNS, work->pixels[strip], sum);
#pragma GCC unroll 12
    for (int r = 0; r < TILE_ROWS; r++)
        for (int v = 0; v < 2; v++) {
            float *to = sums + r * TILE_COLUMNS + v * LANES;
            vector_store(to, vector_load(to) + sum[r][v]);
        }
}

static float *sums_of(const struct weight_gradient *g, int64_t part, int64_t panel, int64_t tap,
                      int64_t output)
{
    return g->sums +
           (((part * g->panels + panel) * g->taps + tap) * g->outputs + output) * TILE_COLUMNS;
}

/* All taps of row r, of one panel. */
static void multiply_row(struct work *work, int64_t panel, int r)
{
    const struct weight_gradient *g = work->g;
    for (int64_t strip = 0; strip < work->strips; strip++)
        copy_x(work, strip, panel, r);
    for (int s = 0; s < g->a.kernel_width; s++)
        for (int64_t block = 0; block < work->blocks; block++)
            add_tile(work, block, s,
                     sums_of(g, work->part, panel, r * g->a.kernel_width + s,
                             work->first_output + block * TILE_ROWS));
}

static void multiply_strips(struct work *work)
{
    for (int64_t strip = 0; strip < work->strips; strip++)
        copy_dy(work, strip);
    for (int64_t panel = 0; panel < work->panels; panel++)
        for (int r = 0; r < work->g->a.kernel_height; r++)
            multiply_row(work, work->first_panel + panel, r);
}

static void clear_sums(const struct work *work)
{
    size_t bytes = (size_t)(work->blocks * TILE_ROWS * TILE_COLUMNS) * sizeof(float);
    for (int64_t panel = 0; panel < work->panels; panel++)
        for (int64_t tap = 0; tap < work->g->taps; tap++)
            memset(sums_of(work->g, work->part, work->first_panel + panel, tap, work->first_output),
                   0, bytes);
}

/* Goes through the part's rows by strips. */
static void run_unit(const struct weight_gradient *g, int64_t index, float *scratch)
{
    struct work work = {.g = g, .part = index % g->parts, .dy = scratch};
    work.first_panel = index / g->parts % g->panel_groups * g->unit_panels;
    work.panels = least(g->unit_panels, g->panels - work.first_panel);
    work.first_output = index / g->parts / g->panel_groups * UNIT_OUTPUTS;
    work.blocks = least(UNIT_OUTPUTS, g->outputs - work.first_output) / TILE_ROWS;
    work.x = scratch + g->strips * g->strip * UNIT_OUTPUTS;
    clear_sums(&work);
    int64_t end = least(g->rows, (work.part + 1) * g->part_rows);
    for (int64_t row = work.part * g->part_rows; row < end; row++)
        for (int64_t first = 0; first < g->dy_shape[2]; first += g->strip) {
            work.row[work.strips] = row;
            work.first[work.strips] = first;
            work.pixels[work.strips++] = least(g->strip, g->dy_shape[2] - first);
            bool last = row + 1 == end && first + g->strip >= g->dy_shape[2];
            if (work.strips < g->strips && !last)
                continue;
            multiply_strips(&work);
            work.strips = 0;
        }
}

/* dw's row of one output: the parts' sums, input by input and tap by tap. */
static void fold_output(const struct weight_gradient *g, int64_t output)
{
    int64_t inputs = g->x_shape[3];
    for (int64_t i = 0; i < inputs; i++)
        for (int64_t tap = 0; tap < g->taps; tap++) {
            float sum = 0;
            for (int64_t part = 0; part < g->parts; part++)
                sum += sums_of(g, part, i / TILE_COLUMNS, tap, output)[i % TILE_COLUMNS];
            g->dw[(output * inputs + i) * g->taps + tap] = sum;
        }
}

size_t ISA_NAME(conv2d_backward_weight_workspace)(const struct kernel_call *call)
{
    struct weight_gradient g;
    describe(&g, call);
    return (size_t)(g.parts * g.panels * g.taps * g.outputs * TILE_COLUMNS +
                    call->threads * scratch_floats(&g)) *
           sizeof(float);
}

void ISA_NAME(conv2d_backward_weight)(const struct kernel_call *call)
{
    struct weight_gradient g;
    describe(&g, call);
#pragma omp parallel num_threads(call->threads)
    {
        float *scratch = g.scratch + omp_get_thread_num() * scratch_floats(&g);
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < g.parts * g.panel_groups * g.groups; unit++)
            run_unit(&g, unit, scratch);
#pragma omp for
        for (int64_t output = 0; output < g.dy_shape[3]; output++)
            fold_output(&g, output);
    }
}
