/* Finding, reading and splitting the pictures of a training. What is shown of them: augment.c. */
#include "training/images_internal.h"

#include "runtime/array.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { PATH_BYTES = 4096, MOST_DEPTH = 32 };

/* ---- lists that grow ---- */

static bool grow(void **list, int count, size_t element_bytes)
{
    if (count & (count - 1)) /* room is the next power of two */
        return true;
    void *grown = realloc(*list, (size_t)(count ? 2 * count : 1) * element_bytes);
    if (grown)
        *list = grown;
    return grown != NULL;
}

static int no_memory(struct status *status)
{
    return status_set(status, STATUS_FAILURE, "out of memory for the list of pictures");
}

static int skip(struct image_set *set, const char *path, const char *reason, struct status *status)
{
    char *line = NULL;
    size_t length = strlen(path);
    bool named = strncmp(reason, path, length) == 0; /* messages of the readers begin so */
    if (!grow((void **)&set->skipped, set->skipped_count, sizeof *set->skipped) ||
        asprintf(&line, "%s%s%s", named ? "" : path, named ? "" : ": ", reason) < 0)
        return no_memory(status);
    set->skipped[set->skipped_count++] = line;
    return STATUS_OK;
}

/* ---- finding files ---- */

static bool has_ending(const char *path, const char *ending)
{
    const char *dot = strrchr(path, '.');
    return dot && strcasecmp(dot, ending) == 0;
}

static bool is_picture(const char *path)
{
    return path_is_image(path) || has_ending(path, ".npy") || has_ending(path, ".dcm");
}

struct files {
    char **paths;
    int count;
};

static int find_files(struct files *files, const char *folder, int depth, struct status *status);

static int add_entry(struct files *files, const char *folder, const char *name, int depth,
                     struct status *status)
{
    char path[PATH_BYTES];
    struct stat info;
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= PATH_BYTES)
        return status_set(status, STATUS_BAD_INPUT, "%.64s...: the path is too long", path);
    if (stat(path, &info) != 0)
        return STATUS_OK;
    if (S_ISDIR(info.st_mode))
        return depth < MOST_DEPTH ? find_files(files, path, depth + 1, status) : STATUS_OK;
    if (!S_ISREG(info.st_mode) || !is_picture(path))
        return STATUS_OK;
    char *copy = strdup(path);
    if (!copy || !grow((void **)&files->paths, files->count, sizeof *files->paths)) {
        free(copy);
        return no_memory(status);
    }
    files->paths[files->count++] = copy;
    return STATUS_OK;
}

static int find_files(struct files *files, const char *folder, int depth, struct status *status)
{
    DIR *directory = opendir(folder);
    if (!directory)
        return status_set(status, STATUS_BAD_INPUT, "%s: cannot read this folder", folder);
    for (struct dirent *entry; status_ok(status) && (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            add_entry(files, folder, entry->d_name, depth, status);
    closedir(directory);
    return status->code;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* ---- reading ---- */

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

static int remember(struct image_set *set, struct image *image, struct status *status)
{
    const struct image_set_options *options = &set->options;
    size_t bytes = (size_t)options->channels * (size_t)image->height * (size_t)image->width *
                   sizeof *image->values;
    set->bytes += bytes;
    if (options->memory_limit_bytes && set->bytes > options->memory_limit_bytes)
        return status_set(status, STATUS_BAD_INPUT,
                          "%s: the pictures take more than %zu MB of memory; --shrink makes them "
                          "smaller",
                          options->folder, options->memory_limit_bytes >> 20);
    if (!grow((void **)&set->images, set->count, sizeof *set->images))
        return no_memory(status);
    set->images[set->count++] = *image;
    return STATUS_OK;
}

/* NPY and DICOM: the window, and the model's number of channels. */
static int convert(const struct image_set *set, const float *source, int channels,
                   const double window[2], struct image *image, struct status *status)
{
    size_t plane = (size_t)image->height * (size_t)image->width;
    int wanted = set->options.channels;
    bool mapped = window[0] < window[1];
    image->values =
        status_calloc(status, (unsigned long)wanted * plane, sizeof(float), "a picture");
    if (!image->values)
        return status->code;
    for (size_t i = 0; i < (size_t)wanted * plane; i++) {
        size_t pixel = i % plane;
        double x = channels == wanted ? source[i]
                   : channels == 1    ? source[pixel]
                                      : 0.299 * source[pixel] + 0.587 * source[plane + pixel] +
                                         0.114 * source[2 * plane + pixel];
        if (mapped)
            x = 2 * (x - window[0]) / (window[1] - window[0]) - 1;
        image->values[i] = (float)fmin(fmax(x, -1), 1);
    }
    return STATUS_OK;
}

/* One picture of a file. */
static int take_picture(struct image_set *set, const char *path, const char *group, int index,
                        int pictures, const float *values, int channels, int height, int width,
                        const double window[2], struct status *status)
{
    struct image image = {.height = height, .width = width};
    int shorter = height < width ? height : width, limit = set->options.shrink;
    int64_t count = (int64_t)channels * height * width;
    char reason[128];
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return skip(set, path, "a number is not finite", status);
    if (shorter < set->options.size) {
        snprintf(reason, sizeof reason, "%d x %d pixels, expected %d at least", width, height,
                 set->options.size);
        return skip(set, path, reason, status);
    }
    if (channels != 1 && channels != 3) {
        snprintf(reason, sizeof reason, "%d channels, expected 1 or 3", channels);
        return skip(set, path, reason, status);
    }
    float *smaller = NULL;
    if (limit && shorter > limit) {
        smaller = shrink(values, channels, &image.height, &image.width, limit, status);
        if (!smaller)
            return status->code;
    }
    convert(set, smaller ? smaller : values, channels, window, &image, status);
    free(smaller);
    if (status_ok(status) &&
        (asprintf(&image.name, pictures > 1 ? "%s[%d]" : "%s", path, index) < 0 ||
         !(image.group = strdup(group))))
        no_memory(status);
    if (status_ok(status) && remember(set, &image, status) == STATUS_OK)
        return STATUS_OK;
    free(image.values);
    free(image.name);
    free(image.group);
    return status->code;
}

/* The array as pictures [N,C,H,W]: rank 3 is a stack of grey ones. */
static void as_pictures(struct array *array)
{
    if (array->shape[0] == 1 && array->rank == 4 && array->shape[1] != 3) {
        array->shape[0] = array->shape[1];
        array->shape[1] = 1;
    }
}

static int take_array(struct image_set *set, const char *path, const char *group,
                      const struct array *array, const double window[2], struct status *status)
{
    int64_t elements = array->shape[1] * array->shape[2] * array->shape[3];
    for (int64_t i = 0; i < array->shape[0] && status_ok(status); i++)
        take_picture(set, path, group, (int)i, (int)array->shape[0], array->values + i * elements,
                     (int)array->shape[1], (int)array->shape[2], (int)array->shape[3], window,
                     status);
    return status->code;
}

/* The first folder below the root, else the file itself. */
static void group_of(const char *path, const char *root, char group[PATH_BYTES])
{
    const char *name = path + strlen(root);
    name += strspn(name, "/");
    snprintf(group, PATH_BYTES, "%.*s", (int)strcspn(name, "/"), name);
}

static int read_file(struct image_set *set, const char *path, const char *root,
                     struct status *status)
{
    struct status reading = {0};
    struct array array = {0};
    char group[PATH_BYTES];
    const double picture_window[2] = {0, 0};
    double window[2] = {set->options.low, set->options.high};
    group_of(path, root, group);
    if (has_ending(path, ".dcm"))
        status_set(&reading, STATUS_BAD_INPUT, "DICOM is not read yet");
    else
        array_read_image(&array, path, set->options.channels, &reading);
    if (!status_ok(&reading))
        skip(set, path, reading.message, status);
    else {
        if (has_ending(path, ".npy"))
            as_pictures(&array);
        take_array(set, path, group, &array, path_is_image(path) ? picture_window : window, status);
    }
    array_free(&array);
    return status->code;
}

static int read_folder(struct image_set *set, const char *folder, struct status *status)
{
    struct files files = {0};
    if (find_files(&files, folder, 0, status) == STATUS_OK && files.count)
        qsort(files.paths, (size_t)files.count, sizeof *files.paths, compare_paths);
    for (int i = 0; i < files.count && status_ok(status); i++)
        read_file(set, files.paths[i], folder, status);
    for (int i = 0; i < files.count; i++)
        free(files.paths[i]);
    free(files.paths);
    return status->code;
}

/* ---- splitting ---- */

/* FNV-1a, then mixed, as a share of 1. */
static double hash_share(const char *text)
{
    uint64_t hash = 14695981039346656037u;
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 1099511628211u;
    hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdu;
    return (double)(hash >> 11) / 9007199254740992.0;
}

/* The group nearest to being held out (or the reverse), so that neither side is empty. */
static const char *extreme_group(const struct image_set *set, bool least)
{
    const char *chosen = NULL;
    for (int i = 0; i < set->count; i++) {
        const char *group = set->images[i].group;
        if (!chosen || (hash_share(group) < hash_share(chosen)) == least)
            chosen = group;
    }
    return chosen;
}

static void split_by_hash(struct image_set *set)
{
    const char *least = extreme_group(set, true), *most = extreme_group(set, false);
    for (int i = 0; i < set->count; i++) {
        struct image *image = &set->images[i];
        image->held_out = strcmp(image->group, most) != 0 &&
                          (strcmp(image->group, least) == 0 ||
                           hash_share(image->group) < set->options.held_out_fraction);
    }
}

static int list_parts(struct image_set *set, struct status *status)
{
    set->order = status_calloc(status, (unsigned long)set->count + 1, sizeof *set->order,
                               "the list of pictures");
    if (!set->order)
        return status->code;
    for (int i = 0; i < set->count; i++)
        if (!set->images[i].held_out)
            set->order[set->training_count++] = i;
    for (int i = 0, next = set->training_count; i < set->count; i++)
        if (set->images[i].held_out)
            set->order[next++] = i;
    bool learns = set->training_count > 0, judges = set->training_count < set->count;
    if (learns && judges)
        return STATUS_OK;
    return status_set(
        status, STATUS_BAD_INPUT, "%s: no picture to %s%s%s%s",
        learns && set->options.held_out_folder ? set->options.held_out_folder : set->options.folder,
        learns ? "hold out" : "learn from", set->skipped_count ? "; skipped " : "",
        set->skipped_count ? set->skipped[0] : "", set->count == 1 ? " (one group alone)" : "");
}

int image_set_open(struct image_set **result, const struct image_set_options *options,
                   struct status *status)
{
    struct image_set *set = *result = status_calloc(status, 1, sizeof *set, "the pictures");
    if (!set)
        return status->code;
    set->options = *options;
    if (read_folder(set, options->folder, status) != STATUS_OK)
        goto done;
    int count = set->count;
    if (!options->held_out_folder)
        split_by_hash(set);
    else if (read_folder(set, options->held_out_folder, status) != STATUS_OK)
        goto done;
    for (int i = count; i < set->count; i++)
        set->images[i].held_out = true;
    list_parts(set, status);
done:
    if (!status_ok(status)) {
        image_set_free(set);
        *result = NULL;
    }
    return status->code;
}

void image_set_free(struct image_set *set)
{
    if (!set)
        return;
    for (int i = 0; i < set->count; i++) {
        free(set->images[i].values);
        free(set->images[i].name);
        free(set->images[i].group);
    }
    for (int i = 0; i < set->skipped_count; i++)
        free(set->skipped[i]);
    free(set->images);
    free(set->skipped);
    free(set->order);
    free(set);
}

int image_set_count(const struct image_set *set, enum image_split split)
{
    return split == IMAGES_TRAINING ? set->training_count : set->count - set->training_count;
}

const char *image_set_name(const struct image_set *set, enum image_split split, int index)
{
    return set->images[set->order[split == IMAGES_TRAINING ? index : set->training_count + index]]
        .name;
}

int image_set_skipped(const struct image_set *set)
{
    return set->skipped_count;
}

const char *image_set_skipped_line(const struct image_set *set, int index)
{
    return set->skipped[index];
}
