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

enum place kernels_place(const struct kernels *kernels)
{
    return kernels->device ? PLACE_DEVICE : PLACE_HOST;
}

void *parameter_data(const struct parameter *parameter, enum place place, enum weight_form form)
{
    return parameter->packed[place][form].data;
}

/* Fills `packed`; false without memory. */
static bool pack_values(const struct parameter *parameter, const struct kernels *kernels,
                        enum element_type real, enum weight_form form, int threads, void *packed)
{
    int64_t count = elements(parameter);
    bool direct = form == WEIGHT_PLAIN && real == TYPE_F32;
    float *values = direct ? packed : malloc((size_t)count * sizeof *values);
    if (!values)
        return false;
    parameter->read(parameter, values);
    if (form != WEIGHT_PLAIN)
        kernels->pack_weight(form, parameter->shape, values, packed, threads);
    else if (real == TYPE_F64)
        for (int64_t i = 0; i < count; i++)
            ((double *)packed)[i] = values[i];
    if (!direct)
        free(values);
    return true;
}

static void release(enum place place, struct device *device, void *data)
{
    if (!data)
        return;
    if (place == PLACE_DEVICE)
        device->release(device, data);
    else if (place == PLACE_PINNED)
        device->release_pinned(device, data);
    else
        free(data);
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

int parameter_pack(struct parameter *parameter, const struct kernels *kernels, enum place place,
                   enum element_type real, enum weight_form form, int threads,
                   struct status *status)
{
    struct packed_weight *slot = &parameter->packed[place][form];
    struct device *device = kernels->device;
    if (slot->data)
        return status->code;
    if (!parameter->read)
        return status_set(status, STATUS_FAILURE, "%s has no values", parameter->name);
    size_t bytes = parameter_form_bytes(parameter, kernels, real, form);
    bool pinned = place == PLACE_PINNED;
    void *packed =
        pinned ? device->allocate_pinned(device, bytes) : memory_allocate(bytes, threads);
    if (packed && !pack_values(parameter, kernels, real, form, threads, packed)) {
        release(pinned ? PLACE_PINNED : PLACE_HOST, device, packed);
        packed = NULL;
    }
    if (packed && place == PLACE_DEVICE)
        packed = move_to_device(device, packed, bytes);
    slot->data = packed;
    slot->device = device;
    if (!packed)
        status_set(status, STATUS_FAILURE, "out of %smemory: %zu bytes for %s",
                   pinned ? "pinned host " : "", bytes, parameter->name);
    return status->code;
}

void parameter_release(struct parameter *parameter)
{
    for (enum place place = 0; place < PLACE_COUNT; place++)
        for (int form = 0; form < WEIGHT_FORM_COUNT; form++)
            release(place, parameter->packed[place][form].device,
                    parameter->packed[place][form].data);
    memset(parameter->packed, 0, sizeof parameter->packed);
}
