/* Whole files: bounded reads, and writes that appear under their name only when complete. */
#include "runtime/array.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool path_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

FILE *file_open(const char *path, struct status *status)
{
    struct stat info;
    FILE *file = NULL;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        status_set(status, STATUS_BAD_INPUT, "%s: not a regular file", path);
        return NULL;
    }
    file = fopen(path, "rb");
    if (!file)
        status_set(status, STATUS_BAD_INPUT, "%s: %s", path, strerror(errno));
    return file;
}

char *file_read_text(const char *path, size_t limit, size_t *length, struct status *status)
{
    char *text = NULL;
    struct stat info;
    *length = 0;
    FILE *file = file_open(path, status);
    if (!file)
        return NULL;
    if (fstat(fileno(file), &info)) {
        status_set(status, STATUS_BAD_INPUT, "%s: %s", path, strerror(errno));
        goto done;
    }
    if ((uint64_t)info.st_size > limit) {
        status_set(status, STATUS_BAD_INPUT, "%s: %lld bytes, expected at most %zu", path,
                   (long long)info.st_size, limit);
        goto done;
    }
    text = status_calloc(status, (size_t)info.st_size + 1, 1, path);
    if (!text)
        goto done;
    *length = fread(text, 1, (size_t)info.st_size, file);
    if (ferror(file)) {
        status_set(status, STATUS_BAD_INPUT, "%s: cannot be read", path);
        free(text);
        text = NULL;
    }
done:
    fclose(file);
    return text;
}

int file_write(const char *path, const void *bytes, size_t length, struct status *status)
{
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return status_set(status, STATUS_BAD_INPUT, "%s: cannot be written: not a regular file",
                          path);
    size_t name_length = strlen(path) + 32;
    char *name = status_calloc(status, name_length, 1, path);
    if (!name)
        return status->code;
    snprintf(name, name_length, "%s.%ld.part", path, (long)getpid());
    FILE *file = fopen(name, "wb");
    bool written = file && fwrite(bytes, 1, length, file) == length;
    int reason = errno;
    if (file && fclose(file) && written) {
        reason = errno;
        written = false;
    }
    if (written && rename(name, path)) {
        reason = errno;
        written = false;
    }
    if (!written) {
        if (file)
            remove(name);
        status_set(status, STATUS_BAD_INPUT, "%s: cannot be written: %s", path, strerror(reason));
    }
    free(name);
    return status->code;
}
