/* Device memory and errors for tests in C of the cuda backend's host functions. */
#ifndef TESTS_SIMT_DEVICE_H
#define TESTS_SIMT_DEVICE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* With the values' copy, or not-a-numbers where values is NULL; zero bytes have no memory. */
void *device_memory(const void *values, size_t bytes);
void device_read(void *values, const void *memory, size_t bytes);
void device_release(void *memory);

#ifdef __cplusplus
}
#endif
#endif
