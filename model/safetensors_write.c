#include "model/checkpoint_file.h"
#include "model/half.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Everything that one written file needs, released in one place. */
struct writer {
    const char *path;
    char *temporary;
    FILE *file;
    char *header;
    float *values; /* room for the largest tensor */
    enum checkpoint_type type;
};

static const char *type_name(enum checkpoint_type type)
{
    return type == CHECKPOINT_F32 ? "F32" : type == CHECKPOINT_F16 ? "F16" : "BF16";
}

/* A scalar, such as scale_factor, is never rounded to 16 bits. */
static enum checkpoint_type stored_type(const struct checkpoint_tensor *tensor,
                                        enum checkpoint_type type)
{
    return tensor->rank == 0 ? CHECKPOINT_F32 : type;
}

static bool add_numbers(cJSON *description, const char *key, const int64_t *numbers, int count)
{
    cJSON *array = cJSON_AddArrayToObject(description, key);
    for (int i = 0; i < count && array; i++)
        if (!cJSON_AddItemToArray(array, cJSON_CreateNumber((double)numbers[i])))
            return false;
    return array != NULL;
}

static bool describe(cJSON *root, const struct checkpoint_tensor *tensor, enum checkpoint_type type,
                     int64_t offsets[2])
{
    cJSON *description = cJSON_AddObjectToObject(root, tensor->name);
    return description && cJSON_AddStringToObject(description, "dtype", type_name(type)) &&
           add_numbers(description, "shape", tensor->shape, tensor->rank) &&
           add_numbers(description, "data_offsets", offsets, 2);
}

static bool describe_metadata(cJSON *root, const char *const *metadata)
{
    if (!metadata || !metadata[0])
        return true;
    cJSON *object = cJSON_AddObjectToObject(root, "__metadata__");
    for (int i = 0; metadata[i] && object; i += 2)
        if (!cJSON_AddStringToObject(object, metadata[i], metadata[i + 1]))
            return false;
    return object != NULL;
}

/* The JSON text, and the largest tensor's number of elements. */
static char *make_header(const struct checkpoint_tensor *tensors, int count,
                         enum checkpoint_type type, const char *const *metadata, int64_t *largest,
                         struct status *status)
{
    int64_t offsets[2] = {0, 0}, limit = (int64_t)1 << 50;
    char *text = NULL;
    cJSON *root = cJSON_CreateObject();
    bool described = root && describe_metadata(root, metadata);
    for (int i = 0; i < count && described; i++) {
        int64_t elements = checkpoint_count_elements(&tensors[i], limit);
        if (elements < 0 || tensors[i].type == CHECKPOINT_OTHER || offsets[0] > limit) {
            status_set(status, STATUS_BAD_INPUT,
                       "tensor \"%s\" cannot be written as %s: its type or size", tensors[i].name,
                       type_name(type));
            goto done;
        }
        *largest = elements > *largest ? elements : *largest;
        enum checkpoint_type stored = stored_type(&tensors[i], type);
        offsets[1] = offsets[0] + elements * checkpoint_type_bytes(stored);
        described = describe(root, &tensors[i], stored, offsets);
        offsets[0] = offsets[1];
    }
    if (described)
        text = cJSON_PrintUnformatted(root);
    if (!text)
        status_set(status, STATUS_FAILURE, "out of memory for a safetensors header");
done:
    cJSON_Delete(root);
    return text;
}

/* Padded by spaces, so that the tensors begin at a multiple of 8 bytes. */
static void write_header(struct writer *writer)
{
    size_t length = strlen(writer->header), padded = (length + 7) / 8 * 8;
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (unsigned char)(padded >> (8 * i));
    fwrite(prefix, 1, sizeof prefix, writer->file);
    fprintf(writer->file, "%-*s", (int)padded, writer->header);
}

static uint32_t encode(float value, enum checkpoint_type type)
{
    return type == CHECKPOINT_F32   ? bits_from_float(value)
           : type == CHECKPOINT_F16 ? half_from_float(value)
                                    : bfloat16_from_float(value);
}

static bool is_infinite(uint32_t bits, enum checkpoint_type type)
{
    uint32_t infinity = type == CHECKPOINT_F32   ? 0x7f800000
                        : type == CHECKPOINT_F16 ? 0x7c00
                                                 : 0x7f80;
    return (bits & (type == CHECKPOINT_F32 ? 0x7fffffff : 0x7fff)) == infinity;
}

static int write_tensor(struct writer *writer, const struct checkpoint_tensor *tensor,
                        struct status *status)
{
    unsigned char buffer[16384];
    size_t used = 0;
    enum checkpoint_type type = stored_type(tensor, writer->type);
    int width = checkpoint_type_bytes(type);
    int64_t count = checkpoint_count_elements(tensor, INT64_MAX);
    checkpoint_read(tensor, writer->values);
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = encode(writer->values[i], type);
        if (is_infinite(bits, type) && isfinite(writer->values[i]))
            return status_set(status, STATUS_BAD_INPUT,
                              "tensor \"%s\" holds %g, which is beyond the range of %s",
                              tensor->name, (double)writer->values[i], checkpoint_type_name(type));
        for (int byte = 0; byte < width; byte++)
            buffer[used++] = (unsigned char)(bits >> (8 * byte));
        if (used == sizeof buffer || i + 1 == count) {
            fwrite(buffer, 1, used, writer->file);
            used = 0;
        }
    }
    return STATUS_OK;
}

static int open_temporary(struct writer *writer, struct status *status)
{
    if (asprintf(&writer->temporary, "%s.tmp-%ld", writer->path, (long)getpid()) < 0) {
        writer->temporary = NULL;
        return status_set(status, STATUS_FAILURE, "out of memory for a file name");
    }
    writer->file = fopen(writer->temporary, "wbx");
    if (writer->file)
        return STATUS_OK;
    status_set(status, STATUS_BAD_INPUT, "%s: cannot write: %s", writer->temporary,
               strerror(errno));
    free(writer->temporary);
    writer->temporary = NULL;
    return status->code;
}

static int finish_file(struct writer *writer, struct status *status)
{
    int failed = ferror(writer->file);
    failed |= fclose(writer->file);
    writer->file = NULL;
    if (failed || rename(writer->temporary, writer->path) != 0)
        return status_set(status, STATUS_FAILURE, "%s: cannot write: %s", writer->path,
                          strerror(errno));
    free(writer->temporary);
    writer->temporary = NULL;
    return STATUS_OK;
}

static void release(struct writer *writer)
{
    if (writer->file)
        fclose(writer->file);
    if (writer->temporary)
        unlink(writer->temporary);
    free(writer->temporary);
    free(writer->values);
    cJSON_free(writer->header);
}

int safetensors_write(const char *path, const struct checkpoint_tensor *tensors, int count,
                      enum checkpoint_type type, const char *const *metadata, struct status *status)
{
    struct writer writer = {.path = path, .type = type};
    int64_t largest = 0;
    writer.header = make_header(tensors, count, type, metadata, &largest, status);
    if (!writer.header)
        goto done;
    writer.values =
        status_calloc(status, (unsigned long)largest, sizeof *writer.values, "the largest tensor");
    if (!writer.values || open_temporary(&writer, status) != STATUS_OK)
        goto done;
    write_header(&writer);
    for (int i = 0; i < count; i++)
        if (write_tensor(&writer, &tensors[i], status) != STATUS_OK)
            goto done;
    finish_file(&writer, status);
done:
    release(&writer);
    return status->code;
}
