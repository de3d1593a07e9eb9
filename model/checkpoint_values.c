/* Element types of checkpoints and their conversion to float. */
#include "model/checkpoint_file.h"
#include "model/bytes.h"
#include "model/half.h"

#include <string.h>

static const struct {
    const char *name;
    int bytes;
} types[] = {
    [CHECKPOINT_F32] = {"f32", 4},     [CHECKPOINT_F16] = {"f16", 2},
    [CHECKPOINT_BF16] = {"bf16", 2},   [CHECKPOINT_F64] = {"f64", 8},
    [CHECKPOINT_I64] = {"i64", 8},     [CHECKPOINT_I32] = {"i32", 4},
    [CHECKPOINT_OTHER] = {"other", 0},
};

const char *checkpoint_type_name(enum checkpoint_type type)
{
    return types[type].name;
}

int checkpoint_type_bytes(enum checkpoint_type type)
{
    return types[type].bytes;
}

int64_t checkpoint_count_elements(const struct checkpoint_tensor *tensor, int64_t limit)
{
    int64_t count = 1;
    bool empty = false;
    for (int i = 0; i < tensor->rank; i++) {
        if (tensor->shape[i] < 0)
            return -1;
        empty = empty || tensor->shape[i] == 0;
    }
    for (int i = 0; i < tensor->rank && !empty; i++)
        if (__builtin_mul_overflow(count, tensor->shape[i], &count) || count > limit)
            return -1;
    return empty ? 0 : count <= limit ? count : -1;
}

static double load_double(const unsigned char *bytes)
{
    uint64_t bits = load_u64(bytes);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* `count` elements, `stride` elements apart. */
static void read_row(enum checkpoint_type type, const unsigned char *data, int64_t stride,
                     int64_t count, float *values)
{
    int64_t step = stride * types[type].bytes;
    switch (type) {
    case CHECKPOINT_F32:
        for (int64_t i = 0; i < count; i++)
            values[i] = float_from_bits(load_u32(data + i * step));
        break;
    case CHECKPOINT_F16:
        for (int64_t i = 0; i < count; i++)
            values[i] = float_from_half(load_u16(data + i * step));
        break;
    case CHECKPOINT_BF16:
        for (int64_t i = 0; i < count; i++)
            values[i] = float_from_bfloat16(load_u16(data + i * step));
        break;
    case CHECKPOINT_F64:
        for (int64_t i = 0; i < count; i++)
            values[i] = (float)load_double(data + i * step);
        break;
    case CHECKPOINT_I64:
        for (int64_t i = 0; i < count; i++)
            values[i] = (float)(int64_t)load_u64(data + i * step);
        break;
    case CHECKPOINT_I32:
        for (int64_t i = 0; i < count; i++)
            values[i] = (float)(int32_t)load_u32(data + i * step);
        break;
    case CHECKPOINT_OTHER:
        memset(values, 0, (size_t)count * sizeof *values);
        break;
    }
}

/* How many of the last dimensions form one row of evenly spaced elements. */
static int row_dimensions(const struct checkpoint_tensor *tensor)
{
    int first = tensor->rank - 1;
    while (first > 0 && tensor->stride[first - 1] == tensor->stride[first] * tensor->shape[first])
        first--;
    return tensor->rank - first;
}

void checkpoint_read(const struct checkpoint_tensor *tensor, float *values)
{
    int64_t index[CHECKPOINT_MAX_RANK] = {0}, offset = 0;
    int64_t rows = checkpoint_count_elements(tensor, INT64_MAX), row_length = 1, stride = 1;
    int outer = 0;
    if (rows <= 0)
        return;
    if (tensor->rank > 0) {
        outer = tensor->rank - row_dimensions(tensor);
        for (int i = outer; i < tensor->rank; i++)
            row_length *= tensor->shape[i];
        if (row_length > 1)
            stride = tensor->stride[tensor->rank - 1];
        rows /= row_length;
    }
    for (int64_t row = 0; row < rows; row++) {
        read_row(tensor->type, tensor->data + offset * types[tensor->type].bytes, stride,
                 row_length, values + row * row_length);
        for (int i = outer - 1; i >= 0; i--) {
            if (++index[i] < tensor->shape[i]) {
                offset += tensor->stride[i];
                break;
            }
            offset -= tensor->stride[i] * (tensor->shape[i] - 1);
            index[i] = 0;
        }
    }
}
