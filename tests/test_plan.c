/* The memory plan: on random graphs no two values that live at once share memory, every value keeps
 * what was written to it, and the region stays close to what must be alive; recomputation under a
 * limit and loops give the same bytes; which weights a device offloads, and for what limit. */
#include "runtime/tape_internal.h"
#include "tests/support/random.h"
#include "tests/support/weighted.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct visited {
    struct block blocks[4096];
    int count;
};

static void collect(void *context, int first, int last, size_t offset, size_t bytes)
{
    struct visited *visited = context;
    assert_true(visited->count < 4096);
    visited->blocks[visited->count++] = (struct block){first, last, bytes, offset};
}

static void check_no_overlap(const struct program *program, const struct tape *tape, uint64_t seed)
{
    struct visited *visited = calloc(1, sizeof *visited);
    program_visit_plan(program, tape, collect, visited);
    for (int i = 0; i < visited->count; i++) {
        const struct block *a = &visited->blocks[i];
        assert_true(a->offset + a->bytes <= tape->plan.region_bytes);
        for (int j = i + 1; j < visited->count; j++) {
            const struct block *b = &visited->blocks[j];
            bool together = a->first <= b->last && b->first <= a->last;
            bool overlap = a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
            if (together && overlap)
                fail_msg("seed %llu: two live values share bytes", (unsigned long long)seed);
        }
    }
    free(visited);
}

enum { GRAPH_NODES = 60, GRAPH_CHANNELS = 5 };

/* A random chain of elementwise operations on pictures of several sizes, with long-lived values,
 * its gradient and the change of the end in the gradient's direction; returns the slot of their
 * sum. */
static int record_random_graph(struct program *program, struct tape *tape, uint64_t seed,
                               int *input_slot)
{
    uint64_t random = seed;
    const int64_t shape[4] = {1, 4 + random_below(&random, 8), 3, GRAPH_CHANNELS};
    *input_slot = program_state(program, "x", TYPE_F32, shape);
    value x = tape_state(tape, *input_slot);
    value pool[GRAPH_NODES + 1] = {x};
    for (int n = 1; n <= GRAPH_NODES; n++) {
        int recent = n < 5 ? n : 5;
        value a = pool[n - 1 - random_below(&random, recent)];
        value b = pool[random_below(&random, 8) ? n - 1 - random_below(&random, recent)
                                                : random_below(&random, n)];
        switch (random_below(&random, 4)) {
        case 0:
            pool[n] = tape_silu(tape, a);
            break;
        case 1:
            pool[n] = tape_combine(tape, 0.75, a, 0.5, b);
            break;
        case 2:
            pool[n] = tape_slice_channels(tape, tape_concat_channels(tape, a, b),
                                          random_below(&random, GRAPH_CHANNELS), GRAPH_CHANNELS);
            break;
        default:
            pool[n] = tape_combine(tape, -0.5, tape_silu(tape, a), 1, NO_VALUE);
        }
    }
    value end = tape_combine(tape, 1, pool[GRAPH_NODES], 1, pool[1]);
    value gradient = tape_gradient(tape, tape_l2_norm(tape, end), x);
    value change = tape_jvp(tape, end, x, gradient);
    int slot = program_state(program, "derivatives", TYPE_F32, shape);
    tape_assign(tape, tape_state(tape, slot), tape_combine(tape, 1, gradient, 1, change));
    return slot;
}

/* Runs the seed's graph under a limit (0: none) and returns its derivatives. */
static float *run_random_graph(uint64_t seed, size_t limit, struct memory_report *report,
                               int64_t *count)
{
    struct status status = {0};
    struct program *program = program_create(kernels_plain_f32(), TYPE_F32, 1);
    struct tape *tape = program_tape(program, "graph");
    int input_slot, slot = record_random_graph(program, tape, seed, &input_slot);
    assert_int_equal(tape_status(tape)->code, STATUS_OK);
    program_plan(program, limit, &status);
    if (!status_ok(&status))
        fail_msg("seed %llu: %s", (unsigned long long)seed, status.message);
    check_no_overlap(program, tape, seed);
    program_memory(program, report);
    program_prepare(program, &status);
    const int64_t *s = program_shape(program, slot);
    *count = s[1] * s[2] * s[3];
    float *values = malloc((size_t)*count * sizeof *values);
    uint64_t random = seed;
    for (int64_t i = 0; i < *count; i++)
        values[i] = (float)random_uniform(&random);
    program_write(program, input_slot, values);
    /* a second replay over a dirty arena must not differ */
    for (int replay = 0; replay < 2; replay++)
        program_run(program, tape, NULL, &status);
    assert_int_equal(status.code, STATUS_OK);
    program_read(program, slot, values);
    program_free(program);
    return values;
}

static void random_graphs_do_not_overlap(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct memory_report report;
        int64_t count;
        free(run_random_graph(seed, 0, &report, &count));
        if (report.activations_bytes + report.workspace_bytes >
            1.25 * (double)report.peak_live_bytes)
            fail_msg("seed %llu: region %zu, live %zu", (unsigned long long)seed,
                     report.activations_bytes + report.workspace_bytes, report.peak_live_bytes);
    }
}

enum { CHAIN_STEPS = 40, CHAIN_SIZE = 16 * 16 * 4 };

struct chain {
    struct program *program;
    struct tape *tape;
    int input, gradient, tangent; /* slots */
};

/* A chain whose gradient keeps every step: recomputation has something to save. With a tangent, the
 * chain is passed a third time, in the gradient's direction: x has moved by then, and what read it
 * must not be computed again. */
static struct chain record_chain(bool with_tangent)
{
    const int64_t shape[4] = {1, 16, 16, 4};
    struct chain c = {.program = program_create(kernels_plain_f32(), TYPE_F32, 1)};
    c.tape = program_tape(c.program, "chain");
    c.input = program_state(c.program, "x", TYPE_F32, shape);
    c.gradient = program_state(c.program, "gradient", TYPE_F32, shape);
    c.tangent = program_state(c.program, "tangent", TYPE_F32, shape);
    value x = tape_state(c.tape, c.input), y = tape_combine(c.tape, 0.5, x, 0, NO_VALUE);
    for (int n = 0; n < CHAIN_STEPS; n++)
        y = tape_combine(c.tape, 1.5, tape_silu(c.tape, y), n % 3 ? 0 : 0.25, n % 3 ? NO_VALUE : x);
    value gradient = tape_gradient(c.tape, tape_l2_norm(c.tape, y), x);
    tape_assign(c.tape, tape_state(c.tape, c.gradient), gradient);
    tape_assign(c.tape, x, tape_combine(c.tape, 1, x, -0.125, gradient));
    if (with_tangent)
        tape_assign(c.tape, tape_state(c.tape, c.tangent), tape_jvp(c.tape, y, x, gradient));
    assert_int_equal(tape_status(c.tape)->code, STATUS_OK);
    return c;
}

/* The gradient, then the tangent. */
static float *run_chain(size_t limit, struct memory_report *report)
{
    struct status status = {0};
    struct chain c = record_chain(true);
    program_plan(c.program, limit, &status);
    if (!status_ok(&status))
        fail_msg("%s", status.message);
    check_no_overlap(c.program, c.tape, 0);
    program_memory(c.program, report);
    program_prepare(c.program, &status);
    float *values = malloc(2 * CHAIN_SIZE * sizeof *values);
    uint64_t random = 3;
    for (int i = 0; i < CHAIN_SIZE; i++)
        values[i] = (float)random_uniform(&random);
    program_write(c.program, c.input, values);
    for (int replay = 0; replay < 2; replay++)
        program_run(c.program, c.tape, NULL, &status);
    program_read(c.program, c.gradient, values);
    program_read(c.program, c.tangent, values + CHAIN_SIZE);
    program_free(c.program);
    return values;
}

static void a_limit_recomputes_the_same_bytes(void **state)
{
    (void)state;
    struct memory_report free_report, tight_report;
    float *reference = run_chain(0, &free_report);
    size_t limit = free_report.total_bytes * 7 / 10;
    float *limited = run_chain(limit, &tight_report);
    assert_true(tight_report.total_bytes <= limit);
    assert_true(tight_report.recomputed_nodes > 0);
    assert_memory_equal(reference, limited, 2 * CHAIN_SIZE * sizeof *reference);
    free(reference);
    free(limited);
}

static size_t least_bytes(struct program *program)
{
    struct status status = {0};
    assert_int_equal(program_plan(program, 1, &status), STATUS_BAD_INPUT);
    assert_non_null(strstr(status.message, "the least that fits is "));
    return strtoull(strstr(status.message, "fits is ") + 8, NULL, 10);
}

enum { LAYER_CHANNELS = 96, LAYER_SIDE = 32, LAYERS = 3 };
enum { WEIGHT_FLOATS = LAYER_CHANNELS * LAYER_CHANNELS * 9 };

static void read_layer(const struct parameter *parameter, float *values)
{
    uint64_t random = 5;
    for (int i = 0; i < WEIGHT_FLOATS; i++)
        values[i] = (float)(random_uniform(&random) * *(const double *)parameter->source);
}

/* Three convolutions and their gradient by the fast kernels, whose weights dominate. trained: the
 * weights are state, and their gradients are made too. */
static float *run_layers(size_t limit, bool trained, struct memory_report *report)
{
    const int64_t weight[4] = {LAYER_CHANNELS, LAYER_CHANNELS, 3, 3};
    const int64_t shape[4] = {1, LAYER_SIDE, LAYER_SIDE, LAYER_CHANNELS};
    const double scale = 0.1;
    const struct conv2d_attributes attributes = {3, 3, 1, 1, 1, 1, 1, 1, WEIGHT_PLAIN, 0};
    struct parameter layers[LAYERS];
    int weight_slots[LAYERS];
    struct status status = {0};
    struct program *program = program_create(kernels_cpu(), TYPE_F32, 2);
    struct tape *tape = program_tape(program, "layers");
    int x_slot = program_state(program, "x", TYPE_F32, shape);
    value x = tape_state(tape, x_slot), y = x, wrt[LAYERS + 1] = {x}, gradient[LAYERS + 1];
    memset(layers, 0, sizeof layers);
    for (int i = 0; i < LAYERS; i++) {
        memcpy(layers[i].shape, weight, sizeof weight);
        layers[i].read = read_layer;
        layers[i].source = &scale;
        weight_slots[i] = trained ? program_state(program, "w", TYPE_F32, weight) : -1;
        wrt[1 + i] = trained ? tape_state(tape, weight_slots[i]) : tape_parameter(tape, &layers[i]);
        y = tape_conv2d(tape, tape_silu(tape, y), wrt[1 + i], NO_VALUE, NO_VALUE, &attributes);
    }
    tape_gradients(tape, tape_l2_norm(tape, y), wrt, trained ? 1 + LAYERS : 1, gradient);
    for (int i = 0; i < (trained ? 1 + LAYERS : 1); i++)
        tape_assign(tape, wrt[i], gradient[i]);
    float *values = malloc(LAYER_SIDE * LAYER_SIDE * LAYER_CHANNELS * sizeof *values);
    uint64_t random = 9;
    for (int i = 0; i < LAYER_SIDE * LAYER_SIDE * LAYER_CHANNELS; i++)
        values[i] = (float)random_uniform(&random);
    if (program_plan(program, limit, &status) || program_prepare(program, &status))
        fail_msg("%s", status.message);
    program_memory(program, report);
    program_write(program, x_slot, values);
    float *weights = malloc(WEIGHT_FLOATS * sizeof *weights);
    read_layer(&layers[0], weights);
    for (int i = 0; i < LAYERS && trained; i++)
        program_write(program, weight_slots[i], weights);
    program_run(program, tape, NULL, &status);
    program_read(program, x_slot, values);
    program_free(program);
    for (int i = 0; i < LAYERS; i++)
        parameter_release(&layers[i]);
    free(weights);
    return values;
}

static double difference_of_layers(const float *values, const float *reference)
{
    double difference = 0, norm = 0;
    for (int i = 0; i < LAYER_SIDE * LAYER_SIDE * LAYER_CHANNELS; i++) {
        difference += pow(values[i] - reference[i], 2);
        norm += pow(reference[i], 2);
    }
    assert_true(norm > 0);
    return sqrt(difference / norm);
}

static void a_low_limit_takes_smaller_weights(void **state)
{
    (void)state;
    struct memory_report free_report, tight_report;
    float *reference = run_layers(0, false, &free_report);
    size_t limit = free_report.total_bytes - free_report.weights_bytes * 2 / 5;
    float *limited = run_layers(limit, false, &tight_report);
    assert_true(!free_report.small_weights && tight_report.small_weights);
    assert_true(tight_report.total_bytes <= limit);
    assert_true(tight_report.weights_bytes * 9 == free_report.weights_bytes * 4);
    double difference = difference_of_layers(limited, reference);
    assert_true(difference > 0 && difference < 1e-5);
    free(reference);
    free(limited);
}

/* Trained weights are packed in the arena, into the same bytes; there too the smaller form is taken
 * where memory is short, and the packing recomputed. A packed weight does not wait for the backward
 * part. */
static void trained_weights_are_packed_in_the_arena(void **state)
{
    (void)state;
    struct memory_report frozen_report, free_report, tight_report;
    float *frozen = run_layers(0, false, &frozen_report);
    float *trained = run_layers(0, true, &free_report);
    assert_memory_equal(frozen, trained, LAYER_SIDE * LAYER_SIDE * LAYER_CHANNELS * sizeof *frozen);
    assert_true(free_report.weights_bytes == 0 && frozen_report.weights_bytes > 0);
    /* beside one packed weight: gradients, and the convolutions' inputs that they are made of */
    size_t packed = frozen_report.weights_bytes / LAYERS;
    size_t layer = (WEIGHT_FLOATS + LAYER_SIDE * LAYER_SIDE * LAYER_CHANNELS) * sizeof(float);
    assert_true(free_report.activations_bytes <
                frozen_report.activations_bytes + packed + LAYERS * layer);
    size_t limit = free_report.total_bytes - packed / 2;
    float *limited = run_layers(limit, true, &tight_report);
    assert_true(tight_report.small_weights && tight_report.recomputed_nodes > 0);
    assert_true(tight_report.total_bytes <= limit);
    double difference = difference_of_layers(limited, frozen);
    assert_true(difference > 0 && difference < 1e-5);
    free(frozen);
    free(trained);
    free(limited);
}

/* What was recomputed for the gradient does not wait for the tangent: it needs one value more, the
 * gradient that it starts from. */
static void a_tangent_recomputes_anew(void **state)
{
    (void)state;
    struct chain without = record_chain(false), with = record_chain(true);
    size_t gradient = least_bytes(without.program), both = least_bytes(with.program);
    /* the slot of the tangent, unused, is in both */
    if (both > gradient + 2 * CHAIN_SIZE * sizeof(float))
        fail_msg("%zu bytes are needed with a tangent, %zu without", both, gradient);
    program_free(without.program);
    program_free(with.program);
}

static void random_graphs_recompute_the_same_bytes(void **state)
{
    (void)state;
    int fitted = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct memory_report report, tight;
        int64_t count;
        float *reference = run_random_graph(seed, 0, &report, &count);
        struct program *program = program_create(kernels_plain_f32(), TYPE_F32, 1);
        struct tape *tape = program_tape(program, "graph");
        int input_slot;
        struct status status = {0};
        record_random_graph(program, tape, seed, &input_slot);
        size_t limit = report.total_bytes - report.activations_bytes / 8;
        bool fits = program_plan(program, limit, &status) == STATUS_OK;
        program_free(program);
        if (fits) {
            float *limited = run_random_graph(seed, limit, &tight, &count);
            assert_true(tight.total_bytes <= limit);
            if (memcmp(reference, limited, (size_t)count * sizeof *reference))
                fail_msg("seed %llu: recomputation changed the derivatives",
                         (unsigned long long)seed);
            free(limited);
            fitted++;
        }
        free(reference);
    }
    assert_true(fitted >= 20);
}

static void too_little_memory_names_the_least(void **state)
{
    (void)state;
    struct program *program = program_create(kernels_plain_f32(), TYPE_F32, 1);
    int input_slot;
    record_random_graph(program, program_tape(program, "graph"), 7, &input_slot);
    size_t least = least_bytes(program);
    struct status again = {0};
    assert_int_equal(program_plan(program, least, &again), STATUS_OK);
    program_free(program);
}

/* ---- weights that a device offloads ---- */

/* Plans for a device, of which planning needs no more. */
static struct kernels device_kernels(void)
{
    struct kernels kernels = *kernels_plain_f32();
    kernels.separate_memory = true;
    return kernels;
}

static struct memory_report plan_weighted(struct weighted *weighted, size_t limit)
{
    struct status status = {0};
    struct memory_report report;
    program_plan(weighted->program, limit, &status);
    if (!status_ok(&status))
        fail_msg("%s", status.message);
    check_no_overlap(weighted->program, weighted->start, 0);
    check_no_overlap(weighted->program, weighted->step, 0);
    program_memory(weighted->program, &report);
    assert_true(!limit || report.total_bytes <= limit);
    return report;
}

/* The one that is used least goes first; nothing is computed twice before all are gone. */
static void rarely_used_weights_are_offloaded_first(void **state)
{
    (void)state;
    struct kernels kernels = device_kernels();
    struct weighted w;
    weighted_record(&w, &kernels);
    struct memory_report full = plan_weighted(&w, 0);
    size_t each = weighted_bytes(&w, WEIGHT_START);
    assert_true(full.offloaded_bytes == 0 && full.upload_bytes == 0);
    assert_true(full.weights_bytes == 4 * each + weighted_bytes(&w, WEIGHT_BIAS));

    struct memory_report one = plan_weighted(&w, full.total_bytes - 1);
    assert_true(one.offloaded_bytes == each && one.recomputed_nodes == 0);
    assert_true(program_uploads(w.start).bytes == each && program_uploads(w.step).bytes == 0);
    assert_true(one.upload_bytes == (double)each);

    struct memory_report two = plan_weighted(&w, one.total_bytes - 1);
    assert_true(two.offloaded_bytes == 2 * each && two.recomputed_nodes == 0);
    assert_true(program_uploads(w.step).bytes == each);
    assert_true(two.upload_bytes == (double)((1 + WEIGHTED_STEPS) * each));
    weighted_free(&w);
}

/* A loop's weight and a vector stay on the device for any limit, and the least that is named fits.
 */
static void a_loop_keeps_its_weights(void **state)
{
    (void)state;
    struct kernels kernels = device_kernels();
    struct weighted w;
    weighted_record(&w, &kernels);
    size_t full = plan_weighted(&w, 0).total_bytes, least = least_bytes(w.program), before = 0;
    size_t each = weighted_bytes(&w, WEIGHT_LOOPED);
    for (size_t limit = full; limit > least; limit -= (limit - least + 9) / 10) {
        struct memory_report report = plan_weighted(&w, limit);
        assert_true(report.offloaded_bytes >= before);
        before = report.offloaded_bytes;
    }
    struct memory_report report = plan_weighted(&w, least);
    assert_true(report.offloaded_bytes == 3 * each && report.recomputed_nodes > 0);
    assert_true(report.weights_bytes == each + weighted_bytes(&w, WEIGHT_BIAS));
    assert_true(program_uploads(w.body).bytes == 0);
    assert_true(plan_weighted(&w, 0).offloaded_bytes == 0);
    weighted_free(&w);
}

static void the_host_offloads_nothing(void **state)
{
    (void)state;
    struct weighted w;
    weighted_record(&w, kernels_plain_f32());
    struct memory_report full = plan_weighted(&w, 0),
                         least = plan_weighted(&w, least_bytes(w.program));
    assert_true(least.offloaded_bytes == 0 && least.recomputed_nodes > 0);
    assert_true(least.weights_bytes == full.weights_bytes);
    weighted_free(&w);
}

/* x <- x/2 until |x| < 1e-3: counts iterations, keeps other values over the loop, stops at the
 * limit. */
static void loops_exit_and_count(void **state)
{
    (void)state;
    for (int limited = 0; limited < 2; limited++) {
        struct status status = {0};
        const int64_t shape[4] = {1, 1, 1, 4}, one[4] = {1, 1, 1, 1}, window[4] = {1, 1, 1, 1};
        struct program *program = program_create(kernels_plain_f32(), TYPE_F32, 1);
        int x_slot = program_state(program, "x", TYPE_F32, shape);
        int y_slot = program_state(program, "y", TYPE_F32, shape);
        int iteration = program_state(program, "iteration", TYPE_I32, one);
        int window_slot = program_state(program, "window", TYPE_F32, window);
        struct tape *body = program_tape(program, "body");
        value x = tape_state(body, x_slot);
        value loss = tape_l2_norm(body, x);
        tape_exit_if(body, tape_stop_rule(body, loss, tape_state(body, window_slot),
                                          tape_state(body, iteration), 1e-3, false));
        tape_assign(body, x, tape_combine(body, 0.5, x, 0, NO_VALUE));
        struct tape *tape = program_tape(program, "main");
        value start = tape_silu(tape, tape_state(tape, x_slot));
        tape_while(tape, body, limited ? 3 : 100);
        tape_assign(tape, tape_state(tape, y_slot), start);
        assert_int_equal(tape_status(tape)->code, STATUS_OK);
        program_plan(program, 0, &status);
        program_prepare(program, &status);
        /* the window is one entry long and starts at infinity, so that the plateau rule is quiet */
        const float values[4] = {1, 0, 0, 0}, infinity[1] = {INFINITY};
        program_write(program, window_slot, infinity);
        program_write(program, x_slot, values);
        program_run(program, tape, NULL, &status);
        assert_int_equal(status.code, STATUS_OK);
        float x_end[4], y_end[4];
        program_read(program, x_slot, x_end);
        program_read(program, y_slot, y_end);
        assert_int_equal(program_iterations(body), limited ? 3 : 11);
        assert_true(x_end[0] == (limited ? 0.125f : 0x1p-10f));
        assert_true(fabsf(y_end[0] - 0.7310586f) < 1e-6f);
        program_free(program);
    }
}

static void shapes_are_checked(void **state)
{
    (void)state;
    struct program *program = program_create(kernels_plain_f32(), TYPE_F32, 1);
    struct tape *tape = program_tape(program, "bad");
    value a = tape_state(tape, program_state(program, "a", TYPE_F32, (int64_t[]){1, 2, 2, 3}));
    value b = tape_state(tape, program_state(program, "b", TYPE_F32, (int64_t[]){1, 2, 2, 4}));
    tape_label(tape, "here");
    assert_int_equal(tape_combine(tape, 1, a, 1, b), NO_VALUE);
    assert_non_null(strstr(tape_status(tape)->message, "here: combine"));
    struct status status = {0};
    assert_int_equal(program_plan(program, 0, &status), STATUS_BAD_INPUT);
    program_free(program);
}

static void a_result_that_is_not_finite_is_named(void **state)
{
    (void)state;
    struct status status = {0};
    struct program *program = program_create(kernels_plain_f32(), TYPE_F32, 1);
    struct tape *tape = program_tape(program, "checked");
    const int64_t shape[4] = {1, 1, 1, 2};
    int x_slot = program_state(program, "x", TYPE_F32, shape);
    value x = tape_state(tape, x_slot);
    tape_label(tape, "fine");
    value y = tape_silu(tape, x);
    tape_label(tape, "overflow");
    value z = tape_combine(tape, 1e30, y, 0, NO_VALUE);
    tape_assign(tape, x, z);
    program_plan(program, 0, &status);
    program_prepare(program, &status);
    const float values[2] = {1, 1e30f};
    program_write(program, x_slot, values);
    assert_int_equal(program_run_checked(program, tape, &status), STATUS_FAILURE);
    assert_non_null(strstr(status.message, "combine (overflow)"));
    program_free(program);
}

/* ---- gradients that state gathers as they come ---- */
enum { LINKS = 8, LINK_WIDTH = 48 };

struct gathering {
    struct tape *tape;
    int sums[LINKS];
};

static void gather(void *context, int i, value gradient)
{
    struct gathering *gathering = context;
    value sum = tape_state(gathering->tape, gathering->sums[i]);
    tape_assign(gathering->tape, sum, tape_combine(gathering->tape, 1, sum, 0.5, gradient));
}

/* A chain of linear layers, the first of which is also the last; the sums of two replays. */
static void run_gathering(bool at_once, size_t limit, struct memory_report *report,
                          float sums[LINKS][LINK_WIDTH * LINK_WIDTH])
{
    const struct conv2d_attributes a = {1, 1, 1, 0, 0, 0, 0, 1, WEIGHT_PLAIN, 0};
    const int64_t row[4] = {1, 1, 1, LINK_WIDTH}, square[4] = {LINK_WIDTH, LINK_WIDTH, 1, 1};
    struct status status = {0};
    struct program *program = program_create(kernels_plain_f32(), TYPE_F32, 1);
    struct gathering gathering = {.tape = program_tape(program, "gather")};
    struct tape *tape = gathering.tape;
    value weights[LINKS], gradients[LINKS], x = NO_VALUE;
    int slots[LINKS], input_slot = program_state(program, "x", TYPE_F32, row);
    x = tape_state(tape, input_slot);
    for (int i = 0; i < LINKS; i++) {
        slots[i] = program_state(program, "w", TYPE_F32, square);
        gathering.sums[i] = program_state(program, "sum", TYPE_F32, square);
        weights[i] = tape_state(tape, slots[i]);
        x = tape_silu(tape, tape_conv2d(tape, x, weights[i], NO_VALUE, NO_VALUE, &a));
    }
    value loss = tape_l2_norm(tape, tape_conv2d(tape, x, weights[0], NO_VALUE, NO_VALUE, &a));
    if (at_once)
        tape_each_gradient(tape, loss, weights, LINKS, gather, &gathering);
    else
        tape_gradients(tape, loss, weights, LINKS, gradients);
    for (int i = 0; i < LINKS && !at_once; i++)
        gather(&gathering, i, gradients[i]);
    assert_int_equal(tape_status(tape)->code, STATUS_OK);
    assert_int_equal(program_plan(program, limit, &status), STATUS_OK);
    check_no_overlap(program, tape, 0);
    program_memory(program, report);
    assert_int_equal(program_prepare(program, &status), STATUS_OK);
    uint64_t random = 4;
    for (int i = -1; i < LINKS; i++) {
        float values[LINK_WIDTH * LINK_WIDTH];
        for (int k = 0; k < LINK_WIDTH * LINK_WIDTH; k++)
            values[k] = 0.25f * (float)random_uniform(&random);
        program_write(program, i < 0 ? input_slot : slots[i], values);
    }
    for (int replay = 0; replay < 2; replay++)
        assert_int_equal(program_run(program, tape, NULL, &status), STATUS_OK);
    for (int i = 0; i < LINKS; i++)
        program_read(program, gathering.sums[i], sums[i]);
    program_free(program);
}

/* The same bytes, with two weights' worth of gradients alive where all were: the first layer's,
 * which waits for its second part, and the one in hand. */
static void gradients_are_gathered_as_they_come(void **state)
{
    (void)state;
    static float late[LINKS][LINK_WIDTH * LINK_WIDTH], early[LINKS][LINK_WIDTH * LINK_WIDTH];
    const size_t weight = sizeof late[0];
    struct memory_report all, few, least;
    run_gathering(false, 0, &all, late);
    run_gathering(true, 0, &few, early);
    assert_memory_equal(late, early, sizeof late);
    assert_true(late[0][0] != 0 && late[LINKS - 1][0] != 0);
    assert_true(all.activations_bytes > LINKS * weight);
    assert_true(few.activations_bytes < 4 * weight);
    run_gathering(true, few.total_bytes - LINK_WIDTH * sizeof(float), &least, early);
    assert_true(least.recomputed_nodes > 0);
    assert_memory_equal(late, early, sizeof late);
}

struct visited_calls {
    enum kernel_id kernels[8];
    int64_t rows[8];
    int count;
};

static void collect_call(void *context, enum kernel_id kernel, const char *label,
                         const struct kernel_call *call)
{
    struct visited_calls *calls = context;
    assert_true(calls->count < 8);
    assert_string_equal(label, "part");
    assert_null(call->input[0].data);
    assert_int_equal(tensor_elements(&call->input[1]), 0); /* absent */
    calls->kernels[calls->count] = kernel;
    calls->rows[calls->count++] = call->output[0].shape[1];
}

/* In replay order, without what nobody uses. */
static void calls_are_visited(void **state)
{
    (void)state;
    struct program *program = program_create(kernels_plain_f32(), TYPE_F32, 1);
    struct tape *tape = program_tape(program, "visit");
    const int64_t shape[4] = {1, 6, 3, 4}, scalar[4] = {1, 1, 1, 1};
    struct status status = {0};
    struct visited_calls calls = {0};
    tape_label(tape, "part");
    value x = tape_state(tape, program_state(program, "x", TYPE_F32, shape));
    value y = tape_silu(tape, x);
    tape_combine(tape, 2, x, 0, NO_VALUE);
    tape_assign(tape, tape_state(tape, program_state(program, "n", TYPE_F32, scalar)),
                tape_l2_norm(tape, y));
    assert_int_equal(program_plan(program, 0, &status), STATUS_OK);
    program_visit_calls(tape, collect_call, &calls);
    const enum kernel_id expected[] = {KERNEL_silu, KERNEL_l2_norm, KERNEL_copy};
    assert_int_equal(calls.count, 3);
    assert_memory_equal(calls.kernels, expected, sizeof expected);
    assert_int_equal(calls.rows[0], 6);
    assert_int_equal(calls.rows[1], 1);
    program_free(program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_graphs_do_not_overlap),
        cmocka_unit_test(a_limit_recomputes_the_same_bytes),
        cmocka_unit_test(a_low_limit_takes_smaller_weights),
        cmocka_unit_test(trained_weights_are_packed_in_the_arena),
        cmocka_unit_test(a_tangent_recomputes_anew),
        cmocka_unit_test(random_graphs_recompute_the_same_bytes),
        cmocka_unit_test(too_little_memory_names_the_least),
        cmocka_unit_test(rarely_used_weights_are_offloaded_first),
        cmocka_unit_test(a_loop_keeps_its_weights),
        cmocka_unit_test(the_host_offloads_nothing),
        cmocka_unit_test(gradients_are_gathered_as_they_come),
        cmocka_unit_test(calls_are_visited),
        cmocka_unit_test(loops_exit_and_count),
        cmocka_unit_test(shapes_are_checked),
        cmocka_unit_test(a_result_that_is_not_finite_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
