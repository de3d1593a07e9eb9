/* Opening models: what a configuration expects, what a checkpoint may lack, sizes, schedules. */
#include "model/checkpoint_file.h"
#include "model/model.h"
#include "tests/support/golden.h"
#include "tests/support/mutate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char gray_yaml[] = "tests/data/networks/gray/gray.yaml";
static const char gray_weights[] = "tests/data/networks/gray/gray.safetensors";
static const char out_bias[] = "model.diffusion_model.out.2.bias"; /* of two channels */

static void must(int code, const struct status *status)
{
    if (code)
        fail_msg("%s", status->message);
}

static void expect_message(const struct status *status, int code, const char *part)
{
    assert_int_equal(status->code, code);
    if (!strstr(status->message, part))
        fail_msg("the message \"%s\" lacks \"%s\"", status->message, part);
    assert_null(strchr(status->message, '\n'));
}

/* ---- temporary checkpoints, edited from gray's ---- */

struct edit {
    char folder[64], path[128];
    struct checkpoint *source;
    struct checkpoint_tensor *tensors;
    int count;
};

static void edit_begin(struct edit *edit)
{
    struct status status = {0};
    snprintf(edit->folder, sizeof edit->folder, "/tmp/test_model_XXXXXX");
    assert_non_null(mkdtemp(edit->folder));
    snprintf(edit->path, sizeof edit->path, "%s/edited.safetensors", edit->folder);
    edit->source = checkpoint_open(gray_weights, &status);
    must(status.code, &status);
    edit->count = checkpoint_count(edit->source);
    edit->tensors = calloc((size_t)edit->count + 8, sizeof *edit->tensors);
    assert_non_null(edit->tensors);
    for (int i = 0; i < edit->count; i++)
        edit->tensors[i] = *checkpoint_at(edit->source, i);
}

static struct checkpoint_tensor *edit_find(struct edit *edit, const char *name)
{
    for (int i = 0; i < edit->count; i++)
        if (strcmp(edit->tensors[i].name, name) == 0)
            return &edit->tensors[i];
    fail_msg("gray has no %s", name);
    return NULL;
}

static void edit_remove(struct edit *edit, const char *name)
{
    struct checkpoint_tensor *tensor = edit_find(edit, name);
    *tensor = edit->tensors[--edit->count];
}

static void edit_add(struct edit *edit, const char *name, const char *like)
{
    edit->tensors[edit->count] = *edit_find(edit, like);
    edit->tensors[edit->count++].name = name;
}

/* A tensor of `count` values of its own. */
static void edit_add_floats(struct edit *edit, const char *name, const float *values, int count)
{
    edit->tensors[edit->count++] = (struct checkpoint_tensor){.name = name,
                                                              .type = CHECKPOINT_F32,
                                                              .rank = count > 1,
                                                              .shape = {count},
                                                              .stride = {1},
                                                              .data = (const void *)values};
}

static void edit_write(struct edit *edit, const char *const *metadata)
{
    struct status status = {0};
    must(safetensors_write(edit->path, edit->tensors, edit->count, CHECKPOINT_F32, metadata,
                           &status),
         &status);
}

static void edit_end(struct edit *edit)
{
    unlink(edit->path);
    rmdir(edit->folder);
    checkpoint_close(edit->source);
    free(edit->tensors);
}

/* Writes the edited file, opens it with gray's configuration and expects a refusal that says
 * `part`. */
static void expect_refusal(struct edit *edit, bool use_ema, const char *part)
{
    struct model model;
    struct status status = {0};
    edit_write(edit, NULL);
    model_open(&model, NULL, gray_yaml, edit->path, use_ema, &status);
    expect_message(&status, STATUS_BAD_INPUT, part);
    assert_int_equal(model.parameter_count, 0);
}

static void test_missing(void **state)
{
    (void)state;
    struct edit edit;
    edit_begin(&edit);
    edit_remove(&edit, out_bias);
    edit_remove(&edit, "first_stage_model.encoder.mid.attn_1.k.weight");
    expect_refusal(&edit, false,
                   "2 tensors missing: model.diffusion_model.out.2.bias, "
                   "first_stage_model.encoder.mid.attn_1.k.weight");
    edit_end(&edit);
}

static void test_misshapen(void **state)
{
    (void)state;
    struct edit edit;
    edit_begin(&edit);
    edit_remove(&edit, out_bias);
    edit_find(&edit, "model.diffusion_model.time_embed.0.weight")->shape[1] = 16;
    edit_find(&edit, "first_stage_model.quantize.embedding.weight")->shape[0] = 39;
    expect_refusal(&edit, false,
                   "1 tensor missing: model.diffusion_model.out.2.bias; 2 misshapen: "
                   "model.diffusion_model.time_embed.0.weight is [128,16] (expected [128,32]), "
                   "first_stage_model.quantize.embedding.weight is [39,2] (expected [40,2])");
    edit_end(&edit);
}

static void test_wrong_checkpoint(void **state)
{
    (void)state;
    struct model model;
    struct status status = {0};
    model_open(&model, NULL, "tests/data/networks/kl/kl.yaml", gray_weights, false, &status);
    expect_message(&status, STATUS_BAD_INPUT, "does not fit the configuration");
    expect_message(&status, STATUS_BAD_INPUT, " more");
    assert_true(strlen(status.message) < sizeof status.message - 1);
}

/* Trailing ones may be left out: a 1x1 convolution stored as a matrix, Conv1d's as in the file. */
static void test_trailing_ones(void **state)
{
    (void)state;
    struct edit edit;
    edit_begin(&edit);
    edit_find(&edit, "first_stage_model.encoder.mid.attn_1.q.weight")->rank = 2;
    edit_write(&edit, NULL);
    struct model model;
    struct status status = {0};
    must(model_open(&model, NULL, gray_yaml, edit.path, false, &status), &status);
    model_close(&model);
    edit_end(&edit);
}

static void test_extra(void **state)
{
    (void)state;
    struct edit edit;
    edit_begin(&edit);
    edit_add(&edit, "first_stage_model.encoder.surplus", out_bias);
    edit_add(&edit, "betas", out_bias);
    edit_add(&edit, "model_ema.decay", out_bias);
    edit_write(&edit, NULL);
    struct model model;
    struct status status = {0};
    must(model_open(&model, NULL, gray_yaml, edit.path, false, &status), &status);
    const char **names;
    int count;
    must(model_list_extra(&model, &names, &count, &status), &status);
    assert_int_equal(count, 1);
    assert_string_equal(names[0], "first_stage_model.encoder.surplus");
    free(names);
    model_close(&model);
    edit_end(&edit);
}

/* ---- EMA ---- */

static void ema_name(char name[256], const char *plain)
{
    char *end = name + sprintf(name, "model_ema.");
    for (const char *c = plain + strlen("model."); *c; c++)
        if (*c != '.')
            *end++ = *c;
    *end = 0;
}

static void test_ema(void **state)
{
    (void)state;
    struct edit edit;
    struct model model;
    struct status status = {0};
    edit_begin(&edit);
    expect_refusal(&edit, true, "has no EMA weights");
    char(*names)[256] = calloc((size_t)edit.count, sizeof *names);
    assert_non_null(names);
    for (int i = 0; i < edit.count; i++) {
        if (strncmp(edit.tensors[i].name, "model.diffusion_model.", 22) == 0) {
            ema_name(names[i], edit.tensors[i].name);
            edit.tensors[i].name = names[i];
        }
    }
    const float averaged[2] = {3, 4};
    edit_remove(&edit, "model_ema.diffusion_modelout2bias");
    edit_add_floats(&edit, "model_ema.diffusion_modelout2bias", averaged, 2);
    edit_add_floats(&edit, out_bias, (const float[]){1, 2}, 2);
    edit_write(&edit, NULL);
    must(model_open(&model, NULL, gray_yaml, edit.path, true, &status), &status);
    float bias[2];
    const struct parameter *parameter = model_vector(&model, out_bias, 2);
    parameter->read(parameter, bias);
    assert_memory_equal(bias, averaged, sizeof bias);
    model_close(&model);
    edit_remove(&edit, "model_ema.diffusion_modelinput_blocks10in_layers0weight");
    expect_refusal(&edit, true, "missing: model_ema.diffusion_modelinput_blocks10in_layers0weight");
    free(names);
    edit_end(&edit);
}

/* ---- which files ---- */

static void test_configuration_in_metadata(void **state)
{
    (void)state;
    struct edit edit;
    struct model model;
    struct status status = {0};
    size_t length;
    edit_begin(&edit);
    edit_write(&edit, NULL);
    model_open(&model, edit.path, NULL, NULL, false, &status);
    expect_message(&status, STATUS_BAD_INPUT, "no configuration");
    status = (struct status){0};
    char *text = file_read_text(gray_yaml, 1 << 20, &length, &status);
    must(status.code, &status);
    edit_write(&edit, (const char *const[]){"config", text, NULL});
    must(model_open(&model, edit.path, NULL, NULL, false, &status), &status);
    assert_int_equal(model.config.unet.in_channels, 2);
    model_close(&model);
    must(model_open(&model, edit.folder, NULL, NULL, false, &status), &status);
    model_close(&model);
    free(text);
    edit_end(&edit);
}

static void test_folders(void **state)
{
    (void)state;
    struct model model;
    struct status status = {0};
    model_open(&model, "tests/data/no_such_model", NULL, NULL, false, &status);
    expect_message(&status, STATUS_BAD_INPUT, "tests/data/no_such_model: no such model");
    status = (struct status){0};
    model_open(&model, "tests/data/networks", NULL, NULL, false, &status);
    expect_message(&status, STATUS_BAD_INPUT, "tests/data/networks holds no checkpoint");
    struct edit edit;
    edit_begin(&edit);
    edit_write(&edit, NULL);
    char second[160];
    snprintf(second, sizeof second, "%s/second.safetensors", edit.folder);
    assert_int_equal(link(edit.path, second), 0);
    status = (struct status){0};
    model_open(&model, edit.folder, NULL, NULL, false, &status);
    expect_message(&status, STATUS_BAD_INPUT, "more than one checkpoint");
    unlink(second);
    edit_end(&edit);
}

/* One flipped bit of one weight. */
static void test_damaged_weights(void **state)
{
    (void)state;
    static const char yaml[] = "tests/data/tiny/tiny.yaml";
    size_t length;
    struct status status = {0};
    struct model model;
    struct edit edit;
    edit_begin(&edit);
    snprintf(edit.path, sizeof edit.path, "%s/damaged.ckpt", edit.folder);
    unsigned char *bytes = mutate_load("tests/data/tiny/tiny.ckpt", &length);
    assert_non_null(bytes);
    struct checkpoint *whole = checkpoint_open_memory(bytes, length, "tiny", &status);
    assert_non_null(whole);
    bytes[checkpoint_find(whole, "model.diffusion_model.out.2.bias")->data - bytes] ^= 1;
    checkpoint_close(whole);
    FILE *file = fopen(edit.path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    fclose(file);
    free(bytes);
    model_open(&model, NULL, yaml, edit.path, false, &status);
    expect_message(&status, STATUS_BAD_INPUT, "out.2.bias\": damaged: ");
    edit_end(&edit);
}

/* ---- what a configuration expects ---- */

/* The published numbers (models.md): 573 tensors, 329,378,945 parameters. */
static void test_full_size_parameters(void **state)
{
    (void)state;
    struct model model;
    struct status status = {0};
    must(model_open(&model, NULL, "models/ldm-vq4-256/ldm-vq4-256.yaml", NULL, false, &status),
         &status);
    int64_t elements = 0, unet_elements = 0;
    int stacked = 0;
    for (int i = 0; i < model.parameter_count; i++) {
        const int64_t *s = model.parameters[i]->shape;
        int64_t n = s[0] * s[1] * s[2] * s[3];
        elements += n;
        if (strncmp(model.parameters[i]->name, "model.diffusion_model.", 22) == 0)
            unet_elements += n;
        stacked += strchr(model.parameters[i]->name, '{') != NULL;
        assert_null(model.parameters[i]->read);
    }
    assert_int_equal(elements, 329378945);
    assert_int_equal(unet_elements, 274056163);
    assert_int_equal(model.parameter_count + 2 * stacked, 573);
    assert_int_equal(model_latent_factor(&model), 4);
    assert_int_equal(model_size_multiple(&model), 32);
    model_close(&model);
}

static void test_scale_factor_of_checkpoint(void **state)
{
    (void)state;
    struct edit edit;
    struct model model;
    struct status status = {0};
    edit_begin(&edit);
    edit_add_floats(&edit, "scale_factor", (const float[]){0.25f}, 1);
    edit_write(&edit, NULL);
    must(model_open(&model, NULL, gray_yaml, edit.path, false, &status), &status);
    assert_true(model.config.scale_factor == 0.25);
    model_close(&model);
    edit_end(&edit);
}

/* ---- recording ---- */

static void expect_recording_error(const char *config, int64_t height, int64_t width,
                                   int64_t channels, bool unet, const char *part)
{
    struct model model;
    struct status status = {0};
    must(model_open(&model, NULL, config, NULL, false, &status), &status);
    struct program *program = program_create(kernels_plain_f32(), TYPE_F32, 1);
    struct tape *tape = program_tape(program, "sizes");
    int x = program_state(program, "x", TYPE_F32, (int64_t[4]){1, height, width, channels});
    int t = program_state(program, "t", TYPE_F32, (int64_t[4]){1, 1, 1, 1});
    value y = unet ? unet_record(tape, &model, tape_state(tape, x), tape_state(tape, t))
                   : encoder_record(tape, &model, tape_state(tape, x));
    assert_int_equal(y, NO_VALUE);
    expect_message(tape_status(tape), STATUS_BAD_INPUT, part);
    program_free(program);
    model_close(&model);
}

static void test_sizes(void **state)
{
    (void)state;
    expect_recording_error(gray_yaml, 8, 9, 2, true,
                           "the UNet's input is 8x9 where this model needs sides that 2 divides");
    expect_recording_error(gray_yaml, 8, 8, 3, true, "the UNet's input has 3 channels");
    expect_recording_error("tests/data/networks/kl/kl.yaml", 8, 12, 3, false,
                           "the encoder's input is 8x12 where this model needs sides that 8");
    expect_recording_error("tests/data/networks/kl/kl.yaml", 8, 8, 3, true, "has no UNet");
}

/* ---- schedules ---- */

static struct schedule open_schedule(const char *checkpoint)
{
    struct model model;
    struct schedule schedule;
    struct status status = {0};
    must(model_open(&model, NULL, gray_yaml, checkpoint, false, &status), &status);
    must(schedule_create(&schedule, &model, &status), &status);
    model_close(&model);
    return schedule;
}

static void test_schedule(void **state)
{
    (void)state;
    struct schedule schedule = open_schedule(NULL);
    assert_int_equal(schedule.timesteps, 1000);
    assert_true(schedule.alphas_cumprod[0] == 0.9985f);
    assert_true(schedule.alphas_cumprod[1] == 0.996994427f);
    assert_true(schedule.alphas_cumprod[999] == 1.42303975e-4f);
    struct ddim_schedule ddim;
    struct status status = {0};
    must(ddim_schedule_create(&ddim, &schedule, 50, 0, &status), &status);
    struct array tau = golden_read("tests/data/schedule/schedule_tau.npy");
    struct array a = golden_read("tests/data/schedule/schedule_a.npy");
    struct array a_prev = golden_read("tests/data/schedule/schedule_a_prev.npy");
    assert_int_equal(ddim.length, 50);
    for (int j = 0; j < 50; j++) {
        assert_int_equal(ddim.tau[j], (int)tau.values[j]);
        assert_true(ddim.a[j] == a.values[j]);
        assert_true(ddim.a_prev[j] == a_prev.values[j]);
        assert_true(ddim.sigma[j] == 0);
        assert_true(fabsf(ddim.sqrt_one_minus_a[j] - sqrtf(1 - ddim.a[j])) < 1e-7f);
    }
    array_free(&tau);
    array_free(&a);
    array_free(&a_prev);
    ddim_schedule_free(&ddim);
    schedule_free(&schedule);
}

static void test_ddim_lengths(void **state)
{
    (void)state;
    struct schedule schedule = open_schedule(NULL);
    struct ddim_schedule ddim;
    struct status status = {0};
    must(ddim_schedule_create(&ddim, &schedule, 500, 1, &status), &status);
    assert_int_equal(ddim.length, 500);
    assert_int_equal(ddim.tau[499], 999);
    assert_true(fabsf(ddim.a[330] - 0.02466414f) < 1e-8f); /* algorithm.md section 5.1 */
    assert_true(fabsf(ddim.a_prev[330] - 0.02522193f) < 1e-8f);
    double wanted = sqrt((1 - 0.02522193) / (1 - 0.02466414) * (1 - 0.02466414 / 0.02522193));
    assert_true(fabs(ddim.sigma[330] - wanted) < 1e-5);
    ddim_schedule_free(&ddim);
    must(ddim_schedule_create(&ddim, &schedule, 30, 0, &status), &status);
    assert_int_equal(ddim.length, 31); /* stride 33: 0, 33, ..., 990 */
    assert_int_equal(ddim.tau[30], 991);
    ddim_schedule_free(&ddim);
    schedule_free(&schedule);
}

static void expect_steps_error(const struct schedule *schedule, int steps, double eta,
                               const char *part)
{
    struct ddim_schedule ddim;
    struct status status = {0};
    ddim_schedule_create(&ddim, schedule, steps, eta, &status);
    expect_message(&status, STATUS_BAD_INPUT, part);
    assert_null(ddim.tau);
}

static void test_ddim_errors(void **state)
{
    (void)state;
    struct schedule schedule = open_schedule(NULL);
    expect_steps_error(&schedule, 0, 0, "0 DDIM steps: expected at least 1");
    expect_steps_error(&schedule, 501, 0, "the next smaller number that works is 500");
    expect_steps_error(&schedule, 1000, 0, "the next smaller number that works is 500");
    expect_steps_error(&schedule, 5000, 0, "5000 DDIM steps lead beyond the schedule");
    expect_steps_error(&schedule, 27, 0, "the next smaller number that works is 26");
    expect_steps_error(&schedule, 50, -0.5, "eta");
    expect_steps_error(&schedule, 50, (double)NAN, "eta");
    schedule_free(&schedule);
}

static void test_schedule_of_checkpoint(void **state)
{
    (void)state;
    struct edit edit;
    float *values = calloc(1000, sizeof *values);
    assert_non_null(values);
    for (int i = 0; i < 1000; i++)
        values[i] = 1 - (float)(i + 1) / 1024;
    edit_begin(&edit);
    edit_add_floats(&edit, "alphas_cumprod", values, 1000);
    edit_write(&edit, NULL);
    struct schedule schedule = open_schedule(edit.path);
    assert_memory_equal(schedule.alphas_cumprod, values, 1000 * sizeof *values);
    schedule_free(&schedule);
    values[500] = NAN;
    edit_write(&edit, NULL);
    struct model model;
    struct status status = {0};
    must(model_open(&model, NULL, gray_yaml, edit.path, false, &status), &status);
    schedule_create(&schedule, &model, &status);
    expect_message(&status, STATUS_BAD_INPUT, "alphas_cumprod[500]");
    schedule_free(&schedule);
    model_close(&model);
    edit_end(&edit);
    free(values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_misshapen),
        cmocka_unit_test(test_wrong_checkpoint),
        cmocka_unit_test(test_trailing_ones),
        cmocka_unit_test(test_extra),
        cmocka_unit_test(test_ema),
        cmocka_unit_test(test_configuration_in_metadata),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_damaged_weights),
        cmocka_unit_test(test_full_size_parameters),
        cmocka_unit_test(test_scale_factor_of_checkpoint),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_ddim_lengths),
        cmocka_unit_test(test_ddim_errors),
        cmocka_unit_test(test_schedule_of_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
