#include "model/checkpoint.h"
#include "model/checkpoint_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Files that are easily taken for a checkpoint, and what to do about each. */
static const struct {
    size_t offset;
    const char *magic;
    size_t length;
    const char *advice;
} lookalikes[] = {
    {0, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 14,
     "written in the format before PyTorch 1.6, which is not a zip archive; load it with PyTorch "
     "and write it again: torch.save(torch.load(\"FILE\", map_location=\"cpu\"), \"NEW\")"},
    {257, "ustar", 5,
     "a tar archive, the oldest PyTorch format; load it with PyTorch and write it again: "
     "torch.save(torch.load(\"FILE\", map_location=\"cpu\"), \"NEW\")"},
    {0, "\x80", 1, "a bare pickle; write it again with torch.save of PyTorch 1.6 or later"},
    {0, "version https://git-lfs", 23, "a Git LFS pointer; run `git lfs pull` to get the file"},
    {0, "<", 1, "a web page or XML; the download went wrong"},
};

static int read_contents(struct checkpoint *checkpoint, struct status *status)
{
    const unsigned char *bytes = checkpoint->bytes;
    size_t size = checkpoint->size_bytes;
    if (size >= 4 && memcmp(bytes, "PK", 2) == 0)
        return pytorch_read(checkpoint, status);
    if (size >= 9 && bytes[8] == '{')
        return safetensors_read(checkpoint, status);
    if (size == 0)
        return status_set(status, STATUS_BAD_INPUT, "empty file");
    for (size_t i = 0; i < sizeof lookalikes / sizeof *lookalikes; i++)
        if (lookalikes[i].offset + lookalikes[i].length <= size &&
            memcmp(bytes + lookalikes[i].offset, lookalikes[i].magic, lookalikes[i].length) == 0)
            return status_set(status, STATUS_BAD_INPUT, "%s", lookalikes[i].advice);
    return status_set(status, STATUS_BAD_INPUT,
                      "neither a PyTorch zip checkpoint nor a safetensors file");
}

static int compare_names(const struct checkpoint_entry *a, const struct checkpoint_entry *b)
{
    size_t shorter = a->name_length < b->name_length ? a->name_length : b->name_length;
    int order =
        a->tensor.name == b->tensor.name ? 0 : memcmp(a->tensor.name, b->tensor.name, shorter);
    return order ? order : (a->name_length > b->name_length) - (a->name_length < b->name_length);
}

static int compare_entries(const void *a, const void *b)
{
    return compare_names(*(struct checkpoint_entry *const *)a,
                         *(struct checkpoint_entry *const *)b);
}

static int check_name(const struct checkpoint_entry *entry, struct status *status)
{
    for (size_t i = 0; i < entry->name_length; i++)
        if ((unsigned char)entry->tensor.name[i] < ' ' || entry->tensor.name[i] == 0x7f)
            return status_set(status, STATUS_BAD_INPUT,
                              "a tensor's name holds a control character (at byte %zu)", i);
    return STATUS_OK;
}

/* Sorts, refuses duplicates, and only then copies the names: distinct names are distinct bytes of
 * the file, so their sum is bounded by its size. */
static int index_names(struct checkpoint *checkpoint, struct status *status)
{
    size_t count = (size_t)checkpoint->count, total = 0;
    if (count == 0)
        return status_set(status, STATUS_BAD_INPUT, "no tensors in it");
    checkpoint->by_name = status_calloc(status, count, sizeof *checkpoint->by_name, "tensor names");
    if (!checkpoint->by_name)
        return status->code;
    for (size_t i = 0; i < count; i++)
        checkpoint->by_name[i] = &checkpoint->entries[i];
    qsort(checkpoint->by_name, count, sizeof *checkpoint->by_name, compare_entries);
    for (size_t i = 0; i < count; i++) {
        const struct checkpoint_entry *entry = checkpoint->by_name[i];
        if (check_name(entry, status) != STATUS_OK)
            return status->code;
        if (i > 0 && compare_names(checkpoint->by_name[i - 1], entry) == 0)
            return status_set(status, STATUS_BAD_INPUT, "tensor \"%.*s\" is there twice",
                              (int)entry->name_length, entry->tensor.name);
        total += entry->name_length + 1;
    }
    char *name = checkpoint->names = status_calloc(status, total, 1, "tensor names");
    if (!name)
        return status->code;
    for (size_t i = 0; i < count; i++) {
        struct checkpoint_entry *entry = &checkpoint->entries[i];
        memcpy(name, entry->tensor.name, entry->name_length);
        entry->tensor.name = name;
        name += entry->name_length + 1;
    }
    return STATUS_OK;
}

static struct checkpoint *create(const char *path, struct status *status)
{
    struct checkpoint *checkpoint = status_calloc(status, 1, sizeof *checkpoint, "a checkpoint");
    if (!checkpoint)
        return NULL;
    checkpoint->path = strdup(path);
    if (checkpoint->path)
        return checkpoint;
    status_set(status, STATUS_FAILURE, "out of memory for a file name");
    free(checkpoint);
    return NULL;
}

static struct checkpoint *finish(struct checkpoint *checkpoint, struct status *status)
{
    if (status_ok(status))
        read_contents(checkpoint, status);
    if (status_ok(status))
        index_names(checkpoint, status);
    if (status_ok(status))
        return checkpoint;
    status_prefix(status, "%s", checkpoint->path);
    checkpoint_close(checkpoint);
    return NULL;
}

struct checkpoint *checkpoint_open_memory(const unsigned char *bytes, size_t size, const char *path,
                                          struct status *status)
{
    struct checkpoint *checkpoint = create(path, status);
    if (!checkpoint)
        return NULL;
    checkpoint->bytes = bytes;
    checkpoint->size_bytes = size;
    return finish(checkpoint, status);
}

static int map_file(struct checkpoint *checkpoint, struct status *status)
{
    struct stat about;
    int file = open(checkpoint->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0 || fstat(file, &about) != 0) {
        status_set(status, STATUS_BAD_INPUT, "%s", strerror(errno));
    } else if (!S_ISREG(about.st_mode)) {
        status_set(status, STATUS_BAD_INPUT, "not a regular file");
    } else if (about.st_size > 0) {
        void *bytes = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
        checkpoint->mapped = bytes != MAP_FAILED;
        if (checkpoint->mapped) {
            checkpoint->bytes = bytes;
            checkpoint->size_bytes = (size_t)about.st_size;
        } else {
            status_set(status, STATUS_FAILURE, "cannot map it: %s", strerror(errno));
        }
    }
    if (file >= 0)
        close(file);
    return status->code;
}

struct checkpoint *checkpoint_open(const char *path, struct status *status)
{
    struct checkpoint *checkpoint = create(path, status);
    if (!checkpoint)
        return NULL;
    map_file(checkpoint, status);
    return finish(checkpoint, status);
}

void checkpoint_close(struct checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    zip_free(&checkpoint->archive);
    cJSON_Delete(checkpoint->header);
    if (checkpoint->mapped)
        munmap((void *)(uintptr_t)checkpoint->bytes, checkpoint->size_bytes);
    free(checkpoint->entries);
    free(checkpoint->by_name);
    free(checkpoint->names);
    free(checkpoint->path);
    free(checkpoint);
}

const char *checkpoint_path(const struct checkpoint *checkpoint)
{
    return checkpoint->path;
}

const char *checkpoint_format(const struct checkpoint *checkpoint)
{
    return checkpoint->format;
}

int checkpoint_count(const struct checkpoint *checkpoint)
{
    return checkpoint->count;
}

const struct checkpoint_tensor *checkpoint_at(const struct checkpoint *checkpoint, int index)
{
    return &checkpoint->entries[index].tensor;
}

const struct checkpoint_tensor *checkpoint_find(const struct checkpoint *checkpoint,
                                                const char *name)
{
    struct checkpoint_entry wanted = {.tensor.name = name, .name_length = strlen(name)};
    const struct checkpoint_entry *key = &wanted;
    struct checkpoint_entry *const *found =
        bsearch(&key, checkpoint->by_name, (size_t)checkpoint->count, sizeof key, compare_entries);
    return found ? &(*found)->tensor : NULL;
}

const char *checkpoint_metadata(const struct checkpoint *checkpoint, const char *key)
{
    const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(checkpoint->header, "__metadata__");
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, key));
}

int checkpoint_verify(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                      struct status *status)
{
    const struct checkpoint_entry *entry = (const struct checkpoint_entry *)tensor;
    if (!entry->storage || zip_verify(entry->storage, status) == STATUS_OK)
        return STATUS_OK;
    status_prefix(status, "%s: tensor \"%s\"", checkpoint->path, tensor->name);
    return status->code;
}

void checkpoint_drop_pages(const struct checkpoint *checkpoint)
{
    if (checkpoint->mapped)
        madvise((void *)(uintptr_t)checkpoint->bytes, checkpoint->size_bytes, MADV_DONTNEED);
}
