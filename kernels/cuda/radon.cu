/* Parallel-beam ray sums and their exact transpose. A warp walks a ray, its lanes taking turns at
 * the samples; in the transpose each pixel gathers from the samples next to it, which it finds by
 * projecting its centre on the rays. Positions are in double, as on the CPU: which pixels a sample
 * lies between must be the same in both directions. */
#include "kernels/cuda/call.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/radon.h"

constexpr unsigned RADON_THREADS = 128;

typedef struct radon_ray traced_ray; /* radon_ray alone is the function */

struct radon_shape {
    int height, width, channels, views, detectors;
};

/* The sample's place: the pixel above and to its left, and how far it is beyond. */
struct radon_sample {
    int left, top;
    float right_share, lower_share;
};

__device__ static inline radon_sample sample_of(const traced_ray &ray, int index)
{
    double column = fma((double)index, ray.column_step, ray.column);
    double row = fma((double)index, ray.row_step, ray.row);
    int left = radon_floor(column), top = radon_floor(row);
    return {left, top, (float)(column - left), (float)(row - top)};
}

/* The bilinear weight that a sample gives to the pixel `beyond` its left or top one: 0, 1, or no
 * other. */
__device__ static inline float share_of(int beyond, float share)
{
    return beyond == 0 ? 1 - share : beyond == 1 ? share : 0;
}

__device__ static inline float read_sample(const radon_shape &s, const radon_sample &sample,
                                           const float *x)
{
    float sum = 0;
    for (int dy = 0; dy < 2; dy++)
        for (int dx = 0; dx < 2; dx++) {
            int row = sample.top + dy, column = sample.left + dx;
            bool inside = row >= 0 && row < s.height && column >= 0 && column < s.width;
            float weight = share_of(dy, sample.lower_share) * share_of(dx, sample.right_share);
            if (inside)
                sum += weight * x[((size_t)row * s.width + column) * s.channels];
        }
    return sum;
}

/* blockIdx.y: the picture's channel */
__global__ void __launch_bounds__(RADON_THREADS)
    sum_rays(radon_shape s, const float *x, const double *geometry, float *y)
{
    unsigned index = (blockIdx.x * RADON_THREADS + threadIdx.x) / WARP;
    unsigned rays = (unsigned)(s.views * s.detectors), channel = blockIdx.y % s.channels;
    size_t picture = blockIdx.y / s.channels;
    if (index >= rays)
        return;
    traced_ray ray =
        radon_ray(geometry, index / s.detectors, index % s.detectors, s.height, s.width);
    x += picture * s.height * s.width * s.channels + channel;
    double sum = 0;
    for (int i = threadIdx.x % WARP; i < ray.samples; i += WARP)
        sum += read_sample(s, sample_of(ray, i), x);
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0)
        y[(picture * rays + index) * s.channels + channel] = (float)(sum * ray.weight);
}

/* The transpose finds the rays of all pixels here. */
__global__ void __launch_bounds__(RADON_THREADS)
    trace_rays(radon_shape s, const double *geometry, traced_ray *rays)
{
    int index = blockIdx.x * RADON_THREADS + threadIdx.x;
    if (index < s.views * s.detectors)
        rays[index] =
            radon_ray(geometry, index / s.detectors, index % s.detectors, s.height, s.width);
}

/* A sample touches a pixel from less than a diagonal away. */
constexpr float REACH = 1.4143f;

struct pixel {
    int row, column;
};

/* What a ray's samples next to the pixel give it. */
__device__ static inline double gather_ray(const traced_ray &ray, const pixel &pixel, float value)
{
    float across = (float)ray.column_step, down = (float)ray.row_step;
    float length = sqrtf(across * across + down * down);
    float nearest =
        ((float)(pixel.column - ray.column) * across + (float)(pixel.row - ray.row) * down) /
        (length * length);
    int first = max((int)floorf(nearest - REACH / length), 0);
    int last = min((int)ceilf(nearest + REACH / length), (int)ray.samples - 1);
    double sum = 0;
    for (int i = first; i <= last; i++) {
        radon_sample sample = sample_of(ray, i);
        sum += (double)(share_of(pixel.row - sample.top, sample.lower_share) *
                        share_of(pixel.column - sample.left, sample.right_share));
    }
    return sum * ray.weight * value;
}

/* Detectors [*first, *end) of a view see the pixel. */
__device__ static inline void detectors_near(const radon_shape &s, const double *geometry, int view,
                                             const pixel &pixel, int *first, int *end)
{
    const double *angle = geometry + RADON_GEOMETRY_HEADER + 2 * view;
    double across = pixel.column + 0.5 - 0.5 * s.width, down = pixel.row + 0.5 - 0.5 * s.height;
    double spacing = geometry[RADON_SPACING];
    double middle = (across * angle[0] - down * angle[1]) / spacing + geometry[RADON_CENTER];
    double reach = REACH / fabs(spacing);
    *first = (int)fmax(ceil(middle - reach), 0.0);
    *end = (int)fmin(floor(middle + reach) + 1, (double)s.detectors);
}

__global__ void __launch_bounds__(RADON_THREADS)
    gather_rays(radon_shape s, const float *y, const double *geometry, const traced_ray *rays,
                float *x)
{
    unsigned i = blockIdx.x * RADON_THREADS + threadIdx.x;
    unsigned picture = (unsigned)(s.height * s.width * s.channels);
    if (i >= picture)
        return;
    int position = (int)(i / s.channels);
    pixel pixel = {position / s.width, position % s.width};
    y += (size_t)blockIdx.y * s.views * s.detectors * s.channels + i % s.channels;
    double sum = 0;
    for (int view = 0; view < s.views; view++) {
        int first, end;
        detectors_near(s, geometry, view, pixel, &first, &end);
        for (int detector = first; detector < end; detector++) {
            size_t index = (size_t)view * s.detectors + detector;
            if (rays[index].samples > 0)
                sum += gather_ray(rays[index], pixel, y[index * s.channels]);
        }
    }
    x[(size_t)blockIdx.y * picture + i] = (float)sum;
}

static radon_shape radon_shape_of(const tensor *picture, const tensor *sinogram)
{
    return {(int)picture->shape[1], (int)picture->shape[2], (int)picture->shape[3],
            (int)sinogram->shape[1], (int)sinogram->shape[2]};
}

void cuda_radon(const kernel_call *call)
{
    radon_shape s = radon_shape_of(&call->input[0], &call->output[0]);
    unsigned rays = (unsigned)(s.views * s.detectors);
    unsigned planes = (unsigned)(call->input[0].shape[0] * s.channels);
    LAUNCH(sum_rays, dim3(ceil_divide(rays, RADON_THREADS / WARP), planes), RADON_THREADS, 0,
           stream_of(call), s, input_of(call, 0), input_of<double>(call, 1), output_of(call, 0));
}

size_t cuda_radon_adjoint_workspace(const kernel_call *call)
{
    const int64_t *shape = call->input[0].shape;
    return (size_t)(shape[1] * shape[2]) * sizeof(traced_ray);
}

void cuda_radon_adjoint(const kernel_call *call)
{
    const tensor *x = &call->output[0];
    radon_shape s = radon_shape_of(x, &call->input[0]);
    const double *geometry = input_of<double>(call, 1);
    traced_ray *rays = static_cast<traced_ray *>(call->workspace);
    LAUNCH(trace_rays, ceil_divide((unsigned)(s.views * s.detectors), RADON_THREADS), RADON_THREADS,
           0, stream_of(call), s, geometry, rays);
    LAUNCH(gather_rays,
           dim3(ceil_divide(picture_elements(x), RADON_THREADS), (unsigned)x->shape[0]),
           RADON_THREADS, 0, stream_of(call), s, input_of(call, 0), geometry, rays,
           output_of(call, 0));
}
