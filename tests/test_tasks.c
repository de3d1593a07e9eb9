/* Task files: the official ones read unchanged, and one clear line for everything that is wrong. */
#include "operators/operator.h"
#include "tests/support/mutate.h"
#include "tests/support/temporary.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct task *open_or_fail(const char *path)
{
    struct status status = {0};
    struct task *task = task_open(path, &status);
    if (!task)
        fail_msg("%s", status.message);
    return task;
}

static bool noted(const struct task *task, const char *text)
{
    for (const char *const *note = task_notes(task); *note; note++)
        if (strstr(*note, text))
            return true;
    return false;
}

static void official_files(void **state)
{
    (void)state;
    const struct {
        const char *file, *operator_name, *note;
        double sigma;
    } files[] = {
        {"gaussian_deblur", "gaussian_blur", "conditioning.params", 0.01},
        {"super_resolution_x4", "super_resolution", "operator.in_shape", 0.01},
        {"ct_25_views", "ct_radon", "conditioning.params", 0.01},
        {"inpainting_box", "inpainting", "mask_opt.image_size", 0.01},
        {"inpainting_random", "inpainting", "mask_opt.image_size", 0.01},
        {"motion_deblur", "motion_blur", "operator.kernel_size", 0},
    };
    for (int i = 0; i < 6; i++) {
        char path[128];
        snprintf(path, sizeof path, "tests/data/tasks/%s.yaml", files[i].file);
        struct task *task = open_or_fail(path);
        assert_string_equal(task_operator_kind(task)->name, files[i].operator_name);
        assert_string_equal(task_noise_name(task), "gaussian");
        assert_true(task_noise_sigma(task) == files[i].sigma);
        assert_non_null(strstr(task_data_root(task), "data/samples"));
        if (!noted(task, files[i].note))
            fail_msg("%s: no note about %s", path, files[i].note);
        struct status status = {0};
        struct operator self;
        const int64_t image[4] = {1, 256, 256, 3};
        bool random_kernel = i == 5;
        assert_int_equal(operator_create(&self, task, image, 1, &status) != STATUS_OK,
                         random_kernel);
        if (random_kernel)
            assert_non_null(strstr(status.message, "random motion kernels are not generated"));
        else
            operator_destroy(&self);
        task_free(task);
    }
}

static void nonlinear_blur_is_unknown(void **state)
{
    (void)state;
    struct status status = {0};
    assert_null(task_open("tests/data/tasks/nonlinear_deblur.yaml", &status));
    assert_int_equal(status.code, STATUS_BAD_INPUT);
    assert_non_null(strstr(status.message, "unknown operator \"nonlinear_blur\"; known: "));
    assert_non_null(strstr(status.message, "(line 11)"));
}

static void other_samplers_are_noted(void **state)
{
    (void)state;
    struct task *task = open_or_fail(
        temporary_text("conditioning: {main_sampler: dps, method: mcg}\n"
                       "measurement:\n  operator: {name: noise}\n  noise: {name: clean}\n"));
    assert_string_equal(task_operator_kind(task)->name, "denoise");
    assert_true(noted(task, "main_sampler dps") && noted(task, "method mcg"));
    assert_true(task_noise_sigma(task) == 0 && !task_data_root(task));
    task_free(task);
    task = open_or_fail(temporary_text("measurement: {operator: {name: denoise}}\n"));
    assert_true(task_noise_sigma(task) < 0);
    task_free(task);
}

/* Opening fails, or else creating on a 64x48 picture; the message says all of `parts`. */
static void check_error(const char *text, const char *const *parts)
{
    struct status status = {0};
    struct operator self;
    const int64_t image[4] = {1, 64, 48, 1};
    struct task *task = task_open(temporary_text(text), &status);
    if (task && operator_create(&self, task, image, 1, &status) == STATUS_OK) {
        operator_destroy(&self);
        fail_msg("accepted: %s", text);
    }
    task_free(task);
    assert_int_equal(status.code, STATUS_BAD_INPUT);
    for (; *parts; parts++)
        if (!strstr(status.message, *parts))
            fail_msg("\"%s\" does not say \"%s\"", status.message, *parts);
    if (strchr(status.message, '\n'))
        fail_msg("more than a line: %s", status.message);
}

#define CHECK(text, ...) check_error(text, (const char *const[]){__VA_ARGS__, NULL})
#define OPERATOR         "measurement:\n  operator:\n    "
#define INPAINTING       "measurement:\n  operator: {name: inpainting}\n  mask_opt: "

static void errors(void **state)
{
    (void)state;
    CHECK("", "resample-test");
    CHECK("5\n", "expected a task file");
    CHECK("data: {root: x}\n", "measurement", "missing");
    CHECK("measurment:\n  operator: {name: denoise}\n", "measurment (line 1)", "unknown key",
          "conditioning, data, measurement");
    CHECK("measurement: 3\n", "measurement (line 1)", "section");
    CHECK("measurement: {noise: {name: clean}}\n", "operator.name", "missing", "ct_radon");
    CHECK("measurement: {operator: blur}\n", "operator.name");
    CHECK("measurement: {operator: {name: denoise}, nois: {name: clean}}\n", "measurement.nois",
          "unknown key", "operator, mask_opt, noise");
    CHECK("data: {rot: x}\nmeasurement: {operator: {name: denoise}}\n", "data.rot (line 1)");
    CHECK("conditioning: {metod: ps}\nmeasurement: {operator: {name: denoise}}\n",
          "conditioning.metod", "method, main_sampler, params");
    CHECK(OPERATOR "name: ct_radno\n", "operator.name (line 3)", "ct_radno", "ct_radon");
    CHECK(OPERATOR "name: ct_radon\n    vews: 3\n", "operator.vews (line 4)",
          "name, views, angles, detectors, spacing, center");
    CHECK(OPERATOR "name: ct_radon\n", "operator.views", "missing", "angles");
    CHECK(OPERATOR "name: ct_radon\n    views: many\n", "operator.views", "line 4");
    CHECK(OPERATOR "name: ct_radon\n    views: 0\n", "operator.views", "line 4");
    CHECK(OPERATOR "name: ct_radon\n    views: 3\n    angles: [1, 2]\n", "operator.angles (line 5)",
          "2 angles where 3");
    CHECK(OPERATOR "name: ct_radon\n    angles: [1, x]\n", "operator.angles (line 4)",
          "item 2 is not a number");
    CHECK(OPERATOR "name: ct_radon\n    angles: [1, nan]\n", "item 2 is not a number");
    CHECK(OPERATOR "name: ct_radon\n    angles: []\n", "operator.angles", "a list of numbers");
    CHECK(OPERATOR "name: ct_radon\n    angles: nowhere.npy\n", "nowhere.npy");
    CHECK(OPERATOR "name: ct_radon\n    views: 3\n    spacing: 0\n", "operator.spacing", "line 5");
    CHECK(OPERATOR "name: ct_radon\n    views: 3\n    center: 9999\n", "no ray meets");
    CHECK(OPERATOR "name: super_resolution\n    scale_factor: 2.5\n", "operator.scale_factor",
          "line 4");
    CHECK(OPERATOR "name: gaussian_blur\n    intensity: -1\n", "operator.intensity", "line 4");
    CHECK(OPERATOR "name: motion_blur\n    kernel: nowhere.npy\n", "nowhere.npy");
    CHECK(OPERATOR "name: motion_blur\n    kernel: [1]\n", "operator.kernel", "file name");
    CHECK(OPERATOR "name: motion_blur\n    kernel: tests/data/operators/inpainting_x.npy\n",
          "operator.kernel (line 4)", "[1,3,20,24]");
    CHECK(OPERATOR "name: inpainting\n    mask: tests/data/operators/mask.npy\n",
          "operator.mask (line 4)", "[64,48]");
    CHECK(OPERATOR "name: inpainting\n", "mask_opt.mask_type", "missing", "operator.mask");
    CHECK(INPAINTING "{mask_type: stripes}\n", "mask_opt.mask_type (line 3)", "stripes",
          "random, box, extreme");
    CHECK(INPAINTING "{mask_type: random}\n", "mask_opt.mask_prob_range (line 3)", "list");
    CHECK(INPAINTING "{mask_type: random, mask_prob_range: [0.7, 1.2]}\n", "0 to 1");
    CHECK(INPAINTING "{mask_type: random, mask_prob_range: [1, 1]}\n", "keeps no pixel");
    CHECK(INPAINTING "{mask_type: box, mask_len_range: [30, 31]}\n", "30x30", "64x48");
    CHECK(INPAINTING "{mask_type: box, mask_len_range: [9]}\n", "mask_opt.mask_len_range");
    CHECK(INPAINTING "{mask_typ: box}\n", "mask_opt.mask_typ", "unknown key");
    CHECK(OPERATOR "name: denoise\n  noise: {name: gausian, sigma: 1}\n", "noise.name (line 4)",
          "gausian", "gaussian, poisson, clean");
    CHECK(OPERATOR "name: denoise\n  noise: {sigma: 1}\n", "noise.name", "missing");
    CHECK(OPERATOR "name: denoise\n  noise: {name: gaussian, sigma: -1}\n", "noise.sigma");
    CHECK(OPERATOR "name: denoise\n  noise: {name: gaussian, sigma: nan}\n", "noise.sigma");
    CHECK(OPERATOR "name: denoise\n  noise: {name: poisson, rate: 0}\n", "noise.rate");
    CHECK(OPERATOR "name: denoise\n  noise: {name: gaussian, sgma: 1}\n", "noise.sgma",
          "name, sigma, rate");
}

/* A file beside the task file is found from anywhere. */
static void files_beside_the_task(void **state)
{
    (void)state;
    char folder[] = "/tmp/resample-test-XXXXXX", path[64], pictures[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/task.yaml", folder);
    snprintf(pictures, sizeof pictures, "%s/pictures", folder);
    assert_int_equal(mkdir(pictures, 0700), 0);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("data: {root: pictures}\nmeasurement: {operator: {name: denoise}}\n", file);
    fclose(file);
    struct task *task = open_or_fail(path);
    assert_string_equal(task_data_root(task), pictures);
    task_free(task);
    unlink(path);
    rmdir(pictures);
    rmdir(folder);
}

static int read_mutation(const struct mutation *mutation, void *context)
{
    (void)context;
    struct status status = {0};
    struct operator self;
    const int64_t image[4] = {1, 48, 56, 1};
    struct task *task = task_open(mutation->path, &status);
    if (task && operator_create(&self, task, image, 1, &status) == STATUS_OK)
        operator_destroy(&self);
    task_free(task);
    bool refused = status.code == STATUS_BAD_INPUT && status.message[0];
    return status.code == STATUS_OK || refused ? 0 : 1;
}

static void mutations(void **state)
{
    (void)state;
    const char *files[] = {"ct_25_views", "super_resolution_x4", "gaussian_deblur",
                           "inpainting_random"};
    for (int i = 0; i < 4; i++) {
        char path[128];
        size_t length;
        snprintf(path, sizeof path, "tests/data/tasks/%s.yaml", files[i]);
        unsigned char *original = mutate_load(path, &length);
        assert_non_null(original);
        assert_int_equal(mutate_run(files[i], original, length, 1, 2500, read_mutation, NULL), 0);
        free(original);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(official_files),           cmocka_unit_test(nonlinear_blur_is_unknown),
        cmocka_unit_test(other_samplers_are_noted), cmocka_unit_test(errors),
        cmocka_unit_test(files_beside_the_task),    cmocka_unit_test(mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
