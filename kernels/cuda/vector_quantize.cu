/* The nearest code. A warp's lanes are 32 vectors; the warps of a block take turns at tiles of 32
 * codes, and the nearest of all warps is found at the end. Distances must round exactly as the
 * plain kernel's, or near ties go to another code: no multiplication may fuse with an addition. */
#include "kernels/cuda/call.cuh"

constexpr unsigned POINTS = 32;
constexpr unsigned CODES = 32; /* of a tile */
constexpr unsigned DEPTH = 8;  /* components that lie in shared memory at a time */
/* A tile is [component][code]: lanes that store neighbouring components, four to a code, meet
 * different banks. */
constexpr unsigned PITCH = CODES + 8;
constexpr unsigned SEARCH_WARPS = 8, SEARCH_THREADS = SEARCH_WARPS * 32;

struct codebook {
    const float *codes;
    unsigned count, width;
};

struct nearest {
    float distance;
    int index;
};

__device__ static inline bool nearer(const nearest &a, const nearest &b)
{
    return a.distance < b.distance || (a.distance == b.distance && a.index < b.index);
}

__device__ static inline float plus_product(float sum, float a, float b)
{
    return __fadd_rn(sum, __fmul_rn(a, b));
}

/* Components [from, from + depth) of the codes from `first` on, zeros beyond the last code. */
__device__ static inline void load_codes(float (*tile)[PITCH], const codebook &book, unsigned first,
                                         unsigned from, unsigned depth)
{
    for (unsigned i = threadIdx.x % 32; i < CODES * depth; i += 32) {
        unsigned code = i / depth, c = i % depth;
        bool inside = first + code < book.count;
        tile[c][code] = inside ? book.codes[(size_t)(first + code) * book.width + from + c] : 0;
    }
}

/* product[k] += z[c] * code k's component c, and the lane's own code's square likewise. */
__device__ static inline void multiply_codes(const float (*tile)[PITCH], const float *z,
                                             unsigned depth, float product[CODES], float *square)
{
    for (unsigned c = 0; c < depth; c++) {
        float component = z[c], own = tile[c][threadIdx.x % 32];
        *square = plus_product(*square, own, own);
        for (unsigned k = 0; k < CODES; k += 4) {
            float4 e = *reinterpret_cast<const float4 *>(&tile[c][k]);
            product[k] = plus_product(product[k], component, e.x);
            product[k + 1] = plus_product(product[k + 1], component, e.y);
            product[k + 2] = plus_product(product[k + 2], component, e.z);
            product[k + 3] = plus_product(product[k + 3], component, e.w);
        }
    }
}

/* The first nearest of the codes from `first` on, if nearer than `best`. */
__device__ static inline void search_tile(float (*tile)[PITCH], const codebook &book,
                                          unsigned first, const float *z, float norm, nearest *best)
{
    float product[CODES] = {}, square = 0;
    for (unsigned from = 0; from < book.width; from += DEPTH) {
        unsigned depth = min(book.width - from, DEPTH);
        __syncwarp(); /* all lanes have left the last codes */
        load_codes(tile, book, first, from, depth);
        __syncwarp();
        multiply_codes(tile, z + from, depth, product, &square);
    }
    if (first + threadIdx.x % 32 >= book.count)
        square = INFINITY;
    for (unsigned k = 0; k < CODES; k++) {
        float both = __fadd_rn(norm, __shfl_sync(0xffffffff, square, k));
        float distance = __fadd_rn(both, -2 * product[k]);
        if (distance < best->distance)
            *best = {distance, (int)(first + k)};
    }
}

__device__ static inline nearest search_book(float (*tile)[PITCH], const codebook &book,
                                             const float *z)
{
    nearest best = {INFINITY, 0};
    float norm = 0;
    for (unsigned c = 0; c < book.width; c++)
        norm = plus_product(norm, z[c], z[c]);
    for (unsigned first = threadIdx.x / 32 * CODES; first < book.count;
         first += SEARCH_WARPS * CODES)
        search_tile(tile, book, first, z, norm, &best);
    return best;
}

__global__ void __launch_bounds__(SEARCH_THREADS)
    quantize_vectors(const float *z, codebook book, unsigned points, float *quantized, int *index)
{
    __shared__ __align__(16) float tiles[SEARCH_WARPS][DEPTH][PITCH];
    __shared__ nearest found[SEARCH_WARPS][POINTS];
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = blockIdx.x * POINTS;
    /* lanes beyond the last vector search for it again: all lanes of a warp must take part */
    const float *own = z + (size_t)min(first + lane, points - 1) * book.width;
    found[warp][lane] = search_book(tiles[warp], book, own);
    __syncthreads();
    unsigned count = min(points - first, POINTS);
    for (unsigned i = threadIdx.x; i < count * book.width; i += SEARCH_THREADS) {
        unsigned point = i / book.width, c = i % book.width;
        nearest best = found[0][point];
        for (unsigned other = 1; other < SEARCH_WARPS; other++)
            if (nearer(found[other][point], best))
                best = found[other][point];
        size_t at = (size_t)first * book.width + i;
        float e = book.codes[(size_t)best.index * book.width + c];
        quantized[at] = z[at] + (e - z[at]);
        if (c == 0)
            index[first + point] = best.index;
    }
}

void cuda_vector_quantize(const kernel_call *call)
{
    const int64_t *shape = call->input[0].shape;
    unsigned points = (unsigned)(shape[0] * shape[1] * shape[2]);
    codebook book = {input_of(call, 1), (unsigned)call->input[1].shape[2], (unsigned)shape[3]};
    LAUNCH(quantize_vectors, ceil_divide(points, POINTS), SEARCH_THREADS, 0, stream_of(call),
           input_of(call, 0), book, points, output_of(call, 0), output_of<int>(call, 1));
}
