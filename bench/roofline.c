/* PREDICTION, not measurement: what the inner iteration (quantise, decode, loss, backward, AdamW)
 * takes at a card's peak rates. For each operation of the tape as the CUDA backend plans it: flop,
 * bytes (inputs, outputs and weights once, as if nothing stayed in the second-level cache), and the
 * longer of the two times. Without launches, and with every operation's result written: no kernel
 * of this list is faster, a list with fewer operations could be.
 *
 *     build/bench/roofline [CONFIG.yaml] */
#include "bench/shared/iteration.h"
#include "bench/shared/operation.h"
#include "runtime/backend.h"

#include <stdio.h>
#include <string.h>

/* The vendors' figures, dense, at boost clock. 3xTF32 takes three products for one.
 * A100 80GB SXM: A100 datasheet and Ampere architecture whitepaper. H100 SXM5: H100 datasheet and
 * Hopper whitepaper (final clocks, 494.7). RTX 4090: Ada whitepaper, appendix A; its tf32 rate with
 * f32 sums equals its f32 rate. */
struct card {
    const char *name;
    double product_tflops, f32_tflops, gigabytes_per_second;
};
static const struct card cards[] = {
    {"A100 3xTF32", 156. / 3, 19.5, 2039},
    {"H100 3xTF32", 494.7 / 3, 66.9, 3350},
    {"4090 3xTF32", 82.6 / 3, 82.6, 1008},
    {"4090 fmaf", 82.6, 82.6, 1008},
};
enum { CARD_COUNT = sizeof cards / sizeof *cards };

/* Of an operation, or a sum. */
struct line {
    int count;
    struct cost cost;
    double us[CARD_COUNT];
};

struct roofline {
    const struct kernels *kernels;
    struct line kinds[KERNEL_COUNT], total;
    double bound_by_bytes_us[CARD_COUNT];
};

static void print_line(const char *name, const char *shape, const struct line *line)
{
    printf("%-28s %-40s %4d %9.3f %9.2f", name, shape, line->count,
           (line->cost.product_flop + line->cost.other_flop) * 1e-9, line->cost.bytes * 1e-6);
    for (int i = 0; i < CARD_COUNT; i++)
        printf(" %12.1f", line->us[i]);
    printf("\n");
}

static void print_header(const char *what)
{
    printf("%-28s %-40s %4s %9s %9s", what, "", "ops", "GFLOP", "MB");
    for (int i = 0; i < CARD_COUNT; i++)
        printf(" %12s", cards[i].name);
    printf("\n");
}

static void add(struct line *sum, const struct line *line)
{
    sum->count += line->count;
    sum->cost.product_flop += line->cost.product_flop;
    sum->cost.other_flop += line->cost.other_flop;
    sum->cost.bytes += line->cost.bytes;
    for (int i = 0; i < CARD_COUNT; i++)
        sum->us[i] += line->us[i];
}

static void add_call(void *context, enum kernel_id kernel, const char *label,
                     const struct kernel_call *call)
{
    struct roofline *roofline = context;
    struct line line = {.count = 1, .cost = operation_cost(roofline->kernels, kernel, call)};
    for (int i = 0; i < CARD_COUNT; i++) {
        double products_us = line.cost.product_flop / cards[i].product_tflops * 1e-6;
        double other_us = line.cost.other_flop / cards[i].f32_tflops * 1e-6;
        double bytes_us = line.cost.bytes / cards[i].gigabytes_per_second * 1e-3;
        bool by_bytes = bytes_us > products_us + other_us;
        line.us[i] = by_bytes ? bytes_us : products_us + other_us;
        roofline->bound_by_bytes_us[i] += by_bytes ? bytes_us : 0;
    }
    char shape[96];
    const int64_t *s = call->output[0].shape;
    snprintf(shape, sizeof shape, "%-28s %dx%dx%d", label, (int)s[1], (int)s[2], (int)s[3]);
    print_line(kernel_name(kernel), shape, &line);
    add(&roofline->kinds[kernel], &line);
    add(&roofline->total, &line);
}

static void print_sums(const struct roofline *roofline)
{
    printf("\n");
    print_header("us by kind");
    for (int kernel = 0; kernel < KERNEL_COUNT; kernel++)
        if (roofline->kinds[kernel].count)
            print_line(kernel_name(kernel), "", &roofline->kinds[kernel]);
    print_line("total", "", &roofline->total);
    printf("%-93s", "of it in operations that are bound by bytes");
    for (int i = 0; i < CARD_COUNT; i++)
        printf(" %12.1f", roofline->bound_by_bytes_us[i]);
    printf("\n");
}

static int predict(const char *config, const struct kernels *kernels, struct status *status)
{
    struct model model = {0};
    struct roofline roofline = {.kernels = kernels};
    struct program *program = program_create(kernels, TYPE_F32, 1);
    if (!program) {
        status_set(status, STATUS_FAILURE, "out of memory");
        goto done;
    }
    if (model_open(&model, NULL, config, NULL, false, status))
        goto done;
    struct tape *tape = program_tape(program, "iteration");
    int64_t size = model.config.autoencoder.resolution;
    struct iteration it = iteration_record(program, tape, &model, size);
    iteration_record_step(program, tape, &it);
    if (program_plan(program, 0, status))
        goto done;
    printf("PREDICTION for %s, %dx%d: microseconds at peak rates, nothing measured\n", config,
           (int)size, (int)size);
    print_header("us by operation");
    program_visit_calls(tape, add_call, &roofline);
    print_sums(&roofline);
done:
    program_free(program);
    model_close(&model);
    return status->code;
}

int main(int argc, char **argv)
{
    struct status status = {0};
    struct cuda_backend backend;
    if (argc > 2) {
        fprintf(stderr, "usage: roofline [CONFIG.yaml]\n");
        return 2;
    }
    if (cuda_backend_open(&backend, TYPE_F32, false, &status) == STATUS_OK)
        predict(argc == 2 ? argv[1] : "models/ldm-vq4-256/ldm-vq4-256.yaml", &backend.kernels,
                &status);
    cuda_backend_close(&backend);
    if (!status_ok(&status))
        fprintf(stderr, "roofline: %s\n", status.message);
    return status.code;
}
