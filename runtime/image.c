/* Pictures as arrays: which library reads a file, and what its samples mean. */
#include "runtime/array.h"
#include "runtime/raster.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_SIDE = 16384, MAX_PIXELS = 1 << 26 };
enum content { CONTENT_UNKNOWN, CONTENT_NPY, CONTENT_PNG, CONTENT_JPEG };

int raster_create(struct raster *raster, const char *path, size_t width, size_t height,
                  struct status *status)
{
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE ||
        width * height > MAX_PIXELS)
        return status_set(status, STATUS_BAD_INPUT,
                          "%s: a picture of %zu x %zu pixels, expected sides of at most %d and at "
                          "most %d pixels in all",
                          path, width, height, MAX_SIDE, MAX_PIXELS);
    raster->width = (int)width;
    raster->height = (int)height;
    raster->samples = status_calloc(status, width * height,
                                    (size_t)(raster->channels * raster->sample_bytes), path);
    return status->code;
}

/* What the first bytes say; the file is left at its start. */
static enum content look_at(FILE *file)
{
    static const unsigned char png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    unsigned char start[sizeof png] = {0};
    size_t length = fread(start, 1, sizeof start, file);
    rewind(file);
    if (length == sizeof png && memcmp(start, png, sizeof png) == 0)
        return CONTENT_PNG;
    if (length >= 3 && memcmp(start, "\xff\xd8\xff", 3) == 0)
        return CONTENT_JPEG;
    if (length >= 6 && memcmp(start, "\x93NUMPY", 6) == 0)
        return CONTENT_NPY;
    return CONTENT_UNKNOWN;
}

static int sample(const struct raster *raster, size_t index)
{
    uint16_t wide;
    if (raster->sample_bytes == 1)
        return raster->samples[index];
    memcpy(&wide, raster->samples + 2 * index, sizeof wide);
    return wide;
}

/* Luma of ITU-R 601: for bytes in the integer form of PIL's convert("L"), to the same byte. */
static float luma(const struct raster *raster, size_t pixel)
{
    int red = sample(raster, 3 * pixel), green = sample(raster, 3 * pixel + 1),
        blue = sample(raster, 3 * pixel + 2);
    if (raster->sample_bytes == 1)
        return (float)((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16);
    return (float)(0.299 * red + 0.587 * green + 0.114 * blue);
}

/* operators.md section 9: u = sample / largest, (u - 0.5) / 0.5. */
static int to_array(struct array *array, const struct raster *raster, int channels,
                    const char *path, struct status *status)
{
    size_t plane = (size_t)raster->width * (size_t)raster->height;
    const float largest = raster->sample_bytes == 1 ? 255.0f : 65535.0f;
    if (channels == 0)
        channels = raster->channels;
    array->values = status_calloc(status, plane * (size_t)channels, sizeof(float), path);
    if (!array->values)
        return status->code;
    array->rank = 4;
    array->shape[0] = 1;
    array->shape[1] = channels;
    array->shape[2] = raster->height;
    array->shape[3] = raster->width;
    for (size_t i = 0; i < plane * (size_t)channels; i++) {
        size_t pixel = i % plane, channel = raster->channels == 1 ? 0 : i / plane;
        float value = channels < raster->channels
                          ? luma(raster, pixel)
                          : (float)sample(raster, pixel * (size_t)raster->channels + channel);
        array->values[i] = (value / largest - 0.5f) / 0.5f;
    }
    return status->code;
}

static int read_picture(struct array *array, FILE *file, enum content content, const char *path,
                        int channels, struct status *status)
{
    struct raster raster = {0};
    if (content == CONTENT_PNG)
        raster_read_png(&raster, file, path, status);
    else
        raster_read_jpeg(&raster, file, path, status);
    if (status_ok(status))
        to_array(array, &raster, channels, path, status);
    free(raster.samples);
    return status->code;
}

int image_read(struct array *array, const char *path, int channels, struct status *status)
{
    memset(array, 0, sizeof *array);
    FILE *file = file_open(path, status);
    if (!file)
        return status->code;
    enum content content = look_at(file);
    if (content == CONTENT_PNG || content == CONTENT_JPEG)
        read_picture(array, file, content, path, channels, status);
    else
        status_set(status, STATUS_BAD_INPUT, "%s: not a picture, expected PNG or JPEG", path);
    fclose(file);
    return status->code;
}

/* Leading ones up to rank 4. */
static int shape_as_image(struct array *array, const char *path, struct status *status)
{
    if (array->rank < 2 || array->rank > 4 || array_elements(array) == 0)
        return status_set(status, STATUS_BAD_INPUT,
                          "%s: array of rank %d with %lld elements, expected [N,C,H,W], [C,H,W] or "
                          "[H,W]",
                          path, array->rank, (long long)array_elements(array));
    int added = 4 - array->rank;
    memmove(array->shape + added, array->shape, (size_t)array->rank * sizeof *array->shape);
    for (int d = 0; d < added; d++)
        array->shape[d] = 1;
    array->rank = 4;
    return status->code;
}

int array_read_image(struct array *array, const char *path, int channels, struct status *status)
{
    memset(array, 0, sizeof *array);
    FILE *file = file_open(path, status);
    if (!file)
        return status->code;
    enum content content = look_at(file);
    fclose(file);
    if (content == CONTENT_UNKNOWN)
        return status_set(status, STATUS_BAD_INPUT, "%s: expected an NPY file, a PNG or a JPEG",
                          path);
    if (content != CONTENT_NPY)
        return image_read(array, path, channels, status);
    if (npy_read(array, path, status) == STATUS_OK)
        shape_as_image(array, path, status);
    if (!status_ok(status))
        array_free(array);
    return status->code;
}

bool path_is_image(const char *path)
{
    const char *end = strrchr(path, '.');
    return end &&
           (!strcasecmp(end, ".png") || !strcasecmp(end, ".jpg") || !strcasecmp(end, ".jpeg"));
}
