/* Declaring, planning and preparing a program, and moving state in and out. Replay is in execute.c.
 */
#include "runtime/tape_internal.h"

#include "runtime/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SEGMENTS = 32, SLOT_ALIGNMENT_BYTES = 64 };

struct program *program_create(const struct kernels *kernels, enum element_type real, int threads)
{
    struct program *program = calloc(1, sizeof *program);
    if (!program)
        return NULL;
    program->kernels = kernels;
    program->real = real;
    program->threads = threads < 1 ? 1 : threads;
    program->watched_slot = -1;
    return program;
}

void program_free(struct program *program)
{
    if (!program)
        return;
    struct device *device = program->kernels->device;
    for (int i = 0; i < program->slot_count; i++)
        free(program->slots[i].initial);
    for (int i = 0; i < program->tape_count; i++) {
        if (program->tapes[i]->graph)
            device->free_graph(device, program->tapes[i]->graph);
        plan_release(&program->tapes[i]->plan);
        free(program->tapes[i]->values);
        free(program->tapes[i]->nodes);
        free(program->tapes[i]->labels);
        free(program->tapes[i]->phases);
        free(program->tapes[i]);
    }
    free(program->slots);
    free(program->tapes);
    free(program->profile);
    free(program->staging);
    if (device && program->arena)
        device->release(device, program->arena);
    else
        free(program->arena);
    free(program);
}

const struct kernels *program_kernels(const struct program *program)
{
    return program->kernels;
}

enum element_type program_real(const struct program *program)
{
    return program->real;
}

/* Slots */

static int add_slot(struct program *program, const char *name, enum element_type type,
                    const int64_t shape[4], void *initial)
{
    if (!array_grow(&program->slots, &program->slot_capacity, program->slot_count,
                    sizeof *program->slots)) {
        program->failed = true;
        free(initial);
        return -1;
    }
    struct slot *slot = &program->slots[program->slot_count];
    memset(slot, 0, sizeof *slot);
    snprintf(slot->name, sizeof slot->name, "%s", name);
    slot->type = type;
    memcpy(slot->shape, shape, sizeof slot->shape);
    slot->initial = initial;
    slot->bytes = (size_t)(shape[0] * shape[1] * shape[2] * shape[3]) * element_bytes(type);
    return program->slot_count++;
}

int program_state(struct program *program, const char *name, enum element_type type,
                  const int64_t shape[4])
{
    bool real = type == TYPE_F32 || type == TYPE_F64;
    return add_slot(program, name, real ? program->real : type, shape, NULL);
}

void program_watch(struct program *program, int slot)
{
    program->watched_slot = slot;
}

static int add_constant(struct program *program, const char *name, enum element_type type,
                        const int64_t shape[4], const void *values)
{
    size_t bytes = (size_t)(shape[0] * shape[1] * shape[2] * shape[3]) * element_bytes(type);
    for (int i = 0; i < program->slot_count; i++) {
        const struct slot *slot = &program->slots[i];
        if (slot->initial && slot->type == type && slot->bytes == bytes &&
            memcmp(slot->shape, shape, sizeof slot->shape) == 0 &&
            memcmp(slot->initial, values, bytes) == 0)
            return i;
    }
    void *copy = malloc(bytes ? bytes : 1);
    if (!copy) {
        program->failed = true;
        return -1;
    }
    memcpy(copy, values, bytes);
    return add_slot(program, name, type, shape, copy);
}

int program_constant_f64(struct program *program, const char *name, const int64_t shape[4],
                         const double *values)
{
    return add_constant(program, name, TYPE_F64, shape, values);
}

int program_constant_i32(struct program *program, const char *name, const int64_t shape[4],
                         const int32_t *values)
{
    return add_constant(program, name, TYPE_I32, shape, values);
}

int program_constant_real(struct program *program, const char *name, const int64_t shape[4],
                          const double *values)
{
    if (program->real == TYPE_F64)
        return program_constant_f64(program, name, shape, values);
    int64_t count = shape[0] * shape[1] * shape[2] * shape[3];
    float *converted = malloc((size_t)(count ? count : 1) * sizeof *converted);
    if (!converted) {
        program->failed = true;
        return -1;
    }
    for (int64_t i = 0; i < count; i++)
        converted[i] = (float)values[i];
    int slot = add_constant(program, name, TYPE_F32, shape, converted);
    free(converted);
    return slot;
}

const int64_t *program_shape(const struct program *program, int slot)
{
    return program->slots[slot].shape;
}

struct tape *program_tape(struct program *program, const char *name)
{
    struct tape *tape = calloc(1, sizeof *tape);
    if (!tape || !array_grow(&program->tapes, &program->tape_capacity, program->tape_count,
                             sizeof *program->tapes)) {
        program->failed = true;
        free(tape);
        return NULL;
    }
    tape->program = program;
    snprintf(tape->name, sizeof tape->name, "%s", name);
    program->tapes[program->tape_count++] = tape;
    tape_label(tape, "%s", name);
    return tape;
}

/* Plan */

/* Calls visit for each distinct (parameter, form) that the plans use. */
static void each_weight(struct program *program,
                        void (*visit)(struct program *program, struct parameter *parameter,
                                      enum weight_form form, void *context),
                        void *context)
{
    for (int t = 0; t < program->tape_count; t++) {
        const struct tape *tape = program->tapes[t];
        for (int n = 0; n < tape->plan.node_count; n++) {
            const struct node *node = &tape->plan.nodes[n];
            bool convolution = node->op == KERNEL_conv2d || node->op == KERNEL_conv2d_backward_data;
            for (int i = 0; i < op_inputs(node->op); i++) {
                if (node->input[i] < 0)
                    continue;
                const struct value_info *info = &tape->values[node->input[i]];
                if (info->kind == VALUE_PARAMETER)
                    visit(program, info->parameter,
                          convolution && i == 1 ? node->attributes.conv2d.form : WEIGHT_PLAIN,
                          context);
            }
        }
    }
}

struct weight_list {
    struct {
        const struct parameter *parameter;
        enum weight_form form;
    } * items;
    int count, capacity;
    size_t bytes;
    bool failed;
};

static void count_weight(struct program *program, struct parameter *parameter,
                         enum weight_form form, void *context)
{
    struct weight_list *list = context;
    for (int i = 0; i < list->count; i++)
        if (list->items[i].parameter == parameter && list->items[i].form == form)
            return;
    if (!array_grow(&list->items, &list->capacity, list->count, sizeof *list->items)) {
        list->failed = true;
        return;
    }
    list->items[list->count].parameter = parameter;
    list->items[list->count++].form = form;
    list->bytes += parameter_form_bytes(parameter, program->kernels, program->real, form);
}

static void place_slots(struct program *program)
{
    size_t offset = 0;
    for (int i = 0; i < program->slot_count; i++) {
        program->slots[i].offset = offset;
        offset += round_up(program->slots[i].bytes, SLOT_ALIGNMENT_BYTES);
    }
    program->pinned_bytes = offset;
}

/* Finds the fewest segments with which a tape fits, or those with which it is smallest. */
static int plan_within(struct tape *tape, size_t limit, struct status *status)
{
    if (plan_tape(tape, 1, status) || !limit || tape->plan.region_bytes <= limit ||
        !can_recompute(tape))
        return status->code;
    int best = 1;
    size_t best_bytes = tape->plan.region_bytes;
    for (int segments = 2; segments <= MAX_SEGMENTS; segments++) {
        if (plan_tape(tape, segments, status))
            return status->code;
        if (tape->plan.region_bytes <= limit)
            return status->code;
        if (tape->plan.region_bytes < best_bytes) {
            best_bytes = tape->plan.region_bytes;
            best = segments;
        }
    }
    return plan_tape(tape, best, status);
}

static int plan_tapes(struct program *program, size_t limit, struct status *status)
{
    program->region_bytes = 0;
    for (int t = 0; t < program->tape_count; t++) {
        struct tape *tape = program->tapes[t];
        if (!status_ok(&tape->status))
            return status_set(status, tape->status.code, "%s", tape->status.message);
        if (plan_within(tape, limit, status))
            return status->code;
        /* a loop's body lies in its tape's region, and tapes come after their bodies */
        if (tape->plan.region_bytes >= program->region_bytes) {
            program->region_bytes = tape->plan.region_bytes;
            program->largest = t;
        }
    }
    return status->code;
}

int program_plan(struct program *program, size_t memory_limit_bytes, struct status *status)
{
    if (program->failed)
        return status_set(status, STATUS_FAILURE, "out of memory recording the program");
    place_slots(program);
    if (plan_tapes(program, 0, status))
        return status->code;
    struct weight_list weights = {0};
    each_weight(program, count_weight, &weights);
    program->weights_bytes = weights.bytes;
    free(weights.items);
    if (weights.failed)
        return status_set(status, STATUS_FAILURE, "out of memory planning the weights");
    if (!memory_limit_bytes)
        return status->code;
    size_t fixed = program->weights_bytes + program->pinned_bytes;
    size_t left = memory_limit_bytes > fixed ? memory_limit_bytes - fixed : 1;
    if (program->region_bytes > left && plan_tapes(program, left, status))
        return status->code;
    if (fixed + program->region_bytes > memory_limit_bytes)
        return status_set(status, STATUS_BAD_INPUT,
                          "--memory-limit %zu bytes is too little: the least that fits is %zu "
                          "(weights %zu, state %zu, activations and workspace %zu)",
                          memory_limit_bytes, fixed + program->region_bytes, program->weights_bytes,
                          program->pinned_bytes, program->region_bytes);
    return status->code;
}

void program_memory(const struct program *program, struct memory_report *report)
{
    memset(report, 0, sizeof *report);
    report->weights_bytes = program->weights_bytes;
    report->pinned_bytes = program->pinned_bytes;
    report->total_bytes = program->weights_bytes + program->pinned_bytes + program->region_bytes;
    if (!program->tape_count)
        return;
    const struct plan *plan = &program->tapes[program->largest]->plan;
    report->activations_bytes = plan->region_without_workspace;
    report->workspace_bytes = plan->region_bytes - plan->region_without_workspace;
    report->peak_live_bytes = plan->peak_live_bytes;
    for (int t = 0; t < program->tape_count; t++)
        report->recomputed_nodes += program->tapes[t]->plan.recomputed;
}

void program_print_plan(const struct program *program, FILE *file)
{
    fprintf(file, "%-28s %8s %12s %12s %12s %11s\n", "tape", "nodes", "values MB", "total MB",
            "live MB", "recomputed");
    for (int t = 0; t < program->tape_count; t++) {
        const struct tape *tape = program->tapes[t];
        fprintf(file, "%-28s %8d %12.1f %12.1f %12.1f %11d\n", tape->name, tape->plan.node_count,
                (double)tape->plan.region_without_workspace / 1e6,
                (double)tape->plan.region_bytes / 1e6, (double)tape->plan.peak_live_bytes / 1e6,
                tape->plan.recomputed);
    }
}

void program_visit_plan(const struct program *program, const struct tape *tape,
                        void (*visit)(void *context, int first, int last, size_t offset,
                                      size_t bytes),
                        void *context)
{
    (void)program;
    for (int b = 0; b < tape->plan.block_count; b++) {
        const struct block *block = &tape->plan.blocks[b];
        visit(context, block->first, block->last, block->offset, block->bytes);
    }
}

void program_visit_calls(const struct tape *tape,
                         void (*visit)(void *context, enum kernel_id kernel, const char *label,
                                       const struct kernel_call *call),
                         void *context)
{
    for (int n = 0; n < tape->plan.node_count; n++) {
        const struct node *node = &tape->plan.nodes[n];
        struct tensor input[KERNEL_MAX_INPUTS], output[KERNEL_MAX_OUTPUTS];
        if (node->op >= KERNEL_COUNT)
            continue;
        node_tensors(tape, node, NULL, input, output);
        for (int i = 0; i < KERNEL_MAX_INPUTS; i++)
            input[i].data = NULL;
        const struct kernel_call call = {.input = input,
                                         .output = output,
                                         .attributes = &node->attributes,
                                         .threads = tape->program->threads};
        visit(context, (enum kernel_id)node->op, tape->labels[node->label], &call);
    }
}

/* State in and out. A device's failure shows at the next run. */

static void *slot_data(const struct program *program, int slot)
{
    return program->arena + program->slots[slot].offset;
}

static void copy_in(struct program *program, int slot, const void *values)
{
    struct device *device = program->kernels->device;
    if (device)
        device->write(device, slot_data(program, slot), values, program->slots[slot].bytes);
    else
        memcpy(slot_data(program, slot), values, program->slots[slot].bytes);
}

/* Where the host puts a slot's new values, all of them. */
static void *begin_write(struct program *program, int slot)
{
    return program->staging ? program->staging : slot_data(program, slot);
}

static void end_write(struct program *program, int slot)
{
    if (program->staging)
        copy_in(program, slot, program->staging);
}

static const void *read_slot(const struct program *program, int slot)
{
    struct device *device = program->kernels->device;
    if (!device)
        return slot_data(program, slot);
    if (!device->read(device, program->staging, slot_data(program, slot),
                      program->slots[slot].bytes))
        memset(program->staging, 0xff, program->slots[slot].bytes); /* not a number */
    return program->staging;
}

/* Prepare */

static void pack_weight(struct program *program, struct parameter *parameter, enum weight_form form,
                        void *context)
{
    parameter_pack(parameter, program->kernels, program->real, form, program->threads, context);
}

static int allocate_arena(struct program *program, struct status *status)
{
    struct device *device = program->kernels->device;
    size_t largest = 1;
    for (int i = 0; i < program->slot_count; i++)
        largest = program->slots[i].bytes > largest ? program->slots[i].bytes : largest;
    program->arena_bytes = program->pinned_bytes + program->region_bytes;
    program->arena = device ? device->allocate(device, program->arena_bytes)
                            : memory_allocate(program->arena_bytes, program->threads);
    if (device)
        program->staging = malloc(largest);
    if (!program->arena || (device && !program->staging))
        return status_set(status, STATUS_FAILURE, "out of memory: %zu bytes for the arena",
                          program->arena_bytes);
    return status->code;
}

/* Bodies become part of their loops' graphs. */
static bool is_body(const struct program *program, const struct tape *tape)
{
    for (int t = 0; t < program->tape_count; t++)
        for (int n = 0; n < program->tapes[t]->node_count; n++)
            if (program->tapes[t]->nodes[n].body == tape)
                return true;
    return false;
}

int program_prepare(struct program *program, struct status *status)
{
    struct status pack_status = {0};
    each_weight(program, pack_weight, &pack_status);
    if (!status_ok(&pack_status))
        return status_set(status, pack_status.code, "%s", pack_status.message);
    if (allocate_arena(program, status) != STATUS_OK)
        return status->code;
    for (int i = 0; i < program->slot_count; i++)
        if (program->slots[i].initial)
            copy_in(program, i, program->slots[i].initial);
    struct device *device = program->kernels->device;
    for (int t = 0; device && device->loops && t < program->tape_count; t++)
        if (!is_body(program, program->tapes[t]) &&
            graph_record(program->tapes[t], status) != STATUS_OK)
            break;
    return status->code;
}

/* Values of a slot as the host sees them */

static int64_t slot_elements(const struct program *program, int slot)
{
    const int64_t *s = program->slots[slot].shape;
    return s[0] * s[1] * s[2] * s[3];
}

static double load(const void *data, enum element_type type, int64_t i)
{
    return type == TYPE_F64   ? ((const double *)data)[i]
           : type == TYPE_I32 ? ((const int32_t *)data)[i]
                              : (double)((const float *)data)[i];
}

static void store(void *data, enum element_type type, int64_t i, double v)
{
    if (type == TYPE_F64)
        ((double *)data)[i] = v;
    else
        ((float *)data)[i] = (float)v;
}

void program_write(struct program *program, int slot, const float *values)
{
    void *data = begin_write(program, slot);
    for (int64_t i = 0; i < slot_elements(program, slot); i++)
        store(data, program->slots[slot].type, i, values[i]);
    end_write(program, slot);
}

void program_read(const struct program *program, int slot, float *values)
{
    const void *data = read_slot(program, slot);
    for (int64_t i = 0; i < slot_elements(program, slot); i++)
        values[i] = (float)load(data, program->slots[slot].type, i);
}

void program_write_f64(struct program *program, int slot, const double *values)
{
    void *data = begin_write(program, slot);
    for (int64_t i = 0; i < slot_elements(program, slot); i++)
        store(data, program->slots[slot].type, i, values[i]);
    end_write(program, slot);
}

void program_read_f64(const struct program *program, int slot, double *values)
{
    const void *data = read_slot(program, slot);
    for (int64_t i = 0; i < slot_elements(program, slot); i++)
        values[i] = load(data, program->slots[slot].type, i);
}

/* Position in [N,C,H,W] of element i of an NHWC array. */
static int64_t nchw_index(const int64_t shape[4], int64_t i)
{
    int64_t c = i % shape[3], pixel = i / shape[3] % (shape[1] * shape[2]);
    int64_t n = i / (shape[1] * shape[2] * shape[3]);
    return (n * shape[3] + c) * shape[1] * shape[2] + pixel;
}

void program_write_nchw(struct program *program, int slot, const float *values)
{
    const struct slot *s = &program->slots[slot];
    void *data = begin_write(program, slot);
    for (int64_t i = 0; i < slot_elements(program, slot); i++)
        store(data, s->type, i, values[nchw_index(s->shape, i)]);
    end_write(program, slot);
}

void program_read_nchw(const struct program *program, int slot, float *values)
{
    const struct slot *s = &program->slots[slot];
    const void *data = read_slot(program, slot);
    for (int64_t i = 0; i < slot_elements(program, slot); i++)
        values[nchw_index(s->shape, i)] = (float)load(data, s->type, i);
}

void program_write_i32(struct program *program, int slot, const int32_t *values)
{
    copy_in(program, slot, values);
}

void program_read_i32(const struct program *program, int slot, int32_t *values)
{
    memcpy(values, read_slot(program, slot), program->slots[slot].bytes);
}

void program_zero(struct program *program, int slot)
{
    struct device *device = program->kernels->device;
    if (device)
        device->zero(device, slot_data(program, slot), program->slots[slot].bytes);
    else
        memset(slot_data(program, slot), 0, program->slots[slot].bytes);
}

double program_read_scalar(const struct program *program, int slot)
{
    return load(read_slot(program, slot), program->slots[slot].type, 0);
}
