#include "runtime/backend.h"

#include "runtime/cuda/cuda_device.h"
#include "runtime/plugin.h"

#include <dlfcn.h>
#include <unistd.h>

/* There where the backend is linked in. */
#pragma weak kernels_cuda
#pragma weak kernels_cuda_bf16
#pragma weak cuda_device_open
#pragma weak cuda_device_close

struct entries {
    const struct kernels *(*kernels)(void), *(*kernels_bf16)(void);
    struct device *(*open_device)(char *message, size_t message_bytes);
    void (*close_device)(struct device *device);
};

static const char *library_path(char path[PATH_MAX])
{
    return plugin_path(path, "RESAMPLE_CUDA_LIBRARY", "libresample-cuda.so");
}

bool cuda_backend_present(void)
{
    char path[PATH_MAX];
    return kernels_cuda || access(library_path(path), R_OK) == 0;
}

static int open_library(struct cuda_backend *backend, struct entries *entries,
                        struct status *status)
{
    char path[PATH_MAX];
    const char *from = library_path(path);
    backend->library = dlopen(from, RTLD_NOW | RTLD_LOCAL);
    if (!backend->library)
        return status_set(status, STATUS_BAD_INPUT,
                          "no CUDA backend: %s (`make cuda` builds libresample-cuda.so)",
                          dlerror());
    if (!plugin_find(backend->library, "kernels_cuda", &entries->kernels,
                     sizeof entries->kernels) ||
        !plugin_find(backend->library, "kernels_cuda_bf16", &entries->kernels_bf16,
                     sizeof entries->kernels_bf16) ||
        !plugin_find(backend->library, "cuda_device_open", &entries->open_device,
                     sizeof entries->open_device) ||
        !plugin_find(backend->library, "cuda_device_close", &entries->close_device,
                     sizeof entries->close_device))
        return status_set(status, STATUS_BAD_INPUT,
                          "no CUDA backend: %s is not this program's library", from);
    return status->code;
}

int cuda_backend_open(struct cuda_backend *backend, enum element_type network, bool card,
                      struct status *status)
{
    struct entries entries = {kernels_cuda, kernels_cuda_bf16, cuda_device_open, cuda_device_close};
    char message[192];
    *backend = (struct cuda_backend){0};
    if (!entries.kernels && open_library(backend, &entries, status) != STATUS_OK)
        goto failed;
    backend->kernels = network == TYPE_BF16 ? *entries.kernels_bf16() : *entries.kernels();
    backend->close_device = entries.close_device;
    if (!card)
        return status->code;
    backend->kernels.device = entries.open_device(message, sizeof message);
    if (backend->kernels.device)
        return status->code;
    status_set(status, STATUS_BAD_INPUT, "no CUDA backend: %s", message);
failed:
    cuda_backend_close(backend);
    return status->code;
}

void cuda_backend_close(struct cuda_backend *backend)
{
    if (backend->kernels.device)
        backend->close_device(backend->kernels.device);
    if (backend->library)
        dlclose(backend->library);
    *backend = (struct cuda_backend){0};
}
