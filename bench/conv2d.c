/* Times the convolutions of the two shipped configurations against the multiply-add peak of this
 * machine, measured in the same run: milliseconds, direct-equivalent GFLOP/s (2*9*I*O per 3x3
 * output) and the multiply-adds really executed as a share of the peak. Other jobs disturb wall
 * time; with one thread its CPU time is taken instead.
 *
 *     build/bench/conv2d [THREADS [REPEATS [NAME]]] */
#include "kernels/kernels.h"
#include "runtime/memory.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct shape {
    const char *name;
    int64_t h, w, i, o;
    int kernel, stride, upsample;
};

static const struct shape shapes[] = {
    {"decoder 3->512 @64", 64, 64, 3, 512, 3, 1, 1},
    {"decoder 512->512 @64", 64, 64, 512, 512, 3, 1, 1},
    {"decoder 512->512 @128 up", 64, 64, 512, 512, 3, 1, 2},
    {"decoder 512->256 @128", 128, 128, 512, 256, 3, 1, 1},
    {"decoder 256->256 @128", 128, 128, 256, 256, 3, 1, 1},
    {"decoder 256->256 @256 up", 128, 128, 256, 256, 3, 1, 2},
    {"decoder 256->128 @256", 256, 256, 256, 128, 3, 1, 1},
    {"decoder 128->128 @256", 256, 256, 128, 128, 3, 1, 1},
    {"decoder 128->3 @256", 256, 256, 128, 3, 3, 1, 1},
    {"decoder 1x1 512->512 @64", 64, 64, 512, 512, 1, 1, 1},
    {"decoder 1x1 512->256 @128", 128, 128, 512, 256, 1, 1, 1},
    {"encoder 3->128 @256", 256, 256, 3, 128, 3, 1, 1},
    {"encoder 128 stride 2 @256", 256, 256, 128, 128, 3, 2, 1},
    {"encoder 256 stride 2 @128", 128, 128, 256, 256, 3, 2, 1},
    {"unet 224->224 @64", 64, 64, 224, 224, 3, 1, 1},
    {"unet 448->448 @32", 32, 32, 448, 448, 3, 1, 1},
    {"unet 1x1 448->1344 @32", 32, 32, 448, 1344, 1, 1, 1},
    {"unet 672->672 @16", 16, 16, 672, 672, 3, 1, 1},
    {"unet 672->672 @32 up", 16, 16, 672, 672, 3, 1, 2},
    {"unet 1792->896 @8", 8, 8, 1792, 896, 3, 1, 1},
    {"unet linear 896->896", 1, 1, 896, 896, 1, 1, 1},
    {"ct-128 3->128 @32", 32, 32, 3, 128, 3, 1, 1},
    {"ct-128 128->128 @32", 32, 32, 128, 128, 3, 1, 1},
    {"ct-128 128->128 @64 up", 32, 32, 128, 128, 3, 1, 2},
    {"ct-128 64->64 @64", 64, 64, 64, 64, 3, 1, 1},
    {"ct-128 64->64 @128 up", 64, 64, 64, 64, 3, 1, 2},
    {"ct-128 64->32 @128", 128, 128, 64, 32, 3, 1, 1},
    {"ct-128 32->32 @128", 128, 128, 32, 32, 3, 1, 1},
    {"ct-128 32->1 @128", 128, 128, 32, 1, 3, 1, 1},
    {"ct-128 1x1 64->32 @128", 128, 128, 64, 32, 1, 1, 1},
};
enum { SHAPE_COUNT = sizeof shapes / sizeof shapes[0] };

static double now_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static double timer_ms(int threads)
{
    return now_ms(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC);
}

enum { PEAK_SUMS = 12, PEAK_STEPS = 1 << 19 };

/* sum = sum*a + b in independent chains, as many as hide the latency. The start values are
 * volatile: equal chains would be computed once. */
#define PEAK(isa, bytes, options, multiply_add)                                                    \
    options static double peak_##isa(void)                                                         \
    {                                                                                              \
        typedef float vector __attribute__((vector_size(bytes)));                                  \
        volatile float start[PEAK_SUMS] = {0};                                                     \
        vector sum[PEAK_SUMS], a = {0}, b = {0};                                                   \
        _Pragma("GCC unroll 12") for (int i = 0; i < PEAK_SUMS; i++) sum[i] = a + start[i];        \
        for (int step = 0; step < PEAK_STEPS; step++)                                              \
            _Pragma("GCC unroll 12") for (int i = 0; i < PEAK_SUMS; i++) multiply_add;             \
        _Pragma("GCC unroll 12") for (int i = 0; i < PEAK_SUMS; i++) start[i] = sum[i][0];         \
        return 2. * PEAK_SUMS * PEAK_STEPS * ((bytes) / 4);                                        \
    }
#ifdef __x86_64__
#define FMA __asm__ volatile("vfmadd213ps %2, %1, %0" : "+x"(sum[i]) : "x"(a), "x"(b))
PEAK(avx2, 32, __attribute__((target("avx2,fma"))), FMA)
PEAK(avx512, 64, __attribute__((target("avx512f"))), FMA)
#endif
PEAK(scalar, 16, , sum[i] = sum[i] * a + b)

/* Multiply-adds that registers alone can do, in GFLOP/s. */
static double peak_gflops(const char *isa, int threads, int repeats)
{
    double (*probe)(void) = peak_scalar;
#ifdef __x86_64__
    if (strcmp(isa, "avx2") == 0)
        probe = peak_avx2;
    if (strcmp(isa, "avx512") == 0)
        probe = peak_avx512;
#else
    (void)isa;
#endif
    double best = 0;
    for (int i = 0; i < repeats; i++) {
        double flops = 0, start = timer_ms(threads);
#pragma omp parallel num_threads(threads) reduction(+ : flops)
        flops += probe();
        double gflops = flops / (timer_ms(threads) - start) * 1e-6;
        best = gflops > best ? gflops : best;
    }
    return best;
}

static void *allocate(size_t bytes)
{
    void *memory = memory_allocate(bytes + 64, 1);
    if (!memory) {
        fprintf(stderr, "conv2d: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

static float *random_floats(int64_t count)
{
    float *values = allocate((size_t)count * sizeof *values);
    uint32_t state = 1;
    for (int64_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (float)(state >> 8) * 0x1p-23f - 1;
    }
    return values;
}

static int64_t elements(const int64_t s[4])
{
    return s[0] * s[1] * s[2] * s[3];
}

struct result {
    enum weight_form form;
    double ms, packed_mb;
};

static struct result measure(const struct shape *s, bool backward, const struct kernels *kernels,
                             int threads, int repeats)
{
    int64_t out_h = s->h * s->upsample / s->stride, out_w = s->w * s->upsample / s->stride;
    const int64_t x[4] = {1, s->h, s->w, s->i}, y[4] = {1, out_h, out_w, s->o};
    const int64_t weight[4] = {s->o, s->i, s->kernel, s->kernel};
    int low = s->stride == 2 ? 0 : s->kernel / 2, high = s->kernel / 2;
    union attributes attributes = {
        .conv2d = {s->kernel, s->kernel, s->stride, low, low, high, high, s->upsample, 0}};
    enum weight_form form = kernels->conv2d_form(&attributes.conv2d, x, y, backward);
    attributes.conv2d.form = form;
    float *oihw = random_floats(elements(weight)), *bias = random_floats(s->o);
    float *in = random_floats(elements(backward ? y : x));
    float *out = random_floats(elements(backward ? x : y));
    size_t bytes = kernels->weight_bytes(form, weight);
    void *packed = allocate(bytes);
    kernels->pack_weight(form, weight, oihw, packed, threads);

    struct tensor input[4] = {{.data = in}, {.data = packed}, {.data = bias}, {0}}, output = {0};
    memcpy(input[0].shape, backward ? y : x, sizeof x);
    memcpy(input[1].shape, weight, sizeof weight);
    input[2].shape[3] = s->o;
    output.data = out;
    memcpy(output.shape, backward ? x : y, sizeof x);
    struct kernel_call call = {
        .input = input, .output = &output, .attributes = &attributes, .threads = threads};
    const struct kernel *kernel =
        &kernels->kernel[backward ? KERNEL_conv2d_backward_data : KERNEL_conv2d];
    call.workspace = allocate(kernel->workspace_bytes ? kernel->workspace_bytes(&call) : 0);
    struct result result = {form, 1e30, (double)bytes * 1e-6};
    for (int i = 0; i < repeats + 1; i++) {
        double start = timer_ms(threads);
        kernel->run(&call);
        double ms = timer_ms(threads) - start;
        if (i > 0 && ms < result.ms)
            result.ms = ms;
    }
    void *owned[] = {call.workspace, packed, out, in, bias, oihw};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        free(owned[i]);
    return result;
}

static double direct_gflop(const struct shape *s)
{
    double scale = (double)s->upsample / s->stride;
    return 2e-9 * (double)(s->h * s->w * s->i * s->o * s->kernel * s->kernel) * scale * scale;
}

/* F(4x4, 3x3) does 36 products where the direct form does 144. */
static void print_direction(const struct shape *s, struct result r, double peak)
{
    bool winograd = r.form == WEIGHT_WINOGRAD;
    double direct = direct_gflop(s), executed = winograd ? direct / 4 : direct;
    printf(" | %-8s %8.2f ms %6.0f GF/s %4.0f %%", winograd ? "F(4,3)" : "direct", r.ms,
           direct / r.ms * 1e3, 100 * executed / r.ms * 1e3 / peak);
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 2, repeats = argc > 2 ? atoi(argv[2]) : 7;
    const struct kernels *kernels = kernels_cpu();
    if (threads < 1 || repeats < 1) {
        fprintf(stderr, "usage: conv2d [THREADS [REPEATS [NAME]]]\n");
        return 2;
    }
    double peak = peak_gflops(kernels->name, threads, 3 * repeats);
    printf("%s, %d threads, peak %.0f GFLOP/s, minimum of %d; forward | backward-data; %% = "
           "executed of peak\n",
           kernels->name, threads, peak, repeats);
    for (int i = 0; i < SHAPE_COUNT; i++) {
        const struct shape *s = &shapes[i];
        if (argc > 3 && !strstr(s->name, argv[3]))
            continue;
        struct result forward = measure(s, false, kernels, threads, repeats);
        printf("%-26s %6.1f MB", s->name, forward.packed_mb);
        print_direction(s, forward, peak);
        print_direction(s, measure(s, true, kernels, threads, repeats), peak);
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
