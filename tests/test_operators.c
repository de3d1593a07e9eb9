/* Operators: the reference's values, A against its transpose, what a mask hides, noise, and a
 * scanner of the user's own. */
#include "operators/operator.h"
#include "runtime/array.h"
#include "tests/support/random.h"
#include "tests/support/temporary.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

const struct kernels *kernels_table_wide(void);

#define DATA           "tests/data/operators/"
#define TASK(operator) "measurement:\n  operator: {" operator"}\n"

static int64_t elements(const int64_t s[4])
{
    return s[0] * s[1] * s[2] * s[3];
}

static double *numbers(int64_t count)
{
    double *values = calloc((size_t)count, sizeof *values);
    assert_non_null(values);
    return values;
}

static void make(struct operator* self, struct task **task, const char *text,
                 const int64_t image[4], uint64_t seed)
{
    struct status status = {0};
    *task = task_open(temporary_text(text), &status);
    if (!*task || operator_create(self, *task, image, seed, &status))
        fail_msg("%s", status.message);
}

/* One program that holds A(x), its VJP for the cotangent u, its JVP for the tangent x, and the
 * recorded adjoint of u. NHWC. */
struct applied {
    double *y, *vjp, *jvp, *adjoint;
};

static struct applied apply(const struct operator* self, const struct kernels *kernels,
                            enum element_type real, const double *x, const double *u)
{
    struct status status = {0};
    struct program *program = program_create(kernels, real, 2);
    assert_non_null(program);
    int x_slot = program_state(program, "x", real, self->image_shape);
    int u_slot = program_state(program, "u", real, self->measurement_shape);
    int y_slot = program_state(program, "y", real, self->measurement_shape);
    int vjp_slot = program_state(program, "vjp", real, self->image_shape);
    int jvp_slot = program_state(program, "jvp", real, self->measurement_shape);
    int adjoint_slot = program_state(program, "adjoint", real, self->image_shape);
    void *bound = self->kind->bind(self, program, &status);
    struct tape *tape = program_tape(program, self->name);
    value input = tape_state(tape, x_slot), cotangent = tape_state(tape, u_slot);
    value y = self->kind->record(self, bound, tape, input);
    tape_assign(tape, tape_state(tape, vjp_slot), tape_vjp(tape, y, cotangent, input));
    tape_assign(tape, tape_state(tape, jvp_slot), tape_jvp(tape, y, input, input));
    tape_assign(tape, tape_state(tape, adjoint_slot),
                self->kind->record_adjoint(self, bound, tape, cotangent));
    tape_assign(tape, tape_state(tape, y_slot), y);
    if (!status_ok(tape_status(tape)))
        fail_msg("%s", tape_status(tape)->message);
    if (program_plan(program, 0, &status) || program_prepare(program, &status))
        fail_msg("%s", status.message);
    program_write_f64(program, x_slot, x);
    program_write_f64(program, u_slot, u);
    if (program_run(program, tape, NULL, &status))
        fail_msg("%s", status.message);
    struct applied result = {
        numbers(elements(self->measurement_shape)), numbers(elements(self->image_shape)),
        numbers(elements(self->measurement_shape)), numbers(elements(self->image_shape))};
    program_read_f64(program, y_slot, result.y);
    program_read_f64(program, vjp_slot, result.vjp);
    program_read_f64(program, jvp_slot, result.jvp);
    program_read_f64(program, adjoint_slot, result.adjoint);
    self->kind->unbind(bound);
    program_free(program);
    return result;
}

static void applied_free(struct applied *applied)
{
    free(applied->y);
    free(applied->vjp);
    free(applied->jvp);
    free(applied->adjoint);
}

static double relative(const double *is, const double *truth, int64_t count)
{
    double error = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        error += (is[i] - truth[i]) * (is[i] - truth[i]);
        norm += truth[i] * truth[i];
    }
    return sqrt(error / norm);
}

/* A golden array, NCHW in the file, as NHWC doubles; shape: NHWC. */
static double *golden(const char *name, const char *part, int64_t shape[4])
{
    char path[128];
    struct status status = {0};
    struct array array = {0};
    snprintf(path, sizeof path, DATA "%s_%s.npy", name, part);
    if (npy_read(&array, path, &status))
        fail_msg("%s", status.message);
    assert_int_equal(array.rank, 4);
    int64_t n = array.shape[0], c = array.shape[1], h = array.shape[2], w = array.shape[3];
    const int64_t nhwc[4] = {n, h, w, c};
    memcpy(shape, nhwc, sizeof nhwc);
    double *values = numbers(elements(nhwc));
    for (int64_t i = 0; i < elements(nhwc); i++) {
        int64_t pixel = i / c % (h * w), picture = i / c / (h * w);
        values[i] = (double)array.values[(picture * c + i % c) * h * w + pixel];
    }
    array_free(&array);
    return values;
}

static void check_golden(const char *name, const char *text)
{
    int64_t image[4], measurement[4];
    double *x = golden(name, "x", image), *vjp = golden(name, "vjp", image);
    double *u = golden(name, "u", measurement), *y = golden(name, "y", measurement);
    struct operator self;
    struct task *task;
    make(&self, &task, text, image, 1);
    assert_memory_equal(self.measurement_shape, measurement, sizeof measurement);
    const struct kernels *tables[] = {kernels_plain_f64(), kernels_plain_f32(), kernels_cpu()};
    for (int i = 0; i < 3; i++) {
        struct applied is = apply(&self, tables[i], i ? TYPE_F32 : TYPE_F64, x, u);
        double forward = relative(is.y, y, elements(measurement));
        double backward = relative(is.vjp, vjp, elements(image));
        double adjoint = relative(is.adjoint, vjp, elements(image));
        if (!(forward <= 1e-5 && backward <= 1e-5 && adjoint <= 1e-5))
            fail_msg("%s, %s kernels: relative errors %.3g, vjp %.3g, adjoint %.3g", name,
                     tables[i]->name, forward, backward, adjoint);
        applied_free(&is);
    }
    operator_destroy(&self);
    task_free(task);
    free(x), free(vjp), free(u), free(y);
}

static void goldens(void **state)
{
    (void)state;
    check_golden("super_resolution_x4", TASK("name: super_resolution, scale_factor: 4"));
    check_golden("super_resolution_x2", TASK("name: super_resolution, scale_factor: 2"));
    check_golden("gaussian_blur", TASK("name: gaussian_blur, kernel_size: 61, intensity: 3.0"));
    check_golden("motion_blur", TASK("name: motion_blur, kernel: " DATA "motion_kernel.npy"));
    check_golden("inpainting", TASK("name: inpainting, mask: " DATA "mask.npy"));
    check_golden("ct_32_25", TASK("name: ct_radon, views: 25"));
    check_golden("ct_64_7", TASK("name: ct_radon, views: 7"));
}

static void check_fbp(const char *name, const char *text)
{
    int64_t image[4], measurement[4];
    double *fbp = golden(name, "fbp", image), *y = golden(name, "y", measurement);
    int64_t pixels = elements(image), rays = elements(measurement);
    float *sinogram = calloc((size_t)rays, sizeof(float));
    float *picture = calloc((size_t)pixels, sizeof(float));
    struct status status = {0};
    struct operator self;
    struct task *task;
    make(&self, &task, text, image, 1);
    for (int64_t i = 0; i < rays; i++)
        sinogram[i] = (float)y[i];
    assert_int_equal(self.kind->baseline(&self, sinogram, picture, &status), STATUS_OK);
    for (int64_t i = 0; i < pixels; i++)
        y[0] = fbp[i], fbp[i] = (double)picture[i] - y[0], picture[i] = (float)y[0];
    double error = 0, norm = 0;
    for (int64_t i = 0; i < pixels; i++) {
        error += fbp[i] * fbp[i];
        norm += (double)picture[i] * (double)picture[i];
    }
    assert_true(sqrt(error) <= 1e-5 * sqrt(norm));
    operator_destroy(&self);
    task_free(task);
    free(sinogram), free(picture), free(fbp), free(y);
}

static void filtered_back_projection(void **state)
{
    (void)state;
    check_fbp("ct_32_25", TASK("name: ct_radon, views: 25"));
    check_fbp("ct_64_7", TASK("name: ct_radon, views: 7"));
}

/* Every kind of operator has a line here at least. */
static const struct {
    const char *name, *text;
} linear_cases[] = {
    {"super_resolution", TASK("name: super_resolution, scale_factor: 4")},
    {"super_resolution", TASK("name: super_resolution, scale_factor: 3")},
    {"super_resolution", TASK("name: super_resolution, scale_factor: 1")},
    {"gaussian_blur", TASK("name: gaussian_blur, kernel_size: 61, intensity: 3.0")},
    {"gaussian_blur", TASK("name: gaussian_blur, kernel_size: 9, intensity: 5")},
    {"gaussian_blur", TASK("name: gaussian_blur, kernel_size: 6, intensity: 1")},
    {"gaussian_blur", TASK("name: gaussian_blur, intensity: 0")},
    {"motion_blur", TASK("name: motion_blur, kernel: " DATA "motion_kernel.npy")},
    {"motion_blur", TASK("name: motion_blur, kernel: " DATA "mask.npy")},
    {"inpainting", "measurement:\n  operator: {name: inpainting}\n"
                   "  mask_opt: {mask_type: random, mask_prob_range: [0.3, 0.7]}\n"},
    {"denoise", TASK("name: denoise")},
    {"ct_radon", TASK("name: ct_radon, views: 5")},
    {"ct_radon", TASK("name: ct_radon, angles: [0, 45, 90, 133.7, 271], detectors: 29, "
                      "spacing: 1.3, center: 11.25")},
};

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

static void check_dot(const char *text, const int64_t image[4], const struct kernels *kernels,
                      enum element_type real, double tolerance)
{
    struct operator self;
    struct task *task;
    make(&self, &task, text, image, 3);
    assert_true(self.linear);
    int64_t pixels = elements(image), entries = elements(self.measurement_shape);
    double *x = numbers(pixels), *zero = numbers(pixels), *u = numbers(entries);
    uint64_t random = 7;
    for (int64_t i = 0; i < pixels; i++)
        x[i] = random_uniform(&random);
    for (int64_t i = 0; i < entries; i++)
        u[i] = random_uniform(&random);
    struct applied is = apply(&self, kernels, real, x, u);
    struct applied at_zero = apply(&self, kernels, real, zero, u);
    for (int64_t i = 0; i < entries; i++)
        is.y[i] -= at_zero.y[i];
    /* relative to the sizes that enter, not to a sum in which they may cancel */
    double left = dot(is.y, u, entries);
    double size = sqrt(dot(is.y, is.y, entries) * dot(u, u, entries));
    double vjp = fabs(left - dot(x, is.vjp, pixels)) / size;
    double adjoint = fabs(left - dot(x, is.adjoint, pixels)) / size;
    double jvp = fabs(dot(is.jvp, u, entries) - dot(x, is.vjp, pixels)) / size;
    if (!(vjp <= tolerance && adjoint <= tolerance && jvp <= tolerance))
        fail_msg("%s on %s: <Ax,u> and <x,A'u> differ by %.3g, %.3g, tangent %.3g", text,
                 kernels->name, vjp, adjoint, jvp);
    applied_free(&is);
    applied_free(&at_zero);
    free(x), free(zero), free(u);
    operator_destroy(&self);
    task_free(task);
}

static void transposes(void **state)
{
    (void)state;
    const int64_t images[][4] = {{1, 33, 27, 3}, {2, 20, 31, 1}, {1, 13, 13, 2}};
    const int cases = sizeof linear_cases / sizeof *linear_cases;
    const struct kernels *tables[] = {kernels_plain_f32(), kernels_cpu_isa("scalar"),
                                      kernels_cpu_isa("avx2"), kernels_cpu_isa("avx512"),
                                      kernels_cpu_isa("avx2") ? kernels_table_wide() : NULL};
    for (int k = 0; operator_kinds()[k]; k++) {
        int found = 0;
        for (int i = 0; i < cases; i++) {
            if (strcmp(linear_cases[i].name, operator_kinds()[k]->name) != 0)
                continue;
            found++;
            for (int s = 0; s < 3; s++) {
                check_dot(linear_cases[i].text, images[s], kernels_plain_f64(), TYPE_F64, 1e-10);
                for (int t = 0; t < 5; t++)
                    if (tables[t])
                        check_dot(linear_cases[i].text, images[s], tables[t], TYPE_F32, 1e-5);
            }
        }
        if (!found)
            fail_msg("%s has no case", operator_kinds()[k]->name);
    }
}

static void measure(const char *text, const int64_t image[4], const float *x, uint64_t seed,
                    int threads, float *y)
{
    struct status status = {0};
    struct operator self;
    struct task *task;
    make(&self, &task, text, image, seed);
    if (operator_measure(&self, task, x, false, -1, seed, threads, y, &status))
        fail_msg("%s", status.message);
    operator_destroy(&self);
    task_free(task);
}

static void masks(void **state)
{
    (void)state;
    enum { SIDE = 64, PIXELS = SIDE * SIDE };
    const int64_t image[4] = {1, SIDE, SIDE, 1};
    const char *random =
        "measurement:\n  operator: {name: inpainting}\n"
        "  mask_opt: {mask_type: random, mask_prob_range: !!python/tuple [0.7, 0.7]}\n"
        "  noise: {name: clean}\n";
    const char *box = "measurement:\n  operator: {name: inpainting}\n"
                      "  mask_opt: {mask_type: box, mask_len_range: !!python/tuple [20, 21]}\n"
                      "  noise: {name: clean}\n";
    const char *extreme = "measurement:\n  operator: {name: inpainting}\n"
                          "  mask_opt: {mask_type: extreme, mask_len_range: [20, 21]}\n"
                          "  noise: {name: clean}\n";
    float x[PIXELS], y[PIXELS], again[PIXELS], other[PIXELS], outside[PIXELS];
    for (int i = 0; i < PIXELS; i++)
        x[i] = 0.5f;
    measure(random, image, x, 11, 1, y);
    measure(random, image, x, 11, 2, again);
    measure(random, image, x, 12, 1, other);
    assert_memory_equal(y, again, sizeof y);
    assert_memory_not_equal(y, other, sizeof y);
    int missing = 0;
    for (int i = 0; i < PIXELS; i++) {
        assert_true(y[i] == 0 || y[i] == 0.5f);
        missing += y[i] == 0;
    }
    assert_int_equal(missing, (int)(PIXELS * 0.7));

    /* what a mask hides does not show */
    for (int i = 0; i < PIXELS; i++)
        x[i] = y[i] == 0 ? -0.9f : 0.5f;
    measure(random, image, x, 11, 1, again);
    for (int i = 0; i < PIXELS; i++)
        assert_true(y[i] == again[i]);

    for (int i = 0; i < PIXELS; i++)
        x[i] = 1;
    measure(box, image, x, 5, 1, y);
    measure(extreme, image, x, 5, 1, outside);
    int top = SIDE, left = SIDE, bottom = 0, right = 0;
    missing = 0;
    for (int i = 0; i < PIXELS; i++) {
        assert_true(y[i] + outside[i] == 1);
        if (y[i] != 0)
            continue;
        missing++;
        top = i / SIDE < top ? i / SIDE : top;
        bottom = i / SIDE > bottom ? i / SIDE : bottom;
        left = i % SIDE < left ? i % SIDE : left;
        right = i % SIDE > right ? i % SIDE : right;
    }
    assert_int_equal(missing, 400);
    assert_int_equal(bottom - top, 19);
    assert_int_equal(right - left, 19);
    assert_true(top >= 16 && left >= 16 && bottom < SIDE - 16 && right < SIDE - 16);

    struct operator self;
    struct task *task;
    make(&self, &task, box, image, 5);
    assert_true(self.reachable_fraction == 1 - 400.0 / PIXELS);
    operator_destroy(&self);
    task_free(task);
}

/* A white pixel of a mask picture is kept; a kernel picture sums to one. */
static void pictures_as_tables(void **state)
{
    (void)state;
    enum { HEIGHT = 4, WIDTH = 6, PIXELS = HEIGHT * WIDTH };
    const int64_t image[4] = {1, HEIGHT, WIDTH, 1};
    char folder[] = "/tmp/resample-test-XXXXXX", path[64], text[256];
    float table[PIXELS], x[PIXELS], y[PIXELS];
    struct status status = {0};
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/table.png", folder);
    for (int i = 0; i < PIXELS; i++) {
        table[i] = i % 3 ? 1 : -1;
        x[i] = 0.25f;
    }
    if (png_write(path, table, 1, HEIGHT, WIDTH, NULL, &status))
        fail_msg("%s", status.message);
    snprintf(text, sizeof text, TASK("name: inpainting, mask: %s") "  noise: {name: clean}\n",
             path);
    measure(text, image, x, 1, 1, y);
    for (int i = 0; i < PIXELS; i++)
        assert_true(y[i] == (i % 3 ? 0.25f : 0));
    snprintf(text, sizeof text, TASK("name: motion_blur, kernel: %s") "  noise: {name: clean}\n",
             path);
    measure(text, image, x, 1, 1, y);
    for (int i = 0; i < PIXELS; i++)
        assert_true(fabsf(y[i] - 0.25f) < 1e-6f);
    unlink(path);
    rmdir(folder);
}

static void moments(const float *values, int64_t count, double *mean, double *variance)
{
    *mean = *variance = 0;
    for (int64_t i = 0; i < count; i++)
        *mean += (double)values[i] / (double)count;
    for (int64_t i = 0; i < count; i++)
        *variance += ((double)values[i] - *mean) * ((double)values[i] - *mean) / (double)count;
}

static void gaussian_noise(void **state)
{
    (void)state;
    enum { COUNT = 3 * 80 * 80 };
    const int64_t image[4] = {1, 80, 80, 3};
    const char *text = TASK("name: denoise") "  noise: {name: gaussian, sigma: 0.1}\n";
    static float x[COUNT], y[COUNT], again[COUNT];
    double mean, variance;
    measure(text, image, x, 1, 1, y);
    moments(y, COUNT, &mean, &variance);
    /* five standard errors */
    assert_true(fabs(mean) < 5 * 0.1 / sqrt(COUNT));
    assert_true(fabs(variance - 0.01) < 5 * 0.01 * sqrt(2.0 / COUNT));
    measure(text, image, x, 1, 2, again);
    assert_memory_equal(y, again, sizeof y);
    measure(text, image, x, 2, 1, again);
    assert_memory_not_equal(y, again, sizeof y);
    /* noise is counted in NCHW order: a picture of one channel starts with the same numbers */
    measure(text, (const int64_t[]){1, 80, 80, 1}, x, 1, 1, again);
    assert_memory_equal(y, again, 80 * 80 * sizeof(float));
}

static void poisson_noise(void **state)
{
    (void)state;
    enum { COUNT = 100 * 100 };
    const int64_t image[4] = {1, 100, 100, 1};
    const char *text = TASK("name: denoise") "  noise: {name: poisson, rate: 2}\n";
    static float x[COUNT], y[COUNT], again[COUNT];
    /* means of 0.51, 25.5 (products of uniforms), 255 (rejection) */
    const double levels[] = {-0.998, -0.9, 0};
    for (int k = 0; k < 3; k++) {
        double u = 0.5 * (levels[k] + 1), expected = 4 * u / (255 * 2), mean, variance;
        for (int i = 0; i < COUNT; i++)
            x[i] = (float)levels[k];
        measure(text, image, x, 4, 1, y);
        moments(y, COUNT, &mean, &variance);
        assert_true(fabs(mean - levels[k]) < 5 * sqrt(expected / COUNT));
        double kurtosis = 3 + 1 / (255 * 2 * u);
        assert_true(fabs(variance / expected - 1) < 5 * sqrt((kurtosis - 1) / COUNT));
        measure(text, image, x, 4, 2, again);
        assert_memory_equal(y, again, sizeof y);
    }
}

static void noise_levels(void **state)
{
    (void)state;
    struct status status = {0};
    struct operator self;
    struct task *task;
    const int64_t image[4] = {1, 4, 4, 1};
    float x[16] = {0}, y[16], z[16];
    make(&self, &task, TASK("name: denoise"), image, 1);
    assert_int_equal(operator_measure(&self, task, x, false, -1, 1, 1, y, &status),
                     STATUS_BAD_INPUT);
    assert_non_null(strstr(status.message, "noise level is unknown"));
    status = (struct status){0};
    assert_int_equal(operator_measure(&self, task, x, true, -1, 1, 1, y, &status), STATUS_OK);
    assert_memory_equal(x, y, sizeof y);
    assert_int_equal(operator_measure(&self, task, x, false, 0.5, 1, 1, y, &status), STATUS_OK);
    assert_int_equal(operator_measure(&self, task, x, false, 1, 1, 1, z, &status), STATUS_OK);
    for (int i = 0; i < 16; i++)
        assert_true(z[i] == 2 * y[i]);
    operator_destroy(&self);
    task_free(task);
}

/* A single bright pixel shows in every view where the geometry says. */
static void scanner_geometry(void **state)
{
    (void)state;
    enum { HEIGHT = 40, WIDTH = 32, ROW = 9, COLUMN = 21, VIEWS = 5, DETECTORS = 70 };
    const double degrees[VIEWS] = {0, 90, 30, 200, -77.5}, spacing = 0.8, center = 31.4;
    const char *text = TASK("name: ct_radon, angles: [0, 90, 30, 200, -77.5], detectors: 70, "
                            "spacing: 0.8, center: 31.4") "  noise: {name: clean}\n";
    const int64_t image[4] = {1, HEIGHT, WIDTH, 1};
    static float dark[HEIGHT * WIDTH], x[HEIGHT * WIDTH], y[VIEWS * DETECTORS];
    for (int i = 0; i < HEIGHT * WIDTH; i++)
        dark[i] = x[i] = -1;
    measure(text, image, dark, 1, 1, y);
    for (int i = 0; i < VIEWS * DETECTORS; i++)
        assert_true(fabsf(y[i]) < 1e-6f);
    x[ROW * WIDTH + COLUMN] = 1;
    measure(text, image, x, 1, 1, y);
    for (int v = 0; v < VIEWS; v++) {
        double mass = 0, moment = 0, angle = degrees[v] * acos(-1) / 180;
        for (int r = 0; r < DETECTORS; r++) {
            mass += (double)y[v * DETECTORS + r];
            moment += r * (double)y[v * DETECTORS + r];
        }
        double dx = COLUMN - WIDTH / 2 + 0.5, dy = ROW - HEIGHT / 2 + 0.5;
        double place = (cos(angle) * dx - sin(angle) * dy) / spacing + center;
        assert_true(fabs(moment / mass - place) < 0.1);
        /* one pixel of height one; the scale is 2 over the larger side */
        assert_true(fabs(mass * spacing * HEIGHT / 2 - 1) < 0.1);
    }
}

/* Views listed one by one are those that their number means; a full row of ones has length H. */
static void views_and_angles(void **state)
{
    (void)state;
    const int64_t image[4] = {1, 8, 8, 1};
    float x[64], a[4 * 8], b[4 * 8];
    for (int i = 0; i < 64; i++)
        x[i] = 1;
    measure(TASK("name: ct_radon, views: 4") "  noise: {name: clean}\n", image, x, 1, 1, a);
    measure(TASK("name: ct_radon, angles: [0, 45, 90, 135]") "  noise: {name: clean}\n", image, x,
            1, 1, b);
    assert_memory_equal(a, b, sizeof a);
    for (int r = 0; r < 8; r++) {
        assert_true(fabsf(a[r] - 2) < 1e-6f);
        assert_true(fabsf(a[2 * 8 + r] - 2) < 1e-6f);
    }
}

/* FBP undoes a scanner with its own spacing and centre: a disc comes back. */
static void fbp_of_own_geometry(void **state)
{
    (void)state;
    enum { SIDE = 48, VIEWS = 120, DETECTORS = 90 };
    const int64_t image[4] = {1, SIDE, SIDE, 1};
    const char *text =
        TASK("name: ct_radon, views: 120, detectors: 90, spacing: 0.7, center: 41") //
        "  noise: {name: clean}\n";
    static float x[SIDE * SIDE], back[SIDE * SIDE], y[VIEWS * DETECTORS];
    for (int i = 0; i < SIDE * SIDE; i++) {
        double dx = i % SIDE - 20.5, dy = i / SIDE - 27.0;
        x[i] = dx * dx + dy * dy < 100 ? 0.6f : -1;
    }
    measure(text, image, x, 1, 2, y);
    struct status status = {0};
    struct operator self;
    struct task *task;
    make(&self, &task, text, image, 1);
    assert_int_equal(self.kind->baseline(&self, y, back, &status), STATUS_OK);
    double inside = 0, outside = 0, count_inside = 0, count_outside = 0;
    for (int i = 0; i < SIDE * SIDE; i++) {
        double dx = i % SIDE - 20.5, dy = i / SIDE - 27.0, r = dx * dx + dy * dy;
        if (r < 64)
            inside += (double)back[i], count_inside++;
        if (r > 144 && r < 400)
            outside += (double)back[i], count_outside++;
    }
    assert_true(fabs(inside / count_inside - 0.6) < 0.03);
    assert_true(fabs(outside / count_outside + 1) < 0.03);
    operator_destroy(&self);
    task_free(task);
}

static void sizes(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int64_t y[4], height, width;
    } cases[] = {
        {TASK("name: super_resolution, scale_factor: 3"), {1, 3, 10, 12}, 30, 36},
        {TASK("name: denoise"), {1, 1, 5, 7}, 5, 7},
        {TASK("name: ct_radon, views: 25"), {1, 1, 25, 64}, 64, 64},
        {TASK("name: ct_radon, views: 25, detectors: 64"), {1, 1, 25, 64}, 0, 0},
    };
    for (int i = 0; i < 4; i++) {
        struct status status = {0};
        struct task *task = task_open(temporary_text(cases[i].text), &status);
        assert_non_null(task);
        int64_t height, width;
        assert_int_equal(operator_implied_size(task, cases[i].y, &height, &width, &status), 0);
        assert_int_equal(height, cases[i].height);
        assert_int_equal(width, cases[i].width);
        task_free(task);
    }
}

/* Nearest enlargement; and the adjoint by its own call. */
static void super_resolution_views(void **state)
{
    (void)state;
    struct status status = {0};
    struct operator self;
    struct task *task;
    const int64_t image[4] = {1, 5, 4, 1};
    const float y[6] = {1, 2, 3, 4, 5, 6};
    float x[20], ones[20], low[6];
    make(&self, &task, TASK("name: super_resolution, scale_factor: 2"), image, 1);
    assert_int_equal(self.measurement_shape[1], 3);
    assert_int_equal(self.kind->baseline(&self, y, x, &status), STATUS_OK);
    assert_true(x[0] == 1 && x[3] == 2 && x[19] == 6);
    assert_int_equal(operator_adjoint(&self, y, 1, x, &status), STATUS_OK);
    for (int i = 0; i < 20; i++)
        ones[i] = 1;
    assert_int_equal(operator_measure(&self, task, ones, true, 0, 1, 1, low, &status), STATUS_OK);
    double left = 0, right = 0;
    for (int i = 0; i < 6; i++)
        left += (double)low[i] * (double)y[i];
    for (int i = 0; i < 20; i++)
        right += (double)x[i];
    assert_true(fabs(left - right) < 1e-5 && fabs(left - 21) < 1e-5);
    operator_destroy(&self);
    task_free(task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens),
        cmocka_unit_test(filtered_back_projection),
        cmocka_unit_test(transposes),
        cmocka_unit_test(masks),
        cmocka_unit_test(pictures_as_tables),
        cmocka_unit_test(gaussian_noise),
        cmocka_unit_test(poisson_noise),
        cmocka_unit_test(noise_levels),
        cmocka_unit_test(scanner_geometry),
        cmocka_unit_test(views_and_angles),
        cmocka_unit_test(fbp_of_own_geometry),
        cmocka_unit_test(sizes),
        cmocka_unit_test(super_resolution_views),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
