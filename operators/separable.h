/* Operators that filter the height, then the width: a sparse linear map per axis, built row by row
 * in double, boundaries folded in. The kind's create fills the two maps; the rest is shared. */
#ifndef OPERATORS_SEPARABLE_H
#define OPERATORS_SEPARABLE_H

#include "operators/operator.h"

struct axis_rows {
    int64_t input_length, output_length;
    int64_t row, entries, capacity; /* row: being filled */
    int32_t *offsets, *indices;
    double *weights;
};

struct separable {
    struct axis_rows height, width;
};

/* The operator's data; freed by separable_destroy. Each axis has room for entries_per_row taps. */
struct separable *separable_create(struct operator *self, int64_t output_height,
                                   int64_t output_width, int64_t entries_per_row,
                                   struct status *status);
/* Adds a tap to the current output; taps on the same input add up, zeros vanish. */
void axis_rows_add(struct axis_rows *rows, int64_t index, double weight);
void axis_rows_next(struct axis_rows *rows);

void *separable_bind(const struct operator *self, struct program *program, struct status *status);
value separable_record(const struct operator *self, const void *bound, struct tape *tape, value x);
value separable_record_adjoint(const struct operator *self, const void *bound, struct tape *tape,
                               value y);
void separable_destroy(struct operator *self);

#endif
