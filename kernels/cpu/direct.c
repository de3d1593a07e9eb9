/* The direct convolution, forward and backward-data: for every tap, rows of pixel pointers (a row
 * of zeros in the padding) times a packed panel of the weight, summed in a register tile. Output
 * pixels are sorted into classes within which every tap moves the source pixel by a constant: one
 * class in the plain case, one per parity where the stride is 2 backwards or the picture is
 * upsampled. */
#include "kernels/cpu/conv2d.h"

#include <string.h>

enum { MAX_TAPS = 256, BLOCK_PIXELS = 96, UNIT_PANELS = 8, GATHER_CHANNELS = 8 };

struct tap {
    int weight;     /* index of the weight's tap */
    int64_t dy, dx; /* source = multiplier*index + d */
};

struct pixel_class {
    int64_t first_row, first_column, rows, columns; /* output pixels first + step*index */
    int tap_count;
    bool natural; /* the taps are all of the weight's, in its order */
    struct tap taps[MAX_TAPS];
};

struct direct {
    const float *x, *weight, *bias, *residual, *zeros;
    float *y;
    int64_t x_shape[4], y_shape[4];
    int64_t step, multiplier; /* of output and source coordinates in a class */
    int weight_taps, columns; /* lanes of a panel */
    int64_t panels, blocks, chunks;
};

static int64_t floor_half(int64_t a)
{
    return a >= 0 ? a / 2 : (a - 1) / 2;
}

static void add_tap(struct pixel_class *class, int weight, int64_t dy, int64_t dx)
{
    class->natural = class->natural && weight == class->tap_count;
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

static void make_class(struct pixel_class *class, const struct direct *direct,
                       const struct conv2d_attributes *a, bool backward, int parity)
{
    int64_t row = parity / 2, column = parity % 2;
    memset(class, 0, offsetof(struct pixel_class, taps));
    class->natural = true;
    class->first_row = row;
    class->first_column = column;
    class->rows = divide_up(direct->y_shape[1] - row, direct->step);
    class->columns = divide_up(direct->y_shape[2] - column, direct->step);
    for (int r = 0; r < a->kernel_height; r++) {
        int64_t dy[2], dx[2];
        int rows = tap_offsets(a, backward, row, r, a->pad_top, dy);
        for (int s = 0; s < a->kernel_width; s++) {
            int columns = tap_offsets(a, backward, column, s, a->pad_left, dx);
            for (int k = 0; k < rows * columns; k++)
                add_tap(class, r * a->kernel_width + s, dy[k / columns], dx[k % columns]);
        }
    }
    class->natural = class->natural && class->tap_count == direct->weight_taps;
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
    d->panels = divide_up(d->y_shape[3], d->columns);
    d->chunks = divide_up(d->panels, UNIT_PANELS);
}

/* Where source pixel (h, w) of picture n begins. */
static const float *pixel(const struct direct *d, int64_t n, int64_t h, int64_t w)
{
    if (h < 0 || h >= d->x_shape[1] || w < 0 || w >= d->x_shape[2])
        return d->zeros;
    return d->x + ((n * d->x_shape[1] + h) * d->x_shape[2] + w) * d->x_shape[3];
}

/* The rows of one register tile: picture and position in the class's grid of pixels; a short last
 * tile repeats its last pixel. */
struct tile_rows {
    int64_t n[NARROW_ROWS], i[NARROW_ROWS], j[NARROW_ROWS];
};

static void locate(const struct pixel_class *class, int64_t first, int64_t end, int rows,
                   struct tile_rows *at)
{
    int64_t per_picture = class->rows * class->columns;
    for (int r = 0; r < rows; r++) {
        int64_t p = first + r < end ? first + r : end - 1;
        at->n[r] = p / per_picture;
        at->i[r] = p % per_picture / class->columns;
        at->j[r] = p % class->columns;
    }
}

ALWAYS_INLINE void multiply_taps(const struct direct *d, const struct pixel_class *class, int rows,
                                 int vectors, const struct tile_rows *at, const float *panel,
                                 vector_f32 sum[][2])
{
    int64_t channels = d->x_shape[3];
    for (int t = 0; t < class->tap_count; t++) {
        const struct tap *tap = &class->taps[t];
        const float *source[NARROW_ROWS];
        for (int r = 0; r < rows; r++)
            source[r] = pixel(d, at->n[r], at->i[r] * d->multiplier + tap->dy,
                              at->j[r] * d->multiplier + tap->dx);
        tile_multiply(rows, vectors, source, panel + tap->weight * channels * vectors * LANES,
                      channels, sum);
    }
}

/* Few channels: the taps of a pixel side by side make one long product. */
ALWAYS_INLINE void multiply_gathered(const struct direct *d, const struct pixel_class *class,
                                     int rows, int vectors, const struct tile_rows *at,
                                     const float *panel, vector_f32 sum[][2])
{
    float gathered[NARROW_ROWS][MAX_TAPS];
    const float *source[NARROW_ROWS];
    int64_t channels = d->x_shape[3], depth = channels * class->tap_count;
    for (int r = 0; r < rows; r++) {
        source[r] = gathered[r];
        for (int t = 0; t < class->tap_count; t++) {
            const float *from = pixel(d, at->n[r], at->i[r] * d->multiplier + class->taps[t].dy,
                                      at->j[r] * d->multiplier + class->taps[t].dx);
            for (int64_t c = 0; c < channels; c++)
                gathered[r][t * channels + c] = from[c];
        }
    }
    tile_multiply(rows, vectors, source, panel, depth, sum);
}

ALWAYS_INLINE void store_rows(const struct direct *d, const struct pixel_class *class, int rows,
                              int vectors, const struct tile_rows *at, int64_t valid,
                              int64_t first_channel, vector_f32 sum[][2])
{
    int64_t channels = d->y_shape[3];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        int64_t h = class->first_row + at->i[r] * d->step;
        int64_t w = class->first_column + at->j[r] * d->step;
        int64_t offset =
            ((at->n[r] * d->y_shape[1] + h) * d->y_shape[2] + w) * channels + first_channel;
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            int64_t left = channels - first_channel - v * LANES;
            if (r >= valid || left <= 0)
                continue;
            vector_f32 result = sum[r][v];
            if (d->bias)
                result += load_part(d->bias + first_channel + v * LANES, left);
            if (d->residual)
                result += load_part(d->residual + offset + v * LANES, left);
            store_part(d->y + offset + v * LANES, result, left);
        }
    }
}

ALWAYS_INLINE void run_tile(const struct direct *d, const struct pixel_class *class, int rows,
                            int vectors, int64_t first, int64_t end, int64_t panel_index)
{
    struct tile_rows at;
    vector_f32 sum[NARROW_ROWS][2] = {{{0}}};
    int64_t columns = vectors * LANES;
    const float *panel = d->weight + panel_index * d->weight_taps * d->x_shape[3] * columns;
    locate(class, first, end, rows, &at);
    if (class->natural && d->x_shape[3] <= GATHER_CHANNELS &&
        d->x_shape[3] * class->tap_count <= MAX_TAPS)
        multiply_gathered(d, class, rows, vectors, &at, panel, sum);
    else
        multiply_taps(d, class, rows, vectors, &at, panel, sum);
    store_rows(d, class, rows, vectors, &at, end - first, panel_index * columns, sum);
}

/* One unit of work: a block of pixels by a chunk of panels. */
static void run_unit(const struct direct *d, const struct pixel_class *class, int64_t block,
                     int64_t chunk)
{
    int64_t pixels = d->x_shape[0] * class->rows * class->columns;
    int64_t begin = block * BLOCK_PIXELS, end = least(pixels, begin + BLOCK_PIXELS);
    int64_t last_panel = least(d->panels, (chunk + 1) * UNIT_PANELS);
    for (int64_t panel = chunk * UNIT_PANELS; panel < last_panel; panel++) {
        if (d->columns == LANES)
            for (int64_t p = begin; p < end; p += NARROW_ROWS)
                run_tile(d, class, NARROW_ROWS, 1, p, end, panel);
        else
            for (int64_t p = begin; p < end; p += TILE_ROWS)
                run_tile(d, class, TILE_ROWS, 2, p, end, panel);
    }
}

size_t ISA_NAME(conv2d_direct_workspace)(const struct kernel_call *call, bool backward)
{
    (void)backward;
    return (size_t)call->input[0].shape[3] * sizeof(float);
}

void ISA_NAME(conv2d_direct)(const struct kernel_call *call, bool backward)
{
    struct direct d;
    describe(&d, call, backward);
    d.zeros = call->workspace;
    memset(call->workspace, 0, (size_t)d.x_shape[3] * sizeof(float));
    for (int parity = 0; parity < 4; parity++) {
        struct pixel_class class;
        if (d.step == 1 && parity > 0)
            break;
        make_class(&class, &d, &call->attributes->conv2d, backward, parity);
        int64_t blocks = divide_up(d.x_shape[0] * class.rows * class.columns, BLOCK_PIXELS);
        int64_t units = class.rows > 0 && class.columns > 0 ? blocks * d.chunks : 0;
#pragma omp parallel for num_threads(call->threads) schedule(dynamic)
        for (int64_t unit = 0; unit < units; unit++)
            run_unit(&d, &class, unit / d.chunks, unit % d.chunks);
    }
}

size_t ISA_NAME(conv2d_direct_bytes)(const int64_t shape[4], bool backward)
{
    int64_t outputs = backward ? shape[1] : shape[0], inputs = backward ? shape[0] : shape[1];
    int64_t columns = direct_columns(outputs);
    return (size_t)(divide_up(outputs, columns) * columns * inputs * shape[2] * shape[3]) *
           sizeof(float);
}

void ISA_NAME(conv2d_direct_pack)(const int64_t shape[4], const float *oihw, bool backward,
                                  float *packed, int threads)
{
    int64_t taps = shape[2] * shape[3];
    int64_t outputs = backward ? shape[1] : shape[0], inputs = backward ? shape[0] : shape[1];
    int64_t output_stride = (backward ? 1 : shape[1]) * taps;
    int64_t input_stride = (backward ? shape[1] : 1) * taps;
    int64_t columns = direct_columns(outputs), panels = divide_up(outputs, columns);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t panel = 0; panel < panels; panel++)
        for (int64_t i = 0; i < taps * inputs * columns; i++) {
            int64_t lane = i % columns, input = i / columns % inputs, tap = i / columns / inputs;
            int64_t output = panel * columns + lane;
            packed[panel * taps * inputs * columns + i] =
                output < outputs ? oihw[output * output_stride + input * input_stride + tap] : 0;
        }
}
