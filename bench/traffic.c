/* The memory traffic of the inner iteration's kernels, counted by the emulator at a size that it
 * can run: for each kind of operation the bytes that cross between the chip's cores and its memory
 * system (32-byte sectors, second-level cache or beyond) against the least (inputs, outputs and
 * weights once), and the sectors of loads and stores against the fewest that could hold what each
 * request asks for. A convolution's and an attention's first ratio depends on the shape: each block
 * of outputs loads what it needs itself.
 *
 *     build/bench/traffic CONFIG.yaml SIZE */
#include "bench/shared/iteration.h"
#include "bench/shared/operation.h"
#include "runtime/backend.h"
#include "tests/simt/device.h"
#include "tests/simt/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR_BYTES = 32 };

struct sum {
    int operations, launches;
    double least_bytes;
    struct simt_traffic loads, stores;
    struct simt_banks banks;
};

struct bench {
    const struct kernels *kernels;
    struct sum sums[KERNEL_COUNT];
    bool failed;
};

/* Numbers of order 1; integers are zero. NULL where the tensor is absent or memory is short. */
static void *fill_input(const struct kernels *kernels, enum kernel_id kernel,
                        const struct kernel_call *call, int i)
{
    size_t bytes = operation_input_bytes(kernels, kernel, call, i);
    float *values = calloc(1, bytes + 1);
    uint32_t state = 1;
    if (values && call->input[i].type == TYPE_F32)
        for (size_t k = 0; k < bytes / sizeof *values; k++) {
            state = state * 1664525u + 1013904223u;
            values[k] = (float)(state >> 8) * 0x1p-23f - 1;
        }
    void *memory = values ? device_memory(values, bytes) : NULL;
    free(values);
    return memory;
}

static void count_launches(struct sum *sum)
{
    sum->launches += simt_launches();
    for (int i = 0; i < simt_launches(); i++) {
        const struct simt_counters *c = &simt_launch_number(i)->counters;
        sum->loads.sectors += c->global_load.sectors;
        sum->loads.ideal_sectors += c->global_load.ideal_sectors;
        sum->stores.sectors += c->global_store.sectors;
        sum->stores.ideal_sectors += c->global_store.ideal_sectors;
        sum->banks.requests += c->shared_load.requests + c->shared_store.requests;
        sum->banks.conflicts += c->shared_load.conflicts + c->shared_store.conflicts;
    }
}

static void run_call(void *context, enum kernel_id kernel, const char *label,
                     const struct kernel_call *planned)
{
    struct bench *bench = context;
    const struct kernel *row = &bench->kernels->kernel[kernel];
    struct tensor input[KERNEL_MAX_INPUTS], output[KERNEL_MAX_OUTPUTS];
    struct kernel_call call = *planned;
    call.input = memcpy(input, planned->input, sizeof input);
    call.output = memcpy(output, planned->output, sizeof output);
    struct sum *sum = &bench->sums[kernel];
    for (int i = 0; i < kernel_inputs(kernel); i++)
        input[i].data = fill_input(bench->kernels, kernel, planned, i);
    bool in_place = kernel == KERNEL_adam_step; /* p, g, m, v, step -> p, m, v, step */
    for (int k = 0; k < kernel_outputs(kernel); k++)
        output[k].data = in_place ? input[k ? k + 1 : 0].data
                                  : device_memory(NULL, (size_t)tensor_elements(&output[k]) *
                                                            element_bytes(output[k].type));
    call.workspace = device_memory(NULL, row->workspace_bytes ? row->workspace_bytes(&call) : 0);
    struct simt_options options = simt_default_options();
    simt_reset(&options);
    row->run(&call);
    count_launches(sum);
    sum->operations++;
    sum->least_bytes += operation_cost(bench->kernels, kernel, planned).bytes;
    if (simt_errors()->count)
        fprintf(stderr, "traffic: %s: %s\n", label, simt_errors()->text[0]);
    bench->failed |= simt_errors()->count > 0;
    for (int i = 0; i < kernel_inputs(kernel); i++)
        device_release(input[i].data);
    for (int k = 0; k < kernel_outputs(kernel) && !in_place; k++)
        device_release(output[k].data);
    device_release(call.workspace);
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static void print_sum(const char *name, const struct sum *sum)
{
    double counted = SECTOR_BYTES * (double)(sum->loads.sectors + sum->stores.sectors);
    printf("%-28s %4d %9d %9.3f %9.3f %8.2f %8.3f %8.3f %9.4f\n", name, sum->operations,
           sum->launches, sum->least_bytes * 1e-6, counted * 1e-6, ratio(counted, sum->least_bytes),
           ratio((double)sum->loads.sectors, (double)sum->loads.ideal_sectors),
           ratio((double)sum->stores.sectors, (double)sum->stores.ideal_sectors),
           ratio((double)sum->banks.conflicts, (double)sum->banks.requests));
}

static void print_sums(const struct bench *bench, const char *config, int size)
{
    printf("counted by the emulator: the inner iteration of %s at %dx%d\n", config, size, size);
    printf("%-28s %4s %9s %9s %9s %8s %8s %8s %9s\n", "", "ops", "launches", "least MB", "counted",
           "ratio", "loads", "stores", "conflicts");
    for (int kernel = 0; kernel < KERNEL_COUNT; kernel++)
        if (bench->sums[kernel].operations)
            print_sum(kernel_name(kernel), &bench->sums[kernel]);
}

static int count_traffic(struct bench *bench, const char *config, int size, struct status *status)
{
    struct model model = {0};
    struct program *program = program_create(bench->kernels, TYPE_F32, 1);
    if (!program) {
        status_set(status, STATUS_FAILURE, "out of memory");
        goto done;
    }
    if (model_open(&model, NULL, config, NULL, false, status))
        goto done;
    if (size < 1 || size % model_latent_factor(&model)) {
        status_set(status, STATUS_BAD_INPUT, "SIZE must be a multiple of %d",
                   model_latent_factor(&model));
        goto done;
    }
    struct tape *tape = program_tape(program, "iteration");
    struct iteration it = iteration_record(program, tape, &model, size);
    iteration_record_step(program, tape, &it);
    if (program_plan(program, 0, status))
        goto done;
    program_visit_calls(tape, run_call, bench);
    if (bench->failed)
        status_set(status, STATUS_FAILURE, "the emulator found errors");
    else
        print_sums(bench, config, size);
done:
    program_free(program);
    model_close(&model);
    return status->code;
}

int main(int argc, char **argv)
{
    static struct bench bench;
    struct status status = {0};
    struct cuda_backend backend;
    if (argc != 3) {
        fprintf(stderr, "usage: traffic CONFIG.yaml SIZE\n");
        return 2;
    }
    if (cuda_backend_open(&backend, TYPE_F32, false, &status) == STATUS_OK) {
        bench.kernels = &backend.kernels;
        count_traffic(&bench, argv[1], atoi(argv[2]), &status);
    }
    cuda_backend_close(&backend);
    if (!status_ok(&status))
        fprintf(stderr, "traffic: %s\n", status.message);
    return status.code;
}
