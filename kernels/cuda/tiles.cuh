/* A picture cut into tiles, one a block: a run of pixels by a slice of at most 128 channels. The
 * threads of a block stand in rows and columns: a column is one pack of channels, a row every
 * rows-th pixel, so that a thread meets the same channels all the way. */
#ifndef KERNELS_CUDA_TILES_CUH
#define KERNELS_CUDA_TILES_CUH

#include "kernels/cuda/pack.cuh"

constexpr unsigned TILE_THREADS = 256, TILE_COLUMNS = 32;
/* At least so many for a thread, which first fetches what belongs to its channels. */
constexpr unsigned TILE_PIXELS = 8;
/* So many a thread fetches together, as loads do not wait for each other. */
constexpr unsigned TILE_STEP = 4;

struct tiling {
    unsigned pixels, channels;  /* of a picture */
    unsigned width;             /* of a pack */
    unsigned columns, rows;     /* of threads */
    unsigned run, runs, slices; /* pixels of a tile, tiles along and across */
};

static inline tiling tiling_of(const tensor *x, unsigned most_runs)
{
    tiling t;
    t.pixels = (unsigned)(x->shape[1] * x->shape[2]);
    t.channels = (unsigned)x->shape[3];
    t.width = t.channels % PACK == 0 ? PACK : 1;
    unsigned packs = t.channels / t.width;
    t.slices = ceil_divide(packs, TILE_COLUMNS);
    t.columns = ceil_divide(packs, t.slices);
    t.rows = TILE_THREADS / t.columns;
    t.run = max(ceil_divide(t.pixels, most_runs), t.rows * TILE_PIXELS);
    t.runs = ceil_divide(t.pixels, t.run);
    return t;
}

static inline dim3 tiling_grid(const tiling &t, const tensor *x)
{
    return dim3(t.runs, t.slices, (unsigned)x->shape[0]);
}

/* kernel<WIDTH, T>, by the width that the channels allow */
#define LAUNCH_TILES(kernel, T, t, x, stream, ...)                                                 \
    do {                                                                                           \
        if ((t).width == PACK)                                                                     \
            LAUNCH((kernel<PACK, T>), tiling_grid(t, x), TILE_THREADS, 0, stream, __VA_ARGS__);    \
        else                                                                                       \
            LAUNCH((kernel<1, T>), tiling_grid(t, x), TILE_THREADS, 0, stream, __VA_ARGS__);       \
    } while (0)

/* A thread's place in its tile. */
struct tile_place {
    bool working;         /* some threads have no column */
    unsigned row, column; /* in the tile */
    unsigned channel;     /* the first of the thread's pack */
    unsigned first, end;  /* the tile's pixels */
    size_t picture;       /* offset of the picture */
};

__device__ static inline tile_place place_in_tile(const tiling &t)
{
    tile_place place;
    place.row = threadIdx.x / t.columns;
    place.column = threadIdx.x % t.columns;
    place.channel = (blockIdx.y * t.columns + place.column) * t.width;
    place.first = blockIdx.x * t.run;
    place.end = min(place.first + t.run, t.pixels);
    place.working = place.row < t.rows && place.channel < t.channels;
    place.picture = (size_t)blockIdx.z * t.pixels * t.channels;
    return place;
}

__device__ static inline size_t tile_offset(const tiling &t, const tile_place &place,
                                            unsigned pixel)
{
    return place.picture + (size_t)pixel * t.channels + place.channel;
}

/* The thread's pixels first, first + rows, ... as far as the tile goes; zeros beyond. */
template <unsigned WIDTH, typename T>
__device__ static inline void load_pixels(const tiling &t, const tile_place &place, const T *x,
                                          unsigned first, pack<WIDTH> value[TILE_STEP])
{
    for (unsigned i = 0; i < TILE_STEP; i++) {
        value[i] = {};
        if (first + i * t.rows < place.end)
            value[i] = load_pack<WIDTH>(x + tile_offset(t, place, first + i * t.rows));
    }
}

template <unsigned WIDTH, typename T>
__device__ static inline void store_pixels(const tiling &t, const tile_place &place, T *y,
                                           unsigned first, const pack<WIDTH> value[TILE_STEP])
{
    for (unsigned i = 0; i < TILE_STEP; i++)
        if (first + i * t.rows < place.end)
            store_pack(y + tile_offset(t, place, first + i * t.rows), value[i]);
}

/* The channel of the tile that a thread folds over the rows, or none. */
__device__ static inline bool tile_channel(const tiling &t, unsigned *channel)
{
    *channel = blockIdx.y * t.columns * t.width + threadIdx.x;
    return threadIdx.x < t.columns * t.width && *channel < t.channels;
}

#endif
