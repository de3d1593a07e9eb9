#include "runtime/plugin.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *plugin_path(char path[PATH_MAX], const char *variable, const char *file)
{
    const char *given = getenv(variable);
    if (given && *given)
        return given;
    size_t bytes = strlen(file) + 1;
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - bytes);
    char *slash = length > 0 ? memrchr(path, '/', (size_t)length) : NULL;
    if (!slash)
        return file;
    memcpy(slash + 1, file, bytes);
    return path;
}

bool plugin_find(void *library, const char *name, void *function, size_t bytes)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, bytes);
    return symbol != NULL;
}
