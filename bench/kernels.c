/* The engine's side of the comparison kernel by kernel (bench/kernels.py): answers a line of
 * standard input with a line.
 *
 *     peak              multiply-adds that registers alone can do, in GFLOP/s
 *     list              the number of cases, then a line for each: name;kind;h;w;channels;outputs;
 *                       kernel;stride;upsample
 *     open CASE DIRECTION   prepares one (0 forward, 1 backward): its executed multiply-adds in
 * GFLOP (0 where they are not counted), megabytes of packed weight, its form run               its
 * milliseconds stages            milliseconds of its Winograd stages: transposing the weight, input
 *                       transform, products, output transform; zeros where it has none
 *
 *     build/bench/kernels THREADS */
#include "bench/stages/winograd.h"
#include "kernels/kernels.h"
#include "runtime/memory.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum kind { CONVOLUTION, GROUP_NORM, ATTENTION, QUANTIZE };
static const char *const kind_names[] = {"conv2d", "group_norm", "attention", "vector_quantize"};

/* outputs: of a convolution; attention's heads; the quantiser's codes */
struct bench_case {
    const char *name;
    enum kind kind;
    int64_t h, w, channels, outputs;
    int kernel, stride, upsample;
};

static const struct bench_case cases[] = {
    {"decoder 3->512 @64", CONVOLUTION, 64, 64, 3, 512, 3, 1, 1},
    {"decoder 512->512 @64", CONVOLUTION, 64, 64, 512, 512, 3, 1, 1},
    {"decoder 512->512 @128 up", CONVOLUTION, 64, 64, 512, 512, 3, 1, 2},
    {"decoder 512->256 @128", CONVOLUTION, 128, 128, 512, 256, 3, 1, 1},
    {"decoder 256->256 @128", CONVOLUTION, 128, 128, 256, 256, 3, 1, 1},
    {"decoder 256->256 @256 up", CONVOLUTION, 128, 128, 256, 256, 3, 1, 2},
    {"decoder 256->128 @256", CONVOLUTION, 256, 256, 256, 128, 3, 1, 1},
    {"decoder 128->128 @256", CONVOLUTION, 256, 256, 128, 128, 3, 1, 1},
    {"decoder 128->3 @256", CONVOLUTION, 256, 256, 128, 3, 3, 1, 1},
    {"decoder 1x1 512->512 @64", CONVOLUTION, 64, 64, 512, 512, 1, 1, 1},
    {"decoder 1x1 512->256 @128", CONVOLUTION, 128, 128, 512, 256, 1, 1, 1},
    {"encoder 3->128 @256", CONVOLUTION, 256, 256, 3, 128, 3, 1, 1},
    {"encoder 128 stride 2 @256", CONVOLUTION, 256, 256, 128, 128, 3, 2, 1},
    {"encoder 256 stride 2 @128", CONVOLUTION, 128, 128, 256, 256, 3, 2, 1},
    {"unet 224->224 @64", CONVOLUTION, 64, 64, 224, 224, 3, 1, 1},
    {"unet 448->448 @32", CONVOLUTION, 32, 32, 448, 448, 3, 1, 1},
    {"unet 1x1 448->1344 @32", CONVOLUTION, 32, 32, 448, 1344, 1, 1, 1},
    {"unet 672->672 @16", CONVOLUTION, 16, 16, 672, 672, 3, 1, 1},
    {"unet 672->672 @32 up", CONVOLUTION, 16, 16, 672, 672, 3, 1, 2},
    {"unet 896->896 @16 up", CONVOLUTION, 8, 8, 896, 896, 3, 1, 2},
    {"unet 1792->896 @8", CONVOLUTION, 8, 8, 1792, 896, 3, 1, 1},
    {"unet linear 896->896", CONVOLUTION, 1, 1, 896, 896, 1, 1, 1},
    {"ct-128 3->128 @32", CONVOLUTION, 32, 32, 3, 128, 3, 1, 1},
    {"ct-128 128->128 @32", CONVOLUTION, 32, 32, 128, 128, 3, 1, 1},
    {"ct-128 128->128 @64 up", CONVOLUTION, 32, 32, 128, 128, 3, 1, 2},
    {"ct-128 64->64 @64", CONVOLUTION, 64, 64, 64, 64, 3, 1, 1},
    {"ct-128 64->64 @128 up", CONVOLUTION, 64, 64, 64, 64, 3, 1, 2},
    {"ct-128 64->32 @128", CONVOLUTION, 128, 128, 64, 32, 3, 1, 1},
    {"ct-128 32->32 @128", CONVOLUTION, 128, 128, 32, 32, 3, 1, 1},
    {"ct-128 32->1 @128", CONVOLUTION, 128, 128, 32, 1, 3, 1, 1},
    {"ct-128 1x1 64->32 @128", CONVOLUTION, 128, 128, 64, 32, 1, 1, 1},
    {"ct-128 unet 256->256 @8 up", CONVOLUTION, 4, 4, 256, 256, 3, 1, 2},
    {"decoder norm+silu 512 @64", GROUP_NORM, 64, 64, 512, 512, 0, 0, 0},
    {"decoder norm+silu 128 @256", GROUP_NORM, 256, 256, 128, 128, 0, 0, 0},
    {"ct-128 norm+silu 32 @128", GROUP_NORM, 128, 128, 32, 32, 0, 0, 0},
    {"decoder attention 512 @64", ATTENTION, 64, 64, 512, 1, 0, 0, 0},
    {"unet attention 14x32 @32", ATTENTION, 32, 32, 448, 14, 0, 0, 0},
    {"ct-128 attention 128 @32", ATTENTION, 32, 32, 128, 1, 0, 0, 0},
    {"decoder codes 8192 @64", QUANTIZE, 64, 64, 3, 8192, 0, 0, 0},
};
enum { CASE_COUNT = sizeof cases / sizeof cases[0] };

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
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

/* What goes by the instruction set's name. */
struct isa {
    const char *name;
    double (*peak)(void);
    void (*stage)(const struct kernel_call *call, bool backward, enum winograd_stage stage);
};

static const struct isa isas[] = {
#ifdef __x86_64__
    {"avx512", peak_avx512, winograd_stage_stages_avx512},
    {"avx2", peak_avx2, winograd_stage_stages_avx2},
#endif
    {"scalar", peak_scalar, winograd_stage_stages_scalar},
};

struct bench {
    const struct kernels *kernels;
    const struct isa *isa;
    int threads;
    /* the open case */
    const struct bench_case *c;
    bool backward;
    struct tensor input[KERNEL_MAX_INPUTS], output[KERNEL_MAX_OUTPUTS];
    union attributes attributes;
    struct kernel_call call;
    enum kernel_id kernel;
    size_t weight_bytes;
};

static double peak_gflops(const struct bench *bench)
{
    double best = 0;
    for (int i = 0; i < 15; i++) {
        double flops = 0, start = now_ms();
#pragma omp parallel num_threads(bench->threads) reduction(+ : flops)
        flops += bench->isa->peak();
        double gflops = flops / (now_ms() - start) * 1e-6;
        best = gflops > best ? gflops : best;
    }
    return best;
}

static void *allocate(size_t bytes)
{
    void *memory = memory_allocate(bytes + 64, 1);
    if (!memory) {
        fprintf(stderr, "kernels: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

/* A dense tensor; floats are something of order 1. */
static struct tensor make(enum element_type type, int64_t n, int64_t h, int64_t w, int64_t c)
{
    struct tensor tensor = {NULL, type, {n, h, w, c}};
    int64_t count = tensor_elements(&tensor);
    float *values = tensor.data = allocate((size_t)count * element_bytes(type));
    uint32_t state = 1;
    for (int64_t i = 0; i < count && type == TYPE_F32; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (float)(state >> 8) * 0x1p-23f - 1;
    }
    return tensor;
}

static void close_case(struct bench *bench)
{
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++)
        free(bench->input[i].data);
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++)
        free(bench->output[i].data);
    free(bench->call.workspace);
    memset(bench->input, 0, sizeof bench->input);
    memset(bench->output, 0, sizeof bench->output);
    bench->call.workspace = NULL;
    bench->weight_bytes = 0;
}

static void open_convolution(struct bench *bench)
{
    const struct bench_case *c = bench->c;
    const struct kernels *kernels = bench->kernels;
    const int64_t x[4] = {1, c->h, c->w, c->channels};
    const int64_t y[4] = {1, c->h * c->upsample / c->stride, c->w * c->upsample / c->stride,
                          c->outputs};
    int low = c->stride == 2 ? 0 : c->kernel / 2, high = c->kernel / 2;
    struct conv2d_attributes *a = &bench->attributes.conv2d;
    *a = (struct conv2d_attributes){c->kernel, c->kernel, c->stride,   low,          low,
                                    high,      high,      c->upsample, WEIGHT_PLAIN, 0};
    a->form = kernels->conv2d_form(a, x, y, bench->backward);
    struct tensor in = make(TYPE_F32, 1, x[1], x[2], x[3]);
    struct tensor out = make(TYPE_F32, 1, y[1], y[2], y[3]);
    struct tensor oihw = make(TYPE_F32, c->outputs, c->channels, c->kernel, c->kernel);
    struct tensor packed = oihw;
    bench->weight_bytes = kernels->weight_bytes(a->form, oihw.shape);
    packed.data = allocate(bench->weight_bytes);
    kernels->pack_weight(a->form, oihw.shape, oihw.data, packed.data, bench->threads);
    free(oihw.data);
    bench->kernel = bench->backward ? KERNEL_conv2d_backward_data : KERNEL_conv2d;
    bench->input[0] = bench->backward ? out : in;
    bench->output[0] = bench->backward ? in : out;
    bench->input[1] = packed;
    bench->input[2] = make(TYPE_F32, 1, 1, 1, c->outputs);
}

static void open_group_norm(struct bench *bench)
{
    const struct bench_case *c = bench->c;
    enum { GROUPS = 32 };
    struct tensor picture = make(TYPE_F32, 1, c->h, c->w, c->channels);
    struct tensor statistics = make(TYPE_F32, 1, 1, GROUPS, 2);
    struct tensor gamma = make(TYPE_F32, 1, 1, 1, c->channels);
    struct tensor beta = make(TYPE_F32, 1, 1, 1, c->channels);
    bench->attributes.group_norm.groups = GROUPS;
    bench->attributes.group_norm.epsilon = 1e-6;
    bench->attributes.group_norm.silu = true;
    bench->kernel = bench->backward ? KERNEL_group_norm_backward : KERNEL_group_norm;
    struct tensor *in = bench->input;
    if (bench->backward)
        *in++ = make(TYPE_F32, 1, c->h, c->w, c->channels);
    in[0] = picture, in[1] = gamma, in[2] = beta;
    *(bench->backward ? &in[3] : &bench->output[1]) = statistics;
    bench->output[0] = make(TYPE_F32, 1, c->h, c->w, c->channels);
}

static void open_attention(struct bench *bench)
{
    const struct bench_case *c = bench->c;
    struct tensor qkv = make(TYPE_F32, 1, c->h, c->w, 3 * c->channels);
    struct tensor o = make(TYPE_F32, 1, c->h, c->w, c->channels);
    struct tensor lse = make(TYPE_F32, 1, c->outputs, c->h * c->w, 1);
    bench->attributes.attention.heads = (int)c->outputs;
    bench->kernel = bench->backward ? KERNEL_attention_backward : KERNEL_attention;
    if (bench->backward) {
        bench->input[0] = make(TYPE_F32, 1, c->h, c->w, c->channels);
        bench->input[1] = qkv, bench->input[2] = o, bench->input[3] = lse;
        bench->output[0] = make(TYPE_F32, 1, c->h, c->w, 3 * c->channels);
    } else
        bench->input[0] = qkv, bench->output[0] = o, bench->output[1] = lse;
}

static void open_quantizer(struct bench *bench)
{
    const struct bench_case *c = bench->c;
    bench->kernel = KERNEL_vector_quantize;
    bench->input[0] = make(TYPE_F32, 1, c->h, c->w, c->channels);
    bench->input[1] = make(TYPE_F32, 1, 1, c->outputs, c->channels);
    bench->output[0] = make(TYPE_F32, 1, c->h, c->w, c->channels);
    bench->output[1] = make(TYPE_I32, 1, c->h, c->w, 1);
}

static bool is_winograd(const struct bench *bench)
{
    enum weight_form form = bench->attributes.conv2d.form;
    return bench->c->kind == CONVOLUTION && (form == WEIGHT_WINOGRAD || form == WEIGHT_UPSAMPLE);
}

static const char *form_name(const struct bench *bench)
{
    if (!is_winograd(bench))
        return bench->c->kind == CONVOLUTION ? "direct" : "-";
    return bench->attributes.conv2d.form == WEIGHT_UPSAMPLE ? "25 for 16" : "F(4,3)";
}

/* Per 4x4 outputs of a 3x3 filter: 144 directly, 36 by F(4,3), 25 where the picture is upsampled.
 */
static double executed_gflop(const struct bench *bench)
{
    const struct bench_case *c = bench->c;
    double pixels = (double)(c->h * c->w);
    if (c->kind == ATTENTION)
        return (bench->backward ? 10e-9 : 4e-9) * pixels * pixels * (double)c->channels;
    if (c->kind != CONVOLUTION)
        return 0;
    double scale = (double)c->upsample / c->stride;
    double direct =
        2e-9 * pixels * scale * scale * (double)(c->channels * c->outputs * c->kernel * c->kernel);
    if (!is_winograd(bench))
        return direct;
    return direct * (bench->attributes.conv2d.form == WEIGHT_UPSAMPLE ? 25 : 36) / 144;
}

static void run(struct bench *bench)
{
    double start = now_ms();
    bench->kernels->kernel[bench->kernel].run(&bench->call);
    printf("%.4f\n", now_ms() - start);
}

static void open_case(struct bench *bench, int index, bool backward)
{
    close_case(bench);
    bench->c = &cases[index];
    bench->backward = backward;
    memset(&bench->attributes, 0, sizeof bench->attributes);
    void (*const open[])(struct bench *) = {open_convolution, open_group_norm, open_attention,
                                            open_quantizer};
    open[bench->c->kind](bench);
    bench->call = (struct kernel_call){.input = bench->input,
                                       .output = bench->output,
                                       .attributes = &bench->attributes,
                                       .threads = bench->threads};
    const struct kernel *kernel = &bench->kernels->kernel[bench->kernel];
    size_t bytes = kernel->workspace_bytes ? kernel->workspace_bytes(&bench->call) : 0;
    bench->call.workspace = allocate(bytes);
    printf("%.6f %.1f %s\n", executed_gflop(bench), (double)bench->weight_bytes * 1e-6,
           form_name(bench));
}

static void run_stages(struct bench *bench)
{
    double ms[STAGE_COUNT] = {0};
    for (int stage = 0; stage < STAGE_COUNT && is_winograd(bench); stage++) {
        double start = now_ms();
        bench->isa->stage(&bench->call, bench->backward, (enum winograd_stage)stage);
        ms[stage] = now_ms() - start;
    }
    printf("%.4f %.4f %.4f %.4f\n", ms[0], ms[1], ms[2], ms[3]);
}

static void list(void)
{
    printf("%d\n", CASE_COUNT);
    for (int i = 0; i < CASE_COUNT; i++) {
        const struct bench_case *c = &cases[i];
        printf("%s;%s;%d;%d;%d;%d;%d;%d;%d\n", c->name, kind_names[c->kind], (int)c->h, (int)c->w,
               (int)c->channels, (int)c->outputs, c->kernel, c->stride, c->upsample);
    }
}

static bool answer(struct bench *bench, const char *line)
{
    int index, direction;
    if (strcmp(line, "peak\n") == 0)
        printf("%.1f\n", peak_gflops(bench));
    else if (strcmp(line, "list\n") == 0)
        list();
    else if (sscanf(line, "open %d %d", &index, &direction) == 2 && index >= 0 &&
             index < CASE_COUNT)
        open_case(bench, index, direction != 0);
    else if (bench->c && strcmp(line, "run\n") == 0)
        run(bench);
    else if (bench->c && strcmp(line, "stages\n") == 0)
        run_stages(bench);
    else
        return false;
    fflush(stdout);
    return true;
}

int main(int argc, char **argv)
{
    const char *pinned = getenv("RESAMPLE_ISA");
    struct bench bench = {.kernels = pinned ? kernels_cpu_isa(pinned) : kernels_cpu(),
                          .isa = isas,
                          .threads = argc == 2 ? atoi(argv[1]) : 0};
    char line[64];
    if (bench.threads < 1 || !bench.kernels) {
        fprintf(stderr, "usage: kernels THREADS (RESAMPLE_ISA: one that this machine has)\n");
        return 2;
    }
    while (strcmp(bench.isa->name, bench.kernels->name) != 0)
        bench.isa++;
    printf("%s\n", bench.kernels->name);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        if (!answer(&bench, line)) {
            fprintf(stderr, "kernels: not a command: %s", line);
            return 2;
        }
    close_case(&bench);
    return 0;
}
