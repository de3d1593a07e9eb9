/* The gradient of a training loss with respect to every parameter of two small models, against
 * PyTorch's (tests/reference/make_gradients.py), with every table of kernels that this machine can
 * run; with a memory limit, with other threads, and with a part of the model frozen. */
#include "model/trainable.h"
#include "tests/support/golden.h"

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

/* Of a gradient's norm. Some gradients are zero but for rounding, such as a bias's before a norm of
 * one channel per group: nothing is asked of less than FLOOR times the largest norm. */
static const double TOLERANCE = 1e-4, FLOOR = 1e-3, COMMITMENT = 0.25;
enum { SKETCH = 64 };

static const char *const models[] = {"gray", "wide"};

static void must(int code, const struct status *status)
{
    if (code)
        fail_msg("%s", status->message);
}

static int64_t count_of(const int64_t s[4])
{
    return s[0] * s[1] * s[2] * s[3];
}

/* ---- a model's loss and its gradients, recorded as one tape ---- */
struct training {
    const char *name;
    struct model model;
    struct trainable trainable;
    struct program *program;
    struct tape *tape;
    struct array inputs[8];
    int input_slots[8], input_count;
    int *gradient_slots, loss_slot;
};

static value input(struct training *t, const char *name)
{
    struct array *array = &t->inputs[t->input_count];
    *array = golden_read("tests/data/networks/%s/%s.npy", t->name, name);
    const int64_t *s = array->shape, shape[4] = {s[0], s[2], s[3], s[1]};
    int slot = program_state(t->program, name, TYPE_F32, shape);
    t->input_slots[t->input_count++] = slot;
    return tape_state(t->tape, slot);
}

static value sum(struct training *t, value a, double beta, value b)
{
    return tape_combine(t->tape, 1, a, beta, b);
}

static value codebook_of(struct training *t)
{
    for (int i = 0; i < t->trainable.count; i++)
        if (strstr(t->trainable.parameters[i].parameter->name, "embedding.weight"))
            return tape_state(t->tape, t->trainable.parameters[i].slot);
    return NO_VALUE;
}

/* The codebook's two terms at the latents z. */
static value code_loss(struct training *t, value z)
{
    value latent = tape_combine(t->tape, 1 / t->model.config.scale_factor, z, 0, NO_VALUE), index;
    value codebook = codebook_of(t);
    tape_vector_quantize(t->tape, latent, codebook, &index);
    value taken = tape_take_codes(t->tape, codebook, index);
    value towards = tape_mean_squared_error(t->tape, taken, tape_detach(t->tape, latent));
    return sum(t, towards, COMMITMENT,
               tape_mean_squared_error(t->tape, latent, tape_detach(t->tape, taken)));
}

static value record_unet_loss(struct training *t)
{
    value x = input(t, "unet_input"), time = input(t, "unet_time");
    return tape_mean_squared_error(t->tape, unet_record(t->tape, &t->model, x, time),
                                   input(t, "unet_cotangent"));
}

static value record_autoencoder_loss(struct training *t)
{
    value code = encoder_record(t->tape, &t->model, input(t, "encoder_input"));
    value loss = tape_mean_squared_error(t->tape, code, input(t, "encoder_cotangent"));
    value z = input(t, "quantized_input"), picture = decoder_record(t->tape, &t->model, z, true);
    value target = input(t, "quantized_cotangent");
    loss = sum(t, loss, 1, tape_mean_squared_error(t->tape, picture, target));
    return sum(t, loss, 1, code_loss(t, z));
}

static void record_gradients(struct training *t, value loss)
{
    int count = t->trainable.count;
    value *wrt = malloc((size_t)count * sizeof *wrt), *g = malloc((size_t)count * sizeof *g);
    t->gradient_slots = malloc((size_t)count * sizeof *t->gradient_slots);
    for (int i = 0; i < count; i++)
        wrt[i] = tape_state(t->tape, t->trainable.parameters[i].slot);
    tape_gradients(t->tape, loss, wrt, count, g);
    for (int i = 0; i < count; i++) {
        t->gradient_slots[i] = program_state(t->program, "gradient", TYPE_F32,
                                             t->trainable.parameters[i].parameter->shape);
        tape_assign(t->tape, tape_state(t->tape, t->gradient_slots[i]), g[i]);
    }
    free(wrt);
    free(g);
}

/* prefix: of what is trained; the UNet's alone leaves out the autoencoder's loss. */
static void record(struct training *t, const char *name, const struct kernels *kernels,
                   enum element_type real, int threads, const char *prefix)
{
    struct status status = {0};
    char config[128], checkpoint[128];
    snprintf(config, sizeof config, "tests/data/networks/%s/%s.yaml", name, name);
    snprintf(checkpoint, sizeof checkpoint, "tests/data/networks/%s/%s.safetensors", name, name);
    *t = (struct training){.name = name};
    must(model_open(&t->model, NULL, config, checkpoint, false, &status), &status);
    t->program = program_create(kernels, real, threads);
    t->tape = program_tape(t->program, "training");
    trainable_open(&t->trainable, &t->model, t->program, prefix);
    value loss = record_unet_loss(t);
    if (!*prefix)
        loss = sum(t, loss, 1, record_autoencoder_loss(t));
    t->loss_slot = program_state(t->program, "loss", TYPE_F32, (int64_t[]){1, 1, 1, 1});
    tape_assign(t->tape, tape_state(t->tape, t->loss_slot), loss);
    record_gradients(t, loss);
    must(tape_status(t->tape)->code, tape_status(t->tape));
}

static void run(struct training *t, size_t memory_limit, struct memory_report *report)
{
    struct status status = {0};
    must(program_plan(t->program, memory_limit, &status), &status);
    must(program_prepare(t->program, &status), &status);
    program_memory(t->program, report);
    for (int i = 0; i < t->input_count; i++)
        program_write_nchw(t->program, t->input_slots[i], t->inputs[i].values);
    must(trainable_load(&t->trainable, &status), &status);
    must(program_run_checked(t->program, t->tape, &status), &status);
}

static float *gradient_of(const struct training *t, int i)
{
    int64_t count = count_of(program_shape(t->program, t->gradient_slots[i]));
    float *values = malloc((size_t)count * sizeof *values);
    assert_non_null(values);
    program_read(t->program, t->gradient_slots[i], values);
    return values;
}

static void close_training(struct training *t)
{
    for (int i = 0; i < t->input_count; i++)
        array_free(&t->inputs[i]);
    trainable_close(&t->trainable);
    program_free(t->program);
    model_close(&t->model);
    free(t->gradient_slots);
}

/* ---- against PyTorch ---- */

static double sign_of(uint32_t i)
{
    i = (i ^ i >> 16) * 0x7feb352du;
    i = (i ^ i >> 15) * 0x846ca68bu;
    return i >> 31 ? -1 : 1;
}

/* The count sketch that make_gradients.py keeps. */
static void sketch_gradient(const struct training *t, int i, double sketch[SKETCH])
{
    int64_t count = count_of(program_shape(t->program, t->gradient_slots[i]));
    float *values = gradient_of(t, i);
    memset(sketch, 0, SKETCH * sizeof *sketch);
    for (int64_t k = 0; k < count; k++)
        sketch[k % SKETCH] += sign_of((uint32_t)k) * values[k];
    free(values);
}

static void read_golden(const struct checkpoint *golden, const char *name, float values[SKETCH])
{
    const struct checkpoint_tensor *tensor = checkpoint_find(golden, name);
    if (!tensor)
        fail_msg("%s has a gradient here and none in PyTorch", name);
    checkpoint_read(tensor, values);
}

static double norm_of(const float values[SKETCH])
{
    double squares = 0;
    for (int k = 0; k < SKETCH; k++)
        squares += (double)values[k] * values[k];
    return sqrt(squares);
}

/* The largest difference, as a share of what is allowed. */
static double compare(const struct training *t, const struct checkpoint *golden)
{
    double largest = 0, worst = 0;
    float wanted[SKETCH];
    for (int i = 0; i < t->trainable.count; i++) {
        read_golden(golden, t->trainable.parameters[i].parameter->name, wanted);
        largest = fmax(largest, norm_of(wanted));
    }
    for (int i = 0; i < t->trainable.count; i++) {
        const char *name = t->trainable.parameters[i].parameter->name;
        double sketch[SKETCH], difference = 0;
        read_golden(golden, name, wanted);
        sketch_gradient(t, i, sketch);
        for (int k = 0; k < SKETCH; k++)
            difference += (sketch[k] - wanted[k]) * (sketch[k] - wanted[k]);
        double allowed = TOLERANCE * fmax(norm_of(wanted), FLOOR * largest);
        if (!(sqrt(difference) <= allowed))
            fail_msg("%s, %s: the gradient of %s is off by %.2e of %.2e", t->name,
                     program_kernels(t->program)->name, name, sqrt(difference), norm_of(wanted));
        worst = fmax(worst, sqrt(difference) / allowed);
    }
    return worst;
}

static void check_model(const char *name, const struct kernels *kernels, enum element_type real)
{
    struct training t;
    struct status status = {0};
    struct memory_report report;
    char path[128];
    float loss[SKETCH];
    snprintf(path, sizeof path, "tests/data/gradients/%s.safetensors", name);
    struct checkpoint *golden = checkpoint_open(path, &status);
    must(status.code, &status);
    record(&t, name, kernels, real, 2, "");
    run(&t, 0, &report);
    read_golden(golden, "loss", loss);
    assert_true(fabs(program_read_scalar(t.program, t.loss_slot) - loss[0]) < 1e-5 * loss[0]);
    assert_int_equal(t.trainable.count, checkpoint_count(golden) - 1);
    assert_true(report.weights_bytes == 0);
    print_message("    %s, %s %s: %d parameters, at most %.2g of what is allowed\n", name,
                  kernels->name, real == TYPE_F64 ? "f64" : "f32", t.trainable.count,
                  compare(&t, golden));
    checkpoint_close(golden);
    close_training(&t);
}

static void gradients_match_pytorch(void **state)
{
    (void)state;
    const struct kernels *tables[] = {kernels_plain_f32(), kernels_cpu_isa("scalar"),
                                      kernels_cpu_isa("avx2"), kernels_cpu_isa("avx512"),
                                      kernels_cpu_isa("avx2") ? kernels_table_wide() : NULL};
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        check_model(models[m], kernels_plain_f64(), TYPE_F64);
        for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
            if (tables[i])
                check_model(models[m], tables[i], TYPE_F32);
    }
}

/* ---- the same bytes ---- */

static void expect_same_gradients(const struct training *a, const struct training *b)
{
    for (int i = 0; i < b->trainable.count; i++) {
        float *first = gradient_of(a, i), *second = gradient_of(b, i);
        assert_string_equal(a->trainable.parameters[i].parameter->name,
                            b->trainable.parameters[i].parameter->name);
        assert_memory_equal(first, second,
                            (size_t)count_of(program_shape(b->program, b->gradient_slots[i])) *
                                sizeof *first);
        free(first);
        free(second);
    }
}

/* Whatever the threads, with forward segments recomputed, and with the autoencoder frozen. */
static void gradients_have_the_same_bytes(void **state)
{
    (void)state;
    struct training reference, other;
    struct memory_report free_report, report;
    record(&reference, "wide", kernels_cpu(), TYPE_F32, 1, "");
    run(&reference, 0, &free_report);
    record(&other, "wide", kernels_cpu(), TYPE_F32, 3, "");
    run(&other, 0, &report);
    expect_same_gradients(&reference, &other);
    close_training(&other);

    size_t limit = free_report.total_bytes - 1;
    record(&other, "wide", kernels_cpu(), TYPE_F32, 1, "");
    run(&other, limit, &report);
    assert_true(report.recomputed_nodes > 0 && report.total_bytes <= limit);
    assert_true(!report.small_weights);
    expect_same_gradients(&reference, &other);
    close_training(&other);

    record(&other, "wide", kernels_cpu(), TYPE_F32, 1, "model.diffusion_model.");
    run(&other, 0, &report);
    assert_true(other.trainable.count > 0 && other.trainable.count < reference.trainable.count);
    expect_same_gradients(&reference, &other);
    close_training(&other);
    close_training(&reference);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_match_pytorch),
        cmocka_unit_test(gradients_have_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
