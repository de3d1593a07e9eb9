/* Replay of a planned tape node by node: on the CPU, and where a device has no graphs that loop. */
#include "runtime/tape_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One run: what holds for all of its nodes. */
struct run {
    struct program *program;
    const struct program_hooks *hooks;
    struct status *status;
    bool check;
};

enum outcome { RUN_ON, RUN_EXITED, RUN_STOPPED };

void *value_data(const struct tape *tape, value v, unsigned char *base, enum weight_form form)
{
    const struct value_info *info = &tape->values[v];
    if (info->kind == VALUE_PARAMETER)
        return parameter_data(info->parameter, kernels_place(tape->program->kernels), form);
    if (!base)
        return NULL;
    if (info->kind == VALUE_STATE)
        return tape->program->arena + tape->program->slots[info->slot].offset;
    return base + tape->plan.blocks[tape->plan.value_block[v]].offset;
}

static void describe(const struct tape *tape, value v, unsigned char *base, enum weight_form form,
                     struct tensor *tensor)
{
    memset(tensor, 0, sizeof *tensor);
    if (v < 0)
        return;
    tensor->type = tape->values[v].type;
    memcpy(tensor->shape, tape->values[v].shape, sizeof tensor->shape);
    tensor->data = value_data(tape, v, base, form);
}

void node_tensors(const struct tape *tape, const struct node *node, unsigned char *base,
                  struct tensor input[], struct tensor output[])
{
    bool convolution = is_convolution(node);
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++)
        describe(tape, i < op_inputs(node->op) ? node->input[i] : NO_VALUE, base,
                 convolution && i == 1 ? node->attributes.conv2d.form : WEIGHT_PLAIN, &input[i]);
    for (int k = 0; k < KERNEL_MAX_OUTPUTS; k++)
        describe(tape, k < op_outputs(node->op) ? node->output[k] : NO_VALUE, base, WEIGHT_PLAIN,
                 &output[k]);
}

struct kernel_call node_call(const struct tape *tape, const struct node *node, int n,
                             unsigned char *base, struct tensor input[], struct tensor output[])
{
    struct device *device = tape->program->kernels->device;
    int workspace = tape->plan.node_block[n], weight = tape->plan.node_weight[n];
    node_tensors(tape, node, base, input, output);
    if (weight >= 0)
        input[1].data = base + tape->plan.blocks[weight].offset;
    return (struct kernel_call){
        .input = input,
        .output = output,
        .attributes = &node->attributes,
        .workspace = workspace < 0 ? NULL : base + tape->plan.blocks[workspace].offset,
        .threads = tape->program->threads,
        .stream = device ? device->stream(device) : NULL};
}

unsigned char *loop_base(const struct tape *tape, int n, unsigned char *base)
{
    int block = tape->plan.node_block[n];
    return block < 0 ? base : base + tape->plan.blocks[block].offset;
}

int device_status(const struct program *program, struct status *status)
{
    struct device *device = program->kernels->device;
    const char *error = device ? device->error(device) : NULL;
    if (error && status_ok(status))
        status_set(status, STATUS_FAILURE, "%s: %s", device->name, error);
    return status->code;
}

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void add_profile(struct program *program, const struct tape *tape, const struct node *node,
                        const struct tensor *output, double seconds)
{
    char key[sizeof program->profile->key];
    snprintf(key, sizeof key, "%-24s %-40s %ldx%ldx%ldx%ld", op_name(node->op),
             tape->labels[node->label], (long)output->shape[0], (long)output->shape[1],
             (long)output->shape[2], (long)output->shape[3]);
    for (int i = 0; i < program->profile_count; i++) {
        if (strcmp(program->profile[i].key, key) == 0) {
            program->profile[i].seconds += seconds;
            program->profile[i].calls++;
            return;
        }
    }
    if (!array_grow(&program->profile, &program->profile_capacity, program->profile_count,
                    sizeof *program->profile))
        return;
    struct profile_row *row = &program->profile[program->profile_count++];
    memcpy(row->key, key, sizeof key);
    row->seconds = seconds;
    row->calls = 1;
}

static bool all_finite(const void *data, enum element_type type, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (type == TYPE_F32 && !isfinite(((const float *)data)[i]))
            return false;
        if (type == TYPE_F64 && !isfinite(((const double *)data)[i]))
            return false;
    }
    return true;
}

static bool is_finite(struct device *device, const struct tensor *tensor)
{
    int64_t count = tensor->data ? tensor_elements(tensor) : 0;
    size_t bytes = (size_t)count * element_bytes(tensor->type);
    if (!device || !count)
        return all_finite(tensor->data, tensor->type, count);
    void *copy = malloc(bytes);
    bool finite = copy && device->read(device, copy, tensor->data, bytes) &&
                  all_finite(copy, tensor->type, count);
    free(copy);
    return finite;
}

static enum outcome check_node(const struct run *run, const struct tape *tape,
                               const struct node *node, const struct tensor *input,
                               const struct tensor *output)
{
    struct device *device = run->program->kernels->device;
    for (int i = 0; i < op_inputs(node->op); i++) {
        if (node->input[i] < 0 || tape->values[node->input[i]].kind == VALUE_TEMPORARY)
            continue;
        const struct value_info *info = &tape->values[node->input[i]];
        bool packed =
            info->kind == VALUE_PARAMETER && node->attributes.conv2d.form != WEIGHT_PLAIN && i == 1;
        if (!packed && !is_finite(device, &input[i])) {
            status_set(run->status, STATUS_FAILURE, "%s is not finite before %s (%s)",
                       info->kind == VALUE_STATE ? tape->program->slots[info->slot].name
                                                 : info->parameter->name,
                       op_name(node->op), tape->labels[node->label]);
            return RUN_STOPPED;
        }
    }
    for (int k = 0; k < op_outputs(node->op); k++) {
        if (!is_finite(device, &output[k])) {
            status_set(run->status, STATUS_FAILURE, "the result of %s (%s) is not finite",
                       op_name(node->op), tape->labels[node->label]);
            return RUN_STOPPED;
        }
    }
    return RUN_ON;
}

static enum outcome run_kernel(const struct run *run, const struct tape *tape, int n,
                               unsigned char *base)
{
    const struct node *node = &tape->plan.nodes[n];
    struct tensor input[KERNEL_MAX_INPUTS], output[KERNEL_MAX_OUTPUTS];
    const struct kernel_call call = node_call(tape, node, n, base, input, output);
    double begin = run->program->profiling ? now_seconds() : 0;
    if (!weight_upload(tape, n, base)) {
        device_status(run->program, run->status);
        return RUN_STOPPED;
    }
    run->program->kernels->kernel[node->op].run(&call);
    if (run->program->profiling)
        add_profile(run->program, tape, node, output, now_seconds() - begin);
    return run->check ? check_node(run, tape, node, input, output) : RUN_ON;
}

static enum outcome run_tape(const struct run *run, struct tape *tape, unsigned char *base);

static bool tell(const struct run *run, int64_t iteration)
{
    const struct program_hooks *hooks = run->hooks;
    int slot = run->program->watched_slot;
    if (!hooks || !hooks->after_iteration)
        return true;
    double watched = slot >= 0 ? program_read_scalar(run->program, slot) : 0;
    if (hooks->after_iteration(hooks->context, iteration, watched))
        return true;
    status_set(run->status, STATUS_INTERRUPTED, "interrupted");
    return false;
}

static enum outcome run_loop(const struct run *run, const struct tape *tape, int n,
                             unsigned char *base)
{
    const struct node *node = &tape->plan.nodes[n];
    enum outcome outcome = RUN_ON;
    node->body->iterations = 0;
    while (node->body->iterations < node->limit && outcome == RUN_ON) {
        outcome = run_tape(run, node->body, loop_base(tape, n, base));
        if (outcome == RUN_STOPPED)
            break;
        if (!tell(run, ++node->body->iterations))
            return RUN_STOPPED;
    }
    return outcome == RUN_STOPPED ? RUN_STOPPED : RUN_ON;
}

static bool is_zero(const struct program *program, const int32_t *stop)
{
    struct device *device = program->kernels->device;
    int32_t copy = 1;
    if (!device)
        return *stop == 0;
    return device->read(device, &copy, stop, sizeof copy) && copy == 0;
}

static enum outcome run_tape(const struct run *run, struct tape *tape, unsigned char *base)
{
    enum outcome outcome = RUN_ON;
    for (int n = 0; n < tape->plan.node_count && outcome == RUN_ON; n++) {
        const struct node *node = &tape->plan.nodes[n];
        if (run->hooks && run->hooks->cancelled && *run->hooks->cancelled) {
            status_set(run->status, STATUS_INTERRUPTED, "interrupted");
            return RUN_STOPPED;
        }
        if (node->op == OP_WHILE)
            outcome = run_loop(run, tape, n, base);
        else if (node->op == OP_EXIT_IF)
            outcome = is_zero(run->program, value_data(tape, node->input[0], base, WEIGHT_PLAIN))
                          ? RUN_ON
                          : RUN_EXITED;
        else
            outcome = run_kernel(run, tape, n, base);
    }
    return outcome;
}

/* Denormal numbers count as zero while a tape runs, in every thread alike: softmax tails would
 * otherwise cost hundreds of cycles each. */
static void flush_denormals(const struct program *program, bool on)
{
#ifdef __x86_64__
    const unsigned flush_and_zero = 0x8040;
#pragma omp parallel num_threads(program->threads)
    {
        unsigned control = __builtin_ia32_stmxcsr();
        __builtin_ia32_ldmxcsr(on ? control | flush_and_zero : control & ~flush_and_zero);
    }
#else
    (void)program, (void)on;
#endif
}

static int start(const struct run *run, struct tape *tape)
{
    struct device *device = run->program->kernels->device;
    if (!device)
        flush_denormals(run->program, true);
    run_tape(run, tape, run->program->arena + run->program->pinned_bytes);
    if (!device)
        flush_denormals(run->program, false);
    return run->status->code;
}

int program_run(struct program *program, struct tape *tape, const struct program_hooks *hooks,
                struct status *status)
{
    const struct run run = {program, hooks, status, false};
    struct device *device = program->kernels->device;
    if (device && device->loops && !program->profiling)
        graph_run(tape, hooks, status);
    else
        start(&run, tape);
    return device_status(program, status);
}

int program_run_checked(struct program *program, struct tape *tape, struct status *status)
{
    const struct run run = {program, NULL, status, true};
    start(&run, tape);
    return device_status(program, status);
}

int64_t program_iterations(const struct tape *body)
{
    return body->iterations;
}

void program_profile(struct program *program, bool on)
{
    program->profiling = on;
}

static int compare_profile(const void *a, const void *b)
{
    const struct profile_row *x = a, *y = b;
    return x->seconds < y->seconds ? 1 : -(x->seconds > y->seconds);
}

void program_print_profile(const struct program *program, FILE *file)
{
    size_t count = (size_t)program->profile_count;
    struct profile_row *rows = malloc((count + 1) * sizeof *rows);
    if (!rows)
        return;
    memcpy(rows, program->profile, count * sizeof *rows);
    qsort(rows, count, sizeof *rows, compare_profile);
    for (size_t i = 0; i < count; i++)
        fprintf(file, "%10.2f ms %6ld x  %s\n", 1e3 * rows[i].seconds / (double)rows[i].calls,
                (long)rows[i].calls, rows[i].key);
    free(rows);
}
