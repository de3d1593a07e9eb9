/* NPY files (the format of numpy.save, versions 1.0 to 3.0). */
#include "runtime/array.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_HEADER_BYTES = 1 << 16, PREAMBLE_BYTES = 8 };

void array_free(struct array *array)
{
    free(array->values);
    memset(array, 0, sizeof *array);
}

int64_t array_elements(const struct array *array)
{
    int64_t count = 1;
    for (int d = 0; d < array->rank; d++)
        count *= array->shape[d];
    return count;
}

struct npy_header {
    int element_bytes;
    bool fortran_order;
};

static const char *skip_spaces(const char *p)
{
    while (*p == ' ' || *p == '\n' || *p == '\t')
        p++;
    return p;
}

/* The text after 'KEY': in the header's dictionary, or NULL. */
static const char *find_key(const char *header, const char *key)
{
    char quoted[32];
    for (const char *quote = "'\""; *quote; quote++) {
        snprintf(quoted, sizeof quoted, "%c%s%c", *quote, key, *quote);
        const char *found = strstr(header, quoted);
        if (found) {
            found = skip_spaces(found + strlen(quoted));
            return *found == ':' ? skip_spaces(found + 1) : NULL;
        }
    }
    return NULL;
}

static bool parse_shape(const char *p, struct array *array)
{
    int64_t elements = 1;
    if (!p || *p != '(')
        return false;
    p = skip_spaces(p + 1);
    while (*p != ')') {
        char *end;
        if (array->rank == ARRAY_MAX_RANK || *p < '0' || *p > '9')
            return false;
        unsigned long long length = strtoull(p, &end, 10);
        if (length > INT32_MAX || (length && elements > INT64_MAX / 16 / (int64_t)length))
            return false;
        array->shape[array->rank++] = (int64_t)length;
        elements *= (int64_t)length;
        p = skip_spaces(*end == 'L' ? end + 1 : end);
        if (*p == ',')
            p = skip_spaces(p + 1);
        else if (*p != ')')
            return false;
    }
    return true;
}

static int parse_header(const char *text, struct npy_header *header, struct array *array,
                        const char *path, struct status *status)
{
    const char *descr = find_key(text, "descr"), *order = find_key(text, "fortran_order");
    header->fortran_order = order && strncmp(order, "True", 4) == 0;
    if (!descr || !order || (!header->fortran_order && strncmp(order, "False", 5) != 0) ||
        !parse_shape(find_key(text, "shape"), array))
        return status_set(status, STATUS_BAD_INPUT, "%s: damaged NPY header", path);
    char type[8] = "";
    if (*descr == '\'' || *descr == '"')
        sscanf(descr + 1, "%7[^'\"]", type);
    if (strcmp(type, "<f4") == 0)
        header->element_bytes = 4;
    else if (strcmp(type, "<f8") == 0)
        header->element_bytes = 8;
    else
        return status_set(status, STATUS_BAD_INPUT,
                          "%s: element type '%.7s', expected '<f4' or '<f8' (little-endian float)",
                          path, type);
    return status->code;
}

/* Reads magic, version and the header's text; returns it, NUL-terminated. */
static char *read_header(FILE *file, const char *path, struct status *status)
{
    unsigned char start[PREAMBLE_BYTES + 4];
    size_t length_bytes = 2;
    if (fread(start, 1, PREAMBLE_BYTES, file) != PREAMBLE_BYTES ||
        memcmp(start, "\x93NUMPY", 6) != 0) {
        status_set(status, STATUS_BAD_INPUT, "%s: not an NPY file", path);
        return NULL;
    }
    if (start[6] < 1 || start[6] > 3) {
        status_set(status, STATUS_BAD_INPUT, "%s: NPY version %d.%d, expected 1.0 to 3.0", path,
                   start[6], start[7]);
        return NULL;
    }
    if (start[6] > 1)
        length_bytes = 4;
    unsigned char *bytes = start + PREAMBLE_BYTES;
    memset(bytes, 0, 4);
    size_t got = fread(bytes, 1, length_bytes, file);
    size_t length =
        bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
    char *text = NULL;
    if (got == length_bytes && length <= MAX_HEADER_BYTES)
        text = status_calloc(status, length + 1, 1, path);
    if (!text || fread(text, 1, length, file) != length) {
        status_set(status, STATUS_BAD_INPUT, "%s: truncated NPY header", path);
        free(text);
        return NULL;
    }
    return text;
}

/* Where element i (row-major) lies in a file of Fortran order. */
static int64_t fortran_index(const struct array *array, int64_t i)
{
    int64_t index = 0, stride[ARRAY_MAX_RANK] = {1};
    for (int d = 1; d < array->rank; d++)
        stride[d] = stride[d - 1] * array->shape[d - 1];
    for (int d = array->rank - 1; d >= 0; d--) {
        index += i % array->shape[d] * stride[d];
        i /= array->shape[d];
    }
    return index;
}

static int read_values(FILE *file, const struct npy_header *header, struct array *array,
                       const char *path, struct status *status)
{
    struct stat info;
    int64_t count = array_elements(array);
    long position = ftell(file);
    unsigned char *bytes = NULL;
    if (fstat(fileno(file), &info) || position < 0 ||
        info.st_size - position < count * header->element_bytes)
        return status_set(status, STATUS_BAD_INPUT,
                          "%s: truncated: its header promises %lld elements of %d bytes", path,
                          (long long)count, header->element_bytes);
    size_t size = (size_t)count * (size_t)header->element_bytes;
    array->values = status_calloc(status, (size_t)count, sizeof *array->values, path);
    bytes = status_calloc(status, size, 1, path);
    if (!array->values || !bytes)
        goto done;
    if (fread(bytes, 1, size, file) != size) {
        status_set(status, STATUS_BAD_INPUT, "%s: cannot be read", path);
        goto done;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t from = header->fortran_order ? fortran_index(array, i) : i;
        double wide;
        if (header->element_bytes == 4) {
            memcpy(&array->values[i], bytes + 4 * from, 4);
        } else {
            memcpy(&wide, bytes + 8 * from, 8);
            array->values[i] = (float)wide;
        }
    }
done:
    free(bytes);
    return status->code;
}

int npy_read(struct array *array, const char *path, struct status *status)
{
    struct npy_header header = {0};
    char *text = NULL;
    memset(array, 0, sizeof *array);
    FILE *file = file_open(path, status);
    if (!file)
        return status->code;
    text = read_header(file, path, status);
    if (text && parse_header(text, &header, array, path, status) == STATUS_OK)
        read_values(file, &header, array, path, status);
    free(text);
    fclose(file);
    if (!status_ok(status))
        array_free(array);
    return status->code;
}

int npy_write(const char *path, const float *values, int rank, const int64_t *shape,
              struct status *status)
{
    char header[512];
    int64_t count = 1;
    int length =
        snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    for (int d = 0; d < rank; d++) {
        count *= shape[d];
        length +=
            snprintf(header + length, sizeof header - (size_t)length, "%lld%s", (long long)shape[d],
                     rank == 1      ? ","
                     : d + 1 < rank ? ", "
                                    : "");
    }
    length += snprintf(header + length, sizeof header - (size_t)length, "), }");
    size_t padded = ((size_t)length + 1 + 10 + 63) / 64 * 64 - 10;
    size_t total = 10 + padded + (size_t)count * sizeof *values;
    unsigned char *bytes = status_calloc(status, total, 1, path);
    if (!bytes)
        return status->code;
    memcpy(bytes, "\x93NUMPY\x01\x00", PREAMBLE_BYTES);
    bytes[8] = (unsigned char)(padded & 255);
    bytes[9] = (unsigned char)(padded >> 8);
    memset(bytes + 10, ' ', padded);
    memcpy(bytes + 10, header, (size_t)length);
    bytes[10 + padded - 1] = '\n';
    memcpy(bytes + 10 + padded, values, (size_t)count * sizeof *values);
    file_write(path, bytes, total, status);
    free(bytes);
    return status->code;
}
