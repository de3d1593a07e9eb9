/* Gaussian blur: y is x, reflected at the border, filtered with a kernel_size x kernel_size
 * Gaussian of deviation `intensity` (operators.md section 2): one filter per axis. */
#include "kernels/reflect.h"
#include "operators/kinds.h"
#include "operators/separable.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_KERNEL_SIZE = 1023 };

/* The reference's kernel is a unit pulse in `size` entries, filtered with a Gaussian cut off at
 * four deviations whose tails fold back at the ends of the array (edge repeated). */
static void make_kernel(double deviation, int64_t size, double *kernel)
{
    int64_t radius = (int64_t)(4 * deviation + 0.5), middle = size / 2;
    double sum = 0;
    for (int64_t i = -radius; i <= radius; i++)
        sum += radius ? exp(-0.5 * (double)(i * i) / (deviation * deviation)) : 1;
    for (int64_t i = -radius; i <= radius; i++) {
        int64_t place = (middle + i) % (2 * size);
        if (place < 0)
            place += 2 * size;
        place = place < size ? place : 2 * size - 1 - place;
        kernel[place] += (radius ? exp(-0.5 * (double)(i * i) / (deviation * deviation)) : 1) / sum;
    }
}

static void fill(struct axis_rows *rows, const double *kernel, int64_t size)
{
    for (int64_t o = 0; o < rows->output_length; o++) {
        for (int64_t i = 0; i < size; i++)
            axis_rows_add(rows, reflect_index(o + i - size / 2, rows->input_length), kernel[i]);
        axis_rows_next(rows);
    }
}

static int create(struct operator *self, const struct task *task, uint64_t seed,
                  struct status *status)
{
    (void)seed;
    int64_t size = 61;
    double deviation = 3;
    if (task_integer(task, "operator.kernel_size", 1, MAX_KERNEL_SIZE, &size, status) ||
        task_real(task, "operator.intensity", 0, MAX_KERNEL_SIZE, &deviation, status))
        return status->code;
    const int64_t *image = self->image_shape;
    struct separable *separable = separable_create(self, image[1], image[2], size, status);
    double *kernel =
        separable ? status_calloc(status, (unsigned long)size, sizeof(double), "a blur kernel")
                  : NULL;
    if (kernel) {
        make_kernel(deviation, size, kernel);
        fill(&separable->height, kernel, size);
        fill(&separable->width, kernel, size);
    }
    free(kernel);
    return status->code;
}

const struct operator_kind operator_gaussian_blur = {
    .name = "gaussian_blur",
    .keys = (const char *const[]){"kernel_size", "intensity", NULL},
    .ignored_keys = (const char *const[]){"in_shape", NULL},
    .create = create,
    .bind = separable_bind,
    .unbind = free,
    .record = separable_record,
    .record_adjoint = separable_record_adjoint,
    .destroy = separable_destroy,
    .baseline_name = "measurement",
};
