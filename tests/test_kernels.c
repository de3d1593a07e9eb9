/* Every kernel on every instruction set that this machine has, and on the AVX-512 build's vectors
 * emulated in AVX2 ("wide"), against the plain kernels in double: awkward shapes, the same bytes
 * for any number of threads, a poisoned workspace, nothing written out of bounds. */
#include "tests/support/kernel_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Kernels whose cases are in a test of their own. */
static const enum kernel_id elsewhere[] = {
    KERNEL_conv2d,
    KERNEL_conv2d_backward_data,
    KERNEL_conv2d_pack_weight, /* test_conv2d.c */
    KERNEL_axis_filter,
    KERNEL_tap_filter,
    KERNEL_tap_filter_adjoint, /* test_operator_kernels.c */
    KERNEL_radon,
    KERNEL_radon_adjoint,
};

static void plain_float_agrees_with_double(void **state)
{
    (void)state;
    for (int i = 0; i < kernel_case_count; i++) {
        struct instance reference = run_case(i, kernels_plain_f64(), TYPE_F64, 1);
        struct instance plain = run_case(i, kernels_plain_f32(), TYPE_F32, 1);
        check_memory(i, kernels_plain_f64(), &reference);
        check_memory(i, kernels_plain_f32(), &plain);
        check_close(i, kernels_plain_f32(), &plain, &reference, kernel_cases[i].tolerance);
        release_instance(i, &plain);
        release_instance(i, &reference);
    }
}

static void check_table(const struct kernels *kernels)
{
    for (int i = 0; i < kernel_case_count; i++) {
        struct instance reference = run_case(i, kernels_plain_f64(), TYPE_F64, 1);
        struct instance plain = run_case(i, kernels_plain_f32(), TYPE_F32, 1);
        struct instance first = run_case(i, kernels, TYPE_F32, 1);
        check_memory(i, kernels, &first);
        check_close(i, kernels, &first, &reference, kernel_cases[i].tolerance);
        if (kernel_cases[i].exact)
            check_same(i, kernels, &first, &plain, "not the plain kernel's bytes");
        for (int t = 0; t < 3; t++) {
            struct instance again = run_case(i, kernels, TYPE_F32, (int[]){2, 3, 7}[t]);
            check_memory(i, kernels, &again);
            check_same(i, kernels, &again, &first, "other bytes with other threads");
            release_instance(i, &again);
        }
        release_instance(i, &first);
        release_instance(i, &plain);
        release_instance(i, &reference);
    }
}

static void check_isa(void **state)
{
    const char *isa = *state;
    if (!kernels_cpu_isa(isa)) {
        print_message("this machine has no %s\n", isa);
        skip();
    }
    check_table(kernels_cpu_isa(isa));
}

#ifdef __x86_64__
const struct kernels *kernels_table_wide(void);

static void wide_vectors(void **state)
{
    (void)state;
    if (!kernels_cpu_isa("avx2"))
        skip();
    check_table(kernels_table_wide());
}
#endif

static void every_kernel_has_a_case(void **state)
{
    (void)state;
    bool covered[KERNEL_COUNT] = {false};
    for (int i = 0; i < kernel_case_count; i++)
        covered[kernel_cases[i].kernel] = true;
    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
        covered[elsewhere[i]] = true;
    for (int id = 0; id < KERNEL_COUNT; id++) {
        if (!covered[id])
            fail_msg("%s has no case", kernel_name((enum kernel_id)id));
        if (!kernels_cpu_isa("scalar")->kernel[id].run || !kernels_plain_f64()->kernel[id].run)
            fail_msg("%s is missing from a table", kernel_name((enum kernel_id)id));
    }
}

/* Softmax must not overflow, nor attend to padding, when scores are large. */
static void attention_with_large_scores(void **state)
{
    (void)state;
    enum { TOKENS = 70, WIDTH = 4 };
    static float qkv[TOKENS * 3 * WIDTH], o[TOKENS * WIDTH], lse[TOKENS];
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < WIDTH; c++) {
            qkv[(t * 3 + 0) * WIDTH + c] = -40;
            qkv[(t * 3 + 1) * WIDTH + c] = 40 + (t == 69 ? -30 : 0);
            qkv[(t * 3 + 2) * WIDTH + c] = (float)(t == 69);
        }
    struct tensor input = {qkv, TYPE_F32, {1, 1, TOKENS, 3 * WIDTH}};
    struct tensor output[] = {{o, TYPE_F32, {1, 1, TOKENS, WIDTH}},
                              {lse, TYPE_F32, {1, 1, TOKENS, 1}}};
    union attributes attributes = {.attention = {1}};
    struct kernel_call call = {&input, output, &attributes, NULL, 1, NULL};
    const struct kernel *kernel = &kernels_cpu()->kernel[KERNEL_attention];
    assert_int_equal(posix_memalign(&call.workspace, 64, kernel->workspace_bytes(&call)), 0);
    kernel->run(&call);
    for (int i = 0; i < TOKENS * WIDTH; i++)
        assert_true(fabs(o[i] - 1) < 1e-6);
    assert_true(fabs(lse[0] + 800) < 1e-3);
    free(call.workspace);
}

/* The stop rule over a run of losses: a plateau of three against the threshold, and not-a-number.
 */
static void stop_rule_by_hand(void **state)
{
    (void)state;
    float loss, window[3] = {9, 9, 9}, losses[] = {5, 4, 3, 4, 5, 2, 0.5f, NAN};
    int32_t stop, iteration = 0, expected[] = {0, 0, 0, 0, 1, 0, 1, 1};
    struct tensor input[] = {{&loss, TYPE_F32, {1, 1, 1, 1}},
                             {window, TYPE_F32, {1, 1, 1, 3}},
                             {&iteration, TYPE_I32, {1, 1, 1, 1}}};
    struct tensor output[] = {{&stop, TYPE_I32, {1, 1, 1, 1}}, input[1], input[2]};
    union attributes attributes = {.stop = {0.5, true}};
    struct kernel_call call = {input, output, &attributes, NULL, 1, NULL};
    for (int i = 0; i < 8; i++) {
        loss = losses[i];
        kernels_cpu()->kernel[KERNEL_stop_rule].run(&call);
        assert_int_equal(stop, expected[i]);
        assert_int_equal(iteration, i + 1);
    }
    attributes.stop.inclusive = false;
    loss = 0.5f;
    kernels_cpu()->kernel[KERNEL_stop_rule].run(&call);
    assert_int_equal(stop, 0);
    input[1] = output[1] = (struct tensor){NULL, TYPE_F32, {1, 1, 1, 0}};
    loss = 100;
    kernels_cpu()->kernel[KERNEL_stop_rule].run(&call);
    assert_int_equal(stop, 0);
}

static void keep_best_by_hand(void **state)
{
    (void)state;
    float loss, x[2], best_loss = INFINITY, best[2] = {0, 0}, losses[] = {3, 4, NAN, 2, 2};
    float expected[] = {0, 0, 0, 3, 3}; /* the iteration whose x is the best so far */
    struct tensor input[] = {{&loss, TYPE_F32, {1, 1, 1, 1}},
                             {x, TYPE_F32, {1, 1, 1, 2}},
                             {&best_loss, TYPE_F32, {1, 1, 1, 1}},
                             {best, TYPE_F32, {1, 1, 1, 2}}};
    struct kernel_call call = {input, input + 2, NULL, NULL, 1, NULL};
    for (int i = 0; i < 5; i++) {
        loss = losses[i];
        x[0] = (float)i;
        x[1] = (float)-i;
        kernels_cpu()->kernel[KERNEL_keep_best].run(&call);
        assert_true(best[0] == expected[i] && best[1] == -expected[i]);
    }
    assert_true(best_loss == 2);
}

/* A parabola sum(h z^2)/2 - z: the gradient at z, its energy, and the curvature along d. */
enum { PARABOLA = 4 };
static const float parabola[PARABOLA] = {1, 3, 10, 0.5f};

static void parabola_at(const float *z, float *energy, float *gradient)
{
    *energy = 0;
    for (int i = 0; i < PARABOLA; i++) {
        *energy += parabola[i] * z[i] * z[i] / 2 - z[i];
        gradient[i] = parabola[i] * z[i] - 1;
    }
}

/* Exact steps along conjugate directions end a parabola of four dimensions in four of them. */
static void search_ends_a_parabola(void **state)
{
    (void)state;
    float z[PARABOLA] = {3, -2, 1, 5}, base[PARABOLA], g[PARABOLA], previous[PARABOLA] = {0};
    float d[PARABOLA] = {0}, energy, curvature, search[SEARCH_STATE] = {[SEARCH_FRESH] = 2};
    const struct tensor scalar = {&energy, TYPE_F32, {1, 1, 1, 1}};
    const struct tensor bend = {&curvature, TYPE_F32, {1, 1, 1, 1}};
    const struct tensor s = {search, TYPE_F32, {1, 1, 1, SEARCH_STATE}};
#define VECTOR(name)                                                                               \
    {                                                                                              \
        name, TYPE_F32,                                                                            \
        {                                                                                          \
            1, 1, 1, PARABOLA                                                                      \
        }                                                                                          \
    }
    const struct tensor direction[] = {scalar, VECTOR(g), VECTOR(previous), VECTOR(d), s};
    const struct tensor step[] = {VECTOR(z), VECTOR(base), VECTOR(d), bend, s};
    const struct tensor stepped[] = {VECTOR(z), VECTOR(base), s};
#undef VECTOR
    const struct kernel_call to_direction = {direction, direction + 2, NULL, NULL, 1, NULL};
    const struct kernel_call to_step = {step, stepped, NULL, NULL, 1, NULL};
    for (int iteration = 0; iteration < PARABOLA; iteration++) {
        parabola_at(z, &energy, g);
        kernels_cpu()->kernel[KERNEL_search_direction].run(&to_direction);
        curvature = 0;
        for (int i = 0; i < PARABOLA; i++)
            curvature += parabola[i] * d[i] * d[i];
        kernels_cpu()->kernel[KERNEL_search_step].run(&to_step);
    }
    for (int i = 0; i < PARABOLA; i++)
        assert_true(fabsf(z[i] - 1 / parabola[i]) < 1e-4f);
    assert_true(search[SEARCH_SHORTENED] == 0);

    /* a point whose energy is higher than the base's, or not a number, is taken back */
    float far = z[0] = base[0] + 100 * d[0];
    const float energies[] = {energy + 1, NAN};
    for (int i = 0; i < 2; i++) {
        search[SEARCH_STEP] = 100;
        energy = energies[i];
        kernels_cpu()->kernel[KERNEL_search_direction].run(&to_direction);
        kernels_cpu()->kernel[KERNEL_search_step].run(&to_step);
        assert_true(search[SEARCH_SHORTENED] == (float)i + 1 && search[SEARCH_STEP] == 25);
        assert_true(z[0] != far && z[0] == base[0] + 25 * d[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_has_a_case),
        cmocka_unit_test(plain_float_agrees_with_double),
        {"scalar", check_isa, NULL, NULL, "scalar"},
        {"avx2", check_isa, NULL, NULL, "avx2"},
        {"avx512", check_isa, NULL, NULL, "avx512"},
#ifdef __x86_64__
        cmocka_unit_test(wide_vectors),
#endif
        cmocka_unit_test(attention_with_large_scores),
        cmocka_unit_test(stop_rule_by_hand),
        cmocka_unit_test(keep_best_by_hand),
        cmocka_unit_test(search_ends_a_parabola),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
