/* Times every convolution of an inner iteration and of a UNet pass on the card, forward and
 * backward: what the backend takes, the fastest of its candidates, with tf32 products, and beside
 * them cuDNN (where linked) and PyTorch (from a file that bench/card/pytorch.py wrote). All warm:
 * the same tensors each time.
 *
 *     convolutions CONFIG.yaml SIZE list              the shapes for pytorch.py, one a line
 *     convolutions CONFIG.yaml SIZE CALLS [PYTORCH_TIMES] */
#include "bench/card/convolutions.h"

#include "bench/shared/iteration.h"
#include "kernels/cuda/conv2d.h"
#include "runtime/backend.h"
#include "runtime/device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* There where cuDNN is linked in. */
#pragma weak cudnn_open
#pragma weak cudnn_ms
#pragma weak cudnn_close

enum { MOST_SHAPES = 256 };

struct bench {
    struct cuda_backend backend;
    struct cudnn *cudnn;
    int calls;
    struct convolution items[MOST_SHAPES];
    int count;
    bool unet; /* that is being listed */
    bool overflow;
    FILE *pytorch;
};

/* ---- the list ---- */

static bool same(const struct convolution *a, const struct convolution *b)
{
    return memcmp(a->x, b->x, sizeof a->x) == 0 && memcmp(a->y, b->y, sizeof a->y) == 0 &&
           memcmp(a->weight, b->weight, sizeof a->weight) == 0 &&
           memcmp(&a->attributes, &b->attributes, sizeof a->attributes) == 0;
}

static void add_call(void *context, enum kernel_id kernel, const char *label,
                     const struct kernel_call *call)
{
    (void)label;
    struct bench *bench = context;
    bool backward = kernel == KERNEL_conv2d_backward_data;
    if (!backward && kernel != KERNEL_conv2d)
        return;
    struct convolution c = {.attributes = call->attributes->conv2d};
    c.attributes.form = WEIGHT_PLAIN;
    memcpy(backward ? c.y : c.x, call->input[0].shape, sizeof c.x);
    memcpy(backward ? c.x : c.y, call->output[0].shape, sizeof c.y);
    memcpy(c.weight, call->input[1].shape, sizeof c.weight);
    int i = 0;
    while (i < bench->count && !same(&bench->items[i], &c))
        i++;
    if (i == MOST_SHAPES) {
        bench->overflow = true;
        return;
    }
    if (i == bench->count)
        bench->items[bench->count++] = c;
    *(bench->unet ? &bench->items[i].unet
      : backward  ? &bench->items[i].decoder_backward
                  : &bench->items[i].decoder_forward) += 1;
}

static int list_tape(struct bench *bench, struct model *model, int64_t size, struct status *status)
{
    struct program *program = program_create(&bench->backend.kernels, TYPE_F32, 1);
    if (!program)
        return status_set(status, STATUS_FAILURE, "out of memory");
    struct tape *tape = program_tape(program, "list");
    if (bench->unet) {
        int64_t side = size / model_latent_factor(model);
        const int64_t x[4] = {1, side, side, model->config.unet.in_channels}, t[4] = {1, 1, 1, 1};
        value eps =
            unet_record(tape, model, tape_state(tape, program_state(program, "x", TYPE_F32, x)),
                        tape_state(tape, program_state(program, "t", TYPE_F32, t)));
        tape_assign(tape, tape_state(tape, program_state(program, "e", TYPE_F32, x)), eps);
    } else {
        struct iteration it = iteration_record(program, tape, model, size);
        iteration_record_step(program, tape, &it);
    }
    if (program_plan(program, 0, status) == STATUS_OK)
        program_visit_calls(tape, add_call, bench);
    if (bench->overflow)
        status_set(status, STATUS_FAILURE, "more than %d shapes", MOST_SHAPES);
    program_free(program);
    return status->code;
}

static int make_list(struct bench *bench, const char *config, int64_t size, struct status *status)
{
    struct model model;
    if (model_open(&model, NULL, config, NULL, false, status))
        return status->code;
    list_tape(bench, &model, size, status);
    bench->unet = true;
    if (status_ok(status) && model.config.unet.present)
        list_tape(bench, &model, size, status);
    model_close(&model);
    return status->code;
}

static void print_list(const struct bench *bench)
{
    for (int i = 0; i < bench->count; i++) {
        const struct convolution *c = &bench->items[i];
        const struct conv2d_attributes *a = &c->attributes;
        printf("%d %d %d %d %d %d %d %d %d %d %d %d %d\n", (int)c->x[0], (int)c->x[1], (int)c->x[2],
               (int)c->x[3], (int)c->y[3], a->kernel_height, a->kernel_width, a->stride, a->pad_top,
               a->pad_left, a->pad_bottom, a->pad_right, a->upsample);
    }
}

/* ---- the clock ---- */

double card_ms(void (*run)(void *context), void *context, struct device *device, int calls)
{
    enum { BATCHES = 3 };
    double least = NAN;
    run(context);
    for (int batch = 0; batch < BATCHES; batch++) {
        if (!device->time_begin(device))
            return NAN;
        for (int call = 0; call < calls; call++)
            run(context);
        double ms = device->time_end_ms(device) / calls;
        if (ms < 0)
            return NAN;
        least = fmin(least, ms);
    }
    return least;
}

/* ---- ours ---- */

float *random_floats(size_t count)
{
    float *values = malloc((count + 1) * sizeof *values);
    uint32_t state = 1;
    for (size_t i = 0; i < count && values; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (float)(state >> 8) * 0x1p-23f - 1;
    }
    return values;
}

/* A convolution's call on the card. */
struct work {
    const struct kernels *kernels;
    struct tensor input[KERNEL_MAX_INPUTS], output[1];
    union attributes attributes;
    struct kernel_call call;
    bool backward;
    struct cuda_conv2d_choice choice;
};

static bool fill(struct device *device, struct tensor *tensor, const float *values)
{
    size_t bytes = (size_t)tensor_elements(tensor) * sizeof *values;
    tensor->data = device->allocate(device, bytes);
    return values && tensor->data && device->write(device, tensor->data, values, bytes);
}

static bool fill_weight(struct work *work)
{
    struct tensor *weight = &work->input[1];
    enum weight_form form = work->attributes.conv2d.form;
    size_t bytes = work->kernels->weight_bytes(form, weight->shape);
    float *oihw = random_floats((size_t)tensor_elements(weight)), *packed = malloc(bytes);
    struct device *device = work->kernels->device;
    weight->data = device->allocate(device, bytes);
    bool filled = oihw && packed && weight->data;
    if (filled) {
        work->kernels->pack_weight(form, weight->shape, oihw, packed, 1);
        filled = device->write(device, weight->data, packed, bytes);
    }
    free(oihw);
    free(packed);
    return filled;
}

static bool open_work(struct work *work, const struct kernels *kernels, const struct convolution *c,
                      bool backward)
{
    struct device *device = kernels->device;
    *work = (struct work){.kernels = kernels, .backward = backward};
    work->attributes.conv2d = c->attributes;
    work->attributes.conv2d.form = kernels->conv2d_form(&c->attributes, c->x, c->y, backward);
    memcpy(work->input[0].shape, backward ? c->y : c->x, sizeof c->x);
    memcpy(work->output[0].shape, backward ? c->x : c->y, sizeof c->y);
    memcpy(work->input[1].shape, c->weight, sizeof c->weight);
    if (!backward)
        memcpy(work->input[2].shape, (const int64_t[4]){1, 1, 1, c->y[3]}, sizeof c->y);
    work->call = (struct kernel_call){.input = work->input,
                                      .output = work->output,
                                      .attributes = &work->attributes,
                                      .threads = 1,
                                      .stream = device->stream(device)};
    struct tensor *tensors[] = {&work->input[0], &work->output[0], &work->input[2]};
    bool filled = fill_weight(work);
    for (int i = 0; i < (backward ? 2 : 3) && filled; i++) {
        float *values = random_floats((size_t)tensor_elements(tensors[i]));
        filled = fill(device, tensors[i], values);
        free(values);
    }
    return filled;
}

static void close_work(struct work *work)
{
    struct device *device = work->kernels->device;
    for (int i = 0; i < 3; i++)
        if (work->input[i].data)
            device->release(device, work->input[i].data);
    if (work->output[0].data)
        device->release(device, work->output[0].data);
}

static const struct kernel *table_row(const struct work *work)
{
    return &work->kernels->kernel[work->backward ? KERNEL_conv2d_backward_data : KERNEL_conv2d];
}

static void run_table(void *context)
{
    struct work *work = context;
    table_row(work)->run(&work->call);
}

static void run_choice(void *context)
{
    struct work *work = context;
    cuda_conv2d_with(&work->call, work->backward, work->choice);
}

static double time_with(struct work *work, void (*run)(void *context), size_t workspace_bytes,
                        int calls)
{
    struct device *device = work->kernels->device;
    double ms = NAN;
    work->call.workspace = workspace_bytes ? device->allocate(device, workspace_bytes) : NULL;
    if (!workspace_bytes || work->call.workspace)
        ms = card_ms(run, work, device, calls);
    if (work->call.workspace)
        device->release(device, work->call.workspace);
    return ms;
}

/* The fastest of the candidates that suit, in parts or whole. */
static double time_candidates(struct work *work, enum operand operand, int calls,
                              char name[static 32])
{
    double least = NAN;
    for (int i = 0; i < 2 * CUDA_CONV2D_VARIANTS; i++) {
        int variant = i / 2, whole = i % 2;
        work->choice = (struct cuda_conv2d_choice){variant, operand, 0};
        size_t bytes = cuda_conv2d_workspace_with(&work->call, work->backward, work->choice);
        if (!cuda_conv2d_suits(&work->call, work->backward, variant) || (whole && !bytes))
            continue;
        work->choice.splits = whole;
        double ms = time_with(work, run_choice, whole ? 0 : bytes, calls);
        if (ms >= 0 && !(least <= ms)) {
            least = ms;
            snprintf(name, 32, "%s%s", cuda_conv2d_variant_name(variant), whole ? " whole" : "");
        }
    }
    return least;
}

/* ---- the table ---- */

enum column { OURS, BEST, OURS_TF32, CUDNN, CUDNN_TF32, PYTORCH, PYTORCH_TF32, COLUMN_COUNT };

struct row {
    double ms[COLUMN_COUNT];
    char best[32]; /* a candidate's name */
};

/* A number of milliseconds, or "-". */
static const char *ms_text(char text[static 16], double ms)
{
    if (ms >= 0)
        snprintf(text, 16, "%.4f", ms);
    else
        strcpy(text, "-");
    return text;
}

static double gflop(const struct convolution *c)
{
    return 2e-9 * (double)(c->y[0] * c->y[1] * c->y[2]) *
           (double)(c->weight[0] * c->weight[1] * c->weight[2] * c->weight[3]);
}

static void print_header(bool cudnn)
{
    printf("milliseconds of a call, the least of a few batches; TFLOP/s of the plain sum, by the "
           "table's own choice; f32 of ours: 3xTF32;\ncalls: in an inner iteration + in a UNet "
           "pass%s\n",
           cudnn ? "" : "; built without cuDNN");
    printf("%-8s %-38s %9s %9s %8s %9s %-16s %9s %9s %9s %9s %9s\n", "", "", "calls", "ours",
           "TFLOP/s", "best", "candidate", "ours tf32", "cuDNN", "tf32", "PyTorch", "tf32");
}

static void print_row(const struct convolution *c, bool backward, const struct row *row)
{
    char shape[64], calls[32], text[COLUMN_COUNT][16];
    const struct conv2d_attributes *a = &c->attributes;
    for (int i = 0; i < COLUMN_COUNT; i++)
        ms_text(text[i], row->ms[i]);
    snprintf(shape, sizeof shape, "%dx%dx%d -> %d, %dx%d%s%s", (int)c->x[1], (int)c->x[2],
             (int)c->x[3], (int)c->y[3], a->kernel_height, a->kernel_width,
             a->stride == 2 ? " stride 2" : "", a->upsample == 2 ? " up" : "");
    snprintf(calls, sizeof calls, "%d+%d", backward ? c->decoder_backward : c->decoder_forward,
             backward ? 0 : c->unet);
    printf("%-8s %-38s %9s %9s %8.2f %9s %-16s %9s %9s %9s %9s %9s\n",
           backward ? "backward" : "forward", shape, calls, text[OURS], gflop(c) / row->ms[OURS],
           text[BEST], row->best, text[OURS_TF32], text[CUDNN], text[CUDNN_TF32], text[PYTORCH],
           text[PYTORCH_TF32]);
    fflush(stdout);
}

static void print_total(const char *name, const double ms[COLUMN_COUNT])
{
    char text[COLUMN_COUNT][16];
    for (int i = 0; i < COLUMN_COUNT; i++)
        ms_text(text[i], ms[i]);
    printf("%-67s %9s %8s %9s %-16s %9s %9s %9s %9s %9s\n", name, text[OURS], "", text[BEST], "",
           text[OURS_TF32], text[CUDNN], text[CUDNN_TF32], text[PYTORCH], text[PYTORCH_TF32]);
}

static int time_row(struct bench *bench, const struct convolution *c, bool backward,
                    struct row *row, struct status *status)
{
    struct work work;
    if (open_work(&work, &bench->backend.kernels, c, backward)) {
        const struct kernel *kernel = table_row(&work);
        size_t bytes = kernel->workspace_bytes ? kernel->workspace_bytes(&work.call) : 0;
        row->ms[OURS] = time_with(&work, run_table, bytes, bench->calls);
        row->ms[BEST] = time_candidates(&work, OPERAND_3XTF32, bench->calls, row->best);
        char unused[32];
        row->ms[OURS_TF32] = time_candidates(&work, OPERAND_TF32, bench->calls, unused);
    }
    close_work(&work);
    struct device *device = bench->backend.kernels.device;
    const char *error = device->error(device);
    if (error || !(row->ms[OURS] > 0))
        return status_set(status, STATUS_FAILURE, "%s", error ? error : "no memory on the card");
    for (int tf32 = 0; tf32 < 2 && bench->cudnn; tf32++)
        row->ms[CUDNN + tf32] = cudnn_ms(bench->cudnn, c, backward, tf32, bench->calls);
    return status->code;
}

/* A line of the file for each shape: forward f32, backward f32, forward tf32, backward tf32. */
static int read_pytorch(struct bench *bench, double ms[4], struct status *status)
{
    for (int i = 0; i < 4; i++)
        ms[i] = NAN;
    if (bench->pytorch &&
        fscanf(bench->pytorch, "%lf %lf %lf %lf", &ms[0], &ms[1], &ms[2], &ms[3]) != 4)
        return status_set(status, STATUS_BAD_INPUT,
                          "PyTorch's times are not four numbers for each shape");
    return status->code;
}

static void add(double total[COLUMN_COUNT], const struct row *row, int calls)
{
    for (int i = 0; i < COLUMN_COUNT && calls; i++)
        total[i] += calls * row->ms[i];
}

static int print_table(struct bench *bench, struct status *status)
{
    double decoder[COLUMN_COUNT] = {0}, unet[COLUMN_COUNT] = {0}, pytorch[4];
    print_header(bench->cudnn != NULL);
    for (int i = 0; i < bench->count; i++) {
        const struct convolution *c = &bench->items[i];
        if (read_pytorch(bench, pytorch, status))
            return status->code;
        for (int backward = 0; backward < (c->decoder_backward ? 2 : 1); backward++) {
            struct row row = {.best = "-"};
            for (int k = 0; k < COLUMN_COUNT; k++)
                row.ms[k] = NAN;
            row.ms[PYTORCH] = pytorch[backward];
            row.ms[PYTORCH_TF32] = pytorch[2 + backward];
            if (time_row(bench, c, backward, &row, status))
                return status->code;
            print_row(c, backward, &row);
            add(decoder, &row, backward ? c->decoder_backward : c->decoder_forward);
            add(unet, &row, backward ? 0 : c->unet);
        }
    }
    print_total("convolutions of an inner iteration", decoder);
    print_total("convolutions of a UNet pass", unet);
    return status->code;
}

static int time_all(struct bench *bench, const char *calls, const char *pytorch,
                    struct status *status)
{
    bench->calls = atoi(calls);
    if (bench->calls < 1)
        return status_set(status, STATUS_BAD_INPUT, "CALLS is %s: expected 1 or more", calls);
    if (pytorch && !(bench->pytorch = fopen(pytorch, "r")))
        return status_set(status, STATUS_BAD_INPUT, "cannot read %s", pytorch);
    struct device *device = bench->backend.kernels.device;
    bench->cudnn = cudnn_open ? cudnn_open(device) : NULL;
    printf("%s\n", device->name);
    print_table(bench, status);
    if (bench->cudnn)
        cudnn_close(bench->cudnn);
    if (bench->pytorch)
        fclose(bench->pytorch);
    return status->code;
}

int main(int argc, char **argv)
{
    static struct bench bench;
    struct status status = {0};
    if (argc < 4 || argc > 5 || atoi(argv[2]) < 1) {
        fprintf(stderr, "usage: convolutions CONFIG.yaml SIZE list|CALLS [PYTORCH_TIMES]\n");
        return 2;
    }
    bool list = strcmp(argv[3], "list") == 0;
    if (cuda_backend_open(&bench.backend, TYPE_F32, !list, &status) == STATUS_OK &&
        make_list(&bench, argv[1], atoi(argv[2]), &status) == STATUS_OK) {
        if (list)
            print_list(&bench);
        else
            time_all(&bench, argv[3], argc == 5 ? argv[4] : NULL, &status);
    }
    cuda_backend_close(&bench.backend);
    if (!status_ok(&status))
        fprintf(stderr, "convolutions: %s\n", status.message);
    return status.code;
}
