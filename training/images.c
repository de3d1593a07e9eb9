/* Finding and splitting the pictures of a training. */
#include "training/images_internal.h"

#include "runtime/array.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_BYTES = 4096, MOST_DEPTH = 32 };

/* ---- lists that grow ---- */

int image_list_grow(void **list, int count, size_t element_bytes, struct status *status)
{
    if (count & (count - 1)) /* room is the next power of two */
        return STATUS_OK;
    void *grown = realloc(*list, (size_t)(count ? 2 * count : 1) * element_bytes);
    if (!grown)
        return status_set(status, STATUS_FAILURE, "out of memory for the list of pictures");
    *list = grown;
    return STATUS_OK;
}

int image_set_skip(struct image_set *set, const char *path, const char *reason,
                   struct status *status)
{
    char *line = NULL;
    bool named = strncmp(reason, path, strlen(path)) == 0; /* messages of the readers begin so */
    if (asprintf(&line, "%s%s%s", named ? "" : path, named ? "" : ": ", reason) < 0)
        return status_set(status, STATUS_FAILURE, "out of memory for the list of pictures");
    if (image_list_grow((void **)&set->skipped, set->skipped_count, sizeof *set->skipped, status))
        free(line);
    else
        set->skipped[set->skipped_count++] = line;
    return status->code;
}

/* ---- finding files ---- */

struct files {
    struct image_set *set; /* which lists what is left out */
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
    if (lstat(path, &info) != 0)
        return STATUS_OK;
    if (S_ISDIR(info.st_mode) && depth < MOST_DEPTH)
        return find_files(files, path, depth + 1, status);
    if (S_ISDIR(info.st_mode))
        return image_set_skip(files->set, path, "the folders lie too deep", status);
    if (S_ISLNK(info.st_mode) && path_is_folder(path)) /* it may lead back to where it is */
        return image_set_skip(files->set, path, "a linked folder is not searched", status);
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode) || !image_file_is_known(path) ||
        image_list_grow((void **)&files->paths, files->count, sizeof *files->paths, status))
        return status->code;
    files->paths[files->count] = strdup(path);
    if (!files->paths[files->count])
        return status_set(status, STATUS_FAILURE, "out of memory for the list of pictures");
    files->count++;
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

static int read_folder(struct image_set *set, const char *folder, struct status *status)
{
    struct files files = {.set = set};
    if (find_files(&files, folder, 0, status) == STATUS_OK && files.count)
        qsort(files.paths, (size_t)files.count, sizeof *files.paths, compare_paths);
    for (int i = 0; i < files.count && status_ok(status); i++)
        image_set_read(set, files.paths[i], folder, status);
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
    bool one_group = learns && !set->options.held_out_folder;
    if (learns && judges)
        return STATUS_OK;
    return status_set(status, STATUS_BAD_INPUT, "%s: no picture to %s%s%s%s",
                      learns && set->options.held_out_folder ? set->options.held_out_folder
                                                             : set->options.folder,
                      learns ? "hold out" : "learn from", set->skipped_count ? "; skipped " : "",
                      set->skipped_count ? set->skipped[0] : "",
                      one_group ? " (all are of one group: give --held_out)" : "");
}

/* No picture may be learned from and judged by. */
static int check_apart(const char *data, const char *held_out, struct status *status)
{
    char *a = realpath(data, NULL), *b = realpath(held_out, NULL);
    size_t length = a ? strlen(a) : 0;
    if (a && b && strncmp(a, b, length) == 0 && (b[length] == '/' || !b[length]))
        status_set(status, STATUS_BAD_INPUT,
                   "--held_out %s lies in --data %s, whose pictures are learned from", held_out,
                   data);
    free(a);
    free(b);
    return status->code;
}

/* A folder that is split already, as tools/data make them, must not be split again. */
static int check_split(const char *folder, struct status *status)
{
    char train[PATH_BYTES], held_out[PATH_BYTES];
    if (snprintf(train, sizeof train, "%s/train", folder) >= PATH_BYTES ||
        snprintf(held_out, sizeof held_out, "%s/held_out", folder) >= PATH_BYTES ||
        !path_is_folder(train) || !path_is_folder(held_out))
        return STATUS_OK;
    return status_set(status, STATUS_BAD_INPUT, "%s is split already: give --data %s --held_out %s",
                      folder, train, held_out);
}

static int check_options(const struct image_set_options *options, struct status *status)
{
    if (options->shrink && options->shrink < options->size)
        return status_set(status, STATUS_BAD_INPUT,
                          "--shrink %d: expected %d at least, the side of the model's pictures",
                          options->shrink, options->size);
    return options->held_out_folder ? check_apart(options->folder, options->held_out_folder, status)
                                    : check_split(options->folder, status);
}

int image_set_open(struct image_set **result, const struct image_set_options *options,
                   struct status *status)
{
    struct image_set *set = *result = status_calloc(status, 1, sizeof *set, "the pictures");
    if (!set)
        return status->code;
    set->options = *options;
    if (check_options(options, status) || read_folder(set, options->folder, status))
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
    dicom_library_close(set->dicom);
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
