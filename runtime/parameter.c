#include "runtime/parameter.h"

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

int parameter_pack(struct parameter *parameter, const struct kernels *kernels,
                   enum element_type real, enum weight_form form, int threads,
                   struct status *status)
{
    if (parameter->packed[form])
        return status->code;
    if (!parameter->read)
        return status_set(status, STATUS_FAILURE, "%s has no values", parameter->name);
    size_t bytes = parameter_form_bytes(parameter, kernels, real, form);
    int64_t count = elements(parameter);
    bool direct = form == WEIGHT_PLAIN && real == TYPE_F32;
    void *packed = memory_allocate(bytes, threads);
    float *values = direct ? packed : malloc((size_t)count * sizeof *values);
    if (!packed || !values) {
        status_set(status, STATUS_FAILURE, "out of memory: %zu bytes for %s", bytes,
                   parameter->name);
        goto done;
    }
    parameter->read(parameter, values);
    if (form != WEIGHT_PLAIN)
        kernels->pack_weight(form, parameter->shape, values, packed, threads);
    else if (real == TYPE_F64)
        for (int64_t i = 0; i < count; i++)
            ((double *)packed)[i] = values[i];
    parameter->packed[form] = packed;
    parameter->packed_bytes[form] = bytes;
    packed = NULL;
done:
    if (!direct)
        free(values);
    free(packed);
    return status->code;
}

void parameter_release(struct parameter *parameter)
{
    for (int form = 0; form < WEIGHT_FORM_COUNT; form++) {
        free(parameter->packed[form]);
        parameter->packed[form] = NULL;
        parameter->packed_bytes[form] = 0;
    }
}
