/* How the tests' own cuDNN and cuBLAS (tests/simt/libraries), which are opened at run time, put
 * work on the emulator's streams. */
#ifndef TESTS_SIMT_ENQUEUE_H
#define TESTS_SIMT_ENQUEUE_H

#include <stdint.h>

extern "C" {
/* run(context) when the stream comes to it, or a node of the graph that is captured; context is
 * memory of malloc's, freed with the last that may run it. threads: what the emulator's clock
 * counts. */
void simt_enqueue(void *stream, uint64_t threads, void (*run)(const void *context), void *context);
/* Counts an allocation of the host's. */
void simt_count_allocation(void);
}

#endif
