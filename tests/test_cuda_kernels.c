/* The CUDA kernels in the SIMT emulator against the plain kernels in float: every case of every
 * kernel in several orders of threads, with nothing reported and the same bytes, and the memory
 * traffic of shapes as networks have them. Convolution and attention have tests of their own. */
#include "kernels/bfloat16.h"
#include "tests/simt/device.h"
#include "tests/simt/report.h"
#include "tests/support/kernel_cases.h"
#include "tests/support/operator_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#ifdef __x86_64__

const struct kernels *kernels_cuda(void);

enum { SEEDS = 3, CASES_AT_LEAST = 4, POISON = 0xff };
static const double TOLERANCE = 1e-5;      /* of an output, relative to its largest value */
static const double BF16_TOLERANCE = 4e-3; /* a result's rounding, and next to nothing else */
static const double MOST_SECTORS = 1.25, MOST_CONFLICTS = 0.05;

static void reset(uint64_t seed)
{
    struct simt_options options = simt_default_options();
    options.seed = seed;
    simt_reset(&options);
}

static void assert_nothing_reported(const char *what)
{
    const struct simt_report *report = simt_errors();
    for (int i = 0; i < report->texts; i++)
        print_error("%s: %s\n", what, report->text[i]);
    assert_int_equal(report->count, 0);
}

/* ---- a call on the device ---- */
static struct tensor to_device(const struct tensor *host)
{
    struct tensor device = *host;
    if (host->data)
        device.data = device_memory(host->data, tensor_bytes(host));
    return device;
}

static void from_device(const struct tensor *device, const struct tensor *host)
{
    if (host->data)
        device_read(host->data, device->data, tensor_bytes(host));
}

static void run_kernel(enum kernel_id id, struct kernel_call *call)
{
    const struct kernel *kernel = &kernels_cuda()->kernel[id];
    size_t bytes = kernel->workspace_bytes ? kernel->workspace_bytes(call) : 0;
    call->workspace = device_memory(NULL, bytes);
    kernel->run(call);
    device_release(call->workspace);
}

/* Outputs that are inputs' memory on the host are so on the device. */
static void run_on_device(enum kernel_id id, const union attributes *attributes,
                          const struct tensor *input, const struct tensor *output)
{
    struct tensor inputs[KERNEL_MAX_INPUTS], outputs[KERNEL_MAX_OUTPUTS];
    bool aliased[KERNEL_MAX_OUTPUTS] = {false};
    for (int i = 0; i < kernel_inputs(id); i++)
        inputs[i] = to_device(&input[i]);
    for (int o = 0; o < kernel_outputs(id); o++) {
        for (int i = 0; i < kernel_inputs(id) && output[o].data; i++)
            if (output[o].data == input[i].data) {
                outputs[o] = inputs[i];
                aliased[o] = true;
            }
        if (!aliased[o])
            outputs[o] = to_device(&output[o]);
    }
    struct kernel_call call = {inputs, outputs, attributes, NULL, 1, NULL};
    run_kernel(id, &call);
    for (int i = 0; i < kernel_inputs(id); i++) {
        from_device(&inputs[i], &input[i]);
        device_release(inputs[i].data);
    }
    for (int o = 0; o < kernel_outputs(id); o++)
        if (!aliased[o]) {
            from_device(&outputs[o], &output[o]);
            device_release(outputs[o].data);
        }
}

/* ---- memory traffic ---- */
/* The shape of a case whose channels are a network's, or NULL. The first input may be a scalar. */
static const int64_t *network_shape(const struct test_case *c)
{
    for (int i = 0; i < 2; i++) {
        const int64_t *shape = c->input[i].shape;
        if (shape[3] >= 32 && shape[3] % 32 == 0 && shape[1] * shape[2] > 1)
            return shape;
    }
    return NULL;
}

static void check_traffic(const int64_t *shape)
{
    double sectors = 0, ideal = 0, conflicts = 0, requests = 0;
    for (int i = 0; i < simt_launches(); i++) {
        const struct simt_counters *c = &simt_launch_number(i)->counters;
        sectors += (double)(c->global_load.sectors + c->global_store.sectors);
        ideal += (double)(c->global_load.ideal_sectors + c->global_store.ideal_sectors);
        conflicts += (double)(c->shared_load.conflicts + c->shared_store.conflicts);
        requests += (double)(c->shared_load.requests + c->shared_store.requests);
    }
    print_message("    [%d,%d,%d,%d]: %.3f x the ideal sectors, bank conflicts %.1f %%\n",
                  (int)shape[0], (int)shape[1], (int)shape[2], (int)shape[3], sectors / ideal,
                  100 * conflicts / fmax(requests, 1));
    assert_true(sectors <= MOST_SECTORS * ideal);
    assert_true(conflicts <= MOST_CONFLICTS * requests);
}

/* ---- the kernels of networks and solvers ---- */
static struct instance run_case_on_device(int index, uint64_t seed)
{
    struct instance instance = new_instance(index, TYPE_F32);
    char what[80];
    snprintf(what, sizeof what, "case %d, order %d", index, (int)seed);
    reset(seed);
    run_on_device(kernel_cases[index].kernel, &instance.attributes, instance.input,
                  instance.output);
    assert_nothing_reported(what);
    return instance;
}

static void check_case(int index)
{
    const struct test_case *c = &kernel_cases[index];
    struct instance plain = run_case(index, kernels_plain_f32(), TYPE_F32, 1);
    struct instance first = run_case_on_device(index, 0);
    if (simt_watches_accesses() && network_shape(c))
        check_traffic(network_shape(c));
    check_memory(index, kernels_cuda(), &first);
    check_close(index, kernels_cuda(), &first, &plain, TOLERANCE);
    /* the card's exp is another one than the host's */
    if (c->exact && c->kernel != KERNEL_timestep_embedding)
        check_same(index, kernels_cuda(), &first, &plain, "not the plain kernel's bytes");
    for (uint64_t seed = 1; seed < SEEDS; seed++) {
        struct instance again = run_case_on_device(index, seed);
        check_same(index, kernels_cuda(), &again, &first, "other bytes in another order");
        release_instance(index, &again);
    }
    release_instance(index, &first);
    release_instance(index, &plain);
}

/* ---- the same with the networks' values in bf16 ---- */
/* Which inputs and outputs these are, by bits. */
static const struct {
    unsigned inputs, outputs;
} of_network[KERNEL_COUNT] = {
    [KERNEL_group_norm] = {1, 1},      [KERNEL_group_norm_backward] = {3, 1},
    [KERNEL_group_norm_jvp] = {3, 1},  [KERNEL_silu] = {1, 1},
    [KERNEL_silu_backward] = {3, 1},   [KERNEL_combine] = {3, 1},
    [KERNEL_add_channel] = {3, 1},     [KERNEL_sum_spatial] = {1, 1},
    [KERNEL_concat_channels] = {3, 1}, [KERNEL_slice_channels] = {1, 1},
    [KERNEL_pad_channels] = {1, 1},
};

static struct tensor narrowed(const struct tensor *wide)
{
    struct tensor narrow = *wide;
    narrow.type = TYPE_BF16;
    if (!wide->data)
        return narrow;
    narrow.data = malloc(tensor_bytes(&narrow));
    assert_non_null(narrow.data);
    for (int64_t i = 0; i < tensor_elements(wide); i++)
        ((uint16_t *)narrow.data)[i] = bfloat16_from_float(((const float *)wide->data)[i]);
    return narrow;
}

static void widen(const struct tensor *narrow, const struct tensor *wide)
{
    for (int64_t i = 0; wide->data && i < tensor_elements(wide); i++)
        ((float *)wide->data)[i] = float_from_bfloat16(((const uint16_t *)narrow->data)[i]);
}

/* An instance whose inputs are what bf16 can hold. */
static struct instance rounded_instance(int index)
{
    struct instance instance = new_instance(index, TYPE_F32);
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++)
        if (of_network[kernel_cases[index].kernel].inputs >> i & 1) {
            struct tensor narrow = narrowed(&instance.input[i]);
            widen(&narrow, &instance.input[i]);
            free(narrow.data);
        }
    return instance;
}

static struct instance run_in_bf16(int index, uint64_t seed)
{
    const struct test_case *c = &kernel_cases[index];
    struct instance instance = rounded_instance(index);
    struct tensor input[KERNEL_MAX_INPUTS], output[KERNEL_MAX_OUTPUTS];
    unsigned inputs = of_network[c->kernel].inputs, outputs = of_network[c->kernel].outputs;
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++)
        input[i] = inputs >> i & 1 ? narrowed(&instance.input[i]) : instance.input[i];
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++)
        output[i] = c->output[i].same_as ? input[c->output[i].same_as - 1]
                    : outputs >> i & 1   ? narrowed(&instance.output[i])
                                         : instance.output[i];
    reset(seed);
    run_on_device(c->kernel, &instance.attributes, input, output);
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++)
        if (outputs >> i & 1) {
            widen(&output[i], &instance.output[i]);
            if (!c->output[i].same_as)
                free(output[i].data);
        }
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++)
        if (inputs >> i & 1)
            free(input[i].data);
    return instance;
}

static void check_case_in_bf16(int index)
{
    char what[80];
    struct instance plain = rounded_instance(index), first = {0};
    run_instance(index, kernels_plain_f32(), &plain, 1);
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct instance again = run_in_bf16(index, seed);
        snprintf(what, sizeof what, "case %d in bf16, order %d", index, (int)seed);
        assert_nothing_reported(what);
        if (seed == 0) {
            first = again;
            continue;
        }
        check_same(index, kernels_cuda(), &again, &first, "other bytes in another order");
        release_instance(index, &again);
    }
    const struct test_case *c = &kernel_cases[index];
    /* 12 channels from the 8th on lie in two sectors where they could in one */
    bool whole_sectors = c->output[0].shape[3] % 32 == 0;
    if (simt_watches_accesses() && network_shape(c) && whole_sectors)
        check_traffic(network_shape(c));
    check_close(index, kernels_cuda(), &first, &plain, BF16_TOLERANCE);
    release_instance(index, &first);
    release_instance(index, &plain);
}

/* ---- the kernels of operators ---- */
static enum kernel_id wanted; /* of the problems that each_... give */
static int problems;

static void run_plain(const struct problem *problem, const struct tensor *input,
                      const struct tensor *output)
{
    const struct kernel *kernel = &kernels_plain_f32()->kernel[problem->id];
    struct kernel_call call = {input, output, &problem->attributes, NULL, 1, NULL};
    call.workspace = allocate(kernel->workspace_bytes ? kernel->workspace_bytes(&call) : 0);
    kernel->run(&call);
    free(call.workspace);
}

static void assert_near(const struct tensor *value, const struct tensor *expected)
{
    const float *is = value->data, *truth = expected->data;
    double largest = 0;
    for (int64_t i = 0; i < tensor_elements(value); i++)
        largest = fmax(largest, fabs((double)truth[i]));
    for (int64_t i = 0; i < tensor_elements(value); i++)
        if (!(fabs((double)is[i] - truth[i]) <= TOLERANCE * largest))
            fail_msg("problem %d: element %lld is %.9g, not %.9g", problems, (long long)i, is[i],
                     truth[i]);
}

static void check_one_problem(const struct problem *problem)
{
    struct tensor input[PROBLEM_INPUTS], expected = float_like(&problem->output);
    struct tensor first = float_like(&problem->output), again = float_like(&problem->output);
    char what[80];
    float_inputs(problem, input);
    run_plain(problem, input, &expected);
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        const struct tensor *output = seed == 0 ? &first : &again;
        snprintf(what, sizeof what, "problem %d, order %d", problems, (int)seed);
        memset(output->data, POISON, tensor_bytes(output));
        reset(seed);
        run_on_device(problem->id, &problem->attributes, input, output);
        assert_nothing_reported(what);
        assert_memory_equal(output->data, first.data, tensor_bytes(output));
    }
    assert_near(&first, &expected);
    release_float_inputs(problem, input);
    free(expected.data);
    free(first.data);
    free(again.data);
}

static void check_problems(struct problem *forward, struct problem *adjoint)
{
    struct problem *both[] = {forward, adjoint};
    for (int i = 0; i < 2; i++)
        if (both[i] && both[i]->id == wanted) {
            problems++;
            check_one_problem(both[i]);
        }
}

/* ---- enumeration ---- */
static bool has_test_of_its_own(enum kernel_id id)
{
    return id == KERNEL_conv2d || id == KERNEL_conv2d_backward_data || id == KERNEL_attention ||
           id == KERNEL_conv2d_pack_weight || id == KERNEL_attention_backward ||
           id == KERNEL_attention_jvp;
}

static void check_kernel(void **state)
{
    const enum kernel_id id = *(const enum kernel_id *)*state;
    int cases = 0;
    assert_non_null(kernels_cuda()->kernel[id].run);
    if (has_test_of_its_own(id))
        return;
    for (int i = 0; i < kernel_case_count; i++)
        if (kernel_cases[i].kernel == id) {
            check_case(i);
            if (of_network[id].outputs)
                check_case_in_bf16(i);
            cases++;
        }
    wanted = id;
    problems = 0;
    each_axis_filter(check_problems);
    each_tap_filter(check_problems);
    each_radon(check_problems);
    if (cases + problems < CASES_AT_LEAST)
        fail_msg("%s has %d cases", kernel_name(id), cases + problems);
}

int main(void)
{
    static enum kernel_id ids[KERNEL_COUNT];
    struct CMUnitTest tests[KERNEL_COUNT] = {{0}};
    for (int id = 0; id < KERNEL_COUNT; id++) {
        ids[id] = (enum kernel_id)id;
        tests[id] = (struct CMUnitTest){kernel_name(ids[id]), check_kernel, NULL, NULL, &ids[id]};
    }
    return _cmocka_run_group_tests("cuda kernels", tests, KERNEL_COUNT, NULL, NULL);
}

#else

static void test_cuda_kernels(void **state)
{
    (void)state;
    print_message("the emulator's fibres are written for x86-64\n");
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuda_kernels)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
