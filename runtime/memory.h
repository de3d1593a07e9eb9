/* Large aligned memory: on huge pages where the system offers them, touched here and not in replay.
 */
#ifndef RUNTIME_MEMORY_H
#define RUNTIME_MEMORY_H

#include <stddef.h>

/* 64-byte aligned, zeroed by all threads; NULL without memory. Release with free(). */
void *memory_allocate(size_t bytes, int threads);

#endif
