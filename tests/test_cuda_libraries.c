/* Convolutions by cuDNN and cuBLAS: their results beside the plain kernel's, which calls are
 * theirs, and what the tuner makes of them. In the emulator the libraries are the tests' own
 * (tests/simt/libraries), which refuse what the real ones would; on a card they are the real ones.
 */
#include "kernels/bfloat16.h"
#include "kernels/cuda/libraries.h"
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

#ifdef __SANITIZE_ADDRESS__
#define BUILD "build/asan"
#else
#define BUILD "build"
#endif
#define FAKE_CUDNN  BUILD "/tests/libcudnn.so"
#define FAKE_CUBLAS BUILD "/tests/libcublas.so"

struct shape {
    int64_t n, h, w, i, o;
    struct conv2d_attributes a;
    bool bias, residual, in_place; /* y on the residual */
};

#define WINDOW(h, w, stride) h, w, stride, (h) / 2, (w) / 2, (h) / 2, (w) / 2, 1, WEIGHT_TAPS, 0

static const struct shape shapes[] = {
    {1, 9, 7, 20, 24, {WINDOW(3, 3, 1)}, true, true, false},
    {2, 5, 6, 37, 70, {WINDOW(3, 3, 1)}, true, true, true},
    {1, 10, 9, 24, 33, {WINDOW(3, 3, 2)}, true, false, false},
    {1, 9, 5, 3, 7, {WINDOW(1, 5, 1)}, false, false, false},
    {2, 6, 7, 65, 50, {WINDOW(1, 1, 1)}, true, true, false},
    {1, 4, 4, 64, 31, {WINDOW(1, 1, 1)}, true, true, true},
    {3, 1, 1, 70, 129, {WINDOW(1, 1, 1)}, false, true, false},
    {1, 7, 3, 8, 9, {WINDOW(1, 1, 1)}, true, false, false},
    {1, 7, 6, 8, 9, {WINDOW(1, 1, 2)}, true, false, false},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* A call in one type and direction. */
struct job {
    const struct shape *shape;
    struct tensor input[4], output;
    union attributes attributes;
    struct kernel_call call;
    bool backward;
};

static void set_job(struct job *job, const struct shape *s, enum element_type type, bool backward)
{
    const struct conv2d_attributes *a = &s->a;
    struct tensor x = {NULL, type, {s->n, s->h, s->w, s->i}}, y = x, absent = {0};
    y.shape[1] =
        (s->h * a->upsample + a->pad_top + a->pad_bottom - a->kernel_height) / a->stride + 1;
    y.shape[2] =
        (s->w * a->upsample + a->pad_left + a->pad_right - a->kernel_width) / a->stride + 1;
    y.shape[3] = s->o;
    struct tensor weight = {NULL, type, {s->o, s->i, a->kernel_height, a->kernel_width}};
    struct tensor bias = {NULL, type == TYPE_BF16 ? TYPE_F32 : type, {1, 1, 1, s->o}};
    *job = (struct job){.shape = s, .backward = backward, .output = backward ? x : y};
    job->input[0] = backward ? y : x;
    job->input[1] = weight;
    job->input[2] = !backward && s->bias ? bias : absent;
    job->input[3] = !backward && s->residual ? y : absent;
    job->attributes.conv2d = *a;
    if (type == TYPE_BF16)
        job->attributes.conv2d.form = WEIGHT_TAPS_BF16;
    job->call = (struct kernel_call){
        .input = job->input, .output = &job->output, .attributes = &job->attributes, .threads = 1};
}

static void *allocate(size_t bytes)
{
    void *memory = calloc(1, bytes + 1);
    assert_non_null(memory);
    return memory;
}

/* Number i's values, the same in every type: rounded to bf16. */
static double *values_of(const struct tensor *tensor, int i)
{
    uint64_t random = 31 + (uint64_t)i;
    size_t count = (size_t)tensor_elements(tensor);
    double *values = allocate(count * sizeof *values);
    for (size_t k = 0; k < count; k++)
        values[k] = float_from_bfloat16(bfloat16_from_float((float)random_uniform(&random)));
    return values;
}

static double *expected(const struct shape *shape, bool backward)
{
    struct job job;
    set_job(&job, shape, TYPE_F64, backward);
    job.attributes.conv2d.form = WEIGHT_PLAIN;
    for (int i = 0; i < (backward ? 2 : 4); i++)
        job.input[i].data = tensor_elements(&job.input[i]) ? values_of(&job.input[i], i) : NULL;
    job.output.data = allocate((size_t)tensor_elements(&job.output) * sizeof(double));
    kernels_plain_f64()->kernel[backward ? KERNEL_conv2d_backward_data : KERNEL_conv2d].run(
        &job.call);
    for (int i = 0; i < 4; i++)
        free(job.input[i].data);
    return job.output.data;
}

/* The tensor's values in its own type, or its weight packed. */
static void *bytes_of(const struct kernels *kernels, const struct job *job, int i, size_t *bytes)
{
    const struct tensor *tensor = &job->input[i];
    size_t count = (size_t)tensor_elements(tensor);
    double *values = values_of(tensor, i);
    float *floats = allocate(count * sizeof *floats);
    void *result = floats;
    for (size_t k = 0; k < count; k++)
        floats[k] = (float)values[k];
    *bytes = count * element_bytes(tensor->type);
    if (i == 1) {
        enum weight_form form = job->attributes.conv2d.form;
        *bytes = kernels->weight_bytes(form, tensor->shape);
        result = allocate(*bytes);
        kernels->pack_weight(form, tensor->shape, floats, result, 1);
    } else if (tensor->type == TYPE_BF16) {
        result = allocate(*bytes);
        for (size_t k = 0; k < count; k++)
            ((uint16_t *)result)[k] = bfloat16_from_float(floats[k]);
    }
    if (result != floats)
        free(floats);
    free(values);
    return result;
}

static void give(const struct kernels *kernels, struct job *job, int i)
{
    size_t bytes;
    if (!tensor_elements(&job->input[i]))
        return;
    void *values = bytes_of(kernels, job, i, &bytes);
    job->input[i].data = kernels->device->allocate(kernels->device, bytes);
    kernels->device->write(kernels->device, job->input[i].data, values, bytes);
    free(values);
}

static double relative_error(const void *values, enum element_type type, const double *reference,
                             size_t count)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        double value = type == TYPE_BF16 ? float_from_bfloat16(((const uint16_t *)values)[i])
                                         : ((const float *)values)[i];
        difference += pow(value - reference[i], 2);
        norm += pow(reference[i], 2);
    }
    return sqrt(difference / norm);
}

static double error_of_way(const struct kernels *kernels, struct job *job, int way,
                           const double *reference)
{
    struct device *device = kernels->device;
    enum kernel_id id = job->backward ? KERNEL_conv2d_backward_data : KERNEL_conv2d;
    size_t count = (size_t)tensor_elements(&job->output);
    size_t bytes = count * element_bytes(job->output.type);
    bool in_place = !job->backward && job->shape->residual && job->shape->in_place;
    for (int i = 0; i < (job->backward ? 2 : 4); i++)
        give(kernels, job, i);
    job->output.data = in_place ? job->input[3].data : device->allocate(device, bytes);
    job->attributes.conv2d.way = way;
    /* the plan's alignment, and no more */
    char *workspace =
        device->allocate(device, 64 + kernels->kernel[id].workspace_bytes(&job->call));
    job->call.workspace = workspace + 64;
    job->call.stream = device->stream(device);
    kernels->kernel[id].run(&job->call);
    void *values = allocate(bytes);
    assert_true(device->read(device, values, job->output.data, bytes));
    const char *error = device->error(device);
    if (error)
        fail_msg("%s", error);
    double result = relative_error(values, job->output.type, reference, count);
    free(values);
    device->release(device, workspace);
    for (int i = 0; i < 4; i++)
        if (job->input[i].data)
            device->release(device, job->input[i].data);
    if (!in_place)
        device->release(device, job->output.data);
    return result;
}

static struct cuda_backend open_backend(enum element_type network)
{
    struct cuda_backend backend;
    struct status status = {0};
    struct simt_options options = simt_default_options();
    simt_reset(&options);
    if (cuda_backend_open(&backend, network, true, &status) != STATUS_OK)
        fail_msg("%s", status.message);
    return backend;
}

static void check_results(enum element_type type, double tolerance)
{
    struct cuda_backend backend = open_backend(type);
    struct device *device = backend.kernels.device;
    int checked[2] = {0};
    double worst[2] = {0};
    device->open_libraries(device);
    for (int s = 0; s < 2 * SHAPES; s++) {
        struct job job;
        double *reference = expected(&shapes[s / 2], s % 2);
        for (int way = WAY_CUDNN; way <= WAY_CUBLAS; way++) {
            set_job(&job, &shapes[s / 2], type, s % 2);
            if (!backend.kernels.conv2d_by_library(&job.call, s % 2, way))
                continue;
            double error = error_of_way(&backend.kernels, &job, way, reference);
            if (!(error <= tolerance))
                fail_msg("shape %d, %s, way %d: relative error %g", s / 2,
                         s % 2 ? "backward" : "forward", way, error);
            checked[way - WAY_CUDNN]++;
            worst[way - WAY_CUDNN] = fmax(worst[way - WAY_CUDNN], error);
        }
        free(reference);
    }
    print_message("%s: cuDNN %d calls, error at most %.2g; cuBLAS %d, %.2g\n", device->libraries,
                  checked[0], worst[0], checked[1], worst[1]);
    assert_int_equal(simt_errors()->count, 0);
    if (simt_host_calls()) {
        assert_int_equal(checked[0], 2 * SHAPES);
        assert_int_equal(checked[1], 2 * 4);
    }
    cuda_backend_close(&backend);
    if (!checked[0] && !checked[1])
        skip(); /* a card without the libraries */
}

static void f32_matches_the_plain_kernel(void **state)
{
    (void)state;
    check_results(TYPE_F32, 1e-5);
}

static void bf16_matches_the_plain_kernel(void **state)
{
    (void)state;
    check_results(TYPE_BF16, 1e-2);
}

/* ---- which calls are theirs ---- */

static bool offered(const struct kernels *kernels, const struct conv2d_attributes *a, int way)
{
    const struct shape shape = {1, 8, 8, 16, 16, *a, false, false, false};
    struct job job;
    int count = 0;
    for (int backward = 0; backward < 2; backward++) {
        set_job(&job, &shape, TYPE_F32, backward);
        count += kernels->conv2d_by_library(&job.call, backward, way);
    }
    assert_true(count != 1);
    return count;
}

static void other_shapes_are_ours(void **state)
{
    (void)state;
    static const struct conv2d_attributes same = {WINDOW(3, 3, 1)}, one = {WINDOW(1, 1, 1)};
    static const struct conv2d_attributes down = {3, 3, 2, 0, 0, 1, 1, 1, WEIGHT_TAPS, 0};
    static const struct conv2d_attributes up = {3, 3, 1, 1, 1, 1, 1, 2, WEIGHT_TAPS, 0};
    static const struct conv2d_attributes merged = {3, 3, 1, 1, 1, 1, 1, 2, WEIGHT_TAPS_MERGED, 0};
    static const struct conv2d_attributes high = {3, 3, 1, 1, 1, 2, 1, 1, WEIGHT_TAPS, 0};
    static const struct conv2d_attributes broad = {3, 3, 1, 1, 1, 1, 2, 1, WEIGHT_TAPS, 0};
    static const struct conv2d_attributes strided = {WINDOW(1, 1, 2)};
    if (!simt_host_calls())
        skip(); /* a card may have no libraries */
    struct cuda_backend backend = open_backend(TYPE_F32);
    const struct kernels *kernels = &backend.kernels;
    assert_false(offered(kernels, &same, WAY_CUDNN)); /* not opened */
    assert_false(offered(kernels, &one, WAY_CUBLAS));
    backend.kernels.device->open_libraries(backend.kernels.device);
    assert_true(offered(kernels, &same, WAY_CUDNN) && !offered(kernels, &same, WAY_CUBLAS));
    assert_true(offered(kernels, &one, WAY_CUDNN) && offered(kernels, &one, WAY_CUBLAS));
    assert_true(offered(kernels, &strided, WAY_CUDNN) && !offered(kernels, &strided, WAY_CUBLAS));
    assert_true(!offered(kernels, &down, WAY_CUDNN) && !offered(kernels, &down, WAY_CUBLAS));
    assert_true(!offered(kernels, &high, WAY_CUDNN) && !offered(kernels, &broad, WAY_CUDNN));
    assert_true(!offered(kernels, &up, WAY_CUDNN) && !offered(kernels, &up, WAY_CUBLAS));
    assert_false(offered(kernels, &merged, WAY_CUDNN));
    setenv("SIMT_CUDNN_CHANNELS", "16", 1); /* what was asked before is not asked again */
    assert_true(offered(kernels, &same, WAY_CUDNN));
    assert_false(offered(kernels, &(const struct conv2d_attributes){WINDOW(5, 5, 1)}, WAY_CUDNN));
    unsetenv("SIMT_CUDNN_CHANNELS");
    cuda_backend_close(&backend);
}

/* ---- the tuner ---- */

enum { SIDE = 5, CHANNELS = 40, ELEMENTS = SIDE * SIDE * CHANNELS };

static void read_weight(const struct parameter *parameter, float *values)
{
    uint64_t random = (uint64_t)parameter->shape[2];
    int64_t count =
        parameter->shape[0] * parameter->shape[1] * parameter->shape[2] * parameter->shape[3];
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)random_uniform(&random) / 8;
}

struct setting {
    struct cuda_backend backend;
    char folder[32], path[64];
    struct parameter wide, narrow; /* 3x3 and 1x1 */
    struct program *program;
    struct tape *tape;
    int slot;
};

static void open_setting(struct setting *s)
{
    *s = (struct setting){.backend = open_backend(TYPE_F32)};
    strcpy(s->folder, "/tmp/resample-libraries-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    snprintf(s->path, sizeof s->path, "%s/convolutions.txt", s->folder);
    memcpy(s->wide.shape, (int64_t[4]){CHANNELS, CHANNELS, 3, 3}, sizeof s->wide.shape);
    memcpy(s->narrow.shape, (int64_t[4]){CHANNELS, CHANNELS, 1, 1}, sizeof s->narrow.shape);
    s->wide.read = s->narrow.read = read_weight;
}

static void close_setting(struct setting *s)
{
    parameter_release(&s->wide);
    parameter_release(&s->narrow);
    cuda_backend_close(&s->backend);
    unlink(s->path);
    rmdir(s->folder);
}

/* In a loop: a 3x3, a 1x1 with a residual, an upsampled one, and the gradient through them. */
static void record(struct setting *s, const struct kernels *kernels)
{
    const int64_t shape[4] = {1, SIDE, SIDE, CHANNELS};
    const struct conv2d_attributes wide = {3, 3, 1, 1, 1, 1, 1, 1, WEIGHT_PLAIN, 0};
    const struct conv2d_attributes narrow = {1, 1, 1, 0, 0, 0, 0, 1, WEIGHT_PLAIN, 0};
    const struct conv2d_attributes up = {3, 3, 1, 1, 1, 1, 1, 2, WEIGHT_PLAIN, 0};
    s->program = program_create(kernels, TYPE_F32, 1);
    struct tape *body = program_tape(s->program, "body");
    s->tape = program_tape(s->program, "tape");
    s->slot = program_state(s->program, "x", TYPE_F32, shape);
    value x = tape_state(body, s->slot);
    value y = tape_conv2d(body, x, tape_parameter(body, &s->wide), NO_VALUE, NO_VALUE, &wide);
    y = tape_conv2d(body, y, tape_parameter(body, &s->narrow), NO_VALUE, x, &narrow);
    y = tape_conv2d(body, y, tape_parameter(body, &s->wide), NO_VALUE, NO_VALUE, &up);
    tape_assign(body, x, tape_gradient(body, tape_l2_norm(body, y), x));
    tape_while(s->tape, body, 2);
    if (tape_status(s->tape)->code != STATUS_OK)
        fail_msg("%s", tape_status(s->tape)->message);
}

static void run(struct setting *s, float values[ELEMENTS])
{
    struct status status = {0};
    uint64_t random = 9;
    for (int i = 0; i < ELEMENTS; i++)
        values[i] = (float)random_uniform(&random);
    if (program_plan(s->program, 0, &status) || program_prepare(s->program, &status))
        fail_msg("%s", status.message);
    simt_forget_calls();
    program_write(s->program, s->slot, values);
    if (program_run(s->program, s->tape, NULL, &status))
        fail_msg("%s", status.message);
    if (simt_host_calls()) {
        assert_int_equal(simt_host_calls()->allocations, 0);
        assert_int_equal(simt_host_calls()->launches, 0);
    }
    program_read(s->program, s->slot, values);
    program_free(s->program);
}

static struct tuning tune(struct setting *s, float values[ELEMENTS])
{
    struct status status = {0};
    struct tuning tuning;
    record(s, &s->backend.kernels);
    if (program_tune(s->program, s->path, &tuning, &status) != STATUS_OK)
        fail_msg("%s", status.message);
    run(s, values);
    return tuning;
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

static int lines_with(const char *path, const char *text)
{
    char line[512];
    int count = 0;
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        count += strstr(line, text) != NULL;
    fclose(file);
    return count;
}

/* By the emulator's clock a library's call takes no time but for our kernels beside it: of the six
 * convolutions only the gradient of the 1x1, which needs none, is faster so. */
static void tuner_takes_and_keeps_them(void **state)
{
    (void)state;
    static float cpu[ELEMENTS], fast[ELEMENTS], values[ELEMENTS];
    struct setting s;
    struct tuning tuning;
    if (!simt_host_calls())
        skip(); /* what is faster there is not known */
    open_setting(&s);
    record(&s, kernels_cpu());
    run(&s, cpu);
    parameter_release(&s.wide);
    parameter_release(&s.narrow);

    tuning = tune(&s, fast);
    assert_true(tuning.timed == 6 && tuning.convolutions == 6);
    assert_true(tuning.by_cudnn == 1 && tuning.by_cublas == 0);
    assert_true(distance(fast, cpu) < 1e-5);
    assert_int_equal(lines_with(s.path, "emulated card, cuDNN 9.19.0, cuBLAS 13.1.2\t"), 6);
    tuning = tune(&s, values);
    assert_true(tuning.timed == 0 && tuning.by_cudnn == 1 && tuning.by_cublas == 0);
    assert_memory_equal(values, fast, sizeof fast);

    unlink(s.path);
    setenv("SIMT_CUDNN_THREADS", "1000000000", 1);
    tuning = tune(&s, values);
    assert_true(tuning.timed == 6 && tuning.by_cudnn == 0 && tuning.by_cublas == 1);
    assert_true(distance(values, cpu) < 1e-5);

    unlink(s.path);
    setenv("SIMT_CUBLAS_THREADS", "1000000000", 1);
    tuning = tune(&s, values);
    unsetenv("SIMT_CUDNN_THREADS");
    unsetenv("SIMT_CUBLAS_THREADS");
    assert_true(tuning.timed == 6 && tuning.by_cudnn + tuning.by_cublas == 0);
    assert_true(distance(values, cpu) < 1e-5);
    close_setting(&s);
}

/* Lines made with libraries are not those of a machine without, and the other way round. */
static void libraries_that_went_are_not_missed(void **state)
{
    (void)state;
    static float with[ELEMENTS], without[ELEMENTS];
    struct setting s;
    struct tuning tuning;
    if (!simt_host_calls())
        skip();
    open_setting(&s);
    tune(&s, with);
    parameter_release(&s.wide);
    parameter_release(&s.narrow);
    cuda_backend_close(&s.backend);
    setenv("RESAMPLE_CUDNN", "/nonexistent/libcudnn.so", 1);
    unsetenv("RESAMPLE_CUBLAS");
    s.backend = open_backend(TYPE_F32);
    tuning = tune(&s, without);
    struct device *device = s.backend.kernels.device;
    assert_string_equal(device->libraries, "");
    assert_non_null(strstr(device->no_cudnn, "/nonexistent/libcudnn.so"));
    assert_true(tuning.timed > 0 && tuning.by_cudnn + tuning.by_cublas == 0);
    assert_true(distance(without, with) < 1e-5);
    tuning = tune(&s, without);
    assert_int_equal(tuning.timed, 0);

    struct status status = {0};
    record(&s, &s.backend.kernels);
    assert_int_equal(program_take_cudnn(s.program, &tuning, &status), STATUS_BAD_INPUT);
    assert_non_null(strstr(status.message, "no cuDNN: "));
    assert_non_null(strstr(status.message, "/nonexistent/libcudnn.so"));
    program_free(s.program);
    setenv("RESAMPLE_CUDNN", FAKE_CUDNN, 1);
    setenv("RESAMPLE_CUBLAS", FAKE_CUBLAS, 1);
    close_setting(&s);
}

static void cudnn_alone(void **state)
{
    (void)state;
    static float ours[ELEMENTS], values[ELEMENTS];
    struct setting s;
    struct tuning tuning;
    struct status status = {0};
    open_setting(&s);
    record(&s, &s.backend.kernels);
    run(&s, ours);
    record(&s, &s.backend.kernels);
    if (program_take_cudnn(s.program, &tuning, &status) != STATUS_OK) {
        assert_true(!simt_host_calls()); /* a card without cuDNN */
        program_free(s.program);
        close_setting(&s);
        skip();
    }
    run(&s, values);
    assert_true(tuning.by_cudnn == 4 && tuning.convolutions == 6 && tuning.by_cublas == 0);
    assert_true(distance(values, ours) < 1e-5);
    assert_true(access(s.path, F_OK) != 0);
    close_setting(&s);
}

/* A way that fails when it is tried is not taken; one that fails later is named. */
static void failures_are_told(void **state)
{
    (void)state;
    static float ours[ELEMENTS], values[ELEMENTS];
    struct setting s;
    struct tuning tuning;
    struct status status = {0};
    if (!simt_host_calls())
        skip();
    open_setting(&s);
    record(&s, &s.backend.kernels);
    run(&s, ours);
    setenv("SIMT_CUDNN_FAILS", "1", 1);
    record(&s, &s.backend.kernels);
    assert_int_equal(program_take_cudnn(s.program, &tuning, &status), STATUS_OK);
    assert_true(tuning.by_cudnn == 0 && tuning.convolutions == 6);
    run(&s, values);
    assert_memory_equal(values, ours, sizeof ours);

    unsetenv("SIMT_CUDNN_FAILS");
    record(&s, &s.backend.kernels);
    assert_int_equal(program_take_cudnn(s.program, &tuning, &status), STATUS_OK);
    assert_int_equal(program_plan(s.program, 0, &status), STATUS_OK);
    setenv("SIMT_CUDNN_FAILS", "1", 1);
    assert_int_equal(program_prepare(s.program, &status), STATUS_FAILURE);
    assert_non_null(strstr(status.message, "cuDNN: a convolution: execution failed"));
    unsetenv("SIMT_CUDNN_FAILS");
    program_free(s.program);
    close_setting(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_matches_the_plain_kernel),
        cmocka_unit_test(bf16_matches_the_plain_kernel),
        cmocka_unit_test(other_shapes_are_ours),
        cmocka_unit_test(tuner_takes_and_keeps_them),
        cmocka_unit_test(libraries_that_went_are_not_missed),
        cmocka_unit_test(cudnn_alone),
        cmocka_unit_test(failures_are_told),
    };
    if (simt_host_calls()) {
        setenv("RESAMPLE_CUDNN", FAKE_CUDNN, 1);
        setenv("RESAMPLE_CUBLAS", FAKE_CUBLAS, 1);
    }
    return cmocka_run_group_tests_name("cuda_libraries", tests, NULL, NULL);
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
    return cmocka_run_group_tests_name("cuda_libraries", tests, NULL, NULL);
}

#endif
