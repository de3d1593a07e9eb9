/* The one kernel interface behind which the backends stand. A kernel is a plain C function over a
 * descriptor: input and output tensors (pointer, element type, shape), attributes, a workspace that
 * the memory plan granted, and the number of threads (cpu) or the stream (cuda). Kernels never fail,
 * never allocate, and give the same bytes for any number of threads: work units depend on the shape
 * alone, partial results combine in unit order, no atomics.
 *
 * Layout: four dimensions, NHWC, dense, channels innermost. A vector of C channels is {1,1,1,C}, one
 * number per picture {N,1,1,1}, a scalar {1,1,1,1}. "real" is the program's floating type: f32, or
 * f64 with the plain double kernels (gradient checks). Accumulation in the plain kernels is double.
 * An output may be the very same memory as an input only where this says "in place".
 *
 * The networks' values may be bf16 in place of real (struct kernels' `network`): x, y, dx, dy, qkv, o and
 * residuals of conv2d, group_norm, attention, silu, combine, add_channel, sum_spatial and the channel
 * kernels, all of a call alike, and convolutions' weights in a bf16 form. Everything else stays real
 * (biases, gamma, beta, statistics, lse), and so does every sum.
 *
 * NAME: inputs -> outputs                                     (op; attributes)
 *
 * conv2d: x[N,H,W,I], weight, bias[1,1,1,O] or none, residual[N,P,Q,O] or none -> y[N,P,Q,O]
 *     cross-correlation, zero padding, stride 1 or 2; y = conv(x) + bias + residual; attributes.conv2d.
 *     upsample = 2 first repeats each pixel 2x2 (nearest), so H, W there are 2H, 2W.
 *     weight's tensor has logical shape {O,I,kh,kw}; its bytes are in attributes.conv2d.form
 *     (WEIGHT_PLAIN: row-major OIHW real). A linear layer is a 1x1 convolution of {N,1,1,C}.
 *     in place: y on residual.
 * conv2d_backward_data: dy[N,P,Q,O], weight -> dx[N,H,W,I]      attributes of the forward convolution;
 *     the exact transpose of conv2d in x (upsampling included); H, W are dx's shape. form may be
 *     another one than the forward's.
 * conv2d_backward_weight: x[N,H,W,I], dy[N,P,Q,O] -> dw[O,I,kh,kw]   attributes of the forward
 *     convolution but for form: the exact transpose of conv2d in its weight. dw is WEIGHT_PLAIN.
 * conv2d_pack_weight: w[O,I,kh,kw] in WEIGHT_PLAIN -> the same in attributes.conv2d.form, whose bytes
 *     are weight_bytes(form, shape) whatever the output's tensor says
 * group_norm: x[N,H,W,C], gamma[1,1,1,C], beta[1,1,1,C] -> y, statistics[N,1,G,2] (mean, 1/std)
 *     attributes.group_norm {groups, epsilon, silu}: y = (x-mean)/sqrt(var+epsilon)*gamma+beta, then
 *     SiLU if silu. Biased variance over H,W and the group's channels.
 * group_norm_backward: dy, x, gamma, beta, statistics -> dx     SiLU's derivative included. in place: dx on dy.
 * group_norm_backward_affine: dy, x, gamma, beta, statistics -> dgamma[1,1,1,C], dbeta[1,1,1,C]
 *     sums over all pixels of all pictures, SiLU's derivative included
 * group_norm_jvp: dx, x, gamma, beta, statistics -> dy          the change of y when x moves by dx, the
 *     statistics' change and SiLU's derivative included. in place: dy on dx.
 * attention: qkv[N,H,W,3C] -> o[N,H,W,C], lse[N,heads,H*W,1]    attributes.attention {heads}
 *     channels of qkv are [head][q(d),k(d),v(d)], d = C/heads; softmax over tokens of q.k/sqrt(d);
 *     lse = log-sum-exp of a query's scaled scores. The N x N matrix is never stored whole.
 * attention_backward: d_o, qkv, o, lse -> dqkv                  recomputes the probabilities
 * attention_jvp: dqkv, qkv, o, lse -> d_o                       the change of o when qkv moves by dqkv;
 *     recomputes the probabilities P = exp(scores - lse): with dS the change of the scaled scores,
 *     d_o = sum P dv + sum P dS v - (sum P dS) o
 * silu: x -> x*sigmoid(x). silu_backward: dy, x -> dx           in place: y on x, dx on dy. Elementwise,
 *     so that dx = silu'(x)*dy is also the change of y when x moves by dy.
 * leaky_relu: x -> x where x > 0, else slope*x. leaky_relu_backward: dy, x -> dx   attributes.leaky_relu
 *     {slope}; in place and elementwise as silu's
 * combine: a, b or none -> alpha*a + beta*b                     attributes.combine; in place on a or b
 * combine_scaled: a, b, coefficients[1,1,1,n] -> a + c*b        c = attributes.combine.beta *
 *     coefficients[attributes.combine.index], read on the device; in place on a or b
 * multiply: x[N,H,W,C], m[1,H,W,1] or [1,H,W,C] -> x*m          in place on x
 * add_channel: x[N,H,W,C], b[N,1,1,C] -> x + b at every pixel    in place on x
 * sum_spatial: x[N,H,W,C] -> [N,1,1,C]
 * sum_pixels: x[N,H,W,C] -> [1,1,1,C], over all pixels of all pictures
 * concat_channels: a[N,H,W,A], b[N,H,W,B] -> [N,H,W,A+B], a first
 * slice_channels: x -> channels [start, start+count)             attributes.channels
 * pad_channels: x[..,count] -> zeros but for channels [start, start+count) of `total`  attributes.channels
 * timestep_embedding: t[N,1,1,1] real -> [N,1,1,C]               models.md section 2: cos first, then sin;
 *     f_i = exp(-ln(max_period)*i/(C/2)), attributes.timestep {max_period}; an odd C ends in a zero
 * vector_quantize: z[N,H,W,d], codebook[1,1,n,d] -> zq[N,H,W,d], index[N,H,W,1] i32
 *     the code with the least |z|^2+|e|^2-2<z,e> (algorithm.md section 7), first index on ties;
 *     zq = z + (e - z) in real arithmetic
 * take_codes: codebook[1,1,n,d], index[N,H,W,1] i32 -> e[N,H,W,d], the codes with these indices
 * take_codes_backward: g[N,H,W,d], index -> [1,1,n,d], of each code the sum of the g that took it,
 *     added in the pixels' order in real arithmetic
 * mean_squared_error: a, b (same shape) -> scalar mean (a-b)^2, accumulated in double
 * mean_squared_error_backward: g scalar, a, b -> d a = g*2/n*(a-b)
 * mean_absolute_error: a, b (same shape) -> scalar mean |a-b|, accumulated in double
 * mean_absolute_error_backward: g scalar, a, b -> d a = g/n*sign(a-b), 0 where they are equal
 * l2_norm: r -> scalar sqrt(sum r^2), accumulated in double
 * l2_norm_backward: g scalar, r, norm scalar -> g*r/norm (0 where norm = 0)
 * dot: a, b (same shape) -> scalar sum a*b, accumulated in double
 * adam_step: p, g, m, v, step[1,1,1,1] i32 -> p, m, v, step (the same memory)   attributes.adam
 *     step += 1, decoupled decay, algorithm.md section 6; 1-beta^step in double; zero-initialised m, v, step
 * adamw_step: p, g, m, v, control[1,1,1,8], squared_norm scalar -> p, m, v (the same memory)
 *     attributes.adam without the rate; control: OPTIMISER_* below. For training, whose rate changes
 *     and whose gradient is clipped: g is scaled by OPTIMISER_SCALE, and once more where
 *     sqrt(squared_norm)*scale would exceed OPTIMISER_CLIP; nothing changes where squared_norm is not finite
 * copy: x -> x
 * reshape: x -> the same elements in the output's shape; in place
 * cast: x -> x in the type of the output: real to bf16, rounded to nearest even, or bf16 to real
 * philox_normal: counter[1,1,1,4] i32 (seed low, seed high, stream, draw) -> normals of y's shape,
 *     counter (the same memory, draw += 1). Philox4x32-10, key = seed, counter = (block, 0, draw,
 *     stream); element i takes lane i%4 of block i/4, Box-Muller on lane pairs; elements counted in
 *     NCHW order of the output so that layouts do not show. See kernels/philox.h.
 * ddim_step: x, e, noise or none, coefficients[1,1,1,8] -> x_next, pred_x0, pseudo
 *     algorithm.md section 3; coefficients: DDIM_* below
 * stochastic_resample: z0, x_t, noise, coefficients[1,1,1,8] -> x      algorithm.md section 5.1; RESAMPLE_* below
 * stop_rule: loss scalar, window[1,1,1,w], iteration i32 scalar -> stop i32 scalar, window, iteration (the
 *     same memory)   attributes.stop {threshold, w = plateau or 0}; algorithm.md section 6.2: it = iteration;
 *     stop = loss < threshold (or <= when inclusive), or w > 0 and it >= w and window[it % w] < loss, or
 *     loss not finite; then window[it % w] = loss, iteration = it + 1. Zero-initialise iteration.
 * keep_best: loss scalar, x, best_loss scalar, best_x -> best_loss, best_x (the same memory)
 *     copies when loss < best_loss; initialise best_loss to +infinity
 * search_direction: energy scalar, g, previous_g, d, search[1,1,1,8] -> previous_g, d, search (the
 *     same memory)   where the energy rose above that of the base point: search[ACCEPTED] = 0 and
 *     nothing else. Otherwise g's conjugate direction: beta = max(0, <g, g - previous_g> /
 *     <previous_g, previous_g>), 0 where search[FRESH]; d = -g + beta*d, or -g where that would not
 *     descend; previous_g = g, search[SLOPE] = <g, d>. Sums in double. Start: search[FRESH] = 2.
 * search_step: z, base, d, curvature scalar, search -> z, base, search (the same memory)
 *     accepted: base = z, the step is exact for a parabola, -slope/curvature. Else a quarter of the
 *     last step from the base, search[SHORTENED] += 1 and the next direction is fresh. z = base +
 *     step*d.
 * axis_filter: x[N,H,W,C], offsets i32[1,1,1,n+1], indices i32[1,1,1,k], weights real[1,1,1,k] -> y
 *     a sparse linear map along one axis (attributes.axis_filter {axis = 1 (H) or 2 (W), length = n}):
 *     y[..o..] = sum over j in offsets[o]..offsets[o+1]-1 of weights[j] * x[..indices[j]..]
 * tap_filter: x[N,H,W,C], taps i32[1,1,k,2] (dy,dx), weights real[1,1,1,k] -> y[N,H,W,C]
 *     y[h,w] = sum weights[j] * x[reflect(h+dy_j), reflect(w+dx_j)], reflection without repeating the
 *     edge (-1 -> 1), as often as needed. tap_filter_adjoint: its exact transpose.
 * radon: x[N,H,W,C], geometry f64[1,1,1,RADON_GEOMETRY_HEADER + 2*views] -> sinogram[N,views,detectors,C]
 *     operators.md section 6.1's ray sum times geometry scale, in exact arithmetic; zero outside the
 *     picture. geometry: RADON_* below, then cos, sin per view. radon_adjoint: sinogram, geometry -> x,
 *     the exact transpose.
 */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum element_type { TYPE_F32, TYPE_F64, TYPE_I32, TYPE_BF16, TYPE_BYTES };

struct tensor {
    void *data; /* NULL: an optional input that is absent */
    enum element_type type;
    int64_t shape[4];
};

static inline size_t element_bytes(enum element_type type)
{
    return type == TYPE_F64 ? 8 : type == TYPE_BF16 ? 2 : type == TYPE_BYTES ? 1 : 4;
}

static inline int64_t tensor_elements(const struct tensor *tensor)
{
    return tensor->shape[0] * tensor->shape[1] * tensor->shape[2] * tensor->shape[3];
}

/* How a convolution's weight lies in memory. A backend chooses per shape and direction. */
enum weight_form {
    WEIGHT_PLAIN,            /* row-major, as in the checkpoint: OIHW, or a vector */
    WEIGHT_DIRECT,           /* packed for the direct convolution */
    WEIGHT_DIRECT_BACKWARD,  /* packed for its backward-data */
    WEIGHT_WINOGRAD,         /* F(4x4,3x3), forward and backward-data alike */
    WEIGHT_WINOGRAD_SMALL,   /* F(2x2,3x3), likewise; for want of memory */
    WEIGHT_UPSAMPLE,         /* 25 products for 4x4 outputs of an upsampling 3x3 one, likewise */
    WEIGHT_TAPS,             /* [tap][output][input], for the tensor cores, both directions alike */
    WEIGHT_TAPS_MERGED,      /* the same where upsampled 3x3 taps meet one pixel: 4x4 sums of taps */
    WEIGHT_TAPS_BF16,        /* both in bf16 */
    WEIGHT_TAPS_MERGED_BF16,
    WEIGHT_FORM_COUNT
};

struct conv2d_attributes {
    int kernel_height, kernel_width, stride;
    int pad_top, pad_left, pad_bottom, pad_right;
    int upsample; /* 1 or 2 */
    enum weight_form form;
    int way; /* of the table's conv2d_ways, from 1, or a library's; 0: its own choice */
};

/* Ways by a vendor's library, for calls where the table's conv2d_by_library says so. */
enum { WAY_LIBRARIES = 64, WAY_CUDNN = WAY_LIBRARIES, WAY_CUBLAS, WAY_END };

union attributes {
    struct conv2d_attributes conv2d;
    struct {
        int groups;
        double epsilon;
        bool silu;
    } group_norm;
    struct {
        int heads;
    } attention;
    struct {
        double slope;
    } leaky_relu;
    struct {
        double alpha, beta;
        int index;
    } combine;
    struct {
        int64_t start, count, total;
    } channels;
    struct {
        double max_period;
    } timestep;
    struct {
        double learning_rate, beta1, beta2, epsilon, weight_decay;
    } adam;
    struct {
        double threshold;
        bool inclusive;
    } stop;
    struct {
        int axis;
        int64_t length;
    } axis_filter;
};

/* coefficients of ddim_step: x_next = SQRT_A_PREV*pred_x0 + DIRECTION*e + SIGMA*noise,
 * pred_x0 = (x - SQRT_ONE_MINUS_A*e)/SQRT_A, pseudo = (x - SQRT_ONE_MINUS_A^2*e)/SQRT_A */
enum { DDIM_SQRT_A, DDIM_SQRT_ONE_MINUS_A, DDIM_SQRT_A_PREV, DDIM_DIRECTION, DDIM_SIGMA };
/* coefficients of stochastic_resample: x = WEIGHT_Z0*z0 + WEIGHT_X*x_t + DEVIATION*noise */
enum { RESAMPLE_WEIGHT_Z0, RESAMPLE_WEIGHT_X, RESAMPLE_DEVIATION };
/* control of adamw_step: the corrections are 1 - beta1^t and 1 - beta2^t at step t; a clip of 0 is
 * none */
enum {
    OPTIMISER_LEARNING_RATE,
    OPTIMISER_CLIP,
    OPTIMISER_SCALE,
    OPTIMISER_CORRECTION1,
    OPTIMISER_CORRECTION2
};
/* state of a search along conjugate directions */
enum {
    SEARCH_ENERGY,    /* at the base point */
    SEARCH_SLOPE,     /* of the energy along the direction */
    SEARCH_STEP,      /* last length */
    SEARCH_FRESH,     /* 2: no base point yet, 1: the next direction starts anew */
    SEARCH_ACCEPTED,  /* the last point is the base */
    SEARCH_SHORTENED, /* how many steps were */
    SEARCH_STATE = 8
};
/* geometry of radon: detector r's coordinate is s = (r - center)*spacing, in pixels from the middle
 * of the picture (center = detectors/2 - 0.5 when centred); the picture is H x W pixels */
enum { RADON_SCALE, RADON_SPACING, RADON_CENTER, RADON_GEOMETRY_HEADER };

enum { KERNEL_MAX_INPUTS = 6, KERNEL_MAX_OUTPUTS = 4 };

struct kernel_call {
    const struct tensor *input;  /* as many as kernels.def says */
    const struct tensor *output;
    const union attributes *attributes;
    void *workspace; /* 64-byte aligned, workspace_bytes(call) long, contents undefined */
    int threads;
    void *stream;
};

struct kernel {
    void (*run)(const struct kernel_call *call);
    /* Bytes of workspace for these shapes (data pointers may be NULL); NULL: none. */
    size_t (*workspace_bytes)(const struct kernel_call *call);
};

enum kernel_id {
#define KERNEL(name, inputs, outputs) KERNEL_##name,
#include "kernels/kernels.def"
#undef KERNEL
    KERNEL_COUNT
};

struct device; /* runtime/device.h */

struct kernels {
    const char *name; /* "plain", "scalar", "avx2", "avx512", "cuda" */
    bool separate_memory;  /* their memory is not the host's, even while no device is open */
    struct device *device; /* where their memory lies; NULL: the host's */
    enum element_type network; /* of the networks' values: TYPE_BF16; else the program's real type */
    struct kernel kernel[KERNEL_COUNT];
    /* The form in which conv2d (or conv2d_backward_data when `backward`) wants its weight. `x` is the
     * forward input's shape, `y` the forward output's. Depends on the shapes alone. */
    enum weight_form (*conv2d_form)(const struct conv2d_attributes *attributes, const int64_t x[4],
                                    const int64_t y[4], bool backward);
    /* How many ways there are for this call (data pointers may be NULL), all of them right, none known
     * to be the fastest. NULL: one. */
    int (*conv2d_ways)(const struct kernel_call *call, bool backward);
    /* Whether WAY_CUDNN or WAY_CUBLAS does this call, once the device has opened its libraries. NULL:
     * neither does any. */
    bool (*conv2d_by_library)(const struct kernel_call *call, bool backward, int way);
    /* The form that takes less memory and more time for the same calls, or the same form. NULL: none
     * does. */
    enum weight_form (*smaller_form)(enum weight_form form);
    /* Bytes of a weight {O,I,kh,kw} in a form, and the packing from row-major OIHW floats. */
    size_t (*weight_bytes)(enum weight_form form, const int64_t shape[4]);
    void (*pack_weight)(enum weight_form form, const int64_t shape[4], const float *oihw,
                        void *packed, int threads);
};

/* The plain kernels: short loops, double accumulation; the reference of every other table. Real is
 * float, or double for the gradient checks. */
const struct kernels *kernels_plain_f32(void);
const struct kernels *kernels_plain_f64(void);

/* The fast CPU kernels by instruction set: "scalar", "avx2", "avx512"; NULL where this machine cannot
 * run them. kernels_cpu() is the best this machine has. */
const struct kernels *kernels_cpu_isa(const char *isa);
const struct kernels *kernels_cpu(void);

const char *kernel_name(enum kernel_id id);
int kernel_inputs(enum kernel_id id);
int kernel_outputs(enum kernel_id id);

#endif
