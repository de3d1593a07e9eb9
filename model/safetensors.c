/* The safetensors format: a 64-bit header length, a JSON object of that length, the tensors' bytes
 * (https://github.com/huggingface/safetensors, "Format"). */
#include "model/checkpoint_file.h"
#include "model/bytes.h"

#include <stdlib.h>
#include <string.h>

/* The format's own limit. */
enum { MAX_HEADER_BYTES = 100000000 };

static const struct {
    const char *name;
    enum checkpoint_type type;
    int bytes;
} types[] = {
    {"F32", CHECKPOINT_F32, 4},       {"F16", CHECKPOINT_F16, 2},
    {"BF16", CHECKPOINT_BF16, 2},     {"F64", CHECKPOINT_F64, 8},
    {"I64", CHECKPOINT_I64, 8},       {"I32", CHECKPOINT_I32, 4},
    {"I16", CHECKPOINT_OTHER, 2},     {"I8", CHECKPOINT_OTHER, 1},
    {"U64", CHECKPOINT_OTHER, 8},     {"U32", CHECKPOINT_OTHER, 4},
    {"U16", CHECKPOINT_OTHER, 2},     {"U8", CHECKPOINT_OTHER, 1},
    {"BOOL", CHECKPOINT_OTHER, 1},    {"C64", CHECKPOINT_OTHER, 8},
    {"F8_E4M3", CHECKPOINT_OTHER, 1}, {"F8_E5M2", CHECKPOINT_OTHER, 1},
};

static int bad(struct status *status, const char *what)
{
    return status_set(status, STATUS_BAD_INPUT, "%s", what);
}

/* A whole number that a double holds exactly; -1 if it is anything else. */
static int64_t whole_number(const cJSON *number)
{
    if (!cJSON_IsNumber(number) || !(number->valuedouble >= 0) || number->valuedouble > 0x1p53 ||
        number->valuedouble != (double)(int64_t)number->valuedouble)
        return -1;
    return (int64_t)number->valuedouble;
}

static int read_shape(const cJSON *shape, struct checkpoint_tensor *tensor, struct status *status)
{
    const cJSON *size;
    if (!cJSON_IsArray(shape))
        return bad(status, "no \"shape\" list");
    cJSON_ArrayForEach(size, shape)
    {
        if (tensor->rank == CHECKPOINT_MAX_RANK)
            return status_set(status, STATUS_BAD_INPUT, "more than %d dimensions",
                              CHECKPOINT_MAX_RANK);
        int64_t value = whole_number(size);
        if (value < 0)
            return bad(status, "its \"shape\" holds something else than sizes");
        tensor->shape[tensor->rank++] = value;
    }
    return STATUS_OK;
}

static void set_contiguous_strides(struct checkpoint_tensor *tensor)
{
    int64_t stride = 1;
    for (int i = tensor->rank - 1; i >= 0; i--) {
        tensor->stride[i] = stride;
        stride *= tensor->shape[i];
    }
}

/* Bytes of the tensor by type and shape; -1 with an error. */
static int64_t read_layout(const cJSON *description, struct checkpoint_tensor *tensor,
                           int64_t file_bytes, struct status *status)
{
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(description, "dtype"));
    size_t type = 0, type_count = sizeof types / sizeof *types;
    while (name && type < type_count && strcmp(types[type].name, name) != 0)
        type++;
    if (!name || type == type_count) {
        status_set(status, STATUS_BAD_INPUT, "unknown \"dtype\" %s", name ? name : "(none)");
        return -1;
    }
    tensor->type = types[type].type;
    if (read_shape(cJSON_GetObjectItemCaseSensitive(description, "shape"), tensor, status) !=
        STATUS_OK)
        return -1;
    int64_t count = checkpoint_count_elements(tensor, file_bytes);
    if (count < 0) {
        bad(status, "its shape has more elements than the file has bytes");
        return -1;
    }
    if (count > 0)
        set_contiguous_strides(tensor);
    return count * types[type].bytes;
}

/* The tensors' bytes begin at `data` and run to the file's end. */
static int read_tensor(const cJSON *description, const unsigned char *data, int64_t data_bytes,
                       struct checkpoint_entry *entry, struct status *status)
{
    if (!cJSON_IsObject(description) || cJSON_GetArraySize(description) != 3)
        return bad(status, "expected an object of \"dtype\", \"shape\" and \"data_offsets\"");
    int64_t expected = read_layout(description, &entry->tensor, data_bytes, status);
    if (expected < 0)
        return status->code;
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(description, "data_offsets");
    int64_t begin = -1, end = -1;
    if (cJSON_IsArray(offsets) && cJSON_GetArraySize(offsets) == 2) {
        begin = whole_number(offsets->child);
        end = whole_number(offsets->child->next);
    }
    if (begin < 0 || end < begin)
        return bad(status, "no \"data_offsets\" [begin, end]");
    if (end > data_bytes)
        return status_set(status, STATUS_BAD_INPUT,
                          "truncated: it ends at byte %lld of the data, the file at %lld",
                          (long long)end, (long long)data_bytes);
    if (end - begin != expected)
        return status_set(status, STATUS_BAD_INPUT,
                          "its shape and type make %lld bytes, its offsets %lld",
                          (long long)expected, (long long)(end - begin));
    entry->tensor.data = data + begin;
    entry->size_bytes = (size_t)expected;
    entry->tensor.name = description->string;
    entry->name_length = strlen(description->string);
    return STATUS_OK;
}

static int read_metadata(const cJSON *metadata, struct status *status)
{
    const cJSON *pair;
    if (!cJSON_IsObject(metadata))
        return bad(status, "\"__metadata__\" is not an object");
    cJSON_ArrayForEach(pair, metadata)
    {
        if (!cJSON_IsString(pair))
            return status_set(status, STATUS_BAD_INPUT, "\"__metadata__\": \"%s\" is not a string",
                              pair->string);
    }
    return STATUS_OK;
}

static int compare_places(const void *a, const void *b)
{
    const struct checkpoint_entry *x = *(struct checkpoint_entry *const *)a;
    const struct checkpoint_entry *y = *(struct checkpoint_entry *const *)b;
    if (x->tensor.data != y->tensor.data)
        return x->tensor.data < y->tensor.data ? -1 : 1;
    return (x->size_bytes > y->size_bytes) - (x->size_bytes < y->size_bytes);
}

/* The format allows neither overlaps nor holes. */
static int check_places(const struct checkpoint *checkpoint, const unsigned char *data,
                        struct status *status)
{
    size_t count = (size_t)checkpoint->count;
    struct checkpoint_entry **order = status_calloc(status, count, sizeof *order, "tensors");
    if (!order)
        return status->code;
    for (size_t i = 0; i < count; i++)
        order[i] = &checkpoint->entries[i];
    qsort(order, count, sizeof *order, compare_places);
    for (size_t i = 0; i < count && status_ok(status); i++) {
        if (order[i]->tensor.data != data)
            status_set(status, STATUS_BAD_INPUT, "tensor \"%s\" %s the one before it",
                       order[i]->tensor.name,
                       order[i]->tensor.data < data ? "overlaps" : "leaves a hole behind");
        data = order[i]->tensor.data + order[i]->size_bytes;
    }
    free(order);
    if (status_ok(status) && data != checkpoint->bytes + checkpoint->size_bytes)
        bad(status, "bytes that belong to no tensor at its end");
    return status->code;
}

static int read_tensors(struct checkpoint *checkpoint, const unsigned char *data,
                        struct status *status)
{
    int64_t data_bytes = checkpoint->bytes + checkpoint->size_bytes - data;
    const cJSON *description, *metadata = NULL;
    checkpoint->entries =
        status_calloc(status, (unsigned long)cJSON_GetArraySize(checkpoint->header),
                      sizeof *checkpoint->entries, "tensors");
    if (!checkpoint->entries)
        return status->code;
    cJSON_ArrayForEach(description, checkpoint->header)
    {
        if (strcmp(description->string, "__metadata__") == 0) {
            if (metadata)
                return bad(status, "\"__metadata__\" is there twice");
            metadata = description;
            read_metadata(metadata, status);
        } else if (read_tensor(description, data, data_bytes,
                               &checkpoint->entries[checkpoint->count], status) == STATUS_OK) {
            checkpoint->count++;
        } else {
            status_prefix(status, "tensor \"%s\"", description->string);
        }
        if (!status_ok(status))
            return status->code;
    }
    return check_places(checkpoint, data, status);
}

int safetensors_read(struct checkpoint *checkpoint, struct status *status)
{
    uint64_t length = load_u64(checkpoint->bytes);
    checkpoint->format = "safetensors";
    if (length > MAX_HEADER_BYTES || !range_is_inside(8, length, checkpoint->size_bytes))
        return status_set(status, STATUS_BAD_INPUT,
                          "truncated or damaged safetensors file: a header of %llu bytes in a file "
                          "of %zu",
                          (unsigned long long)length, checkpoint->size_bytes);
    /* a copy with a final zero: cJSON 1.7 may look one byte beyond its input */
    char *text = status_calloc(status, length + 1, 1, "a safetensors header");
    if (!text)
        return status->code;
    memcpy(text, checkpoint->bytes + 8, length);
    const char *end = text;
    checkpoint->header = cJSON_ParseWithLengthOpts(text, length + 1, &end, true);
    if (!checkpoint->header)
        status_set(status, STATUS_BAD_INPUT,
                   "damaged safetensors file: its header is not JSON (at byte %td)", end - text);
    free(text);
    if (!status_ok(status))
        return status->code;
    return read_tensors(checkpoint, checkpoint->bytes + 8 + length, status);
}
