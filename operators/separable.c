#include "operators/separable.h"

#include <stdlib.h>
#include <string.h>

static int axis_rows_create(struct axis_rows *rows, int64_t input_length, int64_t output_length,
                            int64_t capacity, struct status *status)
{
    *rows = (struct axis_rows){.input_length = input_length, .output_length = output_length};
    if (capacity > INT32_MAX)
        return status_set(status, STATUS_BAD_INPUT, "the operator has too many taps: %lld",
                          (long long)capacity);
    rows->capacity = capacity;
    rows->offsets = status_calloc(status, (unsigned long)output_length + 1, sizeof(int32_t),
                                  "an operator's rows");
    rows->indices =
        status_calloc(status, (unsigned long)capacity, sizeof(int32_t), "an operator's taps");
    rows->weights =
        status_calloc(status, (unsigned long)capacity, sizeof(double), "an operator's weights");
    return status->code;
}

static void axis_rows_free(struct axis_rows *rows)
{
    free(rows->offsets);
    free(rows->indices);
    free(rows->weights);
}

void axis_rows_add(struct axis_rows *rows, int64_t index, double weight)
{
    if (weight == 0)
        return;
    for (int64_t j = rows->offsets[rows->row]; j < rows->entries; j++)
        if (rows->indices[j] == index) {
            rows->weights[j] += weight;
            return;
        }
    rows->indices[rows->entries] = (int32_t)index;
    rows->weights[rows->entries] = weight;
    rows->entries++;
}

void axis_rows_next(struct axis_rows *rows)
{
    rows->row++;
    rows->offsets[rows->row] = (int32_t)rows->entries;
}

static int transpose(const struct axis_rows *rows, struct axis_rows *result, struct status *status)
{
    if (axis_rows_create(result, rows->output_length, rows->input_length, rows->entries, status))
        return status->code;
    for (int64_t j = 0; j < rows->entries; j++)
        result->offsets[rows->indices[j] + 1]++;
    for (int64_t i = 0; i < rows->input_length; i++)
        result->offsets[i + 1] += result->offsets[i];
    int32_t *next = status_calloc(status, (unsigned long)rows->input_length + 1, sizeof(int32_t),
                                  "an operator's rows");
    if (!next)
        return status->code;
    memcpy(next, result->offsets, (size_t)rows->input_length * sizeof(int32_t));
    for (int64_t o = 0; o < rows->output_length; o++)
        for (int32_t j = rows->offsets[o]; j < rows->offsets[o + 1]; j++) {
            int32_t place = next[rows->indices[j]]++;
            result->indices[place] = (int32_t)o;
            result->weights[place] = rows->weights[j];
        }
    result->entries = rows->entries;
    free(next);
    return status->code;
}

static void declare(const struct axis_rows *rows, struct program *program, int slots[3])
{
    const int64_t offsets[4] = {1, 1, 1, rows->output_length + 1};
    const int64_t taps[4] = {1, 1, 1, rows->entries};
    slots[0] = program_constant_i32(program, "operator.offsets", offsets, rows->offsets);
    slots[1] = program_constant_i32(program, "operator.indices", taps, rows->indices);
    slots[2] = program_constant_real(program, "operator.weights", taps, rows->weights);
}

static int bind_axis(const struct axis_rows *rows, int axis, struct program *program,
                     struct axis_table *table, struct status *status)
{
    struct axis_rows transposed = {0};
    int forward[3], backward[3];
    if (transpose(rows, &transposed, status) == STATUS_OK) {
        declare(rows, program, forward);
        declare(&transposed, program, backward);
        *table = (struct axis_table){axis,        rows->input_length, rows->output_length,
                                     forward[0],  forward[1],         forward[2],
                                     backward[0], backward[1],        backward[2]};
    }
    axis_rows_free(&transposed);
    return status->code;
}

struct separable *separable_create(struct operator *self, int64_t output_height,
                                   int64_t output_width, int64_t entries_per_row,
                                   struct status *status)
{
    const int64_t *image = self->image_shape;
    self->measurement_shape[0] = image[0];
    self->measurement_shape[1] = output_height;
    self->measurement_shape[2] = output_width;
    self->measurement_shape[3] = image[3];
    struct separable *separable = status_calloc(status, 1, sizeof *separable, "an operator");
    self->data = separable;
    if (!separable ||
        axis_rows_create(&separable->height, image[1], output_height,
                         output_height * entries_per_row, status) ||
        axis_rows_create(&separable->width, image[2], output_width, output_width * entries_per_row,
                         status))
        return NULL;
    return separable;
}

void *separable_bind(const struct operator *self, struct program *program, struct status *status)
{
    const struct separable *separable = self->data;
    struct axis_table *tables = status_calloc(status, 2, sizeof *tables, "an operator's tables");
    if (!tables || bind_axis(&separable->height, 1, program, &tables[0], status) ||
        bind_axis(&separable->width, 2, program, &tables[1], status)) {
        free(tables);
        return NULL;
    }
    return tables;
}

value separable_record(const struct operator *self, const void *bound, struct tape *tape, value x)
{
    (void)self;
    const struct axis_table *tables = bound;
    return tape_axis_filter(tape, tape_axis_filter(tape, x, &tables[0]), &tables[1]);
}

value separable_record_adjoint(const struct operator *self, const void *bound, struct tape *tape,
                               value y)
{
    (void)self;
    const struct axis_table *tables = bound;
    return tape_axis_filter_adjoint(tape, tape_axis_filter_adjoint(tape, y, &tables[1]),
                                    &tables[0]);
}

void separable_destroy(struct operator *self)
{
    struct separable *separable = self->data;
    if (!separable)
        return;
    axis_rows_free(&separable->height);
    axis_rows_free(&separable->width);
    free(separable);
}
