/* The CUDA device behind the runtime on the emulator's fake run-time: loops, exits and their counts
 * as on the CPU, by graphs and from the host; what a host that looks on sees, stops and is told;
 * weights that stay in host memory. */
#include "runtime/backend.h"
#include "runtime/device.h"
#include "runtime/program.h"
#include "tests/simt/report.h"
#include "tests/support/solve.h"
#include "tests/support/weighted.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifdef __x86_64__

static const int64_t ONE[4] = {1, 1, 1, 1}, FOUR[4] = {1, 1, 1, 4};

/* On a card loops are over before the host has looked often. */
static bool emulated(void)
{
    return simt_host_calls() != NULL;
}

/* x counts up by one an iteration until it is `target`, where the body exits half way. */
struct counting {
    struct program *program;
    int x, y, target, loss, iteration;
    struct tape *body, *loop, *outer_body, *outer;
};

static void record_counting(struct counting *c, int64_t limit, int64_t outer_limit)
{
    double ones[4] = {1, 1, 1, 1};
    c->x = program_state(c->program, "x", TYPE_F32, FOUR);
    c->y = program_state(c->program, "y", TYPE_F32, FOUR);
    c->target = program_state(c->program, "target", TYPE_F32, FOUR);
    c->loss = program_state(c->program, "loss", TYPE_F32, ONE);
    c->iteration = program_state(c->program, "iteration", TYPE_I32, ONE);
    int one = program_constant_real(c->program, "ones", FOUR, ones);
    program_watch(c->program, c->loss);

    struct tape *t = c->body = program_tape(c->program, "body");
    value x = tape_state(t, c->x);
    value loss = tape_mean_squared_error(t, x, tape_state(t, c->target));
    tape_assign(t, tape_state(t, c->loss), loss);
    tape_exit_if(t, tape_stop_rule(t, loss, NO_VALUE, tape_state(t, c->iteration), 0.5, false));
    tape_assign(t, x, tape_combine(t, 1, x, 1, tape_state(t, one)));
    c->loop = program_tape(c->program, "loop");
    tape_while(c->loop, c->body, limit);

    t = c->outer_body = program_tape(c->program, "outer body");
    x = tape_state(t, c->x);
    tape_assign(t, x, tape_combine(t, 0, x, 0, NO_VALUE));
    tape_while(t, c->body, limit);
    tape_assign(t, tape_state(t, c->y),
                tape_combine(t, 1, tape_state(t, c->y), 1, tape_state(t, c->x)));
    c->outer = program_tape(c->program, "outer");
    tape_while(c->outer, c->outer_body, outer_limit);
}

static struct counting new_counting(const struct kernels *kernels, int64_t limit,
                                    int64_t outer_limit)
{
    struct counting c = {.program = program_create(kernels, TYPE_F32, 1)};
    struct status status = {0};
    assert_non_null(c.program);
    record_counting(&c, limit, outer_limit);
    program_plan(c.program, 0, &status);
    program_prepare(c.program, &status);
    if (!status_ok(&status))
        fail_msg("%s", status.message);
    program_write(c.program, c.target, (const float[4]){5, 5, 5, 5});
    return c;
}

static struct cuda_backend open_backend(bool loops)
{
    struct cuda_backend backend;
    struct status status = {0};
    struct simt_options options = simt_default_options();
    simt_reset(&options);
    setenv("RESAMPLE_CUDA_LOOPS", loops ? "" : "host", 1);
    cuda_backend_open(&backend, true, &status);
    if (!status_ok(&status))
        fail_msg("%s", status.message);
    assert_int_equal(backend.kernels.device->loops, loops);
    return backend;
}

static void expect_slot(const struct counting *c, int slot, float expected)
{
    float values[4];
    program_read(c->program, slot, values);
    for (int i = 0; i < 4; i++)
        assert_float_equal(values[i], expected, 0);
}

/* limit, iterations, x */
static const int counts[][3] = {{0, 0, 0}, {1, 1, 1}, {4, 4, 4}, {5, 5, 5}, {6, 6, 5}, {20, 6, 5}};

static void check_counts(const struct kernels *kernels)
{
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct counting c = new_counting(kernels, counts[i][0], 1);
        struct status status = {0};
        for (int again = 0; again < 2; again++) {
            program_zero(c.program, c.x);
            assert_int_equal(program_run(c.program, c.loop, NULL, &status), STATUS_OK);
            assert_int_equal(program_iterations(c.body), counts[i][1]);
            expect_slot(&c, c.x, (float)counts[i][2]);
        }
        program_free(c.program);
    }
}

static void check_nested(const struct kernels *kernels)
{
    struct counting c = new_counting(kernels, 3, 4);
    struct status status = {0};
    assert_int_equal(program_run(c.program, c.outer, NULL, &status), STATUS_OK);
    assert_int_equal(program_iterations(c.outer_body), 4);
    assert_int_equal(program_iterations(c.body), 3);
    expect_slot(&c, c.y, 12);
    program_free(c.program);
}

/* A body may run alone: then an exit ends it. */
static void check_alone(const struct kernels *kernels)
{
    struct counting c = new_counting(kernels, 3, 1);
    struct status status = {0};
    for (int i = 1; i <= 7; i++) {
        assert_int_equal(program_run(c.program, c.body, NULL, &status), STATUS_OK);
        expect_slot(&c, c.x, (float)(i < 5 ? i : 5));
    }
    program_free(c.program);
}

static void on_each(void (*check)(const struct kernels *kernels))
{
    check(kernels_plain_f32());
    for (int loops = 0; loops < 2; loops++) {
        struct cuda_backend backend = open_backend(loops);
        check(&backend.kernels);
        assert_int_equal(simt_errors()->count, 0);
        cuda_backend_close(&backend);
    }
}

static void test_counts(void **state)
{
    (void)state;
    on_each(check_counts);
}

static void test_alone(void **state)
{
    (void)state;
    on_each(check_alone);
}

static void test_nested(void **state)
{
    (void)state;
    on_each(check_nested);
}

/* ---- a host that looks on ---- */

struct seen {
    int calls, stop_at;
    int64_t last;
    double watched;
};

static bool look(void *context, int64_t iteration, double watched)
{
    struct seen *seen = context;
    seen->calls++;
    assert_true(iteration > seen->last);
    seen->last = iteration;
    seen->watched = watched;
    return !seen->stop_at || iteration < seen->stop_at;
}

/* The loss that iteration k leaves is that of x = k - 1. */
static void check_progress(const struct kernels *kernels)
{
    struct counting c = new_counting(kernels, 4, 1);
    struct status status = {0};
    struct seen seen = {0};
    struct program_hooks hooks = {.after_iteration = look, .context = &seen};
    assert_int_equal(program_run(c.program, c.loop, &hooks, &status), STATUS_OK);
    assert_true(seen.calls > 1 || (kernels->device && !emulated()));
    if (seen.calls)
        assert_float_equal(seen.watched, (5 - (seen.last - 1)) * (5 - (seen.last - 1)), 1e-6);
    program_free(c.program);
}

static void check_stop(const struct kernels *kernels)
{
    struct counting c = new_counting(kernels, 1000000, 1);
    struct status status = {0};
    struct seen seen = {.stop_at = 3};
    struct program_hooks hooks = {.after_iteration = look, .context = &seen};
    program_write(c.program, c.target, (const float[4]){1e6f, 1e6f, 1e6f, 1e6f});
    assert_int_equal(program_run(c.program, c.loop, &hooks, &status), STATUS_INTERRUPTED);
    assert_in_range(program_iterations(c.body), 3, emulated() ? 5 : 999999);
    struct status again = {0};
    program_write(c.program, c.target, (const float[4]){5, 5, 5, 5});
    program_zero(c.program, c.x);
    assert_int_equal(program_run(c.program, c.loop, NULL, &again), STATUS_OK);
    expect_slot(&c, c.x, 5);
    program_free(c.program);
}

static void check_cancelled(const struct kernels *kernels)
{
    struct counting c = new_counting(kernels, 10, 1);
    struct status status = {0};
    volatile sig_atomic_t cancelled = 1;
    struct program_hooks hooks = {.cancelled = &cancelled};
    assert_int_equal(program_run(c.program, c.loop, &hooks, &status), STATUS_INTERRUPTED);
    expect_slot(&c, c.x, 0);
    program_free(c.program);
}

static void test_progress(void **state)
{
    (void)state;
    on_each(check_progress);
}

static void test_stop(void **state)
{
    (void)state;
    on_each(check_stop);
}

static void test_cancelled(void **state)
{
    (void)state;
    on_each(check_cancelled);
}

/* The checked run names the operation whose result is not finite, wherever its memory lies. */
static void check_explained(const struct kernels *kernels)
{
    struct counting c = new_counting(kernels, 3, 1);
    struct status status = {0};
    program_write(c.program, c.x, (const float[4]){1, NAN, 1, 1});
    assert_int_equal(program_run_checked(c.program, c.loop, &status), STATUS_FAILURE);
    assert_non_null(strstr(status.message, "x is not finite before mean_squared_error"));
    program_free(c.program);
}

static void test_explained(void **state)
{
    (void)state;
    on_each(check_explained);
}

/* A loop of a hundred iterations costs the host what one of three does: a launch and a look. */
static void test_host_is_not_asked(void **state)
{
    (void)state;
    if (!emulated())
        skip(); /* nobody counts */
    struct cuda_backend backend = open_backend(true);
    uint64_t calls[2][3];
    for (int i = 0; i < 2; i++) {
        struct counting c = new_counting(&backend.kernels, i ? 100 : 3, 1);
        struct status status = {0};
        program_write(c.program, c.target, (const float[4]){1e6f, 1e6f, 1e6f, 1e6f});
        simt_forget_calls();
        program_run(c.program, c.loop, NULL, &status);
        assert_int_equal(program_iterations(c.body), i ? 100 : 3);
        const struct simt_calls *made = simt_host_calls();
        assert_int_equal(made->allocations, 0);
        assert_int_equal(made->launches, 0);
        assert_int_equal(made->graph_launches, 1);
        calls[i][0] = made->copies;
        calls[i][1] = made->synchronisations;
        program_free(c.program);
    }
    assert_int_equal(calls[0][0], calls[1][0]);
    assert_int_equal(calls[0][1], calls[1][1]);
    cuda_backend_close(&backend);
}

/* ---- weights that stay in host memory ---- */

struct weighted_result {
    float x[WEIGHTED_ELEMENTS], gradient[WEIGHTED_ELEMENTS];
    struct memory_report memory;
};

/* Two runs, the second over a dirty arena. */
static struct weighted_result run_weighted(const struct kernels *kernels, size_t limit)
{
    struct weighted w;
    struct weighted_result result;
    struct status status = {0};
    weighted_record(&w, kernels);
    program_plan(w.program, limit, &status);
    program_prepare(w.program, &status);
    simt_forget_calls();
    for (int i = 0; i < 2; i++)
        weighted_run(&w, result.x, result.gradient, &status);
    if (!status_ok(&status))
        fail_msg("%s", status.message);
    program_memory(w.program, &result.memory);
    weighted_free(&w);
    return result;
}

/* Three weights are uploaded in each run, beside the host's own writes and reads, and no copy is in
 * the loop. */
static void check_uploads(bool loops, uint64_t copies_without)
{
    const struct simt_calls *calls = simt_host_calls();
    assert_int_equal(loops ? calls->graph_copies : calls->copies - copies_without, 2 * 3);
    assert_int_equal(calls->in_loops.graph_copies, 0);
    assert_int_equal(calls->in_loops.copies, 0);
    assert_int_equal(calls->allocations, 0);
}

static size_t least_of_weighted(const struct kernels *kernels)
{
    struct weighted w;
    struct status status = {0};
    weighted_record(&w, kernels);
    assert_int_equal(program_plan(w.program, 1, &status), STATUS_BAD_INPUT);
    weighted_free(&w);
    return strtoull(strstr(status.message, "fits is ") + strlen("fits is "), NULL, 10);
}

static void test_offloaded_weights(void **state)
{
    (void)state;
    struct weighted_result plain = run_weighted(kernels_plain_f32(), 0);
    for (int loops = 0; loops < 2; loops++) {
        struct cuda_backend backend = open_backend(loops);
        struct weighted_result full = run_weighted(&backend.kernels, 0);
        uint64_t copies = emulated() ? simt_host_calls()->copies : 0;
        struct weighted_result least =
            run_weighted(&backend.kernels, least_of_weighted(&backend.kernels));
        assert_true(full.memory.offloaded_bytes == 0 && least.memory.offloaded_bytes > 0);
        assert_memory_equal(least.x, full.x, sizeof full.x);
        assert_memory_equal(least.gradient, full.gradient, sizeof full.gradient);
        assert_true(relative_error(least.x, plain.x, WEIGHTED_ELEMENTS) < 1e-5);
        if (emulated())
            check_uploads(loops, copies);
        assert_int_equal(simt_errors()->count, 0);
        cuda_backend_close(&backend);
    }
}

static void test_no_pinned_memory(void **state)
{
    (void)state;
    if (!emulated())
        skip(); /* there is some */
    struct cuda_backend backend = open_backend(true);
    struct weighted w;
    struct status status = {0};
    weighted_record(&w, &backend.kernels);
    program_plan(w.program, least_of_weighted(&backend.kernels), &status);
    setenv("SIMT_PINNED_BYTES", "4096", 1);
    assert_int_equal(program_prepare(w.program, &status), STATUS_FAILURE);
    unsetenv("SIMT_PINNED_BYTES");
    assert_non_null(strstr(status.message, "out of pinned host memory"));
    weighted_free(&w);
    cuda_backend_close(&backend);
}

/* ---- no card, no memory ---- */

static void test_no_card(void **state)
{
    (void)state;
    if (!emulated())
        skip(); /* there is a card */
    struct cuda_backend backend;
    struct status status = {0};
    setenv("SIMT_CARDS", "0", 1);
    assert_int_equal(cuda_backend_open(&backend, true, &status), STATUS_BAD_INPUT);
    assert_non_null(strstr(status.message, "no CUDA-capable device"));
    struct status planning = {0};
    assert_int_equal(cuda_backend_open(&backend, false, &planning), STATUS_OK);
    assert_string_equal(backend.kernels.name, "cuda");
    assert_null(backend.kernels.device);
    cuda_backend_close(&backend);
    unsetenv("SIMT_CARDS");
}

static void test_no_memory(void **state)
{
    (void)state;
    if (!simt_watches_accesses())
        skip(); /* the emulated card's 4 GB are the watched emulator's */
    struct cuda_backend backend = open_backend(true);
    struct program *program = program_create(&backend.kernels, TYPE_F32, 1);
    struct status status = {0};
    program_state(program, "large", TYPE_F32, (const int64_t[4]){1, 1, 1, (int64_t)1 << 31});
    program_plan(program, 0, &status);
    assert_int_equal(program_prepare(program, &status), STATUS_FAILURE);
    assert_non_null(strstr(status.message, "out of memory"));
    program_free(program);
    cuda_backend_close(&backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_explained),
        cmocka_unit_test(test_no_card),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_host_is_not_asked),
        cmocka_unit_test(test_offloaded_weights),
        cmocka_unit_test(test_no_pinned_memory),
    };
    return cmocka_run_group_tests_name("cuda_device", tests, NULL, NULL);
}

#else

static void test_emulator(void **state)
{
    (void)state;
    skip(); /* the emulator is for x86_64 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_emulator)};
    return cmocka_run_group_tests_name("cuda_device", tests, NULL, NULL);
}

#endif
