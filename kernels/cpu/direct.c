/* The direct convolution, forward and backward-data, as a matrix product: a block of output pixels
 * copies the source pixels of a few taps side by side (zeros in the padding) and multiplies them by
 * panels of the packed weight, tap after tap, into sums in the second-level cache. Output pixels
 * are sorted into classes within which every tap moves the source pixel by a constant: one class in
 * the plain case, one per parity where the stride is 2 backwards or the picture is upsampled. */
#include "kernels/cpu/conv2d.h"

#include <omp.h>
#include <string.h>

enum {
    MAX_TAPS = 256,
    BLOCK_PIXELS = 72, /* of a unit, at most; whole tiles, narrow ones too */
    NARROW_ROWS = 12,  /* a tile of one vector needs more rows to hide the latency of the sums */
    CHUNK_DEPTH = 512, /* taps x channels of one pass */
    UNIT_COLUMNS = 256,
    LEAST_UNITS = 8
};

struct tap {
    int weight;     /* index of the weight's tap */
    int64_t dy, dx; /* source = multiplier*index + d */
};

struct pixel_class {
    int64_t first_row, first_column, rows, columns; /* output pixels first + step*index */
    int64_t block_pixels, blocks, unit_panels, units;
    int tap_count;
    struct tap taps[MAX_TAPS];
};

struct direct {
    const float *x, *weight, *bias, *residual;
    float *y;
    int64_t x_shape[4], y_shape[4];
    int64_t step, multiplier; /* of output and source coordinates in a class */
    int weight_taps, columns; /* lanes of a panel */
    int64_t tile_rows;        /* blocks of pixels are multiples of it */
    int64_t panels, depth;    /* depth: of a chunk, at most */
    float *scratch;           /* per thread: rows of source pixels, then sums */
};

/* A pixel of a unit's block: its picture and place in the class's grid. */
struct place {
    int64_t n, row, column;
};

/* What one pass over a block multiplies: consecutive taps of all channels, or one tap's channels
 * from `channel` on. */
struct chunk {
    int tap, taps;
    int64_t channel, channels;
};

struct unit {
    const struct direct *d;
    const struct pixel_class *class;
    int64_t pixels, panel, panels;
    struct place place[BLOCK_PIXELS];
    float *rows, *sums;
    int64_t sums_stride;
};

/* Panels are one vector wide where the outputs fit into one. */
static int direct_columns(int64_t outputs)
{
    return outputs <= LANES ? LANES : TILE_COLUMNS;
}

static int64_t floor_half(int64_t a)
{
    return a >= 0 ? a / 2 : (a - 1) / 2;
}

static void add_tap(struct pixel_class *class, int weight, int64_t dy, int64_t dx)
{
    class->taps[class->tap_count++] = (struct tap){weight, dy, dx};
}

/* Source rows (or columns) that output parity `parity` meets with tap r: offsets in d, 0 to 2 of
 * them. */
static int tap_offsets(const struct conv2d_attributes *a, bool backward, int64_t parity, int r,
                       int pad, int64_t d[2])
{
    if (!backward && a->upsample == 2)
        d[0] = floor_half(parity + r - pad);
    else if (!backward)
        d[0] = r - pad;
    else if (a->upsample == 2) {
        d[0] = pad - r;
        d[1] = pad - r + 1;
        return 2;
    } else if (a->stride == 2) {
        d[0] = (parity + pad - r) / 2;
        return (parity + pad - r) % 2 == 0;
    } else
        d[0] = pad - r;
    return 1;
}

/* Blocks of pixels, all alike, and groups of panels; the more groups the fewer blocks there are. */
static void divide_work(struct pixel_class *class, const struct direct *d)
{
    int64_t pixels = d->x_shape[0] * class->rows * class->columns;
    if (class->rows <= 0 || class->columns <= 0)
        return;
    class->blocks = ceil_divide(pixels, BLOCK_PIXELS);
    class->block_pixels =
        ceil_divide(ceil_divide(pixels, class->blocks), d->tile_rows) * d->tile_rows;
    int64_t groups = ceil_divide(d->panels, UNIT_COLUMNS / d->columns);
    if (groups * class->blocks < LEAST_UNITS)
        groups = least(d->panels, ceil_divide(LEAST_UNITS, class->blocks));
    class->unit_panels = ceil_divide(d->panels, groups);
    class->units = ceil_divide(d->panels, class->unit_panels) * class->blocks;
}

static void make_class(struct pixel_class *class, const struct direct *direct,
                       const struct conv2d_attributes *a, bool backward, int parity)
{
    int64_t row = parity / 2, column = parity % 2;
    memset(class, 0, offsetof(struct pixel_class, taps));
    class->first_row = row;
    class->first_column = column;
    class->rows = ceil_divide(direct->y_shape[1] - row, direct->step);
    class->columns = ceil_divide(direct->y_shape[2] - column, direct->step);
    for (int r = 0; r < a->kernel_height; r++) {
        int64_t dy[2], dx[2];
        int rows = tap_offsets(a, backward, row, r, a->pad_top, dy);
        for (int s = 0; s < a->kernel_width; s++) {
            int columns = tap_offsets(a, backward, column, s, a->pad_left, dx);
            for (int k = 0; k < rows * columns; k++)
                add_tap(class, r * a->kernel_width + s, dy[k / columns], dx[k % columns]);
        }
    }
    divide_work(class, direct);
}

static int64_t rows_floats(const struct direct *d)
{
    return BLOCK_PIXELS / TILE_ROWS * block_floats(d->depth);
}

static int64_t scratch_floats(const struct direct *d)
{
    return rows_floats(d) + BLOCK_PIXELS * (UNIT_COLUMNS + PAD_FLOATS);
}

static void describe(struct direct *d, const struct kernel_call *call, bool backward)
{
    const struct conv2d_attributes *a = &call->attributes->conv2d;
    memset(d, 0, sizeof *d);
    d->x = call->input[0].data;
    d->weight = call->input[1].data;
    d->bias = backward ? NULL : call->input[2].data;
    d->residual = backward ? NULL : call->input[3].data;
    d->y = call->output[0].data;
    memcpy(d->x_shape, call->input[0].shape, sizeof d->x_shape);
    memcpy(d->y_shape, call->output[0].shape, sizeof d->y_shape);
    bool forward_up = !backward && a->upsample == 2;
    d->step = forward_up || (backward && a->stride == 2) ? 2 : 1;
    d->multiplier = (!backward && a->stride == 2) || (backward && a->upsample == 2) ? 2 : 1;
    d->weight_taps = a->kernel_height * a->kernel_width;
    d->columns = direct_columns(d->y_shape[3]);
    d->tile_rows = d->columns == LANES ? NARROW_ROWS : TILE_ROWS;
    d->panels = ceil_divide(d->y_shape[3], d->columns);
    d->depth = least(CHUNK_DEPTH, d->weight_taps * d->x_shape[3]);
    d->scratch = call->workspace;
}

static void locate(struct unit *unit, int64_t first)
{
    const struct pixel_class *class = unit->class;
    int64_t per_picture = class->rows * class->columns;
    for (int64_t p = 0; p < unit->pixels; p++)
        unit->place[p] =
            (struct place){(first + p) / per_picture, (first + p) % per_picture / class->columns,
                           (first + p) % class->columns};
}

/* Where the source pixel of a tap begins, NULL in the padding. */
static const float *source(const struct direct *d, const struct place *at, const struct tap *tap)
{
    int64_t h = at->row * d->multiplier + tap->dy, w = at->column * d->multiplier + tap->dx;
    if (h < 0 || h >= d->x_shape[1] || w < 0 || w >= d->x_shape[2])
        return NULL;
    return d->x + ((at->n * d->x_shape[1] + h) * d->x_shape[2] + w) * d->x_shape[3];
}

/* Whole lines of a row in the blocks of TILE_ROWS rows; zeros from NULL. */
ALWAYS_INLINE void copy_lines(float *to, const float *from, int64_t channels)
{
    for (int64_t c = 0; c < channels; c += LINE, to += TILE_ROWS * LINE)
#pragma GCC unroll 4
        for (int v = 0; v < LINE; v += LANES)
            vector_store(to + v, from ? vector_load(from + c + v) : (vector_f32){0});
}

/* One row of a chunk whose taps do not begin on whole lines. */
static void copy_unaligned(const struct unit *unit, const struct chunk *chunk,
                           const struct place *at, float *to)
{
    float row[CHUNK_DEPTH + LINE], *next = row;
    for (int t = 0; t < chunk->taps; t++) {
        const float *from = source(unit->d, at, &unit->class->taps[chunk->tap + t]);
        for (int64_t c = 0; c < chunk->channels; c++)
            *next++ = from ? from[chunk->channel + c] : 0;
    }
    memset(next, 0, LINE * sizeof *next);
    copy_lines(to, row, chunk->taps * chunk->channels);
}

static void copy_row(const struct unit *unit, const struct chunk *chunk, const struct place *at,
                     float *to)
{
    if (chunk->channels % LINE) {
        copy_unaligned(unit, chunk, at, to);
        return;
    }
    for (int t = 0; t < chunk->taps; t++) {
        const float *from = source(unit->d, at, &unit->class->taps[chunk->tap + t]);
        copy_lines(to + t * chunk->channels * TILE_ROWS, from ? from + chunk->channel : NULL,
                   chunk->channels);
    }
}

/* The chunk's source pixels, one row for each pixel of the block, zeros up to a whole tile. */
static void copy_rows(const struct unit *unit, const struct chunk *chunk)
{
    int64_t depth = chunk->taps * chunk->channels;
    for (int64_t p = 0; p < unit->pixels; p++)
        copy_row(unit, chunk, &unit->place[p], unit->rows + row_offset(p, 0, depth));
    for (int64_t p = unit->pixels; p % unit->d->tile_rows; p++)
        copy_lines(unit->rows + row_offset(p, 0, depth), NULL, depth);
}

/* The chunk after `chunk`, or the first one after {0}; false at the end. */
static bool next_chunk(const struct direct *d, const struct pixel_class *class, struct chunk *chunk)
{
    int64_t channels = d->x_shape[3], pieces = ceil_divide(channels, CHUNK_DEPTH);
    chunk->channel += chunk->channels;
    if (chunk->channel >= channels || chunk->taps > 1) {
        chunk->channel = 0;
        chunk->tap += chunk->taps;
    }
    if (chunk->tap >= class->tap_count)
        return false;
    chunk->taps = 1;
    chunk->channels =
        least(channels - chunk->channel, ceil_divide(ceil_divide(channels, pieces), LINE) * LINE);
    const struct tap *tap = class->taps + chunk->tap;
    while (chunk->tap + chunk->taps < class->tap_count &&
           (chunk->taps + 1) * channels <= CHUNK_DEPTH &&
           tap[chunk->taps].weight == tap->weight + chunk->taps)
        chunk->taps++;
    return true;
}

ALWAYS_INLINE void narrow_steps(const float *a, int64_t block_stride, const float *b, int steps,
                                vector_f32 sum[NARROW_ROWS])
{
    for (int k = 0; k < steps; k++) {
        vector_f32 w = vector_load(b + k * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < NARROW_ROWS; r++)
            sum[r] += vector_set(a[r / TILE_ROWS * block_stride + r % TILE_ROWS * LINE + k]) * w;
    }
}

/* Tiles of NARROW_ROWS rows and one vector: the outputs fit into one vector. */
static void multiply_narrow(const struct product *p)
{
    enum { BLOCKS = NARROW_ROWS / TILE_ROWS };
    int64_t floats = block_floats(p->depth);
    for (int64_t block = 0; block < p->blocks; block += BLOCKS) {
        vector_f32 sum[NARROW_ROWS] = {{0}};
        float *c = p->c + block * TILE_ROWS * p->c_stride;
        for (int r = 0; r < NARROW_ROWS && p->add; r++)
            sum[r] = vector_load(c + r * p->c_stride);
        for (int64_t k = 0; k < p->depth; k += LINE)
            narrow_steps(p->a + block * floats + k * TILE_ROWS, floats, p->b + k * LANES,
                         (int)least(LINE, p->depth - k), sum);
        for (int r = 0; r < NARROW_ROWS; r++)
            vector_store(c + r * p->c_stride, sum[r]);
    }
}

static void multiply_chunk(const struct unit *unit, const struct chunk *chunk, bool add)
{
    const struct direct *d = unit->d;
    int64_t channels = d->x_shape[3], panel_floats = d->weight_taps * channels * d->columns;
    int64_t first = unit->class->taps[chunk->tap].weight * channels + chunk->channel;
    struct product product = {
        .a = unit->rows,
        .b = d->weight + unit->panel * panel_floats + first * d->columns,
        .c = unit->sums,
        .blocks = ceil_divide(unit->pixels, d->tile_rows) * d->tile_rows / TILE_ROWS,
        .depth = chunk->taps * chunk->channels,
        .c_stride = unit->sums_stride,
        .add = add,
        .next_a = unit->rows,
        .next_b_step = TILE_COLUMNS * TILE_COLUMNS,
    };
    for (int64_t panel = 0; panel < unit->panels; panel++) {
        bool last = panel + 1 == unit->panels;
        product.next_b = last ? product.b : product.b + panel_floats;
        if (d->columns == LANES)
            multiply_narrow(&product);
        else
            multiply(&product);
        product.b += panel_floats;
        product.c += d->columns;
    }
}

static void store_pixel(const struct unit *unit, int64_t pixel)
{
    const struct direct *d = unit->d;
    const struct place *at = &unit->place[pixel];
    int64_t h = unit->class->first_row + at->row * d->step;
    int64_t w = unit->class->first_column + at->column * d->step;
    int64_t channels = d->y_shape[3], first = unit->panel * d->columns;
    int64_t offset = ((at->n * d->y_shape[1] + h) * d->y_shape[2] + w) * channels;
    int64_t end = least(channels, first + unit->panels * d->columns);
    for (int64_t c = first; c < end; c += LANES) {
        vector_f32 result = vector_load(unit->sums + pixel * unit->sums_stride + c - first);
        if (d->bias)
            result += vector_load_some(d->bias + c, end - c);
        if (d->residual)
            result += vector_load_some(d->residual + offset + c, end - c);
        vector_store_some(d->y + offset + c, result, end - c);
    }
}

/* A block of pixels by a group of panels. */
static void run_unit(const struct direct *d, const struct pixel_class *class, int64_t index,
                     float *scratch)
{
    int64_t block = index % class->blocks, first = block * class->block_pixels;
    struct unit unit = {.d = d, .class = class, .rows = scratch, .sums = scratch + rows_floats(d)};
    unit.pixels = least(class->block_pixels, d->x_shape[0] * class->rows * class->columns - first);
    unit.panel = index / class->blocks * class->unit_panels;
    unit.panels = least(class->unit_panels, d->panels - unit.panel);
    unit.sums_stride = unit.panels * d->columns + PAD_FLOATS;
    locate(&unit, first);
    struct chunk chunk = {0};
    bool add = false;
    for (; next_chunk(d, class, &chunk); add = true) {
        copy_rows(&unit, &chunk);
        multiply_chunk(&unit, &chunk, add);
    }
    if (!add)
        memset(unit.sums, 0, (size_t)(unit.pixels * unit.sums_stride) * sizeof(float));
    for (int64_t p = 0; p < unit.pixels; p++)
        store_pixel(&unit, p);
}

size_t ISA_NAME(conv2d_direct_workspace)(const struct kernel_call *call, bool backward)
{
    struct direct d;
    describe(&d, call, backward);
    return (size_t)(call->threads * scratch_floats(&d)) * sizeof(float);
}

void ISA_NAME(conv2d_direct)(const struct kernel_call *call, bool backward)
{
    struct direct d;
    describe(&d, call, backward);
    for (int parity = 0; parity < (d.step == 2 ? 4 : 1); parity++) {
        struct pixel_class class;
        make_class(&class, &d, &call->attributes->conv2d, backward, parity);
#pragma omp parallel for num_threads(call->threads) schedule(dynamic)
        for (int64_t unit = 0; unit < class.units; unit++)
            run_unit(&d, &class, unit, d.scratch + omp_get_thread_num() * scratch_floats(&d));
    }
}

size_t ISA_NAME(conv2d_direct_bytes)(const int64_t shape[4], bool backward)
{
    int64_t outputs = backward ? shape[1] : shape[0], inputs = backward ? shape[0] : shape[1];
    int64_t columns = direct_columns(outputs);
    return (size_t)(ceil_divide(outputs, columns) * columns * inputs * shape[2] * shape[3]) *
           sizeof(float);
}

void ISA_NAME(conv2d_direct_pack)(const int64_t shape[4], const float *oihw, bool backward,
                                  float *packed, int threads)
{
    int64_t taps = shape[2] * shape[3];
    int64_t outputs = backward ? shape[1] : shape[0], inputs = backward ? shape[0] : shape[1];
    int64_t output_stride = (backward ? 1 : shape[1]) * taps;
    int64_t input_stride = (backward ? shape[1] : 1) * taps;
    int64_t columns = direct_columns(outputs), panels = ceil_divide(outputs, columns);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t panel = 0; panel < panels; panel++)
        for (int64_t i = 0; i < taps * inputs * columns; i++) {
            int64_t lane = i % columns, input = i / columns % inputs, tap = i / columns / inputs;
            int64_t output = panel * columns + lane;
            packed[panel * taps * inputs * columns + i] =
                output < outputs ? oihw[output * output_stride + input * input_stride + tap] : 0;
        }
}
