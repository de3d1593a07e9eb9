#include "kernels/kernels.h"

static const struct {
    const char *name;
    int inputs, outputs;
} rows[KERNEL_COUNT] = {
#define KERNEL(name, inputs, outputs) {#name, inputs, outputs},
#include "kernels/kernels.def"
#undef KERNEL
};

const char *kernel_name(enum kernel_id id)
{
    return rows[id].name;
}

int kernel_inputs(enum kernel_id id)
{
    return rows[id].inputs;
}

int kernel_outputs(enum kernel_id id)
{
    return rows[id].outputs;
}
