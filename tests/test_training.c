/* Training: its losses against PyTorch's over 200 steps (tests/reference/make_training.py), the
 * same bytes after a stop, with other threads and under a memory limit, new weights, codes that
 * start anew, what is written, and what is refused. */
#include "runtime/array.h"
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
#include <unistd.h>

#include <cmocka.h>

enum { PICTURES = 6, SIDE = 16, WIDE = 32, GOLDEN_STEPS = 200 };
#ifdef __SANITIZE_ADDRESS__
enum { FOLLOWED_STEPS = 30 }; /* the sanitizers see no more in the rest, and take minutes */
#else
enum { FOLLOWED_STEPS = GOLDEN_STEPS };
#endif

static void must(int code, const struct status *status)
{
    if (code)
        fail_msg("%s", status->message);
}

/* ---- pictures by a formula ---- */

static void draw(void *context, uint64_t seed, uint64_t index, float *picture)
{
    (void)seed;
    int i = (int)(index % PICTURES), side = *(const int *)context;
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            picture[y * side + x] =
                (float)(0.8 * sin(0.3 * (i + 1) * x + 0.2 * y) * cos(0.25 * i * y));
}

static void held_out(void *context, int index, float *picture)
{
    draw(context, 0, (uint64_t)index + 1, picture);
}

static struct picture_source source_of(const int *side)
{
    return (struct picture_source){(void *)(uintptr_t)side, PICTURES, 3, draw, held_out};
}

/* ---- a training of the small model ---- */

struct run {
    struct model model;
    struct training *training;
    int side;
};

static void settings_of(struct training_settings *settings, enum training_part part)
{
    training_defaults(settings, part);
    settings->side = SIDE;
    settings->steps = GOLDEN_STEPS;
    settings->warmup_steps = 20;
    settings->batch = part == TRAIN_AUTOENCODER ? 1 : 2;
    settings->accumulate = 2;
    settings->learning_rate = part == TRAIN_AUTOENCODER ? 1.2e-3 : 1e-3;
    settings->beta2 = 0.99;
    settings->weight_decay = 0.01;
    settings->restart_every = 0;
    settings->variants = 2;
    settings->standardize = part == TRAIN_DIFFUSION;
    settings->seed = 7;
    settings->threads = 2;
}

static void open_gray(struct model *model, bool weights)
{
    struct status status = {0};
    must(model_open(model, NULL, "tests/data/networks/gray/gray.yaml",
                    weights ? "tests/data/networks/gray/gray.safetensors" : NULL, false, &status),
         &status);
}

static void begin(struct run *run, const struct training_settings *settings)
{
    struct status status = {0};
    run->side = (int)settings->side;
    const struct picture_source source = source_of(&run->side);
    open_gray(&run->model, true);
    run->training = training_create(&run->model, settings, &source, NULL, NULL, &status);
    must(status.code, &status);
}

static void end(struct run *run)
{
    training_free(run->training);
    model_close(&run->model);
}

static struct training_report step(struct run *run)
{
    struct status status = {0};
    struct training_report report;
    must(training_step(run->training, &report, &status), &status);
    return report;
}

static void steps(struct run *run, int count)
{
    for (int i = 0; i < count; i++)
        step(run);
}

static void refuse(struct model *model, const struct training_settings *settings,
                   const char *expected)
{
    struct status status = {0};
    const int side = (int)settings->side;
    const struct picture_source source = source_of(&side);
    assert_null(training_create(model, settings, &source, NULL, NULL, &status));
    assert_int_equal(status.code, STATUS_BAD_INPUT);
    if (!strstr(status.message, expected))
        fail_msg("expected '%s' in: %s", expected, status.message);
}

/* ---- files ---- */

static const char *path_of(const char *name)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof paths[0], "%s/resample-training-%ld-%s", folder ? folder : "/tmp",
             (long)getpid(), name);
    return path;
}

static const char *write_state(const struct run *run, const char *name)
{
    struct status status = {0};
    const char *path = path_of(name);
    must(training_write_state(run->training, path, &status), &status);
    return path;
}

static void expect_same_files(const char *first, const char *second)
{
    struct status status = {0};
    size_t lengths[2];
    char *texts[2] = {file_read_text(first, 1 << 28, &lengths[0], &status),
                      file_read_text(second, 1 << 28, &lengths[1], &status)};
    must(status.code, &status);
    assert_int_equal(lengths[0], lengths[1]);
    assert_memory_equal(texts[0], texts[1], lengths[0]);
    free(texts[0]);
    free(texts[1]);
    remove(first);
    remove(second);
}

/* ---- against PyTorch ---- */

static void follow(enum training_part part, const char *golden)
{
    struct run run;
    struct training_settings settings;
    struct array losses = golden_read("tests/data/training/%s.npy", golden);
    double worst = 0;
    assert_int_equal(losses.shape[0], GOLDEN_STEPS);
    settings_of(&settings, part);
    begin(&run, &settings);
    for (int i = 0; i < FOLLOWED_STEPS; i++) {
        struct training_report report = step(&run);
        assert_int_equal(report.step, i + 1);
        double difference = fabs(report.loss / (double)losses.values[i] - 1);
        if (!(difference < 0.01))
            fail_msg("%s, step %d: loss %.6f, PyTorch's %.6f", golden, i + 1, report.loss,
                     (double)losses.values[i]);
        worst = fmax(worst, difference);
    }
    print_message("    %s: %.4f to %.4f, at most %.1e from PyTorch's\n", golden,
                  (double)losses.values[0], (double)losses.values[FOLLOWED_STEPS - 1], worst);
    end(&run);
    array_free(&losses);
}

static void losses_follow_pytorch(void **state)
{
    (void)state;
    follow(TRAIN_AUTOENCODER, "autoencoder");
    follow(TRAIN_DIFFUSION, "diffusion");
}

/* ---- the same bytes ---- */

static void resumed(const struct training_settings *settings)
{
    struct run whole, first, second;
    struct status status = {0};
    begin(&whole, settings);
    steps(&whole, 5);
    const char *expected = write_state(&whole, "whole");
    end(&whole);

    begin(&first, settings);
    steps(&first, 3);
    const char *middle = write_state(&first, "middle");
    end(&first);

    begin(&second, settings);
    must(training_read_state(second.training, middle, &status), &status);
    assert_int_equal(training_steps_done(second.training), 3);
    steps(&second, 2);
    expect_same_files(expected, write_state(&second, "resumed"));
    end(&second);
    remove(middle);
}

/* Large enough for the discriminator, which joins in the middle. */
static void adversarial_settings(struct training_settings *settings)
{
    settings_of(settings, TRAIN_AUTOENCODER);
    settings->side = WIDE;
    settings->batch = 2;
    settings->adversary = 0.8;
    settings->adversary_start = 2;
    settings->adversary_channels = 4;
}

static void a_resumed_run_has_the_same_bytes(void **state)
{
    (void)state;
    struct training_settings settings;
    settings_of(&settings, TRAIN_AUTOENCODER);
    settings.fresh = true;
    settings.restart_every = 2;
    resumed(&settings);
    settings.quantize_from = 3; /* where it stops */
    resumed(&settings);
    settings.components = 0.5;
    resumed(&settings);
    settings_of(&settings, TRAIN_DIFFUSION);
    settings.accumulate = 1;
    resumed(&settings);
    adversarial_settings(&settings);
    resumed(&settings);
}

/* Whatever the threads, with forward segments recomputed, and with evaluations in between. */
static void nothing_else_shows_in_the_bytes(void **state)
{
    (void)state;
    for (int part = 0; part < 2; part++) {
        struct run reference, other;
        struct status status = {0};
        struct training_settings settings;
        struct training_evaluation evaluation;
        struct training_sheet sheet = {0};
        struct memory_report report;
        settings_of(&settings, (enum training_part)part);
        begin(&reference, &settings);
        steps(&reference, 2);
        training_memory(reference.training, &report);
        const char *expected = write_state(&reference, "reference");
        end(&reference);

        settings.threads = 3;
        settings.memory_limit_bytes = report.total_bytes - 64;
        begin(&other, &settings);
        training_memory(other.training, &report);
        assert_true(report.total_bytes <= settings.memory_limit_bytes);
        assert_true(report.recomputed_nodes > 0);
        steps(&other, 1);
        must(training_evaluate(other.training, &evaluation, &status), &status);
        must(training_draw_sheet(other.training, &sheet, &status), &status);
        assert_int_equal(sheet.rows * sheet.columns, part == TRAIN_AUTOENCODER ? 6 : 16);
        free(sheet.pictures);
        steps(&other, 1);
        expect_same_files(expected, write_state(&other, "other"));
        end(&other);
    }
}

/* ---- new weights ---- */

static void new_networks_learn(void **state)
{
    (void)state;
    for (int part = 0; part < 2; part++) {
        struct run run;
        struct status status = {0};
        struct training_settings settings;
        struct training_evaluation before, after;
        settings_of(&settings, (enum training_part)part);
        settings.fresh = true;
        settings.learning_rate = 2e-3;
        settings.average = 0.9;
        begin(&run, &settings);
        must(training_evaluate(run.training, &before, &status), &status);
        steps(&run, 60);
        must(training_evaluate(run.training, &after, &status), &status);
        print_message("    %s: %.2f dB to %.2f dB, loss %.3f to %.3f\n",
                      part == TRAIN_AUTOENCODER ? "autoencoder" : "diffusion", before.psnr_db,
                      after.psnr_db, before.loss[2], after.loss[2]);
        if (part == TRAIN_AUTOENCODER)
            assert_true(after.psnr_db > before.psnr_db + 4);
        /* the zeroed last layer predicts no noise: its loss is the noise's variance */
        if (part == TRAIN_DIFFUSION)
            assert_true(fabs(before.loss[2] - 1) < 0.2 && after.loss[2] < 0.6 * before.loss[2]);
        end(&run);
    }
}

static void unused_codes_start_anew(void **state)
{
    (void)state;
    struct run run;
    struct training_settings settings;
    settings_of(&settings, TRAIN_AUTOENCODER);
    settings.restart_every = 3;
    begin(&run, &settings);
    struct training_report reports[6];
    for (int i = 0; i < 6; i++)
        reports[i] = step(&run);
    assert_true(reports[0].codes_used > 0 && reports[0].codes_used < 40);
    assert_int_equal(reports[1].codes_restarted, 0);
    assert_true(reports[1].codes_used >= reports[0].codes_used);
    assert_int_equal(reports[2].codes_restarted, 40 - reports[2].codes_used);
    assert_true(reports[5].codes_used > reports[2].codes_used);
    end(&run);
}

/* Before that the decoder sees the latents themselves. */
static void the_codes_join(void **state)
{
    (void)state;
    struct run run;
    struct status status = {0};
    struct training_settings settings;
    struct training_evaluation continuous, quantized;
    struct training_report reports[4];
    settings_of(&settings, TRAIN_AUTOENCODER);
    settings.average = 0;
    settings.quantize_from = 3;
    begin(&run, &settings);
    steps(&run, 2);
    must(training_evaluate(run.training, &continuous, &status), &status);
    end(&run);
    settings.quantize_from = 2;
    begin(&run, &settings);
    for (int i = 0; i < 4; i++) {
        reports[i] = step(&run);
        if (i == 1)
            must(training_evaluate(run.training, &quantized, &status), &status);
    }
    end(&run);
    assert_true(reports[0].codebook == 0 && reports[0].codes_used == 0);
    assert_true(reports[1].codebook == 0 && reports[1].codes_used == 0);
    assert_int_equal(reports[0].codes_restarted, 0);
    assert_int_equal(reports[1].codes_restarted, 40);
    assert_true(fabs(reports[1].loss - reports[1].l1 - reports[1].mse) < 1e-6);
    for (int i = 2; i < 4; i++) {
        const struct training_report *r = &reports[i];
        assert_true(r->codebook > 0 && r->codes_used > 0 && r->codes_restarted == 0);
        assert_true(fabs(r->loss - r->l1 - r->mse - r->codebook) < 1e-6);
    }
    /* the same weights; forty codes are coarse */
    assert_true(continuous.psnr_db > quantized.psnr_db);
    settings.adversary = 1;
    settings.adversary_start = 1;
    struct model model;
    open_gray(&model, true);
    refuse(&model, &settings, "before the codes do at 2");
    model_close(&model);
}

/* Covariance of the blocks of 2x2 pixels of the pictures by the formula: each of them as often. */
static void covariance_of_blocks(double covariance[4][4])
{
    enum { DRAWN = 256, BLOCKS = DRAWN * SIDE * SIDE / 4 };
    float picture[SIDE * SIDE];
    double mean[4] = {0};
    const int side = SIDE;
    for (int index = 0; index < DRAWN; index++) {
        draw((void *)(uintptr_t)&side, 0, (uint64_t)index, picture);
        for (int at = 0; at < SIDE * SIDE / 4; at++) {
            const float *corner = picture + at / (SIDE / 2) * 2 * SIDE + at % (SIDE / 2) * 2;
            const double block[4] = {corner[0], corner[1], corner[SIDE], corner[SIDE + 1]};
            for (int i = 0; i < 4; i++) {
                mean[i] += block[i] / BLOCKS;
                for (int j = 0; j < 4; j++)
                    covariance[i][j] += block[i] * block[j] / BLOCKS;
            }
        }
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            covariance[i][j] -= mean[i] * mean[j];
}

/* C r, and r.Cr/r.r of it: r's eigenvalue if it is an eigenvector. */
static double apply(double covariance[4][4], const double *row, double product[4])
{
    double numerator = 0, squares = 0;
    for (int i = 0; i < 4; i++) {
        product[i] = 0;
        for (int j = 0; j < 4; j++)
            product[i] += covariance[i][j] * row[j];
        numerator += row[i] * product[i];
        squares += row[i] * row[i];
    }
    return numerator / squares;
}

/* The two strongest eigenvectors, with deviations that are the square roots of theirs. */
static void components_are_principal(void **state)
{
    (void)state;
    struct run run;
    struct training_settings settings;
    double covariance[4][4] = {0}, product[4], eigenvalue[2], variance[2] = {0}, trace = 0;
    settings_of(&settings, TRAIN_AUTOENCODER);
    settings.quantize_from = 9;
    settings.components = 1;
    begin(&run, &settings);
    covariance_of_blocks(covariance);
    for (int k = 0; k < 2; k++) {
        const double *row = run.training->components.projection + 4 * k;
        eigenvalue[k] = apply(covariance, row, product);
        for (int i = 0; i < 4; i++) {
            assert_true(fabs(product[i] - eigenvalue[k] * row[i]) < 1e-9);
            variance[k] += row[i] * product[i];
        }
    }
    for (int i = 0; i < 4; i++)
        trace += covariance[i][i];
    double rest = trace - eigenvalue[0] - eigenvalue[1];
    assert_true(eigenvalue[0] > eigenvalue[1] && eigenvalue[1] > rest);
    assert_true(fabs(variance[0] + variance[1] - 2) < 1e-9);
    assert_true(fabs(variance[0] / variance[1] - sqrt(eigenvalue[0] / eigenvalue[1])) < 1e-9);
    end(&run);
}

/* The encoder learns them while it does not quantise, and is free afterwards. */
static void latents_are_drawn_to_components(void **state)
{
    (void)state;
    struct run run;
    struct training_settings settings;
    settings_of(&settings, TRAIN_AUTOENCODER);
    settings.fresh = true;
    settings.quantize_from = 81;
    settings.components = 2;
    settings.learning_rate = 2e-3;
    begin(&run, &settings);
    struct training_report first = step(&run);
    steps(&run, 79);
    struct training_report last = step(&run), after = step(&run);
    end(&run);
    print_message("    components: %.3f to %.3f\n", first.components, last.components);
    assert_true(fabs(last.loss - last.l1 - last.mse - last.components) < 1e-6);
    assert_true(first.components > 1 && last.components < 0.2 * first.components);
    assert_true(after.components == 0 && after.codebook > 0);
}

/* The discriminator's two losses appear with it; without its weight it changes nothing. */
static void the_discriminator_joins(void **state)
{
    (void)state;
    struct run run, alone;
    struct training_settings settings;
    adversarial_settings(&settings);
    begin(&run, &settings);
    settings.adversary = 0;
    begin(&alone, &settings);
    double first = 0, last = 0;
    for (int i = 0; i < 60; i++) {
        struct training_report report = step(&run);
        struct training_report other = i < 5 ? step(&alone) : report;
        assert_true((report.discriminator > 0) == (i >= 2));
        if (i < 2)
            assert_true(report.loss == other.loss);
        else if (i < 5)
            assert_true(report.loss != other.loss);
        first = i == 2 ? report.discriminator : first;
        last = report.discriminator;
    }
    print_message("    the discriminator's loss falls from %.3f to %.3f\n", first, last);
    assert_true(fabs(first - 1) < 0.2 && last < 0.9 * first);
    end(&run);
    end(&alone);
}

/* ---- what is written ---- */

static float read_one(const struct checkpoint *checkpoint, const char *name)
{
    float values[4096];
    const struct checkpoint_tensor *tensor = checkpoint_find(checkpoint, name);
    assert_non_null(tensor);
    checkpoint_read(tensor, values);
    return values[0];
}

/* The model opens again, with the averages, the untrained part as it was, and the scale. */
static void the_model_opens_again(void **state)
{
    (void)state;
    static const char bias[] = "model.diffusion_model.out.2.bias";
    static const char other[] = "first_stage_model.quant_conv.bias";
    struct run run;
    struct model written;
    struct status status = {0};
    struct training_settings settings;
    settings_of(&settings, TRAIN_DIFFUSION);
    begin(&run, &settings);
    steps(&run, 2);
    char path[512], states[512];
    snprintf(path, sizeof path, "%s", path_of("model.safetensors"));
    snprintf(states, sizeof states, "%s", write_state(&run, "state"));
    must(training_write_model(run.training, path, CHECKPOINT_F32, &status), &status);
    must(model_open(&written, NULL, "tests/data/networks/gray/gray.yaml", path, false, &status),
         &status);
    struct checkpoint *kept = checkpoint_open(states, &status);
    must(status.code, &status);
    assert_true(written.config.scale_factor == run.model.config.scale_factor);
    assert_true(written.config.scale_factor != 1);
    assert_true(read_one(written.checkpoint, other) == read_one(run.model.checkpoint, other));
    assert_true(read_one(written.checkpoint, bias) ==
                read_one(kept, "average/model.diffusion_model.out.2.bias"));
    assert_true(read_one(written.checkpoint, bias) !=
                read_one(kept, "weight/model.diffusion_model.out.2.bias"));
    assert_int_equal(checkpoint_count(written.checkpoint),
                     checkpoint_count(run.model.checkpoint) + 1);
    checkpoint_close(kept);
    model_close(&written);
    must(training_write_model(run.training, path, CHECKPOINT_F16, &status), &status);
    must(model_open(&written, NULL, "tests/data/networks/gray/gray.yaml", path, false, &status),
         &status);
    assert_true(written.config.scale_factor == run.model.config.scale_factor);
    model_close(&written);
    end(&run);
    remove(path);
    remove(states);
}

/* ---- what is refused ---- */

static void what_cannot_be_trained_is_refused(void **state)
{
    (void)state;
    struct model model;
    struct status status = {0};
    struct training_settings settings;
    settings_of(&settings, TRAIN_DIFFUSION);
    settings.side = 17;
    open_gray(&model, true);
    refuse(&model, &settings, "pictures of 17 pixels");
    model_close(&model);
    settings.side = SIDE;
    settings.part = TRAIN_AUTOENCODER;
    settings.adversary = 1;
    open_gray(&model, true);
    refuse(&model, &settings, "the discriminator needs 24");
    model_close(&model);
    settings.adversary = 0;
    settings.components = 1;
    open_gray(&model, true);
    refuse(&model, &settings, "only before the codes join");
    model_close(&model);
    settings.part = TRAIN_DIFFUSION;
    settings.components = 0;
    open_gray(&model, false);
    refuse(&model, &settings, "no weights");
    settings.fresh = true;
    refuse(&model, &settings, "needs the checkpoint of an autoencoder");
    model_close(&model);
    must(model_open(&model, NULL, "tests/data/networks/kl/kl.yaml",
                    "tests/data/networks/kl/kl.safetensors", false, &status),
         &status);
    refuse(&model, &settings, "no UNet");
    settings.part = TRAIN_AUTOENCODER;
    settings.side = 32;
    refuse(&model, &settings, "KL");
    model_close(&model);
}

static void another_run_s_state_is_refused(void **state)
{
    (void)state;
    struct run run;
    struct status status = {0};
    struct training_settings settings;
    settings_of(&settings, TRAIN_AUTOENCODER);
    begin(&run, &settings);
    char path[512];
    snprintf(path, sizeof path, "%s", write_state(&run, "state"));
    end(&run);
    settings.clip = 2;
    begin(&run, &settings);
    assert_int_equal(training_read_state(run.training, path, &status), STATUS_BAD_INPUT);
    assert_non_null(strstr(status.message, "was trained with clip 1, this run says clip 2"));
    memset(&status, 0, sizeof status);
    assert_int_equal(
        training_read_state(run.training, "tests/data/networks/gray/gray.safetensors", &status),
        STATUS_BAD_INPUT);
    assert_non_null(strstr(status.message, "not a state of this training"));
    end(&run);
    remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_follow_pytorch),
        cmocka_unit_test(a_resumed_run_has_the_same_bytes),
        cmocka_unit_test(nothing_else_shows_in_the_bytes),
        cmocka_unit_test(new_networks_learn),
        cmocka_unit_test(unused_codes_start_anew),
        cmocka_unit_test(the_codes_join),
        cmocka_unit_test(components_are_principal),
        cmocka_unit_test(latents_are_drawn_to_components),
        cmocka_unit_test(the_discriminator_joins),
        cmocka_unit_test(the_model_opens_again),
        cmocka_unit_test(what_cannot_be_trained_is_refused),
        cmocka_unit_test(another_run_s_state_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
