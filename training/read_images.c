/* Reading the pictures of a training: PNG, JPEG, NPY and DICOM become [C,H,W] in [-1,1]. */
#include "training/images_internal.h"

#include "runtime/array.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { PATH_BYTES = 4096 };

/* ---- what a file is ---- */

static bool has_ending(const char *path, const char *ending)
{
    const char *dot = strrchr(path, '.');
    return dot && strcasecmp(dot, ending) == 0;
}

/* Scanners and archives name DICOM files by numbers. */
static bool begins_as_dicom(const char *path)
{
    char head[132] = {0};
    FILE *file = fopen(path, "rb");
    if (!file)
        return false;
    size_t count = fread(head, 1, sizeof head, file);
    fclose(file);
    return count == sizeof head && memcmp(head + 128, "DICM", 4) == 0;
}

bool image_file_is_known(const char *path)
{
    return path_is_image(path) || has_ending(path, ".npy") || has_ending(path, ".dcm") ||
           begins_as_dicom(path);
}

/* ---- one picture ---- */

/* Of a file: count pictures [channels,height,width]. */
struct pictures {
    const char *path, *group;
    const float *values;
    int64_t count, channels, height, width;
    double low, high; /* what becomes -1 and 1; equal: the values are so already */
};

/* Means over the pixels' areas, so that the shorter side has `shorter` pixels. [C,H,W]. */
static float *shrink(const float *values, int channels, int *height, int *width, int shorter,
                     struct status *status)
{
    int old_height = *height, old_width = *width;
    int side = old_height < old_width ? old_height : old_width;
    int new_height = (int)((int64_t)old_height * shorter / side);
    int new_width = (int)((int64_t)old_width * shorter / side);
    float *rows = status_calloc(
        status, (unsigned long)channels * (unsigned long)new_height * (unsigned long)old_width,
        sizeof *rows, "a smaller picture");
    float *result = status_calloc(
        status, (unsigned long)channels * (unsigned long)new_height * (unsigned long)new_width,
        sizeof *result, "a smaller picture");
    if (rows && result) {
        average_axis(values, rows, channels, old_height, new_height, old_width);
        average_axis(rows, result, channels * new_height, old_width, new_width, 1);
        *height = new_height;
        *width = new_width;
    }
    free(rows);
    return result;
}

/* The window, and the model's number of channels. */
static int convert(const struct image_set *set, const struct pictures *pictures,
                   const float *source, struct image *image, struct status *status)
{
    size_t plane = (size_t)image->height * (size_t)image->width;
    int wanted = set->options.channels;
    double low = pictures->low, high = pictures->high;
    image->values =
        status_calloc(status, (unsigned long)wanted * plane, sizeof(float), "a picture");
    if (!image->values)
        return status->code;
    for (size_t i = 0; i < (size_t)wanted * plane; i++) {
        size_t pixel = i % plane;
        double x = pictures->channels == wanted ? source[i]
                   : pictures->channels == 1
                       ? source[pixel]
                       : 0.299 * source[pixel] + 0.587 * source[plane + pixel] +
                             0.114 * source[2 * plane + pixel];
        if (low != high)
            x = 2 * (x - low) / (high - low) - 1;
        image->values[i] = (float)fmin(fmax(x, -1), 1);
    }
    return STATUS_OK;
}

static int remember(struct image_set *set, struct image *image, struct status *status)
{
    const struct image_set_options *options = &set->options;
    set->bytes += (size_t)options->channels * (size_t)image->height * (size_t)image->width *
                  sizeof *image->values;
    if (options->memory_limit_bytes && set->bytes > options->memory_limit_bytes)
        return status_set(status, STATUS_BAD_INPUT,
                          "%s: the pictures take more than %zu MB of memory; --shrink makes them "
                          "smaller",
                          options->folder, options->memory_limit_bytes >> 20);
    if (image_list_grow((void **)&set->images, set->count, sizeof *set->images, status))
        return status->code;
    set->images[set->count++] = *image;
    return STATUS_OK;
}

static int add_picture(struct image_set *set, const struct pictures *pictures, int64_t index,
                       struct status *status)
{
    const float *values =
        pictures->values + index * pictures->channels * pictures->height * pictures->width;
    struct image image = {.height = (int)pictures->height, .width = (int)pictures->width};
    int shorter = image.height < image.width ? image.height : image.width;
    float *smaller = NULL;
    if (set->options.shrink && shorter > set->options.shrink) {
        smaller = shrink(values, (int)pictures->channels, &image.height, &image.width,
                         set->options.shrink, status);
        if (!smaller)
            return status->code;
    }
    convert(set, pictures, smaller ? smaller : values, &image, status);
    free(smaller);
    if (status_ok(status) && (asprintf(&image.name, pictures->count > 1 ? "%s[%d]" : "%s",
                                       pictures->path, (int)index) < 0 ||
                              !(image.group = strdup(pictures->group))))
        status_set(status, STATUS_FAILURE, "out of memory for the list of pictures");
    if (status_ok(status) && remember(set, &image, status) == STATUS_OK)
        return STATUS_OK;
    free(image.values);
    free(image.name);
    free(image.group);
    return status->code;
}

/* ---- the pictures of a file ---- */

static bool all_finite(const float *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

/* All, or none where one will not do. */
static int add_pictures(struct image_set *set, const struct pictures *p, struct status *status)
{
    char reason[128] = "";
    int size = set->options.size;
    if (p->channels != 1 && p->channels != 3)
        snprintf(reason, sizeof reason, "%lld channels, expected 1 or 3", (long long)p->channels);
    else if (p->height < size || p->width < size)
        snprintf(reason, sizeof reason, "%lld x %lld pixels, expected %d at least",
                 (long long)p->width, (long long)p->height, size);
    else if (p->height > INT32_MAX / p->width)
        snprintf(reason, sizeof reason, "%lld x %lld pixels are too many", (long long)p->width,
                 (long long)p->height);
    else if (!all_finite(p->values, p->count * p->channels * p->height * p->width))
        snprintf(reason, sizeof reason, "a number is not finite");
    if (reason[0])
        return image_set_skip(set, p->path, reason, status);
    for (int64_t i = 0; i < p->count && status_ok(status); i++)
        add_picture(set, p, i, status);
    return status->code;
}

static int read_image(struct image_set *set, struct pictures *pictures, struct status *status)
{
    struct status reading = {0};
    struct array array = {0};
    if (image_read(&array, pictures->path, set->options.channels, &reading) != STATUS_OK)
        return image_set_skip(set, pictures->path, reading.message, status);
    pictures->values = array.values;
    pictures->count = 1;
    pictures->channels = array.shape[1];
    pictures->height = array.shape[2];
    pictures->width = array.shape[3];
    add_pictures(set, pictures, status);
    array_free(&array);
    return status->code;
}

/* [H,W], a stack [N,H,W], or [N,C,H,W]. */
static int read_npy(struct image_set *set, struct pictures *pictures, struct status *status)
{
    struct status reading = {0};
    struct array array = {0};
    if (npy_read(&array, pictures->path, &reading) != STATUS_OK)
        return image_set_skip(set, pictures->path, reading.message, status);
    const int64_t *shape = array.shape;
    int rank = array.rank;
    if (rank < 2 || rank > 4 || array_elements(&array) == 0)
        image_set_skip(set, pictures->path, "expected an array [H,W], [N,H,W] or [N,C,H,W]",
                       status);
    else {
        pictures->values = array.values;
        pictures->count = rank > 2 ? shape[0] : 1;
        pictures->channels = rank == 4 ? shape[1] : 1;
        pictures->height = shape[rank - 2];
        pictures->width = shape[rank - 1];
        pictures->low = set->options.low;
        pictures->high = set->options.high;
        add_pictures(set, pictures, status);
    }
    array_free(&array);
    return status->code;
}

/* A grey one needs a window: the options', or the usual one of CT. Returns a reason why not. */
static const char *choose_window(const struct image_set_options *options,
                                 const struct dicom_picture *dicom, struct pictures *pictures)
{
    bool given = options->low != options->high;
    if (dicom->channels == 3)
        return NULL;
    if (!given && strcmp(dicom->modality, "CT") != 0)
        return "no CT: --low and --high must say what becomes -1 and 1";
    pictures->low = given ? options->low : -1000;
    pictures->high = given ? options->high : 1500;
    if (dicom->inverted) {
        double low = pictures->low;
        pictures->low = pictures->high;
        pictures->high = low;
    }
    return NULL;
}

static int read_dicom(struct image_set *set, struct pictures *pictures, struct status *status)
{
    struct status reading = {0};
    struct dicom_picture dicom;
    if (!set->dicom && dicom_library_open(&set->dicom, status) != STATUS_OK) {
        status_prefix(status, "%s", pictures->path);
        return status->code;
    }
    if (dicom_read(set->dicom, pictures->path, &dicom, &reading) != STATUS_OK)
        return image_set_skip(set, pictures->path, reading.message, status);
    const char *reason = choose_window(&set->options, &dicom, pictures);
    pictures->values = dicom.values;
    pictures->count = dicom.frames;
    pictures->channels = dicom.channels;
    pictures->height = dicom.height;
    pictures->width = dicom.width;
    if (dicom.patient[0])
        pictures->group = dicom.patient;
    if (reason)
        image_set_skip(set, pictures->path, reason, status);
    else
        add_pictures(set, pictures, status);
    dicom_picture_free(&dicom);
    return status->code;
}

/* The first folder below the root, else the file itself. */
static void group_of(const char *path, const char *root, char group[PATH_BYTES])
{
    const char *name = path + strlen(root);
    name += strspn(name, "/");
    snprintf(group, PATH_BYTES, "%.*s", (int)strcspn(name, "/"), name);
}

int image_set_read(struct image_set *set, const char *path, const char *root, struct status *status)
{
    char group[PATH_BYTES];
    struct pictures pictures = {.path = path, .group = group};
    group_of(path, root, group);
    return path_is_image(path)        ? read_image(set, &pictures, status)
           : has_ending(path, ".npy") ? read_npy(set, &pictures, status)
                                      : read_dicom(set, &pictures, status);
}
