/* conv2d and its backward-data as one gather: every output pixel walks taps, each tap names one
 * pixel of the source or none. An axis says which, so that stride, padding, upsampling and both
 * directions are numbers in it. The product's rows are output pixels, its depth is (tap, channel).
 *
 * Backwards with stride 2, pixels of one parity meet every other tap: four classes of pixels. With
 * upsampling, a tap of one axis meets two pixels: twice the steps. */
#ifndef KERNELS_CUDA_CONVOLUTION_CUH
#define KERNELS_CUDA_CONVOLUTION_CUH

#include "kernels/cuda/product.cuh"

/* Step s of output number i: weight tap tap_first + tap_step * (s / copies) and source coordinate
 * position >> shift, where position = multiplier * i + offset + slope * (s / copies) + s % copies
 * and positions outside [0, limit) are padding. */
struct axis {
    int length, first, stride; /* output coordinate first + stride * i */
    int steps, copies, tap_first, tap_step;
    int multiplier, offset, slope, limit, shift;
};

struct convolution {
    const void *source, *weight, *residual; /* float or bf16, and so the result */
    const float *bias;
    void *result; /* with several splits their sums in float, one result after the other */
    int pictures, source_height, source_width, channels;
    int height, width, outputs;
    axis rows[2], columns[2]; /* of classes: number c has rows[c / 2], columns[c % 2] */
    int classes;              /* 1 or 4 */
    int kernel_width, weight_outputs, weight_pitch;
    int splits;
};

/* An output pixel by its numbers on the class's axes; picture -1: none. */
struct pixel {
    int picture, row, column;
};

static __device__ __forceinline__ pixel pixel_of(int number, const axis &rows, const axis &columns,
                                                 int pictures)
{
    int column = number % columns.length, row = number / columns.length;
    pixel pixel = {row / rows.length, row % rows.length, column};
    if (pixel.picture >= pictures)
        pixel.picture = -1;
    return pixel;
}

/* A source coordinate, or -1. */
static __device__ __forceinline__ int source_coordinate(const axis &axis, int i, int step)
{
    int position =
        axis.multiplier * i + axis.offset + axis.slope * (step / axis.copies) + step % axis.copies;
    return position < 0 || position >= axis.limit ? -1 : position >> axis.shift;
}

static __device__ __forceinline__ int source_pixel(const convolution &c, const axis &rows,
                                                   const axis &columns, const pixel &pixel,
                                                   int row_step, int column_step)
{
    int row = source_coordinate(rows, pixel.row, row_step);
    int column = source_coordinate(columns, pixel.column, column_step);
    if (pixel.picture < 0 || row < 0 || column < 0)
        return -1;
    return (pixel.picture * c.source_height + row) * c.source_width + column;
}

static __device__ __forceinline__ int tap_of(const axis &axis, int step)
{
    return axis.tap_first + axis.tap_step * (step / axis.copies);
}

static __device__ __forceinline__ size_t output_offset(const convolution &c, const axis &rows,
                                                       const axis &columns, const pixel &pixel)
{
    int row = rows.first + rows.stride * pixel.row;
    int column = columns.first + columns.stride * pixel.column;
    return ((size_t)(pixel.picture * c.height + row) * c.width + column) * c.outputs;
}

/* The depth in tiles: of each tap its channels, filled up; or, flat, all (tap, channel) in a row,
 * so that three channels cost no more than three. */
__host__ __device__ static inline int depth_steps(const axis &rows, const axis &columns,
                                                  int channels, bool flat)
{
    int taps = rows.steps * columns.steps;
    return flat ? ceil_divide(taps * channels, DEPTH) : taps * ceil_divide(channels, DEPTH);
}

/* ---- what a block works at ---- */
struct block_of_work {
    const axis &rows, &columns;
    int first_pixel, first_output, pixels; /* pixels: of the class */
    int first_step, last_step;             /* of depth_steps */

    __device__ __forceinline__ block_of_work(const convolution &c, int tile_rows, int tile_columns,
                                             bool flat)
        : rows(c.rows[blockIdx.z / c.splits / 2]), columns(c.columns[blockIdx.z / c.splits % 2])
    {
        int across = ceil_divide(c.outputs, tile_columns), split = blockIdx.z % c.splits;
        first_pixel = blockIdx.x / across * tile_rows;
        first_output = blockIdx.x % across * tile_columns;
        pixels = c.pictures * rows.length * columns.length;
        int steps = depth_steps(rows, columns, c.channels, flat);
        int share = ceil_divide(steps, c.splits);
        first_step = min(split * share, steps);
        last_step = min(first_step + share, steps);
    }
};

/* Copies the tiles of one step after the other. */
template <class shape, typename T, bool backward> struct gather {
    typedef T a_element, b_element;
    static constexpr order a_order = ALONG_DEPTH, b_order = backward ? ACROSS_DEPTH : ALONG_DEPTH;
    static constexpr int row_copies = shape::rows * depth_pieces<T> / shape::threads;
    static constexpr int column_copies = shape::columns * depth_pieces<T> / shape::threads;

    const convolution &c;
    const block_of_work &work;
    const pixel *pixels; /* in shared memory */
    int row_step, column_step, channel;
    int source[row_copies]; /* pixels of the present tap */

    __device__ __forceinline__ gather(const convolution &c, const block_of_work &work,
                                      const pixel *pixels)
        : c(c), work(work), pixels(pixels), row_step(), column_step(), channel()
    {
        if (work.first_step == work.last_step)
            return;
        int chunks = ceil_divide(c.channels, DEPTH), tap = work.first_step / chunks;
        row_step = tap / work.columns.steps;
        column_step = tap % work.columns.steps;
        channel = work.first_step % chunks * DEPTH;
        locate();
    }

    __device__ __forceinline__ void locate()
    {
        UNROLL
        for (int i = 0; i < row_copies; i++) {
            tile_piece<a_order, shape::rows, T> piece(threadIdx.x + i * shape::threads);
            source[i] =
                source_pixel(c, work.rows, work.columns, pixels[piece.row], row_step, column_step);
        }
    }

    __device__ __forceinline__ void fetch_pixels(T *tile) const
    {
        constexpr int elements = piece_elements<T>;
        UNROLL
        for (int i = 0; i < row_copies; i++) {
            tile_piece<a_order, shape::rows, T> piece(threadIdx.x + i * shape::threads);
            int left = source[i] < 0 ? 0 : c.channels - channel - piece.depth;
            const T *from = static_cast<const T *>(c.source);
            if (left > 0)
                from += (size_t)source[i] * c.channels + channel + piece.depth;
            copy_piece(piece.in(tile), from, max(min(left, +elements), 0),
                       c.channels % elements == 0);
        }
    }

    __device__ __forceinline__ void fetch_weights(T *tile) const
    {
        int tap = tap_of(work.rows, row_step) * c.kernel_width + tap_of(work.columns, column_step);
        ROLLED
        for (int i = 0; i < column_copies; i++) {
            tile_piece<b_order, shape::columns, T> piece(threadIdx.x + i * shape::threads);
            int weight_output = backward ? channel + piece.depth : work.first_output + piece.row;
            int weight_input = backward ? work.first_output + piece.row : channel + piece.depth;
            bool inside = weight_output < c.weight_outputs && weight_input < c.weight_pitch;
            const T *from = static_cast<const T *>(c.weight);
            if (inside)
                from += ((size_t)tap * c.weight_outputs + weight_output) * c.weight_pitch +
                        weight_input;
            copy_piece(piece.in(tile), from, inside ? piece_elements<T> : 0, true);
        }
    }

    __device__ __forceinline__ void fetch(T *a_tile, T *b_tile)
    {
        fetch_pixels(a_tile);
        fetch_weights(b_tile);
        channel += DEPTH;
        if (channel < c.channels)
            return;
        channel = 0;
        if (++column_step == work.columns.steps) {
            column_step = 0;
            row_step++;
        }
        locate();
    }
};

/* ---- the same for few channels ---- */
struct flat_depth {
    bool inside;
    int row_step, column_step, tap, channel;

    __device__ __forceinline__ flat_depth(const convolution &c, const block_of_work &work,
                                          int depth)
    {
        int step = depth / c.channels;
        inside = step < work.rows.steps * work.columns.steps;
        row_step = inside ? step / work.columns.steps : 0;
        column_step = inside ? step % work.columns.steps : 0;
        tap = tap_of(work.rows, row_step) * c.kernel_width + tap_of(work.columns, column_step);
        channel = depth % c.channels;
    }
};

/* Element by element: a warp takes the depths of a row, or the rows of a depth, whichever are
 * neighbours in memory, and the tile's order keeps them in banks of their own. */
template <class shape, typename T, bool backward> struct flat_gather {
    typedef T a_element, b_element;
    static constexpr order a_order = ALONG_DEPTH, b_order = backward ? ACROSS_DEPTH : ALONG_DEPTH;

    const convolution &c;
    const block_of_work &work;
    const pixel *pixels; /* in shared memory */
    int first_depth;

    __device__ __forceinline__ flat_gather(const convolution &c, const block_of_work &work,
                                           const pixel *pixels)
        : c(c), work(work), pixels(pixels), first_depth(work.first_step * DEPTH)
    {
    }

    __device__ __forceinline__ void fetch_pixels(T *tile) const
    {
        int k = threadIdx.x % DEPTH;
        flat_depth depth(c, work, first_depth + k);
        const T *source = static_cast<const T *>(c.source);
        ROLLED
        for (int row = threadIdx.x / DEPTH; row < shape::rows; row += shape::threads / DEPTH) {
            int from = source_pixel(c, work.rows, work.columns, pixels[row], depth.row_step,
                                    depth.column_step);
            bool inside = depth.inside && from >= 0;
            copy_element(tile + tile_offset<a_order, shape::rows, T>(row, k),
                         inside ? source + (size_t)from * c.channels + depth.channel : source,
                         inside);
        }
    }

    __device__ __forceinline__ void fetch_weights(T *tile) const
    {
        const T *weight = static_cast<const T *>(c.weight);
        ROLLED
        for (int i = threadIdx.x; i < shape::columns * DEPTH; i += shape::threads) {
            int column = backward ? i % shape::columns : i / DEPTH;
            int k = backward ? i / shape::columns : i % DEPTH;
            int output = work.first_output + column;
            flat_depth depth(c, work, first_depth + k);
            size_t row = (size_t)depth.tap * c.weight_outputs + (backward ? depth.channel : output);
            bool inside = depth.inside && output < c.outputs;
            copy_element(tile + tile_offset<b_order, shape::columns, T>(column, k),
                         inside
                             ? weight + row * c.weight_pitch + (backward ? output : depth.channel)
                             : weight,
                         inside);
        }
    }

    __device__ __forceinline__ void fetch(T *a_tile, T *b_tile)
    {
        fetch_pixels(a_tile);
        fetch_weights(b_tile);
        first_depth += DEPTH;
    }
};

template <class shape, typename T, bool backward, bool flat> struct gather_of {
    typedef gather<shape, T, backward> type;
};
template <class shape, typename T, bool backward> struct gather_of<shape, T, backward, true> {
    typedef flat_gather<shape, T, backward> type;
};

/* ---- the sums' way out ---- */
/* Stores COUNT neighbouring outputs of a pixel, `offset` elements into the result, as far as there
 * are so many. */
template <unsigned COUNT, typename T>
__device__ __forceinline__ void store_outputs(const convolution &c, T *result, size_t offset,
                                              int output, pack<COUNT> value)
{
    const T *residual = static_cast<const T *>(c.residual);
    if (c.bias) {
        UNROLL
        for (unsigned k = 0; k < COUNT; k++)
            value.at[k] += output + (int)k < c.outputs ? c.bias[output + k] : 0;
    }
    if (c.outputs % (int)COUNT == 0) {
        if (residual) {
            pack<COUNT> added = load_pack<COUNT>(residual + offset);
            UNROLL
            for (unsigned k = 0; k < COUNT; k++)
                value.at[k] += added.at[k];
        }
        store_pack(result + offset, value);
        return;
    }
    UNROLL
    for (unsigned k = 0; k < COUNT; k++)
        if (output + (int)k < c.outputs)
            store_one(result + offset + k,
                      value.at[k] + (residual ? load_one(residual + offset + k) : 0));
}

template <class shape, typename T>
__device__ __forceinline__ void store_sums(const typename shape::sums &sums, const convolution &c,
                                           const block_of_work &work, const pixel *pixels,
                                           T *result)
{
    place_in_block<shape> place;
    UNROLL
    for (int i = 0; i < shape::row_tiles * 2; i++) {
        int tile = i / 2, element = i % 2 * 2;
        pixel pixel = pixels[place.sum_row(tile, element)];
        bool inside = pixel.picture >= 0;
        size_t offset = inside ? output_offset(c, work.rows, work.columns, pixel) : 0;
        UNROLL
        for (int column = 0; column < shape::column_tiles; column += 4 / sizeof(T)) {
            const float *value = &sums[tile][column][element];
            if constexpr (sizeof(T) == sizeof(float)) {
                int output = work.first_output + place.sum_column(column);
                if (inside && output < c.outputs)
                    store_outputs<2>(c, result, offset + output, output, {value[0], value[1]});
            } else {
                four_columns four(value, &sums[tile][column + 1][element]);
                int output = work.first_output + place.column + 8 * column + four.column;
                if (inside && output < c.outputs)
                    store_outputs<4>(c, result, offset + output, output, four.value);
            }
        }
    }
}

template <class shape, operand operand, typename T, bool backward, bool flat>
__global__ void __launch_bounds__(shape::threads, 256 / shape::threads)
    convolve(const convolution c)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    __shared__ pixel pixels[shape::rows];
    block_of_work work(c, shape::rows, shape::columns, flat);
    if (work.first_pixel >= work.pixels)
        return;
    for (int i = threadIdx.x; i < shape::rows; i += shape::threads)
        pixels[i] = pixel_of(work.first_pixel + i, work.rows, work.columns, c.pictures);
    __syncthreads();
    typename gather_of<shape, T, backward, flat>::type source(c, work, pixels);
    typename shape::sums sums = {};
    multiply_steps<shape, operand>(sums, source, work.last_step - work.first_step, dynamic_shared);
    size_t result_floats = (size_t)c.pictures * c.height * c.width * c.outputs;
    if (sizeof(T) == sizeof(float) || c.splits > 1)
        store_sums<shape>(sums, c, work, pixels,
                          static_cast<float *>(c.result) + blockIdx.z % c.splits * result_floats);
    else
        store_sums<shape>(sums, c, work, pixels, static_cast<T *>(c.result));
}

/* ---- launching ---- */
enum tile { TILE_LARGE, TILE_SMALL, TILE_NARROW, TILE_FLAT };
typedef block_shape<128, 128, 64, 32> large_tile;
typedef block_shape<64, 64, 32, 32> small_tile;
typedef block_shape<128, 32, 32, 32> narrow_tile;

static inline dim3 convolution_grid(const convolution &c, int tile_rows, int tile_columns)
{
    int pixels = c.pictures * c.rows[0].length * c.columns[0].length; /* no class has more */
    return dim3((unsigned)(ceil_divide(pixels, tile_rows) * ceil_divide(c.outputs, tile_columns)),
                1, (unsigned)(c.classes * c.splits));
}

template <class shape, operand operand, typename T, bool backward, bool flat = false>
static void launch_shape(const convolution &c, cudaStream_t stream)
{
    constexpr int shared_bytes = stage_of<shape, T, T>::shared_bytes;
    cudaFuncSetAttribute(convolve<shape, operand, T, backward, flat>,
                         cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    LAUNCH((convolve<shape, operand, T, backward, flat>),
           convolution_grid(c, shape::rows, shape::columns), shape::threads, shared_bytes, stream,
           c);
}

/* One for each operand and type in memory, in files of their own, for each takes the compiler long.
 */
template <operand operand, typename T>
void launch_convolution(tile tile, bool backward, const convolution &c, cudaStream_t stream);

#define DEFINE_LAUNCH_CONVOLUTION(operand, T)                                                      \
    template <>                                                                                    \
    void launch_convolution<operand, T>(tile tile, bool backward, const convolution &c,            \
                                        cudaStream_t stream)                                       \
    {                                                                                              \
        if (tile == TILE_LARGE)                                                                    \
            backward ? launch_shape<large_tile, operand, T, true>(c, stream)                       \
                     : launch_shape<large_tile, operand, T, false>(c, stream);                     \
        else if (tile == TILE_SMALL)                                                               \
            backward ? launch_shape<small_tile, operand, T, true>(c, stream)                       \
                     : launch_shape<small_tile, operand, T, false>(c, stream);                     \
        else if (tile == TILE_FLAT)                                                                \
            backward ? launch_shape<small_tile, operand, T, true, true>(c, stream)                 \
                     : launch_shape<small_tile, operand, T, false, true>(c, stream);               \
        else                                                                                       \
            backward ? launch_shape<narrow_tile, operand, T, true>(c, stream)                      \
                     : launch_shape<narrow_tile, operand, T, false>(c, stream);                    \
    }

#endif
