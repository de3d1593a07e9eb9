/* The CUDA backend as a library: what libresample-cuda.so exports. `resample` opens it at run time
 * (runtime/backend.h), so that the one binary runs with or without an NVIDIA driver. */
#ifndef RUNTIME_CUDA_CUDA_DEVICE_H
#define RUNTIME_CUDA_CUDA_DEVICE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/kernels.h"
#include "runtime/device.h"

/* The kernels alone, for networks in f32 and in bf16: enough to plan with, no card needed. */
const struct kernels *kernels_cuda(void);
const struct kernels *kernels_cuda_bf16(void);
/* The first card; NULL and why not where there is none that can run the kernels (compute capability
 * 8.0, driver for this toolkit). RESAMPLE_CUDA_LOOPS=host lets loops run from the host, as they do
 * where the driver's graphs have none. */
struct device *cuda_device_open(char *message, size_t message_bytes);
void cuda_device_close(struct device *device);

#ifdef __cplusplus
}
#endif

#endif
