/* Motion blur, or any other blur whose kernel is a file: y is x, reflected at the border,
 * cross-correlated (not flipped) with it (operators.md section 3). */
#include "operators/kinds.h"
#include "runtime/array.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_KERNEL_SIZE = 1023 };

struct taps {
    int64_t count;
    int32_t *offsets; /* (dy, dx) */
    double *weights;
};

struct slots {
    int taps, weights;
};

static void destroy(struct operator *self)
{
    struct taps *taps = self->data;
    if (!taps)
        return;
    free(taps->offsets);
    free(taps->weights);
    free(taps);
}

/* A picture's brightness has no unit: its kernel is made to sum to one. Arrays are taken as they
 * are. */
static void normalise_picture(struct array *kernel)
{
    double sum = 0;
    for (int64_t i = 0; i < array_elements(kernel); i++) {
        kernel->values[i] = 0.5f * (kernel->values[i] + 1);
        sum += (double)kernel->values[i];
    }
    for (int64_t i = 0; i < array_elements(kernel); i++)
        kernel->values[i] = (float)((double)kernel->values[i] / sum);
}

static int check_kernel(const struct array *kernel, const char *path, const struct task *task,
                        struct status *status)
{
    if (kernel->shape[0] != 1 || kernel->shape[1] != 1 || kernel->shape[2] < 1 ||
        kernel->shape[3] < 1 || kernel->shape[2] > MAX_KERNEL_SIZE ||
        kernel->shape[3] > MAX_KERNEL_SIZE)
        return task_error(task, "operator.kernel", status,
                          "%s is [%lld,%lld,%lld,%lld]; a kernel is [height,width] of at most %d",
                          path, (long long)kernel->shape[0], (long long)kernel->shape[1],
                          (long long)kernel->shape[2], (long long)kernel->shape[3],
                          MAX_KERNEL_SIZE);
    bool zero = true;
    for (int64_t i = 0; i < array_elements(kernel); i++) {
        if (!isfinite(kernel->values[i]))
            return task_error(task, "operator.kernel", status,
                              "%s holds a value that is not finite", path);
        zero = zero && kernel->values[i] == 0;
    }
    if (zero)
        return task_error(task, "operator.kernel", status, "%s is zero everywhere", path);
    return STATUS_OK;
}

static int make_taps(struct operator *self, const struct array *kernel, struct status *status)
{
    unsigned long elements = (unsigned long)array_elements(kernel);
    struct taps *taps = status_calloc(status, 1, sizeof *taps, "an operator");
    self->data = taps;
    if (!taps)
        return status->code;
    taps->offsets = status_calloc(status, 2 * elements, sizeof(int32_t), "a blur kernel's taps");
    taps->weights = status_calloc(status, elements, sizeof(double), "a blur kernel's weights");
    if (!status_ok(status))
        return status->code;
    int64_t height = kernel->shape[2], width = kernel->shape[3];
    for (int64_t i = 0; i < height * width; i++) {
        if (kernel->values[i] == 0)
            continue;
        taps->offsets[2 * taps->count] = (int32_t)(i / width - height / 2);
        taps->offsets[2 * taps->count + 1] = (int32_t)(i % width - width / 2);
        taps->weights[taps->count++] = (double)kernel->values[i];
    }
    return STATUS_OK;
}

static int create(struct operator *self, const struct task *task, uint64_t seed,
                  struct status *status)
{
    (void)seed;
    if (!task_has(task, "operator.kernel"))
        return task_error(
            task, "operator.kernel", status,
            "missing; the official random motion kernels are not generated here: name "
            "a file, `kernel: kernel.npy` (or .png)");
    for (int i = 0; i < 4; i++)
        self->measurement_shape[i] = self->image_shape[i];
    struct array kernel = {0};
    char *path = task_path(task, "operator.kernel", status);
    if (!path || array_read_image(&kernel, path, 1, status))
        goto done;
    if (path_is_image(path))
        normalise_picture(&kernel);
    if (check_kernel(&kernel, path, task, status) == STATUS_OK)
        make_taps(self, &kernel, status);
done:
    array_free(&kernel);
    free(path);
    return status->code;
}

static void *bind(const struct operator *self, struct program *program, struct status *status)
{
    const struct taps *taps = self->data;
    struct slots *slots = status_calloc(status, 1, sizeof *slots, "an operator's tables");
    if (!slots)
        return NULL;
    slots->taps = program_constant_i32(program, "operator.taps",
                                       (const int64_t[]){1, 1, taps->count, 2}, taps->offsets);
    slots->weights = program_constant_real(program, "operator.weights",
                                           (const int64_t[]){1, 1, 1, taps->count}, taps->weights);
    return slots;
}

static value record(const struct operator *self, const void *bound, struct tape *tape, value x)
{
    (void)self;
    const struct slots *slots = bound;
    return tape_tap_filter(tape, x, tape_state(tape, slots->taps),
                           tape_state(tape, slots->weights));
}

static value record_adjoint(const struct operator *self, const void *bound, struct tape *tape,
                            value y)
{
    (void)self;
    const struct slots *slots = bound;
    return tape_tap_filter_adjoint(tape, y, tape_state(tape, slots->taps),
                                   tape_state(tape, slots->weights));
}

const struct operator_kind operator_motion_blur = {
    .name = "motion_blur",
    .keys = (const char *const[]){"kernel", NULL},
    .ignored_keys = (const char *const[]){"kernel_size", "intensity", "in_shape", NULL},
    .create = create,
    .bind = bind,
    .unbind = free,
    .record = record,
    .record_adjoint = record_adjoint,
    .destroy = destroy,
    .baseline_name = "measurement",
};
