/* Chooses the CPU kernel table by what the machine can run. */
#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

const struct kernels *kernels_table_scalar(void);
#ifdef __x86_64__
const struct kernels *kernels_table_avx2(void);
const struct kernels *kernels_table_avx512(void);

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

const struct kernels *kernels_cpu_isa(const char *isa)
{
    if (strcmp(isa, "scalar") == 0)
        return kernels_table_scalar();
#ifdef __x86_64__
    if (strcmp(isa, "avx2") == 0 && has_avx2())
        return kernels_table_avx2();
    if (strcmp(isa, "avx512") == 0 && has_avx512())
        return kernels_table_avx512();
#endif
    return NULL;
}

const struct kernels *kernels_cpu(void)
{
    const char *best[] = {"avx512", "avx2", "scalar"};
    for (int i = 0; i < 3; i++)
        if (kernels_cpu_isa(best[i]))
            return kernels_cpu_isa(best[i]);
    return NULL;
}
