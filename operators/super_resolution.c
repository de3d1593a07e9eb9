/* Super-resolution: y is x made smaller by a whole factor with the antialiased bicubic filter
 * (operators.md section 1). */
#include "operators/kinds.h"
#include "operators/separable.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_FACTOR = 64 };

/* Keys' cubic with a = -1/2. */
static double cubic(double x)
{
    x = fabs(x);
    if (x <= 1)
        return (1.5 * x - 2.5) * x * x + 1;
    if (x <= 2)
        return ((-0.5 * x + 2.5) * x - 4) * x + 2;
    return 0;
}

/* Mirror at the border with the edge repeated. */
static int64_t mirror(int64_t index, int64_t length)
{
    int64_t place = index % (2 * length);
    if (place < 0)
        place += 2 * length;
    return place < length ? place : 2 * length - 1 - place;
}

/* Section 1's formulas; its centre m counts inputs from 1, `input` from 0. */
static void fill(struct axis_rows *rows, int64_t factor)
{
    double s = 1 / (double)factor;
    double excess = (double)rows->output_length - (double)rows->input_length * s;
    for (int64_t o = 1; o <= rows->output_length; o++) {
        double m = ((double)o - excess / 2) / s + 0.5 * (1 - 1 / s);
        int64_t first = (int64_t)floor(m - 2 / s) - 1, count = 4 * factor + 2;
        double sum = 0;
        for (int64_t input = first; input < first + count; input++)
            sum += cubic(s * (m - (double)input - 1));
        for (int64_t input = first; input < first + count; input++)
            axis_rows_add(rows, mirror(input, rows->input_length),
                          cubic(s * (m - (double)input - 1)) / sum);
        axis_rows_next(rows);
    }
}

static int scale_factor(const struct task *task, int64_t *factor, struct status *status)
{
    *factor = 4;
    return task_integer(task, "operator.scale_factor", 1, MAX_FACTOR, factor, status);
}

static int create(struct operator *self, const struct task *task, uint64_t seed,
                  struct status *status)
{
    (void)seed;
    int64_t factor;
    if (scale_factor(task, &factor, status))
        return status->code;
    const int64_t *image = self->image_shape;
    struct separable *separable =
        separable_create(self, (image[1] + factor - 1) / factor, (image[2] + factor - 1) / factor,
                         4 * factor + 2, status);
    if (separable) {
        fill(&separable->height, factor);
        fill(&separable->width, factor);
    }
    return status->code;
}

static int implied_size(const struct task *task, const int64_t measurement[4], int64_t *height,
                        int64_t *width, struct status *status)
{
    int64_t factor;
    if (scale_factor(task, &factor, status) == STATUS_OK) {
        *height = measurement[2] * factor;
        *width = measurement[3] * factor;
    }
    return status->code;
}

/* Each pixel shows the measured pixel that covers it. */
static int baseline(const struct operator *self, const float *y, float *x, struct status *status)
{
    const int64_t *in = self->measurement_shape, *out = self->image_shape;
    for (int64_t plane = 0; plane < out[0] * out[3]; plane++)
        for (int64_t h = 0; h < out[1]; h++)
            for (int64_t w = 0; w < out[2]; w++)
                x[(plane * out[1] + h) * out[2] + w] =
                    y[(plane * in[1] + h * in[1] / out[1]) * in[2] + w * in[2] / out[2]];
    return status->code;
}

const struct operator_kind operator_super_resolution = {
    .name = "super_resolution",
    .keys = (const char *const[]){"scale_factor", NULL},
    .ignored_keys = (const char *const[]){"in_shape", NULL},
    .create = create,
    .bind = separable_bind,
    .unbind = free,
    .record = separable_record,
    .record_adjoint = separable_record_adjoint,
    .destroy = separable_destroy,
    .baseline = baseline,
    .baseline_name = "nearest",
    .implied_size = implied_size,
};
