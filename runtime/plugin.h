/* Libraries of ours that the program opens at run time, so that it neither needs what they need
 * nor grows by it: the CUDA backend, the reader of DICOM. */
#ifndef RUNTIME_PLUGIN_H
#define RUNTIME_PLUGIN_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

/* The path in `variable` of the environment, or of `file` beside the program's own file. The
 * result is the environment's or lies in `path`. */
const char *plugin_path(char path[PATH_MAX], const char *variable, const char *file);

/* dlsym into a pointer to a function, of which `bytes` is the size: ISO C has no cast for it. */
bool plugin_find(void *library, const char *name, void *function, size_t bytes);

#endif
