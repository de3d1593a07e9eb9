/* The CUDA backend, opened at run time: libresample-cuda.so beside the program (or where
 * RESAMPLE_CUDA_LIBRARY says), so that one binary runs with or without an NVIDIA driver. A program
 * that is linked with the backend's objects, as the tests are, opens no library. */
#ifndef RUNTIME_BACKEND_H
#define RUNTIME_BACKEND_H

#include "kernels/kernels.h"
#include "runtime/status.h"

struct cuda_backend {
    struct kernels kernels; /* with the card as their device, or none if only planning */
    void *library;
    void (*close_device)(struct device *device);
};

/* Whether there is a library to open, or the backend is linked in. */
bool cuda_backend_present(void);
/* network: TYPE_F32 or TYPE_BF16, as in the kernels' table. card false: the table alone, to plan
 * with. STATUS_BAD_INPUT and the reason where there is no library or no card. */
int cuda_backend_open(struct cuda_backend *backend, enum element_type network, bool card,
                      struct status *status);
void cuda_backend_close(struct cuda_backend *backend);

#endif
