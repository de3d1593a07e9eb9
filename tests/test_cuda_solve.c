/* Whole solves of the tiny model through the CUDA backend: the real device code, graphs, loops and
 * kernels, on the emulator's fake of the CUDA run-time, beside the CPU's. 8 x 8 latents. */
#include "runtime/backend.h"
#include "runtime/device.h"
#include "solvers/resample_internal.h"
#include "tests/simt/report.h"
#include "tests/support/cli.h"
#include "tests/support/random.h"
#include "tests/support/solve.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#ifdef __x86_64__

#ifdef __SANITIZE_ADDRESS__
#define BUILD "build/asan"
#else
#define BUILD "build"
#endif

enum { SIZE = 32 };

/* The sanitizers make the emulator slow: one short solve runs there. */
#ifdef __SANITIZE_ADDRESS__
enum { WHOLE = 0, STEPS = 2, PAPER_STEPS = 2 };
#else
enum { WHOLE = 1, STEPS = 20, PAPER_STEPS = 2 };
#endif

static struct resample_settings micro_settings(enum resample_preset preset)
{
    struct resample_settings settings;
    resample_defaults(&settings, preset);
    settings.ddim_steps = preset == PRESET_OFFICIAL ? STEPS : PAPER_STEPS;
    settings.resample_every = 4;
    settings.pixel_iterations = 6;
    settings.latent_iterations = 3;
    settings.sigma = 0.01;
    settings.seed = 7;
    settings.threads = 1;
    settings.levels = 2;
    settings.latent_levels = 1;
    settings.iterations = 1;
    settings.final_iterations = 1;
    settings.kernels = kernels_cpu();
    return settings;
}

/* A measurement of a smooth picture. */
static float *take_measurement(const struct problem *problem)
{
    const int64_t *y = problem->forward_operator.measurement_shape;
    int64_t count = shape_elements(y);
    float *measurement = malloc((size_t)count * sizeof *measurement);
    assert_non_null(measurement);
    for (int64_t i = 0; i < count; i++)
        measurement[i] = (float)(0.5 * sin(0.11 * (double)i) + 0.2 * cos(0.7 * (double)i));
    return measurement;
}

static struct resample_result solve(const struct resample_settings *settings, struct status *status)
{
    struct problem problem;
    struct resample_result result = {0};
    problem_open(&problem, "tests/data/tiny", "tests/data/steps/gaussian_deblur.yaml", 1, SIZE);
    struct resample_solver *solver =
        resample_create(&problem.model, &problem.forward_operator, settings, true, status);
    assert_status_ok(status);
    float *measurement = take_measurement(&problem);
    simt_forget_calls();
    resample_run(solver, measurement, NULL, &result, status);
    free(measurement);
    resample_free(solver);
    problem_close(&problem);
    return result;
}

static struct cuda_backend open_backend(enum element_type network)
{
    struct cuda_backend backend;
    struct status status = {0};
    struct simt_options options = simt_default_options();
    simt_reset(&options);
    cuda_backend_open(&backend, network, true, &status);
    assert_status_ok(&status);
    return backend;
}

/* Where a step of AdamW changes no code, the picture and the loss stay as they are but for
 * rounding, and rounding decides which of two iterates was the best: latents then are a step apart.
 */
static void expect_close(const struct resample_result *a, const struct resample_result *b)
{
    enum { ELEMENTS = 3 * SIZE * SIZE / 16 };
    const double learning_rate = 5e-3;
    double image = relative_error(a->image, b->image, 3 * SIZE * SIZE);
    double latent = relative_error(a->latent, b->latent, ELEMENTS), farthest = 0;
    for (int i = 0; i < ELEMENTS; i++)
        farthest = fmax(farthest, fabs((double)a->latent[i] - b->latent[i]));
    print_message("relative difference of the picture %.2g, of the latent %.2g, at most %.3g\n",
                  image, latent, farthest);
    assert_int_equal(a->iterations, b->iterations);
    assert_int_equal(a->unet_evaluations, b->unet_evaluations);
    assert_true(image < 1e-3 && (latent < 1e-3 || farthest < 1.01 * learning_rate));
}

/* The host allocates nothing, and in loops copies nothing and waits for nothing. */
static void check_calls(const struct resample_result *result)
{
    const struct simt_calls *calls = simt_host_calls();
    print_message("%lld iterations in %llu graph launches; allocations %llu, copies %llu, waits "
                  "%llu; in loops %llu, %llu, %llu\n",
                  (long long)result->iterations, (unsigned long long)calls->graph_launches,
                  (unsigned long long)calls->allocations, (unsigned long long)calls->copies,
                  (unsigned long long)calls->synchronisations,
                  (unsigned long long)calls->in_loops.allocations,
                  (unsigned long long)calls->in_loops.copies,
                  (unsigned long long)calls->in_loops.synchronisations);
    assert_int_equal(calls->allocations, 0);
    assert_int_equal(calls->launches, 0);
    assert_int_equal(calls->in_loops.copies, 0);
    assert_int_equal(calls->in_loops.synchronisations, 0);
}

/* The same bytes in half the memory, with weights in the host's: none is copied inside a loop. */
static void check_memory_limit(const struct resample_settings *settings,
                               const struct resample_result *full)
{
    struct status status = {0};
    struct resample_settings limited = *settings;
    limited.memory_limit_bytes = full->memory.total_bytes / 2;
    struct resample_result result = solve(&limited, &status);
    assert_status_ok(&status);
    assert_true(result.memory.total_bytes <= limited.memory_limit_bytes);
    assert_true(result.memory.offloaded_bytes > 0 && full->memory.offloaded_bytes == 0);
    assert_memory_equal(result.image, full->image, 3 * SIZE * SIZE * sizeof *result.image);
    if (simt_host_calls()) {
        check_calls(&result);
        assert_true(simt_host_calls()->graph_copies > 0);
        assert_int_equal(simt_host_calls()->in_loops.graph_copies, 0);
    }
    resample_result_free(&result);
}

static void compare_with(struct resample_settings settings, bool under_limit)
{
    struct status status = {0};
    bool cudnn = settings.cudnn;
    settings.cudnn = false;
    struct resample_result cpu = solve(&settings, &status);
    assert_status_ok(&status);
    struct cuda_backend backend = open_backend(TYPE_F32);
    settings.kernels = &backend.kernels;
    settings.cudnn = cudnn;
    struct resample_result cuda = solve(&settings, &status);
    assert_status_ok(&status);
    assert_int_equal(simt_errors()->count, 0);
    if (simt_host_calls())
        check_calls(&cuda);
    expect_close(&cuda, &cpu);
    if (under_limit)
        check_memory_limit(&settings, &cuda);
    resample_result_free(&cpu);
    resample_result_free(&cuda);
    cuda_backend_close(&backend);
}

static void compare(enum resample_preset preset, bool under_limit)
{
    compare_with(micro_settings(preset), under_limit);
}

static void test_official(void **state)
{
    (void)state;
    compare(PRESET_OFFICIAL, false);
}

static void test_paper(void **state)
{
    (void)state;
    if (!WHOLE)
        skip();
    compare(PRESET_PAPER, true);
}

static void test_fast(void **state)
{
    (void)state;
    if (!WHOLE)
        skip();
    compare(PRESET_FAST, false);
}

/* With every convolution that cuDNN has in its hands; on a card where it is installed. */
static void test_cudnn(void **state)
{
    (void)state;
    struct resample_settings settings = micro_settings(PRESET_PAPER);
    struct cuda_backend backend = open_backend(TYPE_F32);
    if (simt_host_calls())
        setenv("RESAMPLE_CUDNN", BUILD "/tests/libcudnn.so", 1);
    backend.kernels.device->open_libraries(backend.kernels.device);
    bool found = !*backend.kernels.device->no_cudnn;
    cuda_backend_close(&backend);
    assert_true(found || !simt_host_calls());
    if (!WHOLE || !found)
        skip();
    settings.cudnn = true;
    compare_with(settings, true);
    unsetenv("RESAMPLE_CUDNN");
}

/* ---- bf16 ---- */

enum { LATENT_SIDE = 8, LATENT = 3 * LATENT_SIDE * LATENT_SIDE, PICTURE = 32 * 32 };

/* The decoder of models/ct-128 at a latent, and its two derivatives there. */
struct decoded {
    float image[PICTURE], gradient[LATENT], tangent[PICTURE];
};

static void fill(float *values, int count, uint64_t *random)
{
    for (int i = 0; i < count; i++)
        values[i] = (float)random_uniform(random);
}

/* The latent of the middle of a head. */
static void encode(struct model *model, float latent[LATENT])
{
    enum { SLICE = 128, SIDE = 32, BEGIN = 48 };
    struct status status = {0};
    struct array slice = {0};
    float picture[PICTURE];
    image_read(&slice, "examples/ct/head_43.png", 1, &status);
    assert_status_ok(&status);
    for (int i = 0; i < PICTURE; i++)
        picture[i] = slice.values[(BEGIN + i / SIDE) * SLICE + BEGIN + i % SIDE];
    array_free(&slice);
    struct program *program = program_create(kernels_cpu(), TYPE_F32, 1);
    struct tape *tape = program_tape(program, "encode");
    int image = program_state(program, "image", TYPE_F32, (const int64_t[4]){1, SIDE, SIDE, 1});
    value z = encoder_record(tape, model, tape_state(tape, image));
    int result = program_state(program, "z", TYPE_F32, tape_shape(tape, z));
    tape_assign(tape, tape_state(tape, result), z);
    program_plan(program, 0, &status);
    program_prepare(program, &status);
    assert_status_ok(&status);
    program_write(program, image, picture);
    program_run(program, tape, NULL, &status);
    program_read(program, result, latent);
    program_free(program);
}

static void decode(const struct kernels *kernels, struct model *model, const float point[LATENT],
                   struct decoded *decoded)
{
    const int64_t latent_shape[4] = {1, LATENT_SIDE, LATENT_SIDE, 3};
    struct status status = {0};
    float values[PICTURE];
    uint64_t random = 3;
    struct program *program = program_create(kernels, TYPE_F32, 1);
    struct tape *tape = program_tape(program, "decode");
    int z = program_state(program, "z", TYPE_F32, latent_shape);
    int direction = program_state(program, "direction", TYPE_F32, latent_shape);
    int gradient = program_state(program, "gradient", TYPE_F32, latent_shape);
    value latent = tape_state(tape, z), picture = decoder_record(tape, model, latent, true);
    int cotangent = program_state(program, "cotangent", TYPE_F32, tape_shape(tape, picture));
    int image = program_state(program, "image", TYPE_F32, tape_shape(tape, picture));
    int tangent = program_state(program, "tangent", TYPE_F32, tape_shape(tape, picture));
    tape_assign(tape, tape_state(tape, image), picture);
    tape_assign(tape, tape_state(tape, gradient),
                tape_vjp(tape, picture, tape_state(tape, cotangent), latent));
    tape_assign(tape, tape_state(tape, tangent),
                tape_jvp(tape, picture, latent, tape_state(tape, direction)));
    program_plan(program, 0, &status);
    program_prepare(program, &status);
    assert_status_ok(&status);
    program_write(program, z, point);
    fill(values, LATENT, &random);
    program_write(program, direction, values);
    fill(values, PICTURE, &random);
    program_write(program, cotangent, values);
    program_run(program, tape, NULL, &status);
    assert_status_ok(&status);
    program_read(program, image, decoded->image);
    program_read(program, gradient, decoded->gradient);
    program_read(program, tangent, decoded->tangent);
    program_free(program);
}

static void test_bf16(void **state)
{
    (void)state;
    static struct decoded cpu, cuda;
    struct model model;
    struct status status = {0};
    float point[LATENT];
    model_open(&model, "models/ct-128", NULL, NULL, false, &status);
    assert_status_ok(&status);
    encode(&model, point);
    decode(kernels_cpu(), &model, point, &cpu);
    struct cuda_backend backend = open_backend(TYPE_BF16);
    decode(&backend.kernels, &model, point, &cuda);
    assert_int_equal(simt_errors()->count, 0);
    double image = relative_error(cuda.image, cpu.image, PICTURE);
    double gradient = relative_error(cuda.gradient, cpu.gradient, LATENT);
    double tangent = relative_error(cuda.tangent, cpu.tangent, PICTURE);
    print_message("relative difference of the picture %.2g, of the gradient %.2g, of the tangent "
                  "%.2g\n",
                  image, gradient, tangent);
    assert_true(image < 2e-2 && gradient < 2e-2 && tangent < 2e-2);
    assert_true(image > 1e-4); /* it is bf16 */
    model_close(&model);
    cuda_backend_close(&backend);
}

/* ---- the command line ---- */

static void compare_pictures(const char *folder, const char *a, const char *b)
{
    struct array x = cli_array(folder, a), y = cli_array(folder, b);
    assert_true(array_elements(&x) == array_elements(&y));
    assert_true(relative_error(x.values, y.values, array_elements(&x)) < 1e-3);
    array_free(&x);
    array_free(&y);
}

#define MICRO                                                                                      \
    "solve --model tests/data/tiny --task_config tests/data/steps/gaussian_deblur.yaml "           \
    "--input @/truth.npy --preset paper --ddim_steps 2 --resample-every 1 --pixel-iterations 1 "   \
    "--latent-iterations 1 --seed 3 "
#define OURS MICRO "--conv ours "

static void check_settings(const char *folder, const char *name, const char *precision)
{
    cJSON *json = cli_json(folder, name);
    const cJSON *settings = cJSON_GetObjectItem(json, "settings");
    assert_string_equal(cJSON_GetObjectItem(settings, "device")->valuestring, "cuda");
    assert_string_equal(cJSON_GetObjectItem(settings, "precision")->valuestring, precision);
    cJSON_Delete(json);
}

/* The plan's bytes of a solve by LDM-VQ4 at full size. */
static double planned_bytes(const char *folder, const char *precision)
{
    cli_ok(folder,
           "memory --ldm_config models/ldm-vq4-256/ldm-vq4-256.yaml --task_config "
           "tests/data/tasks/gaussian_deblur.yaml --preset official --device cuda --json "
           "--precision %s",
           precision);
    cJSON *json = cli_json(folder, "stdout");
    double bytes = cJSON_GetObjectItem(json, "total_bytes")->valuedouble;
    cJSON_Delete(json);
    return bytes;
}

static void test_command_line(void **state)
{
    const char *folder = *state;
    if (!WHOLE || access(BUILD "/tests/resample-emulated", X_OK) != 0)
        skip(); /* or on a card */
    float *picture = cli_picture(3, SIZE, SIZE, 1);
    cli_write_array(folder, "truth.npy", picture, 1, 3, SIZE, SIZE);
    free(picture);
    cli_ok(folder, OURS "--device cpu --save_dir @/cpu");
    setenv("RESAMPLE", BUILD "/tests/resample-emulated", 1);
    cli_ok(folder, OURS "--device cuda --save_dir @/cuda");
    compare_pictures(folder, "cuda/recon.npy", "cpu/recon.npy");
    check_settings(folder, "cuda/result.json", "f32");
    cli_ok(folder, OURS "--device cuda --precision bf16 --save_dir @/bf16");
    check_settings(folder, "bf16/result.json", "bf16");

    setenv("SIMT_CARDS", "0", 1);
    cli_bad(folder, "no CUDA card", OURS "--device cuda --save_dir @/none");
    cli_ok(folder, "memory --model tests/data/tiny --device cuda --task_config "
                   "tests/data/steps/gaussian_deblur.yaml");
    assert_true(planned_bytes(folder, "bf16") < 1e9);
    assert_true(planned_bytes(folder, "f32") > 1.9e9);
    unsetenv("SIMT_CARDS");
    unsetenv("RESAMPLE");
}

/* A text of result.json's settings, to be freed. */
static char *setting_of(const char *folder, const char *name, const char *key)
{
    cJSON *json = cli_json(folder, name);
    const cJSON *item = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "settings"), key);
    char *text = cJSON_IsString(item) ? strdup(item->valuestring) : NULL;
    cJSON_Delete(json);
    return text;
}

static void expect_setting(const char *folder, const char *name, const char *key,
                           const char *expected)
{
    char *text = setting_of(folder, name, key);
    assert_true(expected ? text && strcmp(text, expected) == 0 : !text);
    free(text);
}

/* Forced, missing, not able to do a shape, and on the CPU. */
static void test_conv_cudnn(void **state)
{
    const char *folder = *state;
    int done, all;
    if (!WHOLE || access(BUILD "/tests/resample-emulated", X_OK) != 0)
        skip(); /* or on a card */
    float *picture = cli_picture(3, SIZE, SIZE, 1);
    cli_write_array(folder, "truth.npy", picture, 1, 3, SIZE, SIZE);
    free(picture);
    cli_ok(folder, OURS "--device cpu --save_dir @/cpu");
    cli_bad(folder, "no cuDNN: it needs a card",
            MICRO "--device cpu --conv cudnn --save_dir @/none");
    setenv("RESAMPLE", BUILD "/tests/resample-emulated", 1);
    cli_bad(folder, "no cuDNN: ", MICRO "--device cuda --conv cudnn --save_dir @/none");
    assert_false(cli_exists(folder, "none"));
    setenv("RESAMPLE_CUDNN", BUILD "/tests/libcudnn.so", 1);
    cli_ok(folder, MICRO "--device cuda --conv cudnn --save_dir @/cudnn");
    compare_pictures(folder, "cudnn/recon.npy", "cpu/recon.npy");
    expect_setting(folder, "cudnn/result.json", "conv", "cudnn");
    expect_setting(folder, "cudnn/result.json", "conv_libraries", "cuDNN 9.19.0");
    char *said = cli_text(folder, "stderr");
    assert_int_equal(sscanf(strstr(said, "cuDNN does"), "cuDNN does %d of %d", &done, &all), 2);
    assert_true(done > 0 && done < all);
    free(said);
    setenv("SIMT_CUDNN_CHANNELS", "1", 1); /* supports nothing */
    cli_ok(folder, MICRO "--device cuda --conv cudnn --save_dir @/refused");
    unsetenv("SIMT_CUDNN_CHANNELS");
    said = cli_text(folder, "stderr");
    assert_non_null(strstr(said, "cuDNN does 0 of "));
    free(said);
    cli_ok(folder, OURS "--device cuda --save_dir @/ours");
    expect_setting(folder, "ours/result.json", "conv_libraries", NULL);
    assert_true(cli_same_bytes(folder, "refused/recon.npy", "ours/recon.npy"));
    unsetenv("RESAMPLE_CUDNN");
    unsetenv("RESAMPLE");
}

static double number(const cJSON *json, const char *name)
{
    const cJSON *item = cJSON_GetObjectItem(json, name);
    assert_true(cJSON_IsNumber(item));
    return item->valuedouble;
}

#define PLAN                                                                                       \
    "memory --model tests/data/tiny --device cuda --task_config "                                  \
    "tests/data/steps/gaussian_deblur.yaml --preset official --size 32 "

static void test_memory_limit(void **state)
{
    const char *folder = *state;
    if (access(BUILD "/tests/resample-emulated", X_OK) != 0)
        skip(); /* on a card */
    setenv("RESAMPLE", BUILD "/tests/resample-emulated", 1);
    cli_ok(folder, PLAN "--json");
    cJSON *full = cli_json(folder, "stdout");
    double limit = number(full, "total_bytes") / 2;
    assert_true(number(full, "offloaded_bytes") == 0 && number(full, "upload_bytes") == 0);
    cli_ok(folder, PLAN "--json --memory-limit %.0f", limit);
    cJSON *half = cli_json(folder, "stdout");
    double unet = number(half, "unet_upload_bytes"), evaluations = number(half, "unet_evaluations");
    assert_true(number(half, "total_bytes") <= limit);
    assert_true(unet > 0 && unet <= number(half, "offloaded_bytes"));
    /* 500 steps, and 5 ahead of each of the 33 that resample */
    assert_true(evaluations == 500 + 5 * 33);
    assert_true(number(half, "upload_bytes") >= unet * evaluations);
    assert_true(number(half, "predicted_upload_seconds") ==
                number(half, "upload_bytes") / number(half, "assumed_upload_bytes_per_second"));
    cli_ok(folder, PLAN "--memory-limit %.0f", limit);
    char *said = cli_text(folder, "stdout");
    assert_non_null(strstr(said, "offloaded"));
    assert_non_null(strstr(said, "(665 at most)"));
    assert_non_null(strstr(said, "prediction"));
    free(said);
    cli_bad(folder, "the least that fits is", PLAN "--memory-limit 1K");
    cJSON_Delete(full);
    cJSON_Delete(half);
    unsetenv("RESAMPLE");
}

/* The library that nvcc made, on a machine without a driver. */
static void test_library(void **state)
{
    const char *folder = *state;
    if (access(BUILD "/tests/libresample-cuda.so", R_OK) != 0 ||
        access("/dev/nvidiactl", F_OK) == 0)
        skip(); /* no nvcc, or there is a card */
    setenv("RESAMPLE_CUDA_LIBRARY", BUILD "/tests/libresample-cuda.so", 1);
    float *picture = cli_picture(3, SIZE, SIZE, 1);
    cli_write_array(folder, "truth.npy", picture, 1, 3, SIZE, SIZE);
    free(picture);
    cli_bad(folder, "no CUDA card", OURS "--device cuda --save_dir @/none");
    assert_false(cli_exists(folder, "none"));
    cli_ok(folder, OURS "--device auto --save_dir @/auto");
    char *said = cli_text(folder, "stderr");
    assert_non_null(strstr(said, "using the CPU"));
    free(said);
    cli_ok(folder, "memory --model tests/data/tiny --device cuda --task_config "
                   "tests/data/steps/gaussian_deblur.yaml");
    unsetenv("RESAMPLE_CUDA_LIBRARY");
}

static void test_gpu_check_wants_a_card(void **state)
{
    char command[512];
    const char *folder = *state;
    if (access("/dev/nvidiactl", F_OK) == 0)
        skip(); /* there is one */
    snprintf(command, sizeof command, "sh tools/gpu_check.sh >%s/stdout 2>%s/stderr", folder,
             folder);
    int code = system(command);
    assert_true(WIFEXITED(code) && WEXITSTATUS(code) == 2);
    char *said = cli_text(folder, "stderr");
    assert_non_null(strstr(said, "no NVIDIA card"));
    free(said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_official),
        cmocka_unit_test(test_paper),
        cmocka_unit_test(test_fast),
        cmocka_unit_test(test_cudnn),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test_setup_teardown(test_command_line, cli_setup, cli_teardown),
        cmocka_unit_test_setup_teardown(test_conv_cudnn, cli_setup, cli_teardown),
        cmocka_unit_test_setup_teardown(test_memory_limit, cli_setup, cli_teardown),
        cmocka_unit_test_setup_teardown(test_library, cli_setup, cli_teardown),
        cmocka_unit_test_setup_teardown(test_gpu_check_wants_a_card, cli_setup, cli_teardown),
    };
    return cmocka_run_group_tests_name("cuda_solve", tests, NULL, NULL);
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
    return cmocka_run_group_tests_name("cuda_solve", tests, NULL, NULL);
}

#endif
