/* The patch discriminator: logits, losses, the balance between them and every parameter's gradient
 * against PyTorch's (tests/reference/make_discriminator.py), with every table of kernels that this
 * machine can run; gradients against central differences; what a new one holds. */
#include "tests/support/golden.h"
#include "training/internal.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const struct kernels *kernels_table_wide(void);

enum { PICTURES = 2, COLOURS = 3, HEIGHT = 24, WIDTH = 32, CHANNELS = 4, LOGITS = 4 };
enum { PICTURE_ELEMENTS = PICTURES * COLOURS * HEIGHT * WIDTH, LAST = COLOURS * COLOURS };
enum { MOST_ELEMENTS = 16384 };

static int64_t count_of(const int64_t s[4])
{
    return s[0] * s[1] * s[2] * s[3];
}

/* The numbers of make_discriminator.py. */
static void wave(float *values, int64_t count, double scale, double offset, double phase)
{
    for (int64_t k = 0; k < count; k++) {
        double i = (double)k;
        values[k] = (float)(offset + scale * sin(0.37 * i + fmod(0.011 * i * i, 5) + phase));
    }
}

struct run {
    struct program *program;
    struct tape *tape;
    struct discriminator discriminator;
    int real, source, last; /* inputs: fake pictures are the source's under the last weight */
    int logits[2], loss, generator_loss, weight, last_gradient;
    int gradients[DISCRIMINATOR_PARAMETERS];
};

static value state(struct run *run, int *slot, int64_t n, int64_t h, int64_t w, int64_t c)
{
    *slot = program_state(run->program, "state", TYPE_F32, (int64_t[]){n, h, w, c});
    return tape_state(run->tape, *slot);
}

static void keep(struct run *run, int *slot, value v)
{
    const int64_t *s = tape_shape(run->tape, v);
    value kept = state(run, slot, s[0], s[1], s[2], s[3]);
    tape_assign(run->tape, kept, v);
}

static void keep_gradients(struct run *run, value loss)
{
    value wrt[DISCRIMINATOR_PARAMETERS], gradients[DISCRIMINATOR_PARAMETERS];
    for (int i = 0; i < DISCRIMINATOR_PARAMETERS; i++)
        wrt[i] = tape_state(run->tape, run->discriminator.parameters[i].slot);
    tape_gradients(run->tape, loss, wrt, DISCRIMINATOR_PARAMETERS, gradients);
    for (int i = 0; i < DISCRIMINATOR_PARAMETERS; i++)
        keep(run, &run->gradients[i], gradients[i]);
}

static void record(struct run *run)
{
    const struct conv2d_attributes linear = {1, 1, 1, 0, 0, 0, 0, 1, WEIGHT_PLAIN, 0};
    struct discriminator *discriminator = &run->discriminator;
    struct tape *tape = run->tape;
    value real = state(run, &run->real, PICTURES, HEIGHT, WIDTH, COLOURS);
    value source = state(run, &run->source, PICTURES, HEIGHT, WIDTH, COLOURS);
    value last = state(run, &run->last, COLOURS, COLOURS, 1, 1);
    value fake = tape_conv2d(tape, source, last, NO_VALUE, NO_VALUE, &linear);
    value real_logits = discriminator_record(discriminator, tape, real);
    value fake_logits = discriminator_record(discriminator, tape, fake);
    value loss = discriminator_loss_record(discriminator, tape, real_logits, fake_logits);
    value generator_loss = generator_loss_record(tape, fake_logits);
    value error = tape_mean_absolute_error(tape, fake, real);
    value weight = generator_weight_record(discriminator, tape, error, generator_loss, last);
    value balanced = tape_combine_scaled(tape, error, generator_loss, weight, 0, 1);
    keep(run, &run->logits[0], real_logits);
    keep(run, &run->logits[1], fake_logits);
    keep(run, &run->loss, loss);
    keep(run, &run->generator_loss, generator_loss);
    keep(run, &run->weight, weight);
    keep(run, &run->last_gradient, tape_gradient(tape, balanced, last));
    keep_gradients(run, loss);
}

static void write_inputs(struct run *run)
{
    float values[MOST_ELEMENTS];
    for (int i = 0; i < DISCRIMINATOR_PARAMETERS; i++) {
        const struct discriminator_parameter *p = &run->discriminator.parameters[i];
        bool convolution = p->shape[2] > 1;
        double fan = (double)(p->shape[1] * p->shape[2] * p->shape[3]);
        wave(values, count_of(p->shape), convolution ? 2 / sqrt(fan) : 0.3, convolution ? 0 : 0.7,
             i);
        program_write(run->program, p->slot, values);
    }
    wave(values, PICTURE_ELEMENTS, 0.9, 0, 20);
    program_write_nchw(run->program, run->real, values);
    wave(values, PICTURE_ELEMENTS, 0.8, 0.1, 21);
    program_write_nchw(run->program, run->source, values);
    wave(values, LAST, 0.6, 0.1, 22);
    program_write(run->program, run->last, values);
}

static void replay(struct run *run)
{
    struct status status = {0};
    if (program_run(run->program, run->tape, NULL, &status) != STATUS_OK)
        fail_msg("%s", status.message);
}

static void run_open(struct run *run, const struct kernels *kernels, enum element_type real,
                     size_t memory_limit_bytes)
{
    struct status status = {0};
    run->program = program_create(kernels, real, 2);
    run->tape = program_tape(run->program, "discriminator");
    discriminator_open(&run->discriminator, run->program, COLOURS, CHANNELS);
    record(run);
    if (program_plan(run->program, memory_limit_bytes, &status) != STATUS_OK ||
        program_prepare(run->program, &status) != STATUS_OK)
        fail_msg("%s", status.message);
    write_inputs(run);
    replay(run);
}

static void check(const char *kernels, const char *what, const float *values, int64_t count,
                  const float *expected)
{
    double difference = relative_difference(values, expected, count);
    if (!(difference < 2e-6))
        fail_msg("%s: %s differs by %.1e", kernels, what, difference);
}

static void check_against_pytorch(const struct kernels *kernels, enum element_type real)
{
    struct run run;
    struct array logits = golden_read("tests/data/discriminator/logits.npy");
    struct array losses = golden_read("tests/data/discriminator/losses.npy");
    struct array gradients = golden_read("tests/data/discriminator/gradients.npy");
    struct array last_gradient = golden_read("tests/data/discriminator/last_gradient.npy");
    float values[MOST_ELEMENTS];
    run_open(&run, kernels, real, 0);
    for (int i = 0; i < 2; i++)
        program_read_nchw(run.program, run.logits[i], values + i * LOGITS);
    check(kernels->name, "logits", values, array_elements(&logits), logits.values);
    const int scalars[] = {run.loss, run.generator_loss, run.weight};
    for (int i = 0; i < 3; i++)
        program_read(run.program, scalars[i], values + i);
    check(kernels->name, "losses and weight", values, 3, losses.values);
    int64_t first = 0;
    for (int i = 0; i < DISCRIMINATOR_PARAMETERS; i++) {
        const struct discriminator_parameter *p = &run.discriminator.parameters[i];
        program_read(run.program, run.gradients[i], values);
        check(kernels->name, p->name, values, count_of(p->shape), gradients.values + first);
        first += count_of(p->shape);
    }
    assert_int_equal(first, array_elements(&gradients));
    program_read(run.program, run.last_gradient, values);
    check(kernels->name, "last weight", values, LAST, last_gradient.values);
    program_free(run.program);
    array_free(&logits);
    array_free(&losses);
    array_free(&gradients);
    array_free(&last_gradient);
}

static void everything_is_pytorchs(void **unused)
{
    (void)unused;
    static const char *const isas[] = {"scalar", "avx2", "avx512"};
    check_against_pytorch(kernels_plain_f64(), TYPE_F64);
    check_against_pytorch(kernels_plain_f32(), TYPE_F32);
    for (int i = 0; i < 3; i++)
        if (kernels_cpu_isa(isas[i]))
            check_against_pytorch(kernels_cpu_isa(isas[i]), TYPE_F32);
#ifdef __x86_64__
    if (kernels_cpu_isa("avx2"))
        check_against_pytorch(kernels_table_wide(), TYPE_F32);
#endif
}

/* The loss where a parameter has moved along cos(i). */
static double loss_at(struct run *run, int index, const double *values, double step)
{
    const struct discriminator_parameter *p = &run->discriminator.parameters[index];
    double moved[MOST_ELEMENTS];
    for (int64_t i = 0; i < count_of(p->shape); i++)
        moved[i] = values[i] + step * cos((double)i);
    program_write_f64(run->program, p->slot, moved);
    replay(run);
    return program_read_scalar(run->program, run->loss);
}

static void gradients_match_central_differences(void **unused)
{
    (void)unused;
    const double step = 1e-6;
    struct run run;
    run_open(&run, kernels_plain_f64(), TYPE_F64, 0);
    for (int i = 0; i < DISCRIMINATOR_PARAMETERS; i++) {
        const struct discriminator_parameter *p = &run.discriminator.parameters[i];
        double values[MOST_ELEMENTS], gradient[MOST_ELEMENTS], expected = 0, largest = 0;
        program_read_f64(run.program, p->slot, values);
        program_read_f64(run.program, run.gradients[i], gradient);
        for (int64_t k = 0; k < count_of(p->shape); k++) {
            expected += gradient[k] * cos((double)k);
            largest += fabs(gradient[k]);
        }
        double rise = (loss_at(&run, i, values, step) - loss_at(&run, i, values, -step)) / 2 / step;
        loss_at(&run, i, values, 0);
        if (!(fabs(rise - expected) < 1e-7 * (1 + largest)) || largest == 0)
            fail_msg("%s: %.9g by differences, %.9g by the tape", p->name, rise, expected);
    }
    program_free(run.program);
}

/* Recomputation for the balance's two reverse passes and for those of the losses. */
static void a_limit_gives_the_same_bytes(void **unused)
{
    (void)unused;
    struct run free_run, limited;
    struct memory_report report;
    run_open(&free_run, kernels_cpu(), TYPE_F32, 0);
    program_memory(free_run.program, &report);
    run_open(&limited, kernels_cpu(), TYPE_F32, report.total_bytes - report.activations_bytes / 8);
    program_memory(limited.program, &report);
    assert_true(report.recomputed_nodes > 0 && !report.small_weights);
    for (int i = -1; i < DISCRIMINATOR_PARAMETERS; i++) {
        int slot = i < 0 ? free_run.last_gradient : free_run.gradients[i];
        float expected[MOST_ELEMENTS], values[MOST_ELEMENTS];
        size_t count = (size_t)count_of(program_shape(free_run.program, slot));
        program_read(free_run.program, slot, expected);
        program_read(limited.program, i < 0 ? limited.last_gradient : limited.gradients[i], values);
        assert_memory_equal(values, expected, count * sizeof *values);
    }
    program_free(free_run.program);
    program_free(limited.program);
}

/* As taming-transformers draws them; the seed decides. */
static void check_values(const struct training *training,
                         const struct discriminator_parameter *parameter, double *sum)
{
    int64_t count = count_of(parameter->shape);
    float *values = malloc((size_t)count * sizeof *values);
    double mean = 0, square = 0, largest = 0;
    program_read(training->program, parameter->slot, values);
    for (int64_t i = 0; i < count; i++) {
        mean += values[i] / (double)count;
        square += values[i] * values[i] / (double)count;
        largest = fmax(largest, fabs(values[i]));
    }
    double deviation = parameter->deviation + parameter->bound / sqrt(3);
    double margin = 5 * deviation / sqrt((double)count);
    assert_true(fabs(mean - parameter->mean) <= margin);
    assert_true(fabs(sqrt(fmax(square - mean * mean, 0)) - deviation) <= margin);
    assert_true(parameter->bound == 0 || largest <= parameter->bound);
    *sum += mean;
    free(values);
}

static void a_new_one_is_drawn_as_the_original(void **unused)
{
    (void)unused;
    double sums[3] = {0};
    for (int run = 0; run < 3; run++) {
        struct status status = {0};
        struct discriminator discriminator;
        struct training training = {.settings.seed = run == 1 ? 6 : 5,
                                    .program = program_create(kernels_cpu(), TYPE_F32, 1)};
        discriminator_open(&discriminator, training.program, COLOURS, 64);
        assert_int_equal(program_plan(training.program, 0, &status), STATUS_OK);
        assert_int_equal(program_prepare(training.program, &status), STATUS_OK);
        assert_int_equal(discriminator_initialise(&training, &discriminator, &status), STATUS_OK);
        for (int i = 0; i < DISCRIMINATOR_PARAMETERS; i++)
            check_values(&training, &discriminator.parameters[i], &sums[run]);
        assert_string_equal(discriminator.parameters[3].name, "main.3.weight");
        assert_true(discriminator.parameters[3].mean == 1);
        assert_string_equal(discriminator.parameters[DISCRIMINATOR_PARAMETERS - 1].name,
                            "main.11.bias");
        program_free(training.program);
    }
    assert_true(sums[0] == sums[2] && sums[0] != sums[1]);
}

static void small_pictures_are_refused(void **unused)
{
    (void)unused;
    struct discriminator discriminator;
    struct program *program = program_create(kernels_plain_f32(), TYPE_F32, 1);
    struct tape *tape = program_tape(program, "small");
    discriminator_open(&discriminator, program, COLOURS, CHANNELS);
    int slot = program_state(program, "pictures", TYPE_F32, (int64_t[]){1, 16, 24, COLOURS});
    assert_int_equal(discriminator_record(&discriminator, tape, tape_state(tape, slot)), NO_VALUE);
    assert_non_null(strstr(tape_status(tape)->message, "smaller than the kernel"));
    program_free(program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_pytorchs),
        cmocka_unit_test(gradients_match_central_differences),
        cmocka_unit_test(a_limit_gives_the_same_bytes),
        cmocka_unit_test(a_new_one_is_drawn_as_the_original),
        cmocka_unit_test(small_pictures_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
