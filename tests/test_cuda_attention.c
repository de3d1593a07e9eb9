/* The cuda backend's attention and its derivatives in the SIMT emulator against the plain kernels
 * in double: many narrow heads, single wide ones, tokens that fill no tile; the same bytes in any
 * order of threads. */
#include "kernels/bfloat16.h"
#include "kernels/cuda/attention.h"
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

enum { SEEDS = 3, MOST_INPUTS = 4, MOST_OUTPUTS = 2 };

#define USUAL                                                                                      \
    {                                                                                              \
        4 << 20, 128                                                                               \
    }
static const struct shape {
    int64_t n, h, w, heads, width;
    struct cuda_attention_tuning tuning;
} shapes[] = {
    {2, 5, 7, 3, 32, USUAL},   {1, 4, 4, 14, 32, USUAL},        {1, 10, 8, 2, 20, USUAL},
    {1, 7, 10, 1, 64, USUAL},  {1, 6, 9, 1, 100, USUAL},        {1, 9, 8, 1, 160, {1, 128}},
    {2, 1, 33, 1, 132, USUAL}, {1, 3, 7, 2, 5, USUAL},          {1, 1, 1, 1, 48, USUAL},
    {1, 11, 3, 1, 131, USUAL}, {1, 8, 9, 1, 136, {1 << 20, 1}},
};
enum { SHAPE_COUNT = sizeof shapes / sizeof *shapes };

/* Relative, of a result. In bf16 both sides have the same inputs; probabilities, their changes and
 * the result are rounded. */
static const double tolerance = 3e-6, bf16_tolerance = 6e-3;

/* ---- a kernel's tensors in double, as the plain kernel has them, and their copies in float ----
 */
struct job {
    enum kernel_id id;
    bool bf16; /* all but lse, which is number 3 of a derivative's inputs and 1 of the outputs */
    union attributes attributes;
    int inputs, outputs;
    int64_t input_shape[MOST_INPUTS][4], output_shape[MOST_OUTPUTS][4];
    double *input[MOST_INPUTS], *output[MOST_OUTPUTS];
};

static size_t count_of(const int64_t s[4])
{
    return (size_t)(s[0] * s[1] * s[2] * s[3]);
}

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes + 1);
    assert_non_null(memory);
    return memory;
}

/* Floats in [-range, range), so that both kernels see the same numbers. */
static double *random_doubles(size_t count, double range, uint64_t *random)
{
    double *values = allocate(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(range * random_uniform(random));
    return values;
}

static void run_plain(struct job *job)
{
    struct tensor input[MOST_INPUTS], output[MOST_OUTPUTS];
    for (int i = 0; i < job->inputs; i++) {
        input[i] = (struct tensor){.data = job->input[i], .type = TYPE_F64};
        memcpy(input[i].shape, job->input_shape[i], sizeof input[i].shape);
    }
    for (int i = 0; i < job->outputs; i++) {
        job->output[i] = allocate(count_of(job->output_shape[i]) * sizeof(double));
        output[i] = (struct tensor){.data = job->output[i], .type = TYPE_F64};
        memcpy(output[i].shape, job->output_shape[i], sizeof output[i].shape);
    }
    struct kernel_call call = {
        .input = input, .output = output, .attributes = &job->attributes, .threads = 1};
    const struct kernel *kernel = &kernels_plain_f64()->kernel[job->id];
    call.workspace = allocate(kernel->workspace_bytes(&call));
    kernel->run(&call);
    free(call.workspace);
}

static void set_shape(int64_t to[4], int64_t n, int64_t h, int64_t w, int64_t c)
{
    memcpy(to, (int64_t[]){n, h, w, c}, 4 * sizeof *to);
}

static bool is_bf16(const struct job *job, int input)
{
    return job->bf16 && input != 3;
}

static void round_inputs(struct job *job)
{
    for (int i = 0; i < job->inputs; i++)
        for (size_t k = 0; is_bf16(job, i) && k < count_of(job->input_shape[i]); k++)
            job->input[i][k] = float_from_bfloat16(bfloat16_from_float((float)job->input[i][k]));
}

static void forward_job(struct job *job, const struct shape *s, bool bf16)
{
    uint64_t random = 5;
    memset(job, 0, sizeof *job);
    job->id = KERNEL_attention;
    job->bf16 = bf16;
    job->attributes.attention.heads = (int)s->heads;
    job->inputs = 1;
    job->outputs = 2;
    set_shape(job->input_shape[0], s->n, s->h, s->w, 3 * s->heads * s->width);
    set_shape(job->output_shape[0], s->n, s->h, s->w, s->heads * s->width);
    set_shape(job->output_shape[1], s->n, s->heads, s->h * s->w, 1);
    job->input[0] = random_doubles(count_of(job->input_shape[0]), 2, &random);
    round_inputs(job);
    run_plain(job);
}

/* Of backward and jvp: both start with a direction, then qkv, o and lse. */
static void derivative_job(struct job *job, const struct shape *s, enum kernel_id id, bool bf16)
{
    struct job forward;
    uint64_t random = 6;
    forward_job(&forward, s, bf16);
    *job = forward;
    job->id = id;
    job->inputs = 4;
    job->outputs = 1;
    bool backward = id == KERNEL_attention_backward;
    const int64_t *qkv = forward.input_shape[0], *o = forward.output_shape[0];
    memcpy(job->input_shape[0], backward ? o : qkv, sizeof job->input_shape[0]);
    memcpy(job->input_shape[1], qkv, sizeof job->input_shape[1]);
    memcpy(job->input_shape[2], o, sizeof job->input_shape[2]);
    memcpy(job->input_shape[3], forward.output_shape[1], sizeof job->input_shape[3]);
    memcpy(job->output_shape[0], backward ? qkv : o, sizeof job->output_shape[0]);
    job->input[0] = random_doubles(count_of(job->input_shape[0]), 1, &random);
    job->input[1] = forward.input[0];
    for (int i = 0; i < 2; i++) {
        job->input[2 + i] = forward.output[i];
        for (size_t k = 0; k < count_of(job->input_shape[2 + i]); k++)
            job->input[2 + i][k] = (float)job->input[2 + i][k];
    }
    round_inputs(job);
    run_plain(job);
}

static void job_open(struct job *job, const struct shape *s, enum kernel_id id, bool bf16)
{
    if (id == KERNEL_attention)
        forward_job(job, s, bf16);
    else
        derivative_job(job, s, id, bf16);
}

static void job_close(struct job *job)
{
    for (int i = 0; i < job->inputs; i++)
        free(job->input[i]);
    for (int i = 0; i < job->outputs; i++)
        free(job->output[i]);
}

/* ---- the same in the emulator ---- */
static void assert_nothing_reported(void)
{
    const struct simt_report *report = simt_errors();
    for (int i = 0; i < report->texts; i++)
        print_error("%s\n", report->text[i]);
    assert_int_equal(report->count, 0);
}

static void *device_floats(const double *values, size_t count)
{
    float *copy = allocate(count * sizeof *copy);
    for (size_t i = 0; i < count; i++)
        copy[i] = (float)values[i];
    void *memory = device_memory(copy, count * sizeof *copy);
    free(copy);
    return memory;
}

static void *device_bf16(const double *values, size_t count)
{
    uint16_t *copy = allocate(count * sizeof *copy);
    for (size_t i = 0; i < count; i++)
        copy[i] = bfloat16_from_float((float)values[i]);
    void *memory = device_memory(copy, count * sizeof *copy);
    free(copy);
    return memory;
}

/* A result's bf16, of which the first half of its memory is full, as floats. */
static void widen(float *values, size_t count)
{
    const uint16_t *narrow = (const uint16_t *)values;
    for (size_t i = count; i-- > 0;)
        values[i] = float_from_bfloat16(narrow[i]);
}

static void run_kernel(enum kernel_id id, struct kernel_call *call)
{
    size_t bytes = id == KERNEL_attention            ? cuda_attention_workspace(call)
                   : id == KERNEL_attention_backward ? cuda_attention_backward_workspace(call)
                                                     : cuda_attention_jvp_workspace(call);
    call->workspace = device_memory(NULL, bytes);
    if (id == KERNEL_attention)
        cuda_attention(call);
    else if (id == KERNEL_attention_backward)
        cuda_attention_backward(call);
    else
        cuda_attention_jvp(call);
    device_release(call->workspace);
}

static void run_cuda(const struct job *job, uint64_t seed, float *result[MOST_OUTPUTS])
{
    struct tensor input[MOST_INPUTS], output[MOST_OUTPUTS];
    for (int i = 0; i < job->inputs; i++) {
        size_t count = count_of(job->input_shape[i]);
        input[i].type = is_bf16(job, i) ? TYPE_BF16 : TYPE_F32;
        input[i].data = is_bf16(job, i) ? device_bf16(job->input[i], count)
                                        : device_floats(job->input[i], count);
        memcpy(input[i].shape, job->input_shape[i], sizeof input[i].shape);
    }
    for (int i = 0; i < job->outputs; i++) {
        output[i].type = job->bf16 && i == 0 ? TYPE_BF16 : TYPE_F32;
        output[i].data =
            device_memory(NULL, count_of(job->output_shape[i]) * element_bytes(output[i].type));
        memcpy(output[i].shape, job->output_shape[i], sizeof output[i].shape);
    }
    struct kernel_call call = {
        .input = input, .output = output, .attributes = &job->attributes, .threads = 1};
    struct simt_options options = simt_default_options();
    options.seed = seed;
    options.architecture = 80;
    simt_reset(&options);
    run_kernel(job->id, &call);
    for (int i = 0; i < job->inputs; i++)
        device_release(input[i].data);
    for (int i = 0; i < job->outputs; i++) {
        size_t count = count_of(job->output_shape[i]);
        result[i] = allocate(count * sizeof(float));
        device_read(result[i], output[i].data, count * element_bytes(output[i].type));
        if (output[i].type == TYPE_BF16)
            widen(result[i], count);
        device_release(output[i].data);
    }
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

static double check_job(const struct job *job, const char *what)
{
    float *first[MOST_OUTPUTS], *values[MOST_OUTPUTS];
    double worst = 0;
    run_cuda(job, 0, first);
    assert_nothing_reported();
    for (int i = 0; i < job->outputs; i++) {
        double error = relative_error(first[i], job->output[i], count_of(job->output_shape[i]));
        if (!(error <= (job->bf16 ? bf16_tolerance : tolerance)))
            fail_msg("%s, output %d: relative error %g", what, i, error);
        worst = fmax(worst, error);
    }
    for (uint64_t seed = 1; seed < SEEDS; seed++) {
        run_cuda(job, seed, values);
        assert_nothing_reported();
        for (int i = 0; i < job->outputs; i++) {
            if (memcmp(values[i], first[i], count_of(job->output_shape[i]) * sizeof(float)))
                fail_msg("%s: seed %d gives other bytes", what, (int)seed);
            free(values[i]);
        }
    }
    for (int i = 0; i < job->outputs; i++)
        free(first[i]);
    return worst;
}

static void check_shapes(enum kernel_id id, bool bf16)
{
    double worst = 0;
    for (int s = 0; s < SHAPE_COUNT; s++) {
        char what[80];
        struct job job;
        job_open(&job, &shapes[s], id, bf16);
        cuda_attention_tuning = shapes[s].tuning;
        snprintf(what, sizeof what, "shape %d", s);
        worst = fmax(worst, check_job(&job, what));
        job_close(&job);
    }
    print_message("largest relative error %.2g\n", worst);
}

static void attention_matches_the_plain_kernel(void **state)
{
    (void)state;
    check_shapes(KERNEL_attention, false);
}

static void backward_matches_the_plain_kernel(void **state)
{
    (void)state;
    check_shapes(KERNEL_attention_backward, false);
}

static void jvp_matches_the_plain_kernel(void **state)
{
    (void)state;
    check_shapes(KERNEL_attention_jvp, false);
}

static void bf16_matches_the_plain_kernel(void **state)
{
    (void)state;
    check_shapes(KERNEL_attention, true);
    check_shapes(KERNEL_attention_backward, true);
    check_shapes(KERNEL_attention_jvp, true);
}

/* Softmax must not overflow, nor attend to padding, when scores are large. */
static void large_scores_do_no_harm(void **state)
{
    (void)state;
    static const struct shape shape = {1, 1, 70, 1, 4, USUAL};
    struct job job;
    forward_job(&job, &shape, false);
    for (int i = 0; i < 70 * 12; i++) {
        int token = i / 12, part = i % 12 / 4;
        job.input[0][i] = part == 0 ? -40 : part == 1 ? (token == 69 ? 10 : 40) : token == 69;
    }
    float *result[MOST_OUTPUTS];
    run_cuda(&job, 1, result);
    assert_nothing_reported();
    for (int i = 0; i < 70 * 4; i++)
        assert_true(fabs(result[0][i] - 1) < 1e-6);
    assert_true(fabs(result[1][0] + 800) < 1e-3);
    free(result[0]);
    free(result[1]);
    job_close(&job);
}

static void check_traffic(const struct simt_launch *launch, double worst[3])
{
    const struct simt_counters *c = &launch->counters;
    double requests = (double)(c->shared_load.requests + c->shared_store.requests);
    double conflicts = (double)(c->shared_load.conflicts + c->shared_store.conflicts);
    double loads = (double)c->global_load.sectors / (double)c->global_load.ideal_sectors;
    double stores = (double)c->global_store.sectors / (double)c->global_store.ideal_sectors;
    if (loads > 1.25 || stores > 1.25 || conflicts > 0.05 * requests)
        fail_msg("%s: %g of the fewest sectors loaded, %g stored, %g conflicts in %g requests",
                 launch->kernel, loads, stores, conflicts, requests);
    if (strstr(launch->kernel, "attend") || strstr(launch->kernel, "multiply"))
        assert_true(c->tensor_instructions > 0);
    worst[0] = fmax(worst[0], loads);
    worst[1] = fmax(worst[1], stores);
    worst[2] = fmax(worst[2], conflicts / fmax(requests, 1));
}

/* What a card would see of whole tiles: global memory within a quarter of the fewest sectors,
 * shared memory without two lanes at different words of a bank. */
static void traffic_is_near_the_least(void **state)
{
    (void)state;
    if (!simt_watches_accesses())
        skip();
    static const struct shape whole[] = {{1, 8, 8, 2, 32, USUAL},
                                         {1, 8, 8, 1, 64, USUAL},
                                         {1, 8, 8, 1, 128, USUAL},
                                         {1, 8, 8, 1, 160, {4 << 20, 1}}};
    double worst[3] = {0};
    for (size_t s = 0; s < sizeof whole / sizeof *whole; s++)
        for (int i = 0; i < 6; i++) {
            struct job job;
            float *result[MOST_OUTPUTS];
            cuda_attention_tuning = whole[s].tuning;
            job_open(&job, &whole[s], (enum kernel_id)(KERNEL_attention + i % 3), i >= 3);
            run_cuda(&job, 1, result);
            for (int k = 0; k < simt_launches(); k++)
                check_traffic(simt_launch_number(k), worst);
            for (int k = 0; k < job.outputs; k++)
                free(result[k]);
            job_close(&job);
        }
    print_message("at most %.3f of the fewest sectors loaded, %.3f stored, %.3f conflicts a "
                  "shared request\n",
                  worst[0], worst[1], worst[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_matches_the_plain_kernel),
        cmocka_unit_test(backward_matches_the_plain_kernel),
        cmocka_unit_test(jvp_matches_the_plain_kernel),
        cmocka_unit_test(bf16_matches_the_plain_kernel),
        cmocka_unit_test(large_scores_do_no_harm),
        cmocka_unit_test(traffic_is_near_the_least),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void test_cuda_attention(void **state)
{
    (void)state;
    print_message("the emulator's fibres are written for x86-64\n");
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuda_attention)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
