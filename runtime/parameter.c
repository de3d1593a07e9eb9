#include "runtime/parameter.h"

#include "runtime/device.h"
#include "runtime/memory.h"

#include <stdlib.h>
#include <string.h>

static int64_t elements(const struct parameter *parameter)
{
    const int64_t *s = parameter->shape;
    return s[0] * s[1] * s[2] * s[3];
}

size_t parameter_form_bytes(const struct parameter *parameter, const struct kernels *kernels,
                            enum element_type real, enum weight_form form)
{
    if (form == WEIGHT_PLAIN)
        return (size_t)elements(parameter) * element_bytes(real);
    return kernels->weight_bytes(form, parameter->shape);
}

static enum place place_of(const struct kernels *kernels)
{
    return kernels->device ? PLACE_DEVICE : PLACE_HOST;
}

void *parameter_data(const struct parameter *parameter, const struct kernels *kernels,
                     enum weight_form form)
{
    return parameter->packed[place_of(kernels)][form].data;
}

/* Moves packed bytes to the device; frees them on the host. NULL without memory. */
static void *move_to_device(struct device *device, void *packed, size_t bytes)
{
    void *memory = device->allocate(device, bytes);
    if (memory && !device->write(device, memory, packed, bytes)) {
        device->release(device, memory);
        memory = NULL;
    }
    free(packed);
    return memory;
}

int parameter_pack(struct parameter *parameter, const struct kernels *kernels,
                   enum element_type real, enum weight_form form, int threads,
                   struct status *status)
{
    struct packed_weight *slot = &parameter->packed[place_of(kernels)][form];
    if (slot->data)
        return status->code;
    if (!parameter->read)
        return status_set(status, STATUS_FAILURE, "%s has no values", parameter->name);
    size_t bytes = parameter_form_bytes(parameter, kernels, real, form);
    int64_t count = elements(parameter);
    bool direct = form == WEIGHT_PLAIN && real == TYPE_F32;
    void *packed = memory_allocate(bytes, threads);
    float *values = direct ? packed : malloc((size_t)count * sizeof *values);
    if (!packed || !values)
        goto done;
    parameter->read(parameter, values);
    if (form != WEIGHT_PLAIN)
        kernels->pack_weight(form, parameter->shape, values, packed, threads);
    else if (real == TYPE_F64)
        for (int64_t i = 0; i < count; i++)
            ((double *)packed)[i] = values[i];
    slot->data = kernels->device ? move_to_device(kernels->device, packed, bytes) : packed;
    slot->device = kernels->device;
    packed = NULL;
done:
    if (!slot->data)
        status_set(status, STATUS_FAILURE, "out of memory: %zu bytes for %s", bytes,
                   parameter->name);
    if (!direct)
        free(values);
    free(packed);
    return status->code;
}

void parameter_release(struct parameter *parameter)
{
    for (int form = 0; form < WEIGHT_FORM_COUNT; form++) {
        struct packed_weight *device = &parameter->packed[PLACE_DEVICE][form];
        free(parameter->packed[PLACE_HOST][form].data);
        if (device->data)
            device->device->release(device->device, device->data);
    }
    memset(parameter->packed, 0, sizeof parameter->packed);
}
