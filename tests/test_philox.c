/* The random generator: Philox's published vectors, the accuracy and the distribution of the
 * normals. */
#include "kernels/kernels.h"
#include "kernels/normal.h"
#include "kernels/philox.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void known_vectors(void **state)
{
    (void)state;
    static const struct {
        uint32_t key[2], counter[4], result[4];
    } vectors[] = {
        {{0, 0}, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0xa4093822, 0x299f31d0},
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t result[4];
        philox4x32_10(vectors[i].key, vectors[i].counter, result);
        assert_memory_equal(result, vectors[i].result, sizeof result);
    }
}

static void pair_agrees_with_libm(void **state)
{
    (void)state;
    static const uint32_t edges[] = {0,          1,          2,          0x1fffffff, 0x20000000,
                                     0x3fffffff, 0x40000000, 0x5fffffff, 0x60000000, 0x7fffffff,
                                     0x80000000, 0x9fffffff, 0xa0000000, 0xb504f333, 0xb504f334,
                                     0xdfffffff, 0xe0000000, 0xfffffffe, 0xffffffff};
    enum { EDGES = sizeof edges / sizeof *edges };
    for (int i = 0; i < EDGES; i++)
        for (int j = 0; j < EDGES; j++) {
            float normal[2];
            normal_pair(edges[i], edges[j], normal);
            double radius = sqrt(-2 * log((edges[i] + 1.0) / 4294967296.0));
            double angle = 2 * 3.14159265358979323846 * (edges[j] / 4294967296.0);
            assert_true(fabs(normal[0] - radius * cos(angle)) <= 1e-7 * radius);
            assert_true(fabs(normal[1] - radius * sin(angle)) <= 1e-7 * radius);
        }
}

enum { SAMPLES = 1 << 20 };

static void draw(float *normals, int32_t counter[4], const int64_t shape[4])
{
    struct tensor input = {counter, TYPE_I32, {1, 1, 1, 4}};
    struct tensor output[2] = {{normals, TYPE_F32, {shape[0], shape[1], shape[2], shape[3]}},
                               input};
    struct kernel_call call = {.input = &input, .output = output, .threads = 1};
    kernels_plain_f32()->kernel[KERNEL_philox_normal].run(&call);
}

/* Bounds are five standard deviations of each estimate. */
static void normals_are_normal(void **state)
{
    (void)state;
    float *normals = malloc(SAMPLES * sizeof *normals);
    int32_t counter[4] = {12345, 0, 1, 0};
    double moment[5] = {0}, product = 0, beyond[5] = {0}, n = SAMPLES;
    draw(normals, counter, (int64_t[4]){1, 1024, 1024, 1});
    for (int i = 0; i < SAMPLES; i++) {
        double x = normals[i], power = 1;
        for (int k = 0; k < 5; k++, power *= x)
            moment[k] += power / n;
        product += x * normals[i ^ 1] / n;
        for (int k = 1; k < 5; k++)
            beyond[k] += fabs(x) > k;
    }
    assert_true(fabs(moment[1]) < 5 / sqrt(n));
    assert_true(fabs(moment[2] - 1) < 5 * sqrt(2 / n));
    assert_true(fabs(moment[3]) < 5 * sqrt(15 / n));
    assert_true(fabs(moment[4] - 3) < 5 * sqrt(96 / n));
    assert_true(fabs(product) < 5 * sqrt(2 / n));
    for (int k = 1; k < 5; k++) {
        double expected = n * erfc(k / sqrt(2));
        assert_true(fabs(beyond[k] - expected) < 5 * sqrt(expected));
    }
    free(normals);
}

static void layout_does_not_show(void **state)
{
    (void)state;
    float interleaved[2 * 3 * 5 * 3], planes[2 * 3 * 5 * 3], again[2 * 3 * 5 * 3];
    int32_t first[4] = {7, 8, 2, 5}, second[4] = {7, 8, 2, 5};
    draw(interleaved, first, (int64_t[4]){2, 3, 5, 3});
    draw(planes, second, (int64_t[4]){2, 3, 15, 1});
    for (int n = 0; n < 2; n++)
        for (int c = 0; c < 3; c++)
            for (int p = 0; p < 15; p++)
                assert_true(interleaved[(n * 15 + p) * 3 + c] == planes[(n * 3 + c) * 15 + p]);
    assert_int_equal(first[3], 6);
    draw(again, second, (int64_t[4]){2, 3, 15, 1});
    assert_memory_not_equal(planes, again, sizeof planes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_vectors),
        cmocka_unit_test(pair_agrees_with_libm),
        cmocka_unit_test(normals_are_normal),
        cmocka_unit_test(layout_does_not_show),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
