/* The cuda backend's convolutions in the SIMT emulator: every candidate and operand against the
 * plain kernel in double on awkward shapes, the same bytes in any order of threads, the transpose,
 * and the traffic that a card would see. */
#include "kernels/bfloat16.h"
#include "kernels/cuda/conv2d.h"
#include "tests/simt/device.h"
#include "tests/simt/report.h"
#include "tests/support/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#ifdef __x86_64__

enum { SEEDS = 3, DEFAULT = -1, EVERY = -2, LARGE = 0, NARROW = 1, SMALL = 2, FLAT = 3 };

struct shape {
    int64_t n, h, w, i, o;
    struct conv2d_attributes a;
    bool bias, residual, in_place; /* y on residual */
    int variant;                   /* or DEFAULT */
    int splits;
};

#define SAME(size)     size, size, 1, size / 2, size / 2, size / 2, size / 2, 1, WEIGHT_TAPS, 0
#define UPSAMPLED      3, 3, 1, 1, 1, 1, 1, 2, WEIGHT_TAPS_MERGED, 0
#define DOWN           3, 3, 2, 0, 0, 1, 1, 1, WEIGHT_TAPS, 0
#define DOWN_SYMMETRIC 3, 3, 2, 1, 1, 1, 1, 1, WEIGHT_TAPS, 0
#define EVEN(stride)   4, 4, stride, 1, 1, 1, 1, 1, WEIGHT_TAPS, 0
#define WINDOW(h, w)   h, w, 1, h / 2, w / 2, h / 2, w / 2, 1, WEIGHT_TAPS, 0

static const struct shape shapes[] = {
    {1, 9, 7, 20, 24, {SAME(3)}, true, true, false, SMALL, 1},
    {2, 5, 6, 36, 70, {SAME(3)}, true, true, true, SMALL, 0},
    {1, 9, 15, 40, 132, {WINDOW(1, 3)}, true, false, false, LARGE, 1},
    {2, 4, 8, 64, 72, {WINDOW(3, 1)}, true, true, true, LARGE, 2},
    {1, 13, 11, 48, 3, {SAME(3)}, true, false, false, DEFAULT, 0},
    {2, 8, 9, 12, 31, {SAME(3)}, true, true, false, NARROW, 1},
    {1, 8, 7, 3, 64, {SAME(3)}, true, false, false, DEFAULT, 0},
    {1, 6, 5, 24, 40, {UPSAMPLED}, true, true, false, SMALL, 1},
    {2, 4, 3, 32, 33, {UPSAMPLED}, true, false, false, FLAT, 1},
    {2, 5, 4, 20, 70, {UPSAMPLED}, true, true, true, DEFAULT, 0},
    {1, 4, 5, 24, 40, {3, 3, 1, 1, 1, 1, 1, 2, WEIGHT_TAPS, 0}, true, true, false, SMALL, 1},
    {1, 10, 9, 24, 33, {DOWN}, true, false, false, SMALL, 1},
    {2, 12, 8, 36, 40, {DOWN}, true, true, false, LARGE, 1},
    {1, 9, 11, 20, 35, {DOWN_SYMMETRIC}, true, true, true, NARROW, 2},
    {2, 7, 6, 5, 6, {DOWN_SYMMETRIC}, false, false, false, FLAT, 1},
    {2, 6, 7, 65, 50, {SAME(1)}, true, true, false, SMALL, 0},
    {3, 1, 1, 70, 129, {SAME(1)}, true, false, false, DEFAULT, 0},
    {1, 4, 4, 300, 64, {SAME(1)}, false, true, false, DEFAULT, 0},
    {1, 9, 5, 12, 7, {WINDOW(1, 5)}, false, false, false, NARROW, 1},
    {1, 6, 9, 7, 12, {WINDOW(7, 3)}, true, false, false, SMALL, 3},
    {2, 8, 7, 20, 24, {EVEN(2)}, true, true, false, SMALL, 1},
    {1, 9, 8, 3, 64, {EVEN(2)}, true, false, false, DEFAULT, 0},
    {1, 8, 8, 64, 132, {EVEN(2)}, false, true, true, LARGE, 2},
    {1, 7, 6, 40, 1, {EVEN(1)}, true, false, false, DEFAULT, 0},
    {1, 7, 6, 8, 9, {1, 1, 2, 0, 0, 0, 0, 1, WEIGHT_TAPS, 0}, true, false, false, SMALL, 1},
    {1, 5, 6, 16, 20, {3, 3, 2, 1, 1, 1, 1, 2, WEIGHT_TAPS, 0}, true, false, false, SMALL, 1},
    {2, 7, 9, 3, 70, {SAME(3)}, true, true, true, FLAT, 1},
    {1, 9, 6, 1, 33, {SAME(3)}, true, false, false, FLAT, 1},
    {1, 6, 7, 67, 3, {SAME(3)}, true, true, false, FLAT, 3},
    {3, 5, 5, 3, 3, {SAME(1)}, true, false, false, DEFAULT, 0},
    {1, 8, 5, 7, 40, {UPSAMPLED}, true, true, false, FLAT, 2},
    {2, 9, 8, 5, 66, {DOWN}, false, true, false, DEFAULT, 0},
};
enum { SHAPE_COUNT = sizeof shapes / sizeof *shapes };

static const double tolerances[OPERAND_COUNT] = {
    [OPERAND_3XTF32] = 1e-6, [OPERAND_TF32] = 1e-3, [OPERAND_BF16] = 1e-2, [OPERAND_F16] = 1e-3};
/* In bf16 both sides have the same operands but for merged taps; the result is rounded. */
static const double bf16_tolerance = 4e-3;

/* ---- one direction of a shape: random inputs, and what the plain kernel makes of them ---- */
struct job {
    const struct shape *shape;
    bool backward, bf16; /* bf16: x, y, weight and residual, which are rounded to it beforehand */
    int64_t source[4], result[4], weight[4];
    float *input, *oihw, *bias, *residual;
    double *expected;
};

static size_t count_of(const int64_t s[4])
{
    return (size_t)(s[0] * s[1] * s[2] * s[3]);
}

static float *random_floats(size_t count, uint64_t *random)
{
    float *values = malloc((count + 1) * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)random_uniform(random);
    return values;
}

static void round_to_bf16(float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        values[i] = float_from_bfloat16(bfloat16_from_float(values[i]));
}

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes + 1);
    assert_non_null(memory);
    return memory;
}

static double *to_double(const float *values, size_t count)
{
    double *copy = allocate(count * sizeof *copy);
    for (size_t i = 0; i < count; i++)
        copy[i] = values[i];
    return copy;
}

static int output_length(int64_t length, int kernel, int padding, const struct conv2d_attributes *a)
{
    return (int)(length * a->upsample + padding - kernel) / a->stride + 1;
}

/* Tensors of a call; `residual` and its like may be absent. */
struct tensors {
    struct tensor input[4], output;
    union attributes attributes;
    struct kernel_call call;
};

static void describe(const struct job *job, struct tensors *t, enum element_type type)
{
    memset(t, 0, sizeof *t);
    memcpy(t->input[0].shape, job->source, sizeof job->source);
    memcpy(t->input[1].shape, job->weight, sizeof job->weight);
    memcpy(t->input[2].shape, (int64_t[]){1, 1, 1, job->shape->o}, sizeof t->input[2].shape);
    memcpy(t->input[3].shape, job->result, sizeof job->result);
    memcpy(t->output.shape, job->result, sizeof job->result);
    for (int i = 0; i < 4; i++)
        t->input[i].type = type;
    t->output.type = type;
    t->attributes.conv2d = job->shape->a;
    t->call = (struct kernel_call){
        .input = t->input, .output = &t->output, .attributes = &t->attributes, .threads = 1};
}

static double *run_plain(const struct job *job)
{
    struct tensors t;
    describe(job, &t, TYPE_F64);
    t.attributes.conv2d.form = WEIGHT_PLAIN;
    size_t count = count_of(job->result);
    t.input[0].data = to_double(job->input, count_of(job->source));
    t.input[1].data = to_double(job->oihw, count_of(job->weight));
    double *bias = to_double(job->bias, (size_t)job->shape->o);
    double *residual = to_double(job->residual, job->backward ? 0 : count);
    t.input[2].data = !job->backward && job->shape->bias ? bias : NULL;
    t.input[3].data = !job->backward && job->shape->residual ? residual : NULL;
    t.output.data = allocate(count * sizeof(double));
    enum kernel_id id = job->backward ? KERNEL_conv2d_backward_data : KERNEL_conv2d;
    kernels_plain_f64()->kernel[id].run(&t.call);
    free(t.input[0].data);
    free(t.input[1].data);
    free(bias);
    free(residual);
    return t.output.data;
}

static void job_open_as(struct job *job, const struct shape *s, bool backward, bool bf16)
{
    const struct conv2d_attributes *a = &s->a;
    uint64_t random = 77;
    int64_t x[] = {s->n, s->h, s->w, s->i};
    int64_t y[] = {s->n, output_length(s->h, a->kernel_height, a->pad_top + a->pad_bottom, a),
                   output_length(s->w, a->kernel_width, a->pad_left + a->pad_right, a), s->o};
    int64_t weight[] = {s->o, s->i, a->kernel_height, a->kernel_width};
    job->shape = s;
    job->backward = backward;
    job->bf16 = bf16;
    memcpy(job->source, backward ? y : x, sizeof x);
    memcpy(job->result, backward ? x : y, sizeof y);
    memcpy(job->weight, weight, sizeof weight);
    job->oihw = random_floats(count_of(weight), &random);
    job->bias = random_floats((size_t)s->o, &random);
    job->residual = random_floats(count_of(y), &random);
    job->input = random_floats(count_of(job->source), &random);
    if (bf16) {
        round_to_bf16(job->oihw, count_of(weight));
        round_to_bf16(job->residual, count_of(y));
        round_to_bf16(job->input, count_of(job->source));
    }
    job->expected = run_plain(job);
}

static void job_open(struct job *job, const struct shape *s, bool backward)
{
    job_open_as(job, s, backward, false);
}

static void job_close(struct job *job)
{
    free(job->input);
    free(job->oihw);
    free(job->bias);
    free(job->residual);
    free(job->expected);
}

/* ---- the same in the emulator ---- */
static void assert_nothing_reported(const char *what)
{
    const struct simt_report *report = simt_errors();
    for (int i = 0; i < report->texts; i++)
        print_error("%s: %s\n", what, report->text[i]);
    assert_int_equal(report->count, 0);
}

static void pack_on_device(const struct job *job, void *packed)
{
    struct tensor input = {NULL, TYPE_F32, {0}}, output = {packed, TYPE_F32, {0}};
    input.data = device_memory(job->oihw, count_of(job->weight) * sizeof(float));
    memcpy(input.shape, job->weight, sizeof input.shape);
    memcpy(output.shape, job->weight, sizeof output.shape);
    const union attributes attributes = {.conv2d = job->shape->a};
    const struct kernel_call call = {
        .input = &input, .output = &output, .attributes = &attributes, .threads = 1};
    cuda_conv2d_pack_weight(&call);
    device_release(input.data);
}

static enum weight_form form_of(const struct job *job)
{
    enum weight_form form = job->shape->a.form;
    return !job->bf16                   ? form
           : form == WEIGHT_TAPS_MERGED ? WEIGHT_TAPS_MERGED_BF16
                                        : WEIGHT_TAPS_BF16;
}

/* In f32 packed on the device, which gives the host's bytes. */
static void *packed_weight(const struct job *job)
{
    enum weight_form form = form_of(job);
    size_t bytes = cuda_weight_bytes(form, job->weight);
    void *packed = allocate(bytes);
    cuda_pack_weight(form, job->weight, job->oihw, packed, 1);
    void *memory = device_memory(job->bf16 ? packed : NULL, bytes);
    if (!job->bf16)
        pack_on_device(job, memory);
    float *by_kernel = allocate(bytes);
    device_read(by_kernel, memory, bytes);
    assert_memory_equal(by_kernel, packed, bytes);
    free(packed);
    free(by_kernel);
    return memory;
}

static void run_call(const struct job *job, struct tensors *t,
                     const struct cuda_conv2d_choice *choice)
{
    size_t bytes = choice          ? cuda_conv2d_workspace_with(&t->call, job->backward, *choice)
                   : job->backward ? cuda_conv2d_backward_data_workspace(&t->call)
                                   : cuda_conv2d_workspace(&t->call);
    t->call.workspace = device_memory(NULL, bytes);
    if (choice)
        cuda_conv2d_with(&t->call, job->backward, *choice);
    else if (job->backward)
        cuda_conv2d_backward_data(&t->call);
    else
        cuda_conv2d(&t->call);
    device_release(t->call.workspace);
}

/* Values in the job's type: to the device, and back. */
static void *to_device(const struct job *job, const float *values, size_t count)
{
    if (!job->bf16)
        return device_memory(values, count * sizeof *values);
    uint16_t *narrow = allocate(count * sizeof *narrow);
    for (size_t i = 0; i < count; i++)
        narrow[i] = bfloat16_from_float(values[i]);
    void *memory = device_memory(narrow, count * sizeof *narrow);
    free(narrow);
    return memory;
}

static float *from_device(const struct job *job, const void *memory, size_t count)
{
    float *values = allocate(count * sizeof *values);
    uint16_t *narrow = allocate(count * sizeof *narrow);
    if (job->bf16)
        device_read(narrow, memory, count * sizeof *narrow);
    else
        device_read(values, memory, count * sizeof *values);
    for (size_t i = 0; job->bf16 && i < count; i++)
        values[i] = float_from_bfloat16(narrow[i]);
    free(narrow);
    return values;
}

/* `choice` NULL: what the table's functions take. */
static float *run_cuda(const struct job *job, const struct cuda_conv2d_choice *choice,
                       uint64_t seed)
{
    const struct shape *shape = job->shape;
    struct tensors t;
    describe(job, &t, job->bf16 ? TYPE_BF16 : TYPE_F32);
    t.attributes.conv2d.form = form_of(job);
    size_t count = count_of(job->result);
    bool residual = !job->backward && shape->residual, in_place = residual && shape->in_place;
    t.input[0].data = to_device(job, job->input, count_of(job->source));
    t.input[1].data = packed_weight(job);
    if (!job->backward && shape->bias)
        t.input[2].data = device_memory(job->bias, (size_t)shape->o * sizeof(float));
    if (residual)
        t.input[3].data = to_device(job, job->residual, count);
    size_t bytes = count * element_bytes(t.output.type);
    t.output.data = in_place ? t.input[3].data : device_memory(NULL, bytes);
    struct simt_options options = simt_default_options();
    options.seed = seed;
    options.architecture = 80;
    simt_reset(&options);
    run_call(job, &t, choice);
    float *values = from_device(job, t.output.data, count);
    for (int i = 0; i < 4; i++)
        device_release(t.input[i].data);
    if (!in_place)
        device_release(t.output.data);
    return values;
}

static double relative_error(const float *values, const double *reference, size_t count)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        difference += (values[i] - reference[i]) * (values[i] - reference[i]);
        norm += reference[i] * reference[i];
    }
    return sqrt(difference / (norm + 1e-300));
}

static double check_job(const struct job *job, const struct cuda_conv2d_choice *choice, int seeds)
{
    size_t count = count_of(job->result);
    char what[160];
    snprintf(what, sizeof what, "%s, shape %d, %s, operand %d%s",
             choice ? cuda_conv2d_variant_name(choice->variant) : "default",
             (int)(job->shape - shapes), job->backward ? "backward" : "forward",
             choice ? (int)choice->operand : 0, job->bf16 ? ", bf16 in memory" : "");
    float *first = run_cuda(job, choice, 0);
    assert_nothing_reported(what);
    double error = relative_error(first, job->expected, count);
    double tolerance =
        job->bf16 ? bf16_tolerance : tolerances[choice ? choice->operand : OPERAND_3XTF32];
    if (!(error <= tolerance))
        fail_msg("%s: relative error %g", what, error);
    for (int seed = 1; seed < seeds; seed++) {
        float *values = run_cuda(job, choice, (uint64_t)seed);
        assert_nothing_reported(what);
        if (memcmp(values, first, count * sizeof *values))
            fail_msg("%s: seed %d gives other bytes", what, seed);
        free(values);
    }
    free(first);
    return error;
}

static void check_shapes(bool backward, bool bf16)
{
    double worst = 0;
    for (int s = 0; s < SHAPE_COUNT; s++) {
        struct job job;
        job_open_as(&job, &shapes[s], backward, bf16);
        struct cuda_conv2d_choice choice = {shapes[s].variant, OPERAND_3XTF32, shapes[s].splits};
        double error = check_job(&job, shapes[s].variant == DEFAULT ? NULL : &choice, SEEDS);
        worst = fmax(worst, error);
        job_close(&job);
    }
    print_message("largest relative error %.2g\n", worst);
}

static void forward_matches_the_plain_kernel(void **state)
{
    (void)state;
    check_shapes(false, false);
}

static void backward_matches_the_plain_kernel(void **state)
{
    (void)state;
    check_shapes(true, false);
}

static void bf16_matches_the_plain_kernel(void **state)
{
    (void)state;
    check_shapes(false, true);
    check_shapes(true, true);
}

/* Every tile with every operand: the first shape suits them all. */
static void operands_round_as_they_should(void **state)
{
    (void)state;
    for (int backward = 0; backward < 2; backward++) {
        struct job job;
        job_open(&job, &shapes[0], backward);
        for (int variant = 0; variant < CUDA_CONV2D_VARIANTS; variant++)
            for (int operand = OPERAND_TF32; operand < OPERAND_COUNT; operand++) {
                struct cuda_conv2d_choice choice = {variant, (enum operand)operand, 1};
                double error = check_job(&job, &choice, variant == SMALL ? SEEDS : 1);
                /* and no better than they can */
                assert_true(error > 0.1 * tolerances[operand]);
            }
        job_close(&job);
    }
}

static void upsampled_taps_are_merged(void **state)
{
    (void)state;
    const struct conv2d_attributes upsampled = {3, 3, 1, 1, 1, 1, 1, 2, WEIGHT_PLAIN, 0};
    const struct conv2d_attributes plain = {3, 3, 1, 1, 1, 1, 1, 1, WEIGHT_PLAIN, 0};
    const int64_t x[] = {1, 64, 64, 32}, y[] = {1, 128, 128, 32}, small[] = {1, 64, 64, 32};
    for (int backward = 0; backward < 2; backward++) {
        assert_int_equal(cuda_conv2d_form(&upsampled, x, y, backward), WEIGHT_TAPS_MERGED);
        assert_int_equal(cuda_conv2d_form(&upsampled, x, small, backward), WEIGHT_TAPS);
        assert_int_equal(cuda_conv2d_form(&plain, y, y, backward), WEIGHT_TAPS);
        assert_int_equal(cuda_conv2d_form_bf16(&upsampled, x, y, backward),
                         WEIGHT_TAPS_MERGED_BF16);
        assert_int_equal(cuda_conv2d_form_bf16(&plain, y, y, backward), WEIGHT_TAPS_BF16);
    }
}

/* <conv(x), u> = <x, conv'(u)> */
static void backward_is_the_transpose(void **state)
{
    (void)state;
    for (int s = 0; s < SHAPE_COUNT; s++) {
        struct shape linear = shapes[s];
        struct job forward, backward;
        linear.bias = linear.residual = false;
        job_open(&forward, &linear, false);
        job_open(&backward, &linear, true);
        memcpy(backward.oihw, forward.oihw, count_of(forward.weight) * sizeof(float));
        float *y = run_cuda(&forward, NULL, 1), *x = run_cuda(&backward, NULL, 1);
        double left = 0, right = 0, norm = 0;
        for (size_t i = 0; i < count_of(forward.result); i++) {
            left += y[i] * backward.input[i];
            norm += fabs(y[i] * backward.input[i]);
        }
        for (size_t i = 0; i < count_of(backward.result); i++)
            right += x[i] * forward.input[i];
        assert_true(fabs(left - right) <= 1e-6 * norm);
        free(x);
        free(y);
        job_close(&forward);
        job_close(&backward);
    }
}

/* What a card would see of whole tiles: global memory within a quarter of the fewest sectors,
 * shared memory without two lanes at different words of a bank. */
static void traffic_is_near_the_least(void **state)
{
    (void)state;
    if (!simt_watches_accesses())
        skip();
    static const struct shape wide = {1, 16, 16, 64, 64, {WINDOW(1, 3)}, true, true, true, 0, 1};
    static const struct shape few[] = {{1, 16, 16, 3, 64, {SAME(3)}, true, true, true, 0, 1},
                                       {1, 16, 16, 64, 3, {SAME(3)}, true, true, true, 0, 1}};
    for (int i = 0; i < 4 * CUDA_CONV2D_VARIANTS; i++) {
        int variant = i % CUDA_CONV2D_VARIANTS, backward = i / CUDA_CONV2D_VARIANTS % 2;
        struct job job;
        struct cuda_conv2d_choice choice = {variant, OPERAND_TF32, 1};
        job_open_as(&job, variant == FLAT ? &few[backward] : &wide, backward,
                    i >= 2 * CUDA_CONV2D_VARIANTS);
        free(run_cuda(&job, &choice, 1));
        const struct simt_counters *c = simt_last_counters();
        double loads = (double)c->global_load.sectors / (double)c->global_load.ideal_sectors;
        double stores = (double)c->global_store.sectors / (double)c->global_store.ideal_sectors;
        uint64_t requests = c->shared_load.requests + c->shared_store.requests;
        uint64_t conflicts = c->shared_load.conflicts + c->shared_store.conflicts;
        print_message("%s, %s%s: %.3f of the fewest sectors loaded, %.3f stored, %d conflicts in "
                      "%d shared requests\n",
                      cuda_conv2d_variant_name(variant), backward ? "backward" : "forward",
                      job.bf16 ? ", bf16" : "", loads, stores, (int)conflicts, (int)requests);
        assert_true(c->tensor_instructions > 0);
        /* few channels: runs of 9 elements of pixels, and of 3 of a weight, are 6 to 36 bytes in
         * sectors of 32 */
        double most = variant != FLAT ? 1.25 : job.bf16 ? 2.4 : 1.7;
        assert_true(loads <= most && stores <= 1.25);
        assert_true(conflicts * 20 <= requests);
        job_close(&job);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_matches_the_plain_kernel),
        cmocka_unit_test(backward_matches_the_plain_kernel),
        cmocka_unit_test(bf16_matches_the_plain_kernel),
        cmocka_unit_test(operands_round_as_they_should),
        cmocka_unit_test(upsampled_taps_are_merged),
        cmocka_unit_test(backward_is_the_transpose),
        cmocka_unit_test(traffic_is_near_the_least),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void test_cuda_conv2d(void **state)
{
    (void)state;
    print_message("the emulator's fibres are written for x86-64\n");
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuda_conv2d)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
