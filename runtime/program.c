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
    free(program->weights);
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
    tape->expected_replays = 1;
    snprintf(tape->name, sizeof tape->name, "%s", name);
    program->tapes[program->tape_count++] = tape;
    tape_label(tape, "%s", name);
    return tape;
}

/* Plan */

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

static size_t planned_bytes(const struct program *program)
{
    return program->weights_bytes + program->pinned_bytes + program->region_bytes;
}

/* Offloads as few weights as let the program fit, or all that may be. */
static int offload_within(struct program *program, size_t limit, struct status *status)
{
    while (planned_bytes(program) > limit &&
           weights_offload(program, planned_bytes(program) - limit))
        if (plan_tapes(program, 0, status))
            break;
    return status->code;
}

static int recompute_within(struct program *program, size_t limit, struct status *status)
{
    size_t fixed = program->weights_bytes + program->pinned_bytes;
    return plan_tapes(program, limit > fixed ? limit - fixed : 1, status);
}

/* Plans with each weight's fast or smaller form; where that is too much, offloads, then
 * recomputes. */
static int plan_forms(struct program *program, bool small_weights, size_t limit,
                      struct status *status)
{
    program->small_weights = small_weights;
    weights_keep_all(program);
    if (plan_tapes(program, 0, status) || weights_list(program, status))
        return status->code;
    if (program->kernels->separate_memory && offload_within(program, limit, status))
        return status->code;
    return planned_bytes(program) > limit ? recompute_within(program, limit, status) : status->code;
}

int program_plan(struct program *program, size_t memory_limit_bytes, struct status *status)
{
    size_t limit = memory_limit_bytes ? memory_limit_bytes : (size_t)-1;
    if (program->failed)
        return status_set(status, STATUS_FAILURE, "out of memory recording the program");
    place_slots(program);
    if (plan_forms(program, false, limit, status))
        return status->code;
    if (planned_bytes(program) > limit && program->kernels->smaller_form &&
        plan_forms(program, true, limit, status))
        return status->code;
    if (planned_bytes(program) > limit)
        return status_set(status, STATUS_BAD_INPUT,
                          "--memory-limit %zu bytes is too little: the least that fits is %zu "
                          "(weights %zu, state %zu, activations and workspace %zu)",
                          limit, planned_bytes(program), program->weights_bytes,
                          program->pinned_bytes, program->region_bytes);
    return status->code;
}

void program_expect(struct tape *tape, int64_t replays)
{
    tape->expected_replays = replays;
}

struct tape_uploads program_uploads(const struct tape *tape)
{
    return (struct tape_uploads){tape->plan.upload_bytes, tape->expected_replays};
}

void program_memory(const struct program *program, struct memory_report *report)
{
    memset(report, 0, sizeof *report);
    report->small_weights = program->small_weights;
    report->weights_bytes = program->weights_bytes;
    report->pinned_bytes = program->pinned_bytes;
    report->offloaded_bytes = program->offloaded_bytes;
    report->total_bytes = planned_bytes(program);
    if (!program->tape_count)
        return;
    const struct plan *plan = &program->tapes[program->largest]->plan;
    report->activations_bytes = plan->region_without_workspace;
    report->workspace_bytes = plan->region_bytes - plan->region_without_workspace;
    report->peak_live_bytes = plan->peak_live_bytes;
    for (int t = 0; t < program->tape_count; t++) {
        const struct tape *tape = program->tapes[t];
        report->recomputed_nodes += tape->plan.recomputed;
        report->upload_bytes += (double)tape->plan.upload_bytes * (double)tape->expected_replays;
    }
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

int program_prepare(struct program *program, struct status *status)
{
    if (weights_pack(program, status) != STATUS_OK || allocate_arena(program, status) != STATUS_OK)
        return status->code;
    for (int i = 0; i < program->slot_count; i++)
        if (program->slots[i].initial)
            copy_in(program, i, program->slots[i].initial);
    struct device *device = program->kernels->device;
    /* bodies become part of their loops' graphs */
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
