/* The kernel table of one instruction set. */
#include "kernels/cpu/isa.h"

#define KERNEL(name, inputs, outputs)                                                              \
    __attribute__((weak)) void ISA_NAME(name)(const struct kernel_call *call);                     \
    __attribute__((weak)) size_t ISA_NAME(name##_workspace)(const struct kernel_call *call);
#include "kernels/kernels.def"
#undef KERNEL
__attribute__((weak)) enum weight_form
ISA_NAME(conv2d_form)(const struct conv2d_attributes *attributes, const int64_t x[4],
                      const int64_t y[4], bool backward);
__attribute__((weak)) size_t ISA_NAME(weight_bytes)(enum weight_form form, const int64_t shape[4]);
__attribute__((weak)) void ISA_NAME(pack_weight)(enum weight_form form, const int64_t shape[4],
                                                 const float *oihw, void *packed, int threads);

#define STRING_(x) #x
#define STRING(x)  STRING_(x)

const struct kernels *ISA_NAME(kernels_table)(void);
const struct kernels *ISA_NAME(kernels_table)(void)
{
    static struct kernels table = {
        .name = STRING(ISA),
        .kernel =
            {
#define KERNEL(name, inputs, outputs) {ISA_NAME(name), ISA_NAME(name##_workspace)},
#include "kernels/kernels.def"
#undef KERNEL
            },
        .conv2d_form = ISA_NAME(conv2d_form),
        .weight_bytes = ISA_NAME(weight_bytes),
        .pack_weight = ISA_NAME(pack_weight),
    };
    return &table;
}
