/* The convolutions of every instruction set against the plain one in double, on awkward shapes; the
 * transpose; the same bytes for any number of threads; nothing read from or written beyond what is
 * granted. */
#include "kernels/kernels.h"
#include "tests/support/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const struct kernels *kernels_table_wide(void);

enum { GUARD_FLOATS = 64 };

struct shape {
    int64_t n, h, w, i, o;
    struct conv2d_attributes a; /* form: WEIGHT_PLAIN leaves the choice to the table */
    bool bias, residual;
};

static const struct shape shapes[] = {
    {1, 33, 29, 20, 19, {3, 3, 1, 1, 1, 1, 1, 1, 0, 0}, true, true},
    {2, 31, 17, 33, 40, {3, 3, 1, 1, 1, 1, 1, 1, 0, 0}, true, false},
    {1, 32, 32, 32, 64, {3, 3, 1, 1, 1, 1, 1, 1, 0, 0}, false, true},
    {1, 64, 64, 64, 32, {3, 3, 1, 1, 1, 1, 1, 1, 0, 0}, true, true},
    {1, 72, 71, 17, 16, {3, 3, 1, 1, 1, 1, 1, 1, 0, 0}, true, true},
    {1, 16, 18, 24, 35, {3, 3, 1, 1, 1, 1, 1, 2, 0, 0}, true, true},
    {3, 15, 13, 16, 16, {3, 3, 1, 1, 1, 1, 1, 2, 0, 0}, true, false},
    {1, 5, 3, 24, 35, {3, 3, 1, 1, 1, 1, 1, 2, 0, 0}, true, true},
    {1, 8, 8, 48, 50, {3, 3, 1, 1, 1, 1, 1, 1, 0, 0}, true, true},
    {1, 1, 1, 33, 17, {3, 3, 1, 1, 1, 1, 1, 1, 0, 0}, false, false},
    {2, 16, 12, 20, 24, {3, 3, 2, 0, 0, 1, 1, 1, 0, 0}, true, false},
    {1, 17, 15, 9, 33, {3, 3, 2, 1, 1, 1, 1, 1, 0, 0}, true, true},
    {1, 13, 11, 3, 37, {3, 3, 1, 1, 1, 1, 1, 1, 0, 0}, true, true},
    {1, 13, 11, 1, 32, {3, 3, 1, 1, 1, 1, 1, 1, 0, 0}, true, false},
    {1, 40, 37, 37, 3, {3, 3, 1, 1, 1, 1, 1, 1, 0, 0}, true, false},
    {1, 9, 7, 32, 1, {3, 3, 1, 1, 1, 1, 1, 1, 0, 0}, true, true},
    {1, 11, 9, 3, 3, {1, 1, 1, 0, 0, 0, 0, 1, 0, 0}, true, false},
    {2, 12, 12, 65, 96, {1, 1, 1, 0, 0, 0, 0, 1, 0, 0}, true, true},
    {3, 1, 1, 70, 129, {1, 1, 1, 0, 0, 0, 0, 1, 0, 0}, true, false},
    {1, 14, 9, 5, 6, {1, 5, 1, 0, 2, 0, 2, 1, 0, 0}, true, false},
    {1, 9, 14, 12, 7, {7, 3, 1, 3, 1, 3, 1, 1, 0, 0}, false, false},
    {2, 16, 12, 20, 24, {4, 4, 2, 1, 1, 1, 1, 1, 0, 0}, true, true},
    {1, 17, 15, 3, 64, {4, 4, 2, 1, 1, 1, 1, 1, 0, 0}, true, false},
    {1, 9, 8, 33, 1, {4, 4, 1, 1, 1, 1, 1, 1, 0, 0}, true, true},
    {1, 6, 5, 600, 20, {3, 3, 1, 1, 1, 1, 1, 1, 0, 0}, true, true},
    {1, 2, 3, 520, 40, {1, 1, 1, 0, 0, 0, 0, 1, 0, 0}, true, false},
    /* several strips that all threads share; a weight too large to be transposed whole */
    {1, 68, 64, 170, 18, {3, 3, 1, 1, 1, 1, 1, 1, 0, 0}, true, true},
    {2, 5, 6, 301, 295, {3, 3, 1, 1, 1, 1, 1, 1, WEIGHT_WINOGRAD, 0}, true, true},
    {1, 33, 29, 20, 19, {3, 3, 1, 1, 1, 1, 1, 1, WEIGHT_WINOGRAD_SMALL, 0}, true, true},
    {2, 41, 40, 170, 18, {3, 3, 1, 1, 1, 1, 1, 1, WEIGHT_WINOGRAD_SMALL, 0}, true, true},
    {1, 6, 5, 301, 295, {3, 3, 1, 1, 1, 1, 1, 1, WEIGHT_WINOGRAD_SMALL, 0}, false, true},
    {1, 64, 70, 130, 20, {3, 3, 1, 1, 1, 1, 1, 2, 0, 0}, true, true},
    {2, 7, 4, 35, 301, {3, 3, 1, 1, 1, 1, 1, 2, WEIGHT_UPSAMPLE, 0}, true, true},
    {1, 1, 1, 17, 20, {3, 3, 1, 1, 1, 1, 1, 2, WEIGHT_UPSAMPLE, 0}, false, true},
};
enum { SHAPE_COUNT = sizeof shapes / sizeof shapes[0] };

/* One direction of a shape: random inputs, and memory for any table's run of it. */
struct job {
    const struct shape *shape;
    bool backward;
    int64_t x[4], y[4], weight[4];
    float *input, *oihw, *bias, *residual;
    int64_t input_count, output_count, weight_count;
};

static int64_t count_of(const int64_t s[4])
{
    return s[0] * s[1] * s[2] * s[3];
}

static float *random_floats(int64_t count, uint64_t *random)
{
    float *values = malloc((size_t)(count + 1) * sizeof *values);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)random_uniform(random);
    return values;
}

static void job_open(struct job *job, const struct shape *s, bool backward)
{
    const struct conv2d_attributes *a = &s->a;
    uint64_t random = 77;
    int64_t rows = (s->h * a->upsample + a->pad_top + a->pad_bottom - a->kernel_height) / a->stride;
    int64_t columns =
        (s->w * a->upsample + a->pad_left + a->pad_right - a->kernel_width) / a->stride;
    memset(job, 0, sizeof *job);
    job->shape = s;
    job->backward = backward;
    memcpy(job->x, (int64_t[]){s->n, s->h, s->w, s->i}, sizeof job->x);
    memcpy(job->y, (int64_t[]){s->n, rows + 1, columns + 1, s->o}, sizeof job->y);
    memcpy(job->weight, (int64_t[]){s->o, s->i, a->kernel_height, a->kernel_width},
           sizeof job->weight);
    job->input_count = count_of(backward ? job->y : job->x);
    job->output_count = count_of(backward ? job->x : job->y);
    job->weight_count = count_of(job->weight);
    job->input = random_floats(job->input_count, &random);
    job->oihw = random_floats(job->weight_count, &random);
    job->bias = random_floats(s->o, &random);
    job->residual = random_floats(count_of(job->y), &random);
}

static void job_close(struct job *job)
{
    free(job->input);
    free(job->oihw);
    free(job->bias);
    free(job->residual);
}

static void describe(const struct job *job, struct tensor input[KERNEL_MAX_INPUTS],
                     struct tensor *output, enum element_type type)
{
    memset(input, 0, KERNEL_MAX_INPUTS * sizeof *input);
    memset(output, 0, sizeof *output);
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++)
        input[i].type = type;
    output->type = type;
    memcpy(input[0].shape, job->backward ? job->y : job->x, sizeof job->x);
    memcpy(input[1].shape, job->weight, sizeof job->weight);
    memcpy(input[2].shape, (int64_t[]){1, 1, 1, job->shape->o}, sizeof input[2].shape);
    memcpy(input[3].shape, job->y, sizeof job->y);
    memcpy(output->shape, job->backward ? job->x : job->y, sizeof job->x);
}

static double *to_double(const float *values, int64_t count)
{
    double *copy = malloc((size_t)(count + 1) * sizeof *copy);
    for (int64_t i = 0; i < count; i++)
        copy[i] = values[i];
    return copy;
}

static double *run_plain(const struct job *job)
{
    struct tensor input[KERNEL_MAX_INPUTS], output;
    describe(job, input, &output, TYPE_F64);
    double *x = to_double(job->input, job->input_count);
    double *w = to_double(job->oihw, job->weight_count);
    double *bias = to_double(job->bias, job->shape->o);
    double *residual = to_double(job->residual, count_of(job->y));
    double *result = malloc((size_t)job->output_count * sizeof *result);
    input[0].data = x;
    input[1].data = w;
    input[2].data = !job->backward && job->shape->bias ? bias : NULL;
    input[3].data = !job->backward && job->shape->residual ? residual : NULL;
    output.data = result;
    const union attributes attributes = {.conv2d = job->shape->a};
    const struct kernel_call call = {
        .input = input, .output = &output, .attributes = &attributes, .threads = 1};
    kernels_plain_f64()->kernel[job->backward ? KERNEL_conv2d_backward_data : KERNEL_conv2d].run(
        &call);
    free(x);
    free(w);
    free(bias);
    free(residual);
    return result;
}

static void fill_nan(void *memory, size_t bytes)
{
    memset(memory, 0xff, bytes);
}

static void check_guard(const float *guard)
{
    unsigned char bytes[GUARD_FLOATS * sizeof(float)];
    memset(bytes, 0xff, sizeof bytes);
    assert_memory_equal(guard, bytes, sizeof bytes);
}

/* The weight in a form, by the packing on the host and by the kernel for a program's state. */
static void *pack(const struct job *job, const struct kernels *kernels, enum weight_form form,
                  int threads)
{
    size_t bytes = kernels->weight_bytes(form, job->weight), padded = (bytes + 63) / 64 * 64;
    void *packed = aligned_alloc(64, padded), *by_kernel = aligned_alloc(64, padded);
    struct tensor input = {job->oihw, TYPE_F32, {0}}, output = {by_kernel, TYPE_F32, {0}};
    memcpy(input.shape, job->weight, sizeof input.shape);
    memcpy(output.shape, job->weight, sizeof output.shape);
    const union attributes attributes = {.conv2d = {.form = form}};
    const struct kernel_call call = {
        .input = &input, .output = &output, .attributes = &attributes, .threads = threads};
    fill_nan(packed, padded);
    fill_nan(by_kernel, padded);
    kernels->pack_weight(form, job->weight, job->oihw, packed, threads);
    kernels->kernel[KERNEL_conv2d_pack_weight].run(&call);
    assert_memory_equal(packed, by_kernel, padded);
    free(by_kernel);
    return packed;
}

/* Runs a table's kernel over NaN-filled workspace and output. */
static float *run_table(const struct job *job, const struct kernels *kernels, int threads,
                        enum weight_form *form)
{
    struct tensor input[KERNEL_MAX_INPUTS], output;
    describe(job, input, &output, TYPE_F32);
    union attributes attributes = {.conv2d = job->shape->a};
    *form = kernels->conv2d_form(&attributes.conv2d, job->x, job->y, job->backward);
    if (job->shape->a.form != WEIGHT_PLAIN)
        *form = job->shape->a.form;
    attributes.conv2d.form = *form;
    void *packed = pack(job, kernels, *form, threads);
    size_t output_floats = (size_t)job->output_count;
    float *memory = malloc((output_floats + 2 * GUARD_FLOATS) * sizeof *memory);
    fill_nan(memory, (output_floats + 2 * GUARD_FLOATS) * sizeof *memory);
    input[0].data = job->input;
    input[1].data = packed;
    input[2].data = !job->backward && job->shape->bias ? job->bias : NULL;
    input[3].data = !job->backward && job->shape->residual ? job->residual : NULL;
    output.data = memory + GUARD_FLOATS;
    struct kernel_call call = {
        .input = input, .output = &output, .attributes = &attributes, .threads = threads};
    const struct kernel *kernel =
        &kernels->kernel[job->backward ? KERNEL_conv2d_backward_data : KERNEL_conv2d];
    size_t bytes = kernel->workspace_bytes ? kernel->workspace_bytes(&call) : 0;
    call.workspace = aligned_alloc(64, (bytes + 127) / 64 * 64);
    fill_nan(call.workspace, bytes);
    kernel->run(&call);
    check_guard(memory);
    check_guard(memory + GUARD_FLOATS + output_floats);
    memmove(memory, memory + GUARD_FLOATS, output_floats * sizeof *memory);
    free(call.workspace);
    free(packed);
    return memory;
}

static double relative_error(const float *values, const double *reference, int64_t count)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        difference += (values[i] - reference[i]) * (values[i] - reference[i]);
        norm += reference[i] * reference[i];
    }
    return sqrt(difference / (norm + 1e-300));
}

static const struct kernels *table(int index)
{
    static const char *const names[] = {"scalar", "avx2", "avx512"};
    return index < 3 ? kernels_cpu_isa(names[index]) : kernels_table_wide();
}

static bool table_runs(int index)
{
    return table(index) && (index < 3 || kernels_cpu_isa("avx2"));
}

static void check_tables(bool backward)
{
    int forms[WEIGHT_FORM_COUNT] = {0};
    double worst[WEIGHT_FORM_COUNT] = {0};
    for (int s = 0; s < SHAPE_COUNT; s++) {
        struct job job;
        job_open(&job, &shapes[s], backward);
        double *reference = run_plain(&job);
        for (int t = 0; t < 4; t++) {
            enum weight_form form;
            if (!table_runs(t))
                continue;
            float *values = run_table(&job, table(t), 2, &form);
            double error = relative_error(values, reference, job.output_count);
            if (!(error <= 4e-6))
                fail_msg("%s, shape %d, %s, form %d: relative error %g", table(t)->name, s,
                         backward ? "backward" : "forward", form, error);
            forms[form]++;
            worst[form] = fmax(worst[form], error);
            free(values);
        }
        free(reference);
        job_close(&job);
    }
    for (int form = 0; form < WEIGHT_FORM_COUNT; form++)
        if (forms[form])
            print_message("form %d: largest relative error %.2g\n", form, worst[form]);
    assert_true(forms[WEIGHT_WINOGRAD] > 0 && forms[WEIGHT_UPSAMPLE] > 0);
    assert_true(forms[WEIGHT_WINOGRAD_SMALL] > 0);
    assert_true(forms[backward ? WEIGHT_DIRECT_BACKWARD : WEIGHT_DIRECT] > 0);
}

static void forward_matches_the_plain_kernel(void **state)
{
    (void)state;
    check_tables(false);
}

static void backward_matches_the_plain_kernel(void **state)
{
    (void)state;
    check_tables(true);
}

/* <conv(x), u> = <x, conv'(u)> for the plain kernels in double */
static void plain_backward_is_the_transpose(void **state)
{
    (void)state;
    for (int s = 0; s < SHAPE_COUNT; s++) {
        struct shape linear = shapes[s];
        linear.bias = linear.residual = false;
        struct job forward, backward;
        job_open(&forward, &linear, false);
        job_open(&backward, &linear, true);
        memcpy(backward.oihw, forward.oihw, (size_t)forward.weight_count * sizeof(float));
        double *y = run_plain(&forward), *x = run_plain(&backward), left = 0, right = 0, norm = 0;
        for (int64_t i = 0; i < forward.output_count; i++) {
            left += y[i] * backward.input[i];
            norm += fabs(y[i] * backward.input[i]);
        }
        for (int64_t i = 0; i < backward.output_count; i++)
            right += x[i] * forward.input[i];
        assert_true(fabs(left - right) <= 1e-12 * norm);
        free(x);
        free(y);
        job_close(&forward);
        job_close(&backward);
    }
}

static void threads_do_not_change_bytes(void **state)
{
    (void)state;
    static const int threads[] = {1, 2, 3, 7};
    for (int s = 0; s < SHAPE_COUNT; s++)
        for (int backward = 0; backward < 2; backward++) {
            struct job job;
            enum weight_form form;
            job_open(&job, &shapes[s], backward);
            float *reference = run_table(&job, kernels_cpu(), 1, &form);
            for (int k = 1; k < 4; k++) {
                float *values = run_table(&job, kernels_cpu(), threads[k], &form);
                if (memcmp(values, reference, (size_t)job.output_count * sizeof *values))
                    fail_msg("shape %d: %d threads give other bytes", s, threads[k]);
                free(values);
            }
            free(reference);
            job_close(&job);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_backward_is_the_transpose),
        cmocka_unit_test(forward_matches_the_plain_kernel),
        cmocka_unit_test(backward_matches_the_plain_kernel),
        cmocka_unit_test(threads_do_not_change_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
