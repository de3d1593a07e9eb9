/* Folders: where results go, and where pictures come from. */
#include "tools/command.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int check_output_file(const char *path, struct status *status)
{
    if (path_is_folder(path))
        return status_set(status, STATUS_BAD_INPUT, "%s is a folder; expected a file to write",
                          path);
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (length >= sizeof folder)
        return status_set(status, STATUS_BAD_INPUT, "%.64s...: the path is too long", path);
    memcpy(folder, slash ? path : ".", slash ? length : 1);
    folder[slash ? length : 1] = '\0';
    if (!*folder)
        strcpy(folder, "/");
    if (!path_is_folder(folder))
        return status_set(status, STATUS_BAD_INPUT, "cannot write %s: there is no folder %s", path,
                          folder);
    if (access(folder, W_OK | X_OK) != 0)
        return status_set(status, STATUS_BAD_INPUT, "cannot write %s: %s", path, strerror(errno));
    return STATUS_OK;
}

int directory_make(const char *path, size_t *existing, struct status *status)
{
    char prefix[PATH_MAX];
    size_t length = strlen(path);
    *existing = 0;
    if (length == 0 || length >= sizeof prefix)
        return status_set(status, STATUS_BAD_INPUT, "cannot make the folder '%.64s': bad path",
                          path);
    bool made = false;
    for (size_t end = 1; end <= length; end++) {
        if (path[end] != '/' && path[end] != '\0')
            continue;
        memcpy(prefix, path, end);
        prefix[end] = '\0';
        if (!made && path_is_folder(prefix)) {
            *existing = end;
            continue;
        }
        if (mkdir(prefix, 0777) != 0 && !path_is_folder(prefix)) {
            int code = errno == EEXIST ? ENOTDIR : errno;
            directory_undo(path, *existing);
            return status_set(status, STATUS_BAD_INPUT, "cannot make the folder %s: %s", path,
                              strerror(code));
        }
        made = true;
    }
    if (access(path, W_OK | X_OK) != 0)
        return status_set(status, STATUS_BAD_INPUT, "cannot write into the folder %s: %s", path,
                          strerror(errno));
    return STATUS_OK;
}

void directory_undo(const char *path, size_t existing)
{
    char prefix[PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof prefix)
        return;
    memcpy(prefix, path, length + 1);
    while (length > existing) {
        prefix[length] = '\0';
        if (rmdir(prefix) != 0 && errno != ENOENT)
            return;
        while (length > 0 && prefix[length - 1] != '/')
            length--;
        while (length > 0 && prefix[length - 1] == '/')
            length--;
    }
}

static int add_picture(struct picture_list *list, const char *path, struct status *status)
{
    char **paths = realloc(list->paths, (size_t)(list->count + 1) * sizeof *paths);
    char *copy = strdup(path);
    if (paths)
        list->paths = paths;
    if (!paths || !copy) {
        free(copy);
        return status_set(status, STATUS_FAILURE, "out of memory for the list of pictures");
    }
    list->paths[list->count++] = copy;
    return STATUS_OK;
}

static int walk(struct picture_list *list, const char *folder, int depth, struct status *status)
{
    enum { DEEPEST = 32 };
    DIR *directory = opendir(folder);
    if (!directory)
        return status_set(status, STATUS_BAD_INPUT, "cannot read the folder %s: %s", folder,
                          strerror(errno));
    for (struct dirent *entry; status_ok(status) && (entry = readdir(directory));) {
        char path[PATH_MAX];
        if (entry->d_name[0] == '.' ||
            (size_t)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= sizeof path)
            continue;
        if (path_is_folder(path)) {
            if (depth < DEEPEST)
                walk(list, path, depth + 1, status);
        } else if (path_is_image(path)) {
            add_picture(list, path, status);
        }
    }
    closedir(directory);
    return status->code;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int list_pictures(struct picture_list *list, const char *folder, struct status *status)
{
    *list = (struct picture_list){0};
    if (walk(list, folder, 0, status))
        return status->code;
    if (list->count == 0)
        return status_set(status, STATUS_BAD_INPUT, "%s: no .png or .jpg picture in this folder",
                          folder);
    qsort(list->paths, (size_t)list->count, sizeof *list->paths, compare_paths);
    return STATUS_OK;
}

void list_free(struct picture_list *list)
{
    for (int i = 0; i < list->count; i++)
        free(list->paths[i]);
    free(list->paths);
    *list = (struct picture_list){0};
}
