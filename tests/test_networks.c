/* The networks against PyTorch: outputs, vector-Jacobian products, code indices and activations of
 * the tiny model, of four further configurations and of ct-128, with every table of kernels that
 * this machine can run; their Jacobian-vector products against the vector-Jacobian ones. The values
 * come from tests/reference (and, for tiny, from the official code's networks). */
#include "model/model.h"
#include "tests/support/golden.h"
#include "tests/support/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const struct kernels *kernels_table_wide(void);

static const double forward_tolerance = 1e-4, gradient_tolerance = 1e-3;

struct backend {
    const char *name;
    const struct kernels *kernels;
    enum element_type real;
};

enum { MAX_BACKENDS = 6 };

/* Every table of f32 kernels; NULL entries end up skipped by the callers' loops. */
static int f32_backends(struct backend backends[MAX_BACKENDS])
{
    const struct kernels *tables[] = {kernels_plain_f32(), kernels_cpu_isa("scalar"),
                                      kernels_cpu_isa("avx2"), kernels_cpu_isa("avx512"),
                                      kernels_cpu_isa("avx2") ? kernels_table_wide() : NULL};
    static const char *const names[] = {"plain", "scalar", "avx2", "avx512", "wide"};
    int count = 0;
    for (int i = 0; i < 5; i++)
        if (tables[i])
            backends[count++] = (struct backend){names[i], tables[i], TYPE_F32};
    return count;
}

/* ---- one network, forward and backward ---- */

enum part { UNET, ENCODER, DECODER, QUANTIZED };

static value record_part(struct tape *tape, struct model *model, enum part part, value x, value t)
{
    switch (part) {
    case UNET:
        return unet_record(tape, model, x, t);
    case ENCODER:
        return encoder_record(tape, model, x);
    case DECODER:
    case QUANTIZED:
        break;
    }
    return decoder_record(tape, model, x, part == QUANTIZED);
}

static int state_like_nchw(struct program *program, const char *name, const struct array *array)
{
    const int64_t *s = array->shape;
    assert_int_equal(array->rank, 4);
    return program_state(program, name, TYPE_F32, (int64_t[4]){s[0], s[2], s[3], s[1]});
}

static void must(int code, const struct status *status)
{
    if (code)
        fail_msg("%s", status->message);
}

static void expect_close(const struct backend *backend, const char *what, const float *got,
                         const struct array *wanted, double tolerance)
{
    double difference = relative_difference(got, wanted->values, array_elements(wanted));
    if (!(difference <= tolerance))
        fail_msg("%s, %s kernels: relative difference %.2e (at most %.0e)", what, backend->name,
                 difference, tolerance);
}

static double *read_slot(const struct program *program, int slot, int64_t *count)
{
    const int64_t *s = program_shape(program, slot);
    *count = s[0] * s[1] * s[2] * s[3];
    double *values = malloc((size_t)*count * sizeof *values);
    assert_non_null(values);
    program_read_f64(program, slot, values);
    return values;
}

static void write_random(struct program *program, int slot)
{
    int64_t count;
    uint64_t random = 17;
    double *values = read_slot(program, slot, &count);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)random_uniform(&random);
    program_write_f64(program, slot, values);
    free(values);
}

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Slots of a network's derivatives: J^T cotangent = gradient, J direction = tangent. */
struct derivative_slots {
    int cotangent, gradient, direction, tangent;
};

static struct derivative_slots record_derivatives(struct program *program, struct tape *tape,
                                                  value y, value x)
{
    int64_t input[4], output[4];
    memcpy(input, tape_shape(tape, x), sizeof input);
    memcpy(output, tape_shape(tape, y), sizeof output);
    struct derivative_slots slots = {program_state(program, "cotangent", TYPE_F32, output),
                                     program_state(program, "gradient", TYPE_F32, input),
                                     program_state(program, "direction", TYPE_F32, input),
                                     program_state(program, "tangent", TYPE_F32, output)};
    value g = tape_vjp(tape, y, tape_state(tape, slots.cotangent), x);
    tape_assign(tape, tape_state(tape, slots.gradient), g);
    value dy = tape_jvp(tape, y, x, tape_state(tape, slots.direction));
    tape_assign(tape, tape_state(tape, slots.tangent), dy);
    return slots;
}

/* <cotangent, J direction> = <J^T cotangent, direction>, relative to the sizes that enter. */
static void expect_adjoint(const struct backend *backend, const char *what,
                           const struct program *program, const struct derivative_slots *slots)
{
    int64_t inputs, outputs;
    double *u = read_slot(program, slots->cotangent, &outputs);
    double *jv = read_slot(program, slots->tangent, &outputs);
    double *v = read_slot(program, slots->direction, &inputs);
    double *ju = read_slot(program, slots->gradient, &inputs);
    double size = sqrt(dot(u, u, outputs) * dot(jv, jv, outputs));
    double difference = fabs(dot(u, jv, outputs) - dot(ju, v, inputs)) / size;
    double tolerance = backend->real == TYPE_F64 ? 1e-10 : 1e-4;
    if (!(difference <= tolerance))
        fail_msg("%s, %s kernels: <u,Jv> and <J'u,v> differ by %.2e (at most %.0e)", what,
                 backend->name, difference, tolerance);
    free(u);
    free(jv);
    free(v);
    free(ju);
}

/* A golden case: paths (without .npy) under a folder. t: batch many, or NULL. */
struct network_case {
    enum part part;
    const char *input, *output, *cotangent, *gradient;
    const float *t;
};

static void check_case(struct model *model, const struct backend *backend, const char *folder,
                       const struct network_case *c)
{
    struct status status = {0};
    struct array x = golden_read("%s/%s.npy", folder, c->input);
    struct array y = golden_read("%s/%s.npy", folder, c->output);
    struct program *program = program_create(backend->kernels, backend->real, 1);
    struct tape *tape = program_tape(program, c->output);
    int x_slot = state_like_nchw(program, "x", &x), y_slot = state_like_nchw(program, "y", &y);
    int t_slot = program_state(program, "t", TYPE_F32, (int64_t[4]){x.shape[0], 1, 1, 1});
    value x_value = tape_state(tape, x_slot);
    value result = record_part(tape, model, c->part, x_value, tape_state(tape, t_slot));
    tape_assign(tape, tape_state(tape, y_slot), result);
    struct derivative_slots derivatives = {0};
    if (c->cotangent)
        derivatives = record_derivatives(program, tape, result, x_value);
    must(tape_status(tape)->code, tape_status(tape));
    must(program_plan(program, 0, &status), &status);
    must(program_prepare(program, &status), &status);
    program_write_nchw(program, x_slot, x.values);
    if (c->t)
        program_write(program, t_slot, c->t);
    if (c->cotangent) {
        struct array cotangent = golden_read("%s/%s.npy", folder, c->cotangent);
        program_write_nchw(program, derivatives.cotangent, cotangent.values);
        write_random(program, derivatives.direction);
        array_free(&cotangent);
    }
    must(program_run_checked(program, tape, &status), &status);
    float *got = malloc((size_t)(array_elements(&x) + array_elements(&y)) * sizeof *got);
    assert_non_null(got);
    program_read_nchw(program, y_slot, got);
    char what[600];
    snprintf(what, sizeof what, "%s/%s", folder, c->output);
    expect_close(backend, what, got, &y, forward_tolerance);
    if (c->cotangent) {
        struct array gradient = golden_read("%s/%s.npy", folder, c->gradient);
        program_read_nchw(program, derivatives.gradient, got);
        snprintf(what, sizeof what, "%s/%s", folder, c->gradient);
        expect_close(backend, what, got, &gradient, gradient_tolerance);
        expect_adjoint(backend, what, program, &derivatives);
        array_free(&gradient);
    }
    free(got);
    program_free(program);
    array_free(&x);
    array_free(&y);
}

/* Packed weights belong to one table of kernels: each backend gets a model of its own. */
static struct model open_model(const char *config, const char *checkpoint)
{
    struct model model;
    struct status status = {0};
    must(model_open(&model, NULL, config, checkpoint, false, &status), &status);
    return model;
}

static struct model open_tiny(void)
{
    return open_model("tests/data/tiny/tiny.yaml", "tests/data/tiny/tiny.ckpt");
}

/* ---- tiny ---- */

static const char tiny[] = "tests/data/tiny";

static const struct network_case tiny_cases[] = {
    {UNET, "x", "eps_t0", "cot_eps", "eps_vjp_t0", (const float[]){0}},
    {UNET, "x", "eps_t1", "cot_eps", "eps_vjp_t1", (const float[]){1}},
    {UNET, "x", "eps_t250", "cot_eps", "eps_vjp_t250", (const float[]){250}},
    {UNET, "x", "eps_t999", "cot_eps", "eps_vjp_t999", (const float[]){999}},
    {DECODER, "z", "decode_noquant", "cot_img", "decode_noquant_vjp", NULL},
    {QUANTIZED, "z", "decode_quant", "cot_img", "decode_quant_vjp", NULL},
    {ENCODER, "img", "encode", "cot_h", "encode_vjp", NULL},
};

static void check_tiny(const struct backend *backend)
{
    struct model model = open_tiny();
    for (size_t i = 0; i < sizeof tiny_cases / sizeof *tiny_cases; i++)
        check_case(&model, backend, tiny, &tiny_cases[i]);
    struct array tb = golden_read("%s/tb.npy", tiny);
    struct network_case batch = {UNET, "xb", "eps_batch2", NULL, NULL, tb.values};
    check_case(&model, backend, tiny, &batch);
    array_free(&tb);
    model_close(&model);
}

static void test_tiny(void **state)
{
    (void)state;
    struct backend backends[MAX_BACKENDS];
    int count = f32_backends(backends);
    for (int i = 0; i < count; i++)
        check_tiny(&backends[i]);
}

static void test_tiny_in_double(void **state)
{
    (void)state;
    struct backend backend = {"plain f64", kernels_plain_f64(), TYPE_F64};
    struct model model = open_tiny();
    for (int i = 3; i < 7; i++) /* the UNet once, every part of the autoencoder */
        check_case(&model, &backend, tiny, &tiny_cases[i]);
    model_close(&model);
}

static void read_identity(const struct parameter *parameter, float *values)
{
    const int64_t *s = parameter->shape;
    for (int64_t o = 0; o < s[0]; o++)
        for (int64_t i = 0; i < s[1]; i++)
            values[o * s[1] + i] = o == i;
}

static void read_zero(const struct parameter *parameter, float *values)
{
    memset(values, 0, (size_t)parameter->shape[3] * sizeof *values);
}

/* The decoder alone: post_quant_conv made the identity. */
static void test_tiny_raw_decoder(void **state)
{
    (void)state;
    struct backend backend = {"plain", kernels_plain_f32(), TYPE_F32};
    struct model model = open_tiny();
    model_parameter(&model, "first_stage_model.post_quant_conv.weight", 3, 3, 1, 1)->read =
        read_identity;
    model_vector(&model, "first_stage_model.post_quant_conv.bias", 3)->read = read_zero;
    struct network_case raw = {DECODER, "z", "decoder_raw", "cot_img", "decoder_raw_vjp", NULL};
    check_case(&model, &backend, tiny, &raw);
    model_close(&model);
}

/* Codes are chosen by comparison: they agree exactly or not at all. */
static void test_tiny_codes(void **state)
{
    (void)state;
    struct backend backends[MAX_BACKENDS];
    int count = f32_backends(backends);
    struct array z = golden_read("%s/z.npy", tiny), quant = golden_read("%s/quant.npy", tiny);
    struct array wanted = golden_read("%s/quant_idx.npy", tiny);
    for (int i = 0; i < count; i++) {
        struct status status = {0};
        struct model model = open_tiny();
        struct program *program = program_create(backends[i].kernels, TYPE_F32, 1);
        struct tape *tape = program_tape(program, "quantize");
        int z_slot = state_like_nchw(program, "z", &z), q_slot = state_like_nchw(program, "q", &z);
        int index_slot = program_state(program, "index", TYPE_I32, (int64_t[4]){1, 16, 16, 1});
        struct parameter *codebook =
            model_codebook(&model, "first_stage_model.quantize.embedding.weight", 64, 3);
        value index;
        value q = tape_vector_quantize(tape, tape_state(tape, z_slot),
                                       tape_parameter(tape, codebook), &index);
        tape_assign(tape, tape_state(tape, q_slot), q);
        tape_assign(tape, tape_state(tape, index_slot), index);
        must(tape_status(tape)->code, tape_status(tape));
        must(program_plan(program, 0, &status), &status);
        must(program_prepare(program, &status), &status);
        program_write_nchw(program, z_slot, z.values);
        must(program_run(program, tape, NULL, &status), &status);
        int32_t codes[256];
        float q_values[3 * 256];
        program_read_i32(program, index_slot, codes);
        program_read_nchw(program, q_slot, q_values);
        for (int k = 0; k < 256; k++)
            if (codes[k] != (int)wanted.values[k])
                fail_msg("%s kernels: position %d has code %d, not %d", backends[i].name, k,
                         codes[k], (int)wanted.values[k]);
        expect_close(&backends[i], "quantised latent", q_values, &quant, 1e-6);
        program_free(program);
        model_close(&model);
    }
    array_free(&z);
    array_free(&quant);
    array_free(&wanted);
}

/* The loss of the latent optimisation and its gradient. */
static void check_loss(const struct backend *backend, bool quantize)
{
    const char *name = quantize ? "mse_loss_quant" : "mse_loss_noquant";
    struct status status = {0};
    struct array z = golden_read("%s/z.npy", tiny), image = golden_read("%s/img.npy", tiny);
    struct array loss = golden_read("%s/%s.npy", tiny, name);
    struct array gradient = golden_read("%s/%s_grad.npy", tiny, name);
    struct model model = open_tiny();
    struct program *program = program_create(backend->kernels, TYPE_F32, 1);
    struct tape *tape = program_tape(program, name);
    int z_slot = state_like_nchw(program, "z", &z);
    int image_slot = state_like_nchw(program, "image", &image);
    int gradient_slot = state_like_nchw(program, "gradient", &z);
    int loss_slot = program_state(program, "loss", TYPE_F32, (int64_t[4]){1, 1, 1, 1});
    value z_value = tape_state(tape, z_slot);
    value l = tape_mean_squared_error(tape, decoder_record(tape, &model, z_value, quantize),
                                      tape_state(tape, image_slot));
    tape_assign(tape, tape_state(tape, gradient_slot), tape_gradient(tape, l, z_value));
    tape_assign(tape, tape_state(tape, loss_slot), l);
    must(tape_status(tape)->code, tape_status(tape));
    must(program_plan(program, 0, &status), &status);
    must(program_prepare(program, &status), &status);
    program_write_nchw(program, z_slot, z.values);
    program_write_nchw(program, image_slot, image.values);
    must(program_run(program, tape, NULL, &status), &status);
    float got[3 * 256], got_loss = (float)program_read_scalar(program, loss_slot);
    program_read_nchw(program, gradient_slot, got);
    expect_close(backend, name, &got_loss, &loss, forward_tolerance);
    expect_close(backend, "gradient of the loss", got, &gradient, gradient_tolerance);
    program_free(program);
    model_close(&model);
    array_free(&z);
    array_free(&image);
    array_free(&loss);
    array_free(&gradient);
}

static void test_tiny_loss(void **state)
{
    (void)state;
    struct backend backends[MAX_BACKENDS];
    int count = f32_backends(backends);
    for (int i = 0; i < count; i++) {
        check_loss(&backends[i], true);
        check_loss(&backends[i], false);
    }
}

/* ---- activations ---- */

enum { MAX_WATCHED = 32 };

/* Block outputs that a recording offered and that have a golden file. */
struct watch {
    struct program *program;
    int count, slot[MAX_WATCHED];
    char file[MAX_WATCHED][160];
};

static void watch_block(void *context, struct tape *tape, const char *block, value v)
{
    struct watch *watch = context;
    char file[160];
    if (strcmp(block, "time_embed") == 0)
        snprintf(file, sizeof file, "%s/temb_mlp_t250.npy", tiny);
    else if (strcmp(block, "encoder") == 0)
        snprintf(file, sizeof file, "%s/encoder_raw.npy", tiny);
    else
        snprintf(file, sizeof file, "%s/act_t250/%s.npy", tiny, block);
    FILE *exists = fopen(file, "rb");
    if (!exists)
        return;
    fclose(exists);
    assert_true(watch->count < MAX_WATCHED);
    int slot = program_state(watch->program, block, TYPE_F32, tape_shape(tape, v));
    tape_assign(tape, tape_state(tape, slot), v);
    snprintf(watch->file[watch->count], sizeof *watch->file, "%s", file);
    watch->slot[watch->count++] = slot;
}

static void compare_watched(const struct backend *backend, const struct watch *watch)
{
    for (int i = 0; i < watch->count; i++) {
        struct array wanted = golden_read("%s", watch->file[i]);
        float *got = malloc((size_t)array_elements(&wanted) * sizeof *got);
        assert_non_null(got);
        program_read_nchw(watch->program, watch->slot[i], got);
        expect_close(backend, watch->file[i], got, &wanted, forward_tolerance);
        free(got);
        array_free(&wanted);
    }
}

static void check_activations(const struct backend *backend)
{
    struct status status = {0};
    struct array x = golden_read("%s/x.npy", tiny), image = golden_read("%s/img.npy", tiny);
    struct model model = open_tiny();
    struct watch watch = {.program = program_create(backend->kernels, TYPE_F32, 1)};
    struct program *program = watch.program;
    model.visit = watch_block;
    model.visit_context = &watch;
    struct tape *tape = program_tape(program, "activations");
    int x_slot = state_like_nchw(program, "x", &x);
    int image_slot = state_like_nchw(program, "image", &image);
    int t_slot = program_state(program, "t", TYPE_F32, (int64_t[4]){1, 1, 1, 1});
    unet_record(tape, &model, tape_state(tape, x_slot), tape_state(tape, t_slot));
    encoder_record(tape, &model, tape_state(tape, image_slot));
    assert_int_equal(watch.count, 11); /* 9 blocks, the time embedding, the encoder */
    must(tape_status(tape)->code, tape_status(tape));
    must(program_plan(program, 0, &status), &status);
    must(program_prepare(program, &status), &status);
    program_write_nchw(program, x_slot, x.values);
    program_write_nchw(program, image_slot, image.values);
    program_write(program, t_slot, (const float[]){250});
    must(program_run(program, tape, NULL, &status), &status);
    compare_watched(backend, &watch);
    program_free(program);
    model_close(&model);
    array_free(&x);
    array_free(&image);
}

static void test_tiny_activations(void **state)
{
    (void)state;
    struct backend backends[MAX_BACKENDS];
    int count = f32_backends(backends);
    for (int i = 0; i < count; i++)
        check_activations(&backends[i]);
}

static void check_embedding(const struct backend *backend, int t, const char *file)
{
    struct status status = {0};
    struct array wanted = golden_read("%s/%s_t%d.npy", tiny, file, t);
    int64_t channels = wanted.shape[1];
    struct program *program = program_create(backend->kernels, TYPE_F32, 1);
    struct tape *tape = program_tape(program, "embedding");
    int t_slot = program_state(program, "t", TYPE_F32, (int64_t[4]){1, 1, 1, 1});
    int e_slot = program_state(program, "e", TYPE_F32, (int64_t[4]){1, 1, 1, channels});
    value e = tape_timestep_embedding(tape, tape_state(tape, t_slot), channels, 10000);
    tape_assign(tape, tape_state(tape, e_slot), e);
    must(program_plan(program, 0, &status), &status);
    must(program_prepare(program, &status), &status);
    program_write(program, t_slot, (const float[]){(float)t});
    must(program_run(program, tape, NULL, &status), &status);
    float got[224];
    assert_true(channels <= 224);
    program_read(program, e_slot, got);
    expect_close(backend, file, got, &wanted, forward_tolerance);
    program_free(program);
    array_free(&wanted);
}

static void test_timestep_embeddings(void **state)
{
    (void)state;
    struct backend backends[MAX_BACKENDS];
    int count = f32_backends(backends);
    static const int times[] = {0, 1, 250, 999};
    for (int i = 0; i < count; i++) {
        for (int k = 0; k < 4; k++) {
            check_embedding(&backends[i], times[k], "temb");
            check_embedding(&backends[i], times[k], "temb224");
        }
    }
}

/* ---- further configurations ---- */

static void check_parts(struct model *model, const struct backend *backend, const char *folder)
{
    check_case(model, backend, folder,
               &(struct network_case){ENCODER, "encoder_input", "encoder_output",
                                      "encoder_cotangent", "encoder_gradient", NULL});
    check_case(model, backend, folder,
               &(struct network_case){DECODER, "decoder_input", "decoder_output",
                                      "decoder_cotangent", "decoder_gradient", NULL});
    if (model->config.autoencoder.is_vq)
        check_case(model, backend, folder,
                   &(struct network_case){QUANTIZED, "quantized_input", "quantized_output",
                                          "quantized_cotangent", "quantized_gradient", NULL});
    if (!model->config.unet.present)
        return;
    struct array t = golden_read("%s/unet_time.npy", folder);
    check_case(model, backend, folder,
               &(struct network_case){UNET, "unet_input", "unet_output", "unet_cotangent",
                                      "unet_gradient", t.values});
    array_free(&t);
}

/* The model in one folder, golden values in another; the plain kernels (backend 0) only if small.
 */
static void check_folders(const char *model_folder, const char *folder, bool small)
{
    struct backend backends[MAX_BACKENDS];
    int count = f32_backends(backends);
    for (int i = small ? 0 : 1; i < count; i++) {
        struct model model;
        struct status status = {0};
        must(model_open(&model, model_folder, NULL, NULL, false, &status), &status);
        check_parts(&model, &backends[i], folder);
        model_close(&model);
    }
}

static void check_configuration(const char *name)
{
    char folder[128];
    snprintf(folder, sizeof folder, "tests/data/networks/%s", name);
    check_folders(folder, folder, true);
}

static void test_gray(void **state)
{
    (void)state;
    check_configuration("gray");
}

static void test_heads(void **state)
{
    (void)state;
    check_configuration("heads");
}

static void test_kl(void **state)
{
    (void)state;
    check_configuration("kl");
}

static void test_wide(void **state)
{
    (void)state;
    check_configuration("wide");
}

static void test_ct_128(void **state)
{
    (void)state;
    check_folders("models/ct-128", "tests/data/networks/ct-128", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_tiny_in_double),
        cmocka_unit_test(test_tiny_raw_decoder),
        cmocka_unit_test(test_tiny_codes),
        cmocka_unit_test(test_tiny_loss),
        cmocka_unit_test(test_tiny_activations),
        cmocka_unit_test(test_timestep_embeddings),
        cmocka_unit_test(test_gray),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_kl),
        cmocka_unit_test(test_wide),
        cmocka_unit_test(test_ct_128),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
