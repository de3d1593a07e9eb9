/* Which way a card does a convolution: timed once, kept in a file, found again, and right whichever
 * it is; what the file may hold. The emulator's clock counts launched threads. */
#include "runtime/backend.h"
#include "runtime/device.h"
#include "runtime/tune.h"
#include "tests/simt/report.h"
#include "tests/support/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#ifdef __x86_64__

enum { SIDE = 5, CHANNELS = 40, ELEMENTS = SIDE * SIDE * CHANNELS, PATH_BYTES = 64 };

static void read_weight(const struct parameter *parameter, float *values)
{
    uint64_t random = 5;
    (void)parameter;
    for (int i = 0; i < CHANNELS * CHANNELS * 9; i++)
        values[i] = (float)random_uniform(&random) / 8;
}

struct setting {
    struct cuda_backend backend;
    char folder[32], path[PATH_BYTES];
    struct parameter weight;
    struct tape *tape; /* of the program recorded last */
};

static struct setting *open_setting(void)
{
    struct setting *s = calloc(1, sizeof *s);
    struct simt_options options = simt_default_options();
    struct status status = {0};
    assert_non_null(s);
    strcpy(s->folder, "/tmp/resample-tune-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    snprintf(s->path, sizeof s->path, "%s/convolutions.txt", s->folder);
    simt_reset(&options);
    if (cuda_backend_open(&s->backend, true, &status) != STATUS_OK)
        fail_msg("%s", status.message);
    memcpy(s->weight.shape, (int64_t[4]){CHANNELS, CHANNELS, 3, 3}, sizeof s->weight.shape);
    s->weight.read = read_weight;
    return s;
}

static void close_setting(struct setting *s)
{
    parameter_release(&s->weight);
    cuda_backend_close(&s->backend);
    unlink(s->path);
    rmdir(s->folder);
    free(s);
}

/* Two equal convolutions and their gradient: three distinct ones, as the second has a residual. */
static struct program *record(struct setting *s, const struct kernels *kernels, int *slot)
{
    const int64_t shape[4] = {1, SIDE, SIDE, CHANNELS};
    const struct conv2d_attributes attributes = {3, 3, 1, 1, 1, 1, 1, 1, WEIGHT_PLAIN, 0};
    struct program *program = program_create(kernels, TYPE_F32, 1);
    struct tape *tape = s->tape = program_tape(program, "tape");
    *slot = program_state(program, "x", TYPE_F32, shape);
    value x = tape_state(tape, *slot), w = tape_parameter(tape, &s->weight);
    value y = tape_conv2d(tape, x, w, NO_VALUE, NO_VALUE, &attributes);
    y = tape_conv2d(tape, y, w, NO_VALUE, x, &attributes);
    y = tape_conv2d(tape, y, w, NO_VALUE, NO_VALUE, &attributes);
    tape_assign(tape, x, tape_gradient(tape, tape_l2_norm(tape, y), x));
    assert_int_equal(tape_status(tape)->code, STATUS_OK);
    return program;
}

/* Prepares, runs and frees it; the gradient. */
static float *solve(const struct setting *s, struct program *program, int slot)
{
    struct status status = {0};
    uint64_t random = 9;
    float *values = malloc(ELEMENTS * sizeof *values);
    for (int i = 0; i < ELEMENTS; i++)
        values[i] = (float)random_uniform(&random);
    if (program_plan(program, 0, &status) || program_prepare(program, &status))
        fail_msg("%s", status.message);
    program_write(program, slot, values);
    if (program_run(program, s->tape, NULL, &status))
        fail_msg("%s", status.message);
    program_read(program, slot, values);
    program_free(program);
    return values;
}

static double distance(const float *a, const float *b)
{
    double difference = 0, norm = 0;
    for (int i = 0; i < ELEMENTS; i++) {
        difference += pow((double)a[i] - b[i], 2);
        norm += pow(b[i], 2);
    }
    return sqrt(difference / norm);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static char *read_file(const char *path)
{
    char *text = calloc(1, 1 << 16);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, (1 << 16) - 1, file) > 0);
    fclose(file);
    return text;
}

static void timed_once_and_kept(void **state)
{
    (void)state;
    struct setting *s = open_setting();
    struct status status = {0};
    struct tuning tuning;
    int slot;
    struct program *program = record(s, kernels_cpu(), &slot);
    assert_int_equal(program_tune(program, s->path, &tuning, &status), STATUS_OK);
    assert_int_equal(tuning.convolutions, 0);
    float *expected = solve(s, program, slot);
    parameter_release(&s->weight);

    program = record(s, &s->backend.kernels, &slot);
    assert_int_equal(program_tune(program, s->path, &tuning, &status), STATUS_OK);
    assert_int_equal(tuning.convolutions, 3);
    assert_int_equal(tuning.timed, 3);
    assert_true(tuning.saved);
    float *tuned = solve(s, program, slot);
    assert_true(distance(tuned, expected) < 1e-5);
    char *text = read_file(s->path);

    program = record(s, &s->backend.kernels, &slot);
    simt_forget_calls();
    assert_int_equal(program_tune(program, s->path, &tuning, &status), STATUS_OK);
    assert_int_equal(tuning.convolutions, 3);
    assert_int_equal(tuning.timed, 0);
    if (simt_host_calls())
        assert_int_equal(simt_host_calls()->launches, 0);
    float *again = solve(s, program, slot);
    assert_memory_equal(again, tuned, ELEMENTS * sizeof *again);
    char *kept = read_file(s->path);
    assert_string_equal(kept, text);
    free(expected);
    free(tuned);
    free(again);
    free(text);
    free(kept);
    close_setting(s);
}

/* Every way that a file may name gives the same numbers; one that does not exist is timed anew. */
static void ways_of_the_file_are_taken(void **state)
{
    (void)state;
    struct setting *s = open_setting();
    struct status status = {0};
    struct tuning tuning;
    int slot;
    struct program *program = record(s, &s->backend.kernels, &slot);
    program_tune(program, s->path, &tuning, &status);
    float *expected = solve(s, program, slot);
    char *text = read_file(s->path), changed[1 << 16];
    int differ = 0;
    for (int way = 1; way <= 3; way++) {
        size_t length = 0;
        for (char *line = text; *line; line = strchr(line, '\n') + 1) {
            int key = (int)(strchr(strchr(line, '\t') + 1, '\t') - line);
            length += (size_t)sprintf(changed + length, "%.*s\t%d\t1.5\n", key, line,
                                      way < 3        ? way
                                      : line == text ? 99
                                                     : 1);
        }
        write_file(s->path, changed);
        program = record(s, &s->backend.kernels, &slot);
        assert_int_equal(program_tune(program, s->path, &tuning, &status), STATUS_OK);
        assert_int_equal(tuning.timed, way == 3);
        float *values = solve(s, program, slot);
        assert_true(distance(values, expected) < 1e-5);
        differ += memcmp(values, expected, ELEMENTS * sizeof *values) != 0;
        free(values);
    }
    assert_true(differ > 0); /* a sum in parts rounds otherwise */
    free(expected);
    free(text);
    close_setting(s);
}

static void other_text_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"card\tconvolution\t1\t0.5\nnonsense\n",
                                        "card\tconvolution\t1\n",
                                        "card\tconvolution\t0\t0.5\n",
                                        "card\tconvolution\t1\t0.5 ms\n",
                                        "card\tconvolution\t1\t0.5",
                                        "card\tconvolution\tone\t0.5\n"};
    struct setting *s = open_setting();
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct status status = {0};
        struct tuning tuning;
        int slot;
        struct program *program = record(s, &s->backend.kernels, &slot);
        write_file(s->path, texts[i]);
        assert_int_equal(program_tune(program, s->path, &tuning, &status), STATUS_BAD_INPUT);
        assert_non_null(strstr(status.message, s->path));
        assert_non_null(strstr(status.message, i == 0 ? ", line 2: expected" : ", line 1: exp"));
        char *text = read_file(s->path);
        assert_string_equal(text, texts[i]);
        free(text);
        program_free(program);
    }
    close_setting(s);
}

static void no_folder_is_no_error(void **state)
{
    (void)state;
    struct setting *s = open_setting();
    struct status status = {0};
    struct tuning tuning;
    int slot;
    struct program *program = record(s, &s->backend.kernels, &slot);
    assert_int_equal(program_tune(program, "/nonexistent/convolutions.txt", &tuning, &status),
                     STATUS_OK);
    assert_true(tuning.timed == 3 && !tuning.saved);
    free(solve(s, program, slot));
    close_setting(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timed_once_and_kept),
        cmocka_unit_test(ways_of_the_file_are_taken),
        cmocka_unit_test(other_text_is_refused),
        cmocka_unit_test(no_folder_is_no_error),
    };
    return cmocka_run_group_tests_name("cuda_tune", tests, NULL, NULL);
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
    return cmocka_run_group_tests_name("cuda_tune", tests, NULL, NULL);
}

#endif
