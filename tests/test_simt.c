/* The SIMT emulator itself: every planted bug is named and its corrected twin is not, the tensor
 * instructions are exact, a pipelined product is right in any order of threads, memory traffic is
 * what it is by hand. */
#include "tests/simt/kernels/kernels.h"
#include "tests/support/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#ifdef __x86_64__

enum { SEEDS = 4, ROWS = 16, COLUMNS = 8, MAX_DEPTH = 16 };

static void reset(uint64_t seed, int architecture)
{
    struct simt_options options = simt_default_options();
    options.seed = seed;
    options.architecture = architecture;
    simt_reset(&options);
}

static void assert_nothing_reported(void)
{
    const struct simt_report *report = simt_errors();
    for (int i = 0; i < report->texts; i++)
        print_error("%s\n", report->text[i]);
    assert_int_equal(report->count, 0);
}

/* ---- planted bugs ---- */
static void bug_is_named(const struct planted_bug *bug)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        reset(seed, 80);
        bool right = bug->run(true);
        const struct simt_report *report = simt_errors();
        if (bug->kind == SIMT_KIND_COUNT) {
            assert_false(right);
            continue;
        }
        if (!report->kinds[bug->kind])
            print_error("%s, seed %d: not reported\n", bug->name, (int)seed);
        assert_true(report->kinds[bug->kind] > 0);
        bool named = false;
        for (int i = 0; i < report->texts; i++)
            named = named || (report->text_kind[i] == bug->kind &&
                              strstr(report->text[i], simt_kind_name(bug->kind)));
        assert_true(named);
    }
}

static void twin_is_clean(const struct planted_bug *bug)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        reset(seed, 80);
        assert_true(bug->run(false));
        assert_nothing_reported();
    }
}

static void test_bug(void **state)
{
    bug_is_named(*state);
}

static void test_twin(void **state)
{
    twin_is_clean(*state);
}

/* The texts say where: kernel, line, thread, address. */
static void test_text(void **state)
{
    (void)state;
    if (!simt_watches_accesses())
        skip();
    reset(0, 80);
    for (int i = 0; i < bugs_in_memory_count; i++)
        if (bugs_in_memory[i].kind == SIMT_MISALIGNED)
            bugs_in_memory[i].run(true);
    const struct simt_report *report = simt_errors();
    assert_int_equal(report->texts, 1);
    const char *parts[] = {"vector_copy, tests/simt/kernels/bugs_in_memory.cu:",
                           "block (0,0,0) thread (63,0,0)", "load of 16 bytes at byte 1012"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!strstr(report->text[0], parts[i]))
            print_error("%s\n", report->text[0]);
        assert_non_null(strstr(report->text[0], parts[i]));
    }
}

/* What CUDA allows and our kernels do by mistake can be allowed. */
static void test_exit_allowed(void **state)
{
    (void)state;
    struct simt_options options = simt_default_options();
    options.allow_exit_before_barrier = true;
    simt_reset(&options);
    for (int i = 0; i < bugs_in_blocks_count; i++)
        if (bugs_in_blocks[i].kind == SIMT_BARRIER_EXIT)
            assert_true(bugs_in_blocks[i].run(true));
    assert_nothing_reported();
}

/* ---- mma and ldmatrix ---- */
struct mma_case {
    enum mma_type type;
    int k;
    enum fragment_loads loads;
};
static const struct mma_case mma_cases[] = {
    {MMA_TF32, 4, LOAD_PLAIN},
    {MMA_TF32, 8, LOAD_PLAIN},
    {MMA_TF32, 8, LOAD_MATRIX},
    {MMA_BF16, 8, LOAD_PLAIN},
    {MMA_BF16, 16, LOAD_PLAIN},
    {MMA_BF16, 16, LOAD_MATRIX},
    {MMA_F16, 8, LOAD_PLAIN},
    {MMA_F16, 16, LOAD_PLAIN},
    {MMA_F16, 16, LOAD_MATRIX},
    {MMA_BF16, 16, LOAD_MATRIX_TRANSPOSED},
    {MMA_F16, 16, LOAD_MATRIX_TRANSPOSED},
};
enum { MMA_CASES = sizeof mma_cases / sizeof *mma_cases };

/* Values are small multiples of `step`, exact in every type if it is 1. */
static void fill(float *values, int count, double step, uint64_t *random)
{
    for (int i = 0; i < count; i++)
        values[i] = (float)((random_below(random, 33) - 16) * step);
}

/* The largest |difference| from the product in double, relative to the sum of magnitudes. */
static double mma_error(const struct mma_case *mma, double step, uint64_t *random)
{
    float a[ROWS * MAX_DEPTH], b[MAX_DEPTH * COLUMNS], c[ROWS * COLUMNS], sum[ROWS * COLUMNS];
    fill(a, ROWS * mma->k, step, random);
    fill(b, mma->k * COLUMNS, step, random);
    fill(c, ROWS * COLUMNS, step, random);
    memcpy(sum, c, sizeof c);
    run_one_mma(mma->type, mma->k, mma->loads, a, b, sum);
    double worst = 0;
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        double expected = c[i], magnitude = fabs(c[i]) + 1e-30;
        for (int k = 0; k < mma->k; k++) {
            double product = (double)a[i / COLUMNS * mma->k + k] * b[k * COLUMNS + i % COLUMNS];
            expected += product;
            magnitude += fabs(product);
        }
        worst = fmax(worst, fabs(sum[i] - expected) / magnitude);
    }
    return worst;
}

static void test_mma_fragments(void **state)
{
    (void)state;
    uint64_t random = 1;
    for (int i = 0; i < MMA_CASES; i++)
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            reset(seed, 80);
            if (mma_error(&mma_cases[i], 1, &random) != 0)
                fail_msg("case %d: a product of small integers is not exact", i);
            assert_nothing_reported();
            assert_int_equal(simt_last_counters()->tensor_instructions, 1);
            assert_int_equal(simt_last_counters()->tensor_multiply_adds,
                             ROWS * COLUMNS * mma_cases[i].k);
        }
}

/* Operands that the type cannot hold lose half a unit of its last place each. */
static void test_mma_rounding(void **state)
{
    (void)state;
    uint64_t random = 2;
    reset(1, 80);
    for (int i = 0; i < MMA_CASES; i++) {
        double unit = mma_cases[i].type == MMA_BF16 ? 0x1p-8 : 0x1p-11;
        double error = mma_error(&mma_cases[i], 0.1, &random);
        assert_true(error > 0.01 * unit && error < 2.1 * unit);
    }
    assert_nothing_reported();
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* One recorded answer of a card: the row of A and the column of B that make the first element. */
static void check_vector(FILE *file, const char *card, const char *type, int n)
{
    float a[ROWS * MAX_DEPTH] = {0}, b[MAX_DEPTH * COLUMNS] = {0}, c[ROWS * COLUMNS] = {0};
    uint32_t word, expected;
    bool is_a100 = !strcmp(card, "A100"), is_tf32 = !strcmp(type, "tf32");
    for (int i = 0; i < 2 * n; i++) {
        assert_int_equal(fscanf(file, "%x", &word), 1);
        *(i < n ? &a[i] : &b[(i - n) * COLUMNS]) = float_of(word);
    }
    assert_int_equal(fscanf(file, "%x %x", &word, &expected), 2);
    c[0] = float_of(word);
    reset(1, is_a100 ? 80 : 90);
    int depth = is_a100 ? n : is_tf32 ? 8 : 16;
    run_one_mma(is_tf32                 ? MMA_TF32
                : !strcmp(type, "bf16") ? MMA_BF16
                                        : MMA_F16,
                depth, LOAD_PLAIN, a, b, c);
    if (bits_of(c[0]) != expected)
        fail_msg("%s %s: %08x, the card gave %08x", card, type, bits_of(c[0]), expected);
}

static void test_mma_accumulation(void **state)
{
    (void)state;
    FILE *file = fopen("tests/data/simt/mma_vectors.txt", "r");
    assert_non_null(file);
    char card[8], type[8];
    int n, count = 0;
    for (; fscanf(file, "%7s %7s %d", card, type, &n) == 3; count++)
        check_vector(file, card, type, n);
    fclose(file);
    assert_true(count >= 60);
}

static void test_conversions(void **state)
{
    (void)state;
    static const struct {
        uint32_t value, tf32;
        uint16_t bf16, f16;
    } cases[] = {
        {0x00000000, 0x00000000, 0x0000, 0x0000}, {0x80000000, 0x80000000, 0x8000, 0x8000},
        {0x3f800000, 0x3f800000, 0x3f80, 0x3c00}, {0x3f801000, 0x3f802000, 0x3f80, 0x3c00},
        {0x3f800fff, 0x3f800000, 0x3f80, 0x3c00}, {0xbf801000, 0xbf802000, 0xbf80, 0xbc00},
        {0x3f803000, 0x3f804000, 0x3f80, 0x3c02}, {0x3f808000, 0x3f808000, 0x3f80, 0x3c04},
        {0x3f808001, 0x3f808000, 0x3f81, 0x3c04}, {0x3f818000, 0x3f818000, 0x3f82, 0x3c0c},
        {0x7f7fffff, 0x7f800000, 0x7f80, 0x7c00}, {0x7f800000, 0x7f800000, 0x7f80, 0x7c00},
        {0xff800000, 0xff800000, 0xff80, 0xfc00}, {0x477fefff, 0x477fe000, 0x4780, 0x7bff},
        {0x477ff000, 0x47800000, 0x4780, 0x7c00}, {0x33800000, 0x33800000, 0x3380, 0x0001},
        {0x33000000, 0x33000000, 0x3300, 0x0000}, {0x33000001, 0x33000000, 0x3300, 0x0001},
        {0x387fffff, 0x38800000, 0x3880, 0x0400}, {0x00000001, 0x00000000, 0x0000, 0x0000},
        {0x7fc00000, 0x7fc00000, 0x7fff, 0x7fff}, {0x7f800001, 0x7f800000, 0x7fff, 0x7fff},
    };
    enum { COUNT = sizeof cases / sizeof *cases };
    float values[COUNT];
    uint32_t tf32[COUNT];
    uint16_t bf16[COUNT], f16[COUNT];
    for (int i = 0; i < COUNT; i++)
        memcpy(&values[i], &cases[i].value, sizeof values[i]);
    reset(1, 80);
    run_conversions(values, COUNT, tf32, bf16, f16);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(tf32[i], cases[i].tf32);
        assert_int_equal(bf16[i], cases[i].bf16);
        assert_int_equal(f16[i], cases[i].f16);
    }
    assert_nothing_reported();
}

/* ---- the operations of a warp ---- */
static void test_warp_operations(void **state)
{
    (void)state;
    int results[WARP_RESULTS][WARP_THREADS];
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        reset(seed, 80);
        run_warp_operations(results);
        assert_nothing_reported();
        for (int thread = 0; thread < WARP_THREADS; thread++) {
            int lane = thread % 32, first = thread - lane, own = 100 + thread, i = 0;
            assert_int_equal(results[i++][thread], 100 + first + 5);
            assert_int_equal(results[i++][thread], 100 + first + lane / 8 * 8 + 3);
            assert_int_equal(results[i++][thread], lane >= 3 ? own - 3 : own);
            assert_int_equal(results[i++][thread], lane % 8 >= 3 ? own - 3 : own);
            assert_int_equal(results[i++][thread], lane + 3 < 32 ? own + 3 : own);
            assert_int_equal(results[i++][thread], lane % 8 + 3 < 8 ? own + 3 : own);
            assert_int_equal(results[i++][thread], 100 + first + (lane ^ 9));
            /* width 8: an earlier segment can be read, a later one cannot */
            assert_int_equal(results[i++][thread],
                             (lane ^ 9) < lane / 8 * 8 + 8 ? 100 + first + (lane ^ 9) : own);
            /* thread % 3 == 0: lanes 0, 3, ... of the first warp, 1, 4, ... of the second */
            assert_int_equal((uint32_t)results[i++][thread], first ? 0x92492492 : 0x49249249);
            assert_int_equal(results[i++][thread], first != 0);
            assert_int_equal(results[i++][thread], first == 0);
            assert_int_equal(results[i++][thread], 22);
            assert_int_equal(results[i++][thread], 0);
            assert_int_equal(results[i++][thread], 1);
        }
    }
}

/* ---- a whole kernel ---- */
static float *random_floats(size_t count, uint64_t *random)
{
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)random_uniform(random);
    return values;
}

static void check_product(int m, int n, int k, const float *a, const float *b, const float *c)
{
    for (int row = 0; row < m; row++)
        for (int column = 0; column < n; column++) {
            double sum = 0, magnitude = 0;
            for (int i = 0; i < k; i++) {
                double product = (double)a[row * k + i] * b[column * k + i];
                sum += product;
                magnitude += fabs(product);
            }
            /* 2^-11 for each operand's rounding, and the accumulator's cuts */
            assert_true(fabs(c[row * n + column] - sum) <= 0x1.1p-10 * magnitude);
        }
}

static void test_gemm(void **state)
{
    (void)state;
    static const int shapes[][3] = {{32, 32, 16}, {50, 42, 40}, {7, 70, 100}, {1, 1, 4}};
    uint64_t random = 3;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int m = shapes[i][0], n = shapes[i][1], k = shapes[i][2];
        size_t bytes = (size_t)m * n * sizeof(float);
        float *a = random_floats((size_t)m * k, &random),
              *b = random_floats((size_t)n * k, &random);
        float *c = malloc(bytes), *first = malloc(bytes);
        for (uint64_t seed = 0; seed < 2 * SEEDS; seed++) {
            reset(seed, 80);
            run_gemm(m, n, k, a, b, c);
            assert_nothing_reported();
            if (seed == 0)
                memcpy(first, c, bytes);
            assert_memory_equal(first, c, bytes);
        }
        check_product(m, n, k, a, b, c);
        int tiles = ((m + 31) / 32) * ((n + 31) / 32), steps = (k + 15) / 16;
        assert_int_equal(simt_last_counters()->tensor_instructions, tiles * steps * 4 * 2 * 2);
        if (simt_watches_accesses())
            assert_int_equal(simt_last_counters()->shared_load.conflicts, 0);
        free(a);
        free(b);
        free(c);
        free(first);
    }
}

/* ---- traffic ---- */
/* Of the one global load and store of each pattern, and of its shared loads. */
static void test_traffic(void **state)
{
    (void)state;
    if (!simt_watches_accesses())
        skip();
    static const struct {
        enum access_pattern pattern;
        uint64_t load_sectors, load_ideal, store_sectors, conflicts;
    } cases[] = {
        {ACCESS_COALESCED, 4, 4, 4, 0},
        {ACCESS_STRIDED, 8, 4, 4, 0},
        {ACCESS_MISALIGNED, 5, 4, 4, 0},
        {ACCESS_VECTOR, 16, 16, 16, 0},
        {ACCESS_BROADCAST, 1, 1, 4, 0},
        {ACCESS_DIVERGED, 8, 2 + 4, 4, 0},
        {ACCESS_LONG, 4 * ACCESS_LONG_LOADS, 4 * ACCESS_LONG_LOADS, 4, 0},
        {ACCESS_TAIL, 5, 5, 5, 0},
        {ACCESS_BANKS_TWO_WAY, 16, 16, 4, 1},
        {ACCESS_COLUMN, 128, 128, 4, 31},
        {ACCESS_COLUMN_PADDED, 128, 128, 4, 0},
        {ACCESS_BANKS_VECTOR, 64, 64, 16, 0},
        {ACCESS_BANKS_VECTOR_2, 64, 64, 16, 4}, /* each 8 lanes spread over 64 words */
        {ACCESS_MATRIX, 16, 16, 16, 28},        /* each of 4 matrices: 8 rows in the same banks */
        {ACCESS_MATRIX_PADDED, 16, 16, 16, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint64_t seed = 0; seed < 2; seed++) {
            reset(seed, 80);
            run_access(cases[i].pattern);
            assert_nothing_reported();
            const struct simt_counters *counters = simt_last_counters();
            assert_int_equal(counters->global_load.sectors, cases[i].load_sectors);
            assert_int_equal(counters->global_load.ideal_sectors, cases[i].load_ideal);
            assert_int_equal(counters->global_store.sectors, cases[i].store_sectors);
            assert_int_equal(counters->global_store.ideal_sectors, cases[i].store_sectors);
            assert_int_equal(counters->shared_load.conflicts, cases[i].conflicts);
        }
}

static void test_speed(void **state)
{
    (void)state;
    enum { BLOCKS = 64, VALUES = 64 * 256 };
    uint64_t random = 4;
    float *values = random_floats(VALUES, &random), sums[BLOCKS];
    struct timespec start, end;
    reset(1, 80);
    clock_gettime(CLOCK_MONOTONIC, &start);
    run_sum(BLOCKS, values, sums);
    clock_gettime(CLOCK_MONOTONIC, &end);
    assert_nothing_reported();
    double sum = 0;
    for (int i = 0; i < VALUES; i++)
        sum += values[i];
    for (int i = 0; i < BLOCKS; i++)
        assert_true(fabs(sums[i] - sum) < 1e-2);
    double seconds =
        (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    if (simt_watches_accesses())
        print_message("%.1f million accesses a second\n",
                      1e-6 * (double)simt_last_counters()->accesses / seconds);
    free(values);
}

/* The build has compiled the kernels for sm_80 by the time this runs. */
static void test_nvcc(void **state)
{
    (void)state;
#ifndef NVCC_BUILDS
    print_message("the kernels are compiled for a card in the plain build, where nvcc is\n");
    skip();
#endif
}

enum { MAX_TESTS = 256 };

int main(void)
{
    static struct CMUnitTest tests[MAX_TESTS];
    static char names[MAX_TESTS][80];
    const struct {
        const struct planted_bug *bugs;
        int count;
    } groups[] = {{bugs_in_blocks, bugs_in_blocks_count},
                  {bugs_in_memory, bugs_in_memory_count},
                  {bugs_in_warps, bugs_in_warps_count},
                  {bugs_in_copies, bugs_in_copies_count}};
    const struct CMUnitTest others[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_exit_allowed),
        cmocka_unit_test(test_mma_fragments),
        cmocka_unit_test(test_mma_rounding),
        cmocka_unit_test(test_mma_accumulation),
        cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_warp_operations),
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_traffic),
        cmocka_unit_test(test_speed),
        cmocka_unit_test(test_nvcc),
    };
    int count = 0;
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
        for (int i = 0; i < groups[g].count; i++)
            for (int bug = simt_watches_accesses(); bug >= 0; bug--) {
                const struct planted_bug *planted = &groups[g].bugs[i];
                snprintf(names[count], sizeof *names, "%s%s", planted->name,
                         bug ? "" : ": corrected");
                tests[count] = (struct CMUnitTest){names[count], bug ? test_bug : test_twin, NULL,
                                                   NULL, (void *)(uintptr_t)planted};
                count++;
            }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        tests[count++] = others[i];
    return _cmocka_run_group_tests("simt", tests, (size_t)count, NULL, NULL);
}

#else

static void test_simt(void **state)
{
    (void)state;
    print_message("the emulator's fibres are written for x86-64\n");
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_simt)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
