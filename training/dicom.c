#include "training/dicom.h"

#include "runtime/plugin.h"

#include <dlfcn.h>
#include <stdlib.h>

struct dicom_library {
    void *handle;
    bool (*read)(const char *path, struct dicom_picture *picture, char *message,
                 size_t message_bytes);
};

int dicom_library_open(struct dicom_library **result, struct status *status)
{
    char path[PATH_MAX];
    struct dicom_library *library = *result =
        status_calloc(status, 1, sizeof *library, "the reader of DICOM");
    if (!library)
        return status->code;
    const char *from = plugin_path(path, "RESAMPLE_DICOM_LIBRARY", "libresample-dicom.so");
    /* what GDCM allocates once stays reachable */
    library->handle = dlopen(from, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library->handle)
        status_set(status, STATUS_BAD_INPUT,
                   "DICOM needs libresample-dicom.so, which `make dicom` builds: %s", dlerror());
    else if (!plugin_find(library->handle, "resample_dicom_read", &library->read,
                          sizeof library->read))
        status_set(status, STATUS_BAD_INPUT, "%s is not this program's reader of DICOM", from);
    if (!status_ok(status)) {
        dicom_library_close(library);
        *result = NULL;
    }
    return status->code;
}

void dicom_library_close(struct dicom_library *library)
{
    if (library && library->handle)
        dlclose(library->handle);
    free(library);
}

int dicom_read(const struct dicom_library *library, const char *path, struct dicom_picture *picture,
               struct status *status)
{
    char message[192] = "";
    *picture = (struct dicom_picture){0};
    if (!library->read(path, picture, message, sizeof message)) {
        dicom_picture_free(picture);
        status_set(status, STATUS_BAD_INPUT, "%s: %s", path, message);
    }
    return status->code;
}

void dicom_picture_free(struct dicom_picture *picture)
{
    free(picture->values);
    picture->values = NULL;
}
