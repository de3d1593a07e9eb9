/* Memory planning of one tape: which nodes run, how long each value lives, and where it lies in the
 * region that all tapes share. */
#include "runtime/tape_internal.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT_BYTES = 64 };

size_t round_up(size_t bytes, size_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

size_t value_bytes(const struct value_info *info)
{
    return (size_t)(info->shape[0] * info->shape[1] * info->shape[2] * info->shape[3]) *
           element_bytes(info->type);
}

void plan_release(struct plan *plan)
{
    free(plan->nodes);
    free(plan->value_block);
    free(plan->node_block);
    free(plan->node_weight);
    free(plan->blocks);
    memset(plan, 0, sizeof *plan);
}

/* Placement */

enum order { BY_BYTES, BY_AREA, BY_START, ORDER_COUNT };

struct ranked {
    double rank;
    int index;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank > y->rank ? -1 : 1;
    return x->index - y->index;
}

static int compare_offset(const void *a, const void *b)
{
    const struct block *x = *(struct block *const *)a, *y = *(struct block *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The lowest of the tightest gaps between the placed blocks that are alive together with `block`.
 */
static size_t best_fit(const struct block *block, struct block **overlapping, int count)
{
    qsort(overlapping, (size_t)count, sizeof *overlapping, compare_offset);
    size_t end = 0, best = (size_t)-1, best_gap = (size_t)-1;
    for (int i = 0; i < count; i++) {
        if (overlapping[i]->offset >= end + block->bytes) {
            size_t gap = overlapping[i]->offset - end;
            if (gap < best_gap) {
                best_gap = gap;
                best = end;
            }
        }
        size_t past = overlapping[i]->offset + overlapping[i]->bytes;
        end = past > end ? past : end;
    }
    return best != (size_t)-1 ? best : end;
}

static size_t place(struct block *blocks, int count, enum order order, struct ranked *ranked,
                    struct block **placed, struct block **overlapping)
{
    for (int i = 0; i < count; i++) {
        const struct block *b = &blocks[i];
        double bytes = (double)b->bytes;
        ranked[i].index = i;
        ranked[i].rank = order == BY_BYTES  ? bytes
                         : order == BY_AREA ? bytes * (b->last - b->first + 1)
                                            : -(double)b->first;
    }
    qsort(ranked, (size_t)count, sizeof *ranked, compare_ranked);
    size_t region = 0;
    for (int i = 0; i < count; i++) {
        struct block *b = &blocks[ranked[i].index];
        int alive = 0;
        for (int j = 0; j < i; j++)
            if (placed[j]->first <= b->last && b->first <= placed[j]->last)
                overlapping[alive++] = placed[j];
        b->offset = best_fit(b, overlapping, alive);
        placed[i] = b;
        if (b->offset + b->bytes > region)
            region = b->offset + b->bytes;
    }
    return region;
}

/* Tries each order and keeps the one with the smallest region. */
size_t plan_offsets(struct block *blocks, int count)
{
    struct ranked *ranked = calloc((size_t)count + 1, sizeof *ranked);
    struct block **placed = calloc(2 * (size_t)count + 2, sizeof *placed);
    size_t best = (size_t)-1;
    if (ranked && placed) {
        enum order best_order = BY_BYTES;
        for (int order = 0; order < ORDER_COUNT; order++) {
            size_t region = place(blocks, count, order, ranked, placed, placed + count + 1);
            if (region < best) {
                best = region;
                best_order = order;
            }
        }
        place(blocks, count, best_order, ranked, placed, placed + count + 1);
    }
    free(ranked);
    free(placed);
    return best;
}

/* Liveness */

static bool writes_state(const struct tape *tape, const struct node *node)
{
    if (node->op == OP_WHILE || node->op == OP_EXIT_IF)
        return true;
    for (int k = 0; k < op_outputs(node->op); k++)
        if (node->output[k] >= 0 && tape->values[node->output[k]].kind == VALUE_STATE)
            return true;
    return false;
}

/* Keeps the nodes that write state or whose results are used later. */
static int drop_dead_nodes(const struct tape *tape, struct node *nodes, int count, bool *used)
{
    memset(used, 0, (size_t)tape->value_count * sizeof *used);
    int kept = count;
    for (int n = count - 1; n >= 0; n--) {
        bool live = writes_state(tape, &nodes[n]);
        for (int k = 0; k < op_outputs(nodes[n].op); k++)
            live |= nodes[n].output[k] >= 0 && used[nodes[n].output[k]];
        if (!live)
            continue;
        for (int i = 0; i < op_inputs(nodes[n].op); i++)
            if (nodes[n].input[i] >= 0)
                used[nodes[n].input[i]] = true;
        nodes[--kept] = nodes[n];
    }
    memmove(nodes, nodes + kept, (size_t)(count - kept) * sizeof *nodes);
    return count - kept;
}

static size_t workspace_bytes(const struct tape *tape, const struct node *node, bool values_only)
{
    if (node->op == OP_WHILE)
        return values_only ? node->body->plan.region_without_workspace
                           : node->body->plan.region_bytes;
    if (node->op >= KERNEL_COUNT || values_only)
        return 0;
    const struct kernel *kernel = &tape->program->kernels->kernel[node->op];
    if (!kernel->workspace_bytes)
        return 0;
    struct tensor input[KERNEL_MAX_INPUTS], output[KERNEL_MAX_OUTPUTS];
    node_tensors(tape, node, NULL, input, output);
    struct kernel_call call = {.input = input,
                               .output = output,
                               .attributes = &node->attributes,
                               .threads = tape->program->threads};
    return kernel->workspace_bytes(&call);
}

static int add_block(struct plan *plan, int position, size_t bytes)
{
    plan->blocks[plan->block_count] =
        (struct block){position, position, round_up(bytes ? bytes : 1, ALIGNMENT_BYTES), 0};
    return plan->block_count++;
}

/* The block of a dying input whose memory output 0 may take, or -1. */
static int in_place_block(const struct tape *tape, const struct plan *plan, const int *last_use,
                          int position)
{
    const struct node *node = &plan->nodes[position];
    unsigned mask = op_row(node->op)->in_place_inputs;
    for (int i = 0; i < op_inputs(node->op); i++) {
        value v = node->input[i];
        if (!(mask >> i & 1) || v < 0 || tape->values[v].kind != VALUE_TEMPORARY ||
            last_use[v] != position ||
            value_bytes(&tape->values[v]) != value_bytes(&tape->values[node->output[0]]))
            continue;
        bool twice = false;
        for (int j = 0; j < op_inputs(node->op); j++)
            twice |= j != i && node->input[j] == v;
        if (!twice)
            return plan->value_block[v];
    }
    return -1;
}

static void find_last_uses(const struct plan *plan, int *last_use, int values)
{
    for (int v = 0; v < values; v++)
        last_use[v] = -1;
    for (int n = 0; n < plan->node_count; n++)
        for (int i = 0; i < op_inputs(plan->nodes[n].op); i++)
            if (plan->nodes[n].input[i] >= 0)
                last_use[plan->nodes[n].input[i]] = n;
}

/* Blocks for every temporary value, workspace and offloaded weight, with their lifetimes. */
static void make_blocks(const struct tape *tape, struct plan *plan, const int *last_use,
                        bool values_only)
{
    plan->block_count = 0;
    for (value v = 0; v < tape->value_count; v++)
        plan->value_block[v] = -1;
    for (int n = 0; n < plan->node_count; n++) {
        const struct node *node = &plan->nodes[n];
        for (int k = 0; k < op_outputs(node->op); k++) {
            value v = node->output[k];
            if (v < 0 || tape->values[v].kind != VALUE_TEMPORARY)
                continue;
            int block = k == 0 ? in_place_block(tape, plan, last_use, n) : -1;
            if (block < 0)
                block = add_block(plan, n, value_bytes(&tape->values[v]));
            plan->value_block[v] = block;
            int last = last_use[v] > n ? last_use[v] : n;
            if (last > plan->blocks[block].last)
                plan->blocks[block].last = last;
        }
        size_t workspace = workspace_bytes(tape, node, values_only);
        plan->node_block[n] = workspace ? add_block(plan, n, workspace) : -1;
        size_t weight = values_only ? 0 : offloaded_bytes(tape, node);
        plan->node_weight[n] = weight ? add_block(plan, n, weight) : -1;
    }
}

static size_t peak_of(const struct plan *plan)
{
    size_t peak = 0;
    for (int n = 0; n < plan->node_count; n++) {
        size_t live = 0;
        for (int b = 0; b < plan->block_count; b++)
            if (plan->blocks[b].first <= n && n <= plan->blocks[b].last)
                live += plan->blocks[b].bytes;
        peak = live > peak ? live : peak;
    }
    return peak;
}

static void take_nodes(struct tape *tape, int segments, struct node **nodes, int *count)
{
    tape->value_count = tape->recorded_values;
    if (segments > 1 && can_recompute(tape) && plan_recompute(tape, segments, nodes, count))
        return;
    *count = tape->node_count;
    *nodes = malloc(((size_t)tape->node_count + 1) * sizeof **nodes);
    if (*nodes)
        memcpy(*nodes, tape->nodes, (size_t)tape->node_count * sizeof **nodes);
}

static int count_recomputed(const struct tape *tape)
{
    int count = 0;
    for (int n = 0; n < tape->plan.node_count; n++)
        count += tape->plan.nodes[n].output[0] >= tape->recorded_values;
    return count;
}

static void use_smaller_forms(const struct kernels *kernels, struct plan *plan)
{
    for (int n = 0; n < plan->node_count; n++)
        if (is_convolution(&plan->nodes[n]))
            plan->nodes[n].attributes.conv2d.form =
                kernels->smaller_form(plan->nodes[n].attributes.conv2d.form);
}

static size_t count_upload_bytes(const struct tape *tape)
{
    size_t bytes = 0;
    for (int n = 0; n < tape->plan.node_count; n++)
        bytes += offloaded_bytes(tape, &tape->plan.nodes[n]);
    return bytes;
}

int plan_tape(struct tape *tape, int segments, struct status *status)
{
    struct plan *plan = &tape->plan;
    plan_release(plan);
    int *last_use = NULL;
    take_nodes(tape, segments, &plan->nodes, &plan->node_count);
    if (plan->nodes && tape->program->small_weights)
        use_smaller_forms(tape->program->kernels, plan);
    size_t values = (size_t)tape->value_count + 1;
    bool *used = calloc(values, sizeof *used);
    plan->value_block = calloc(values, sizeof(int));
    last_use = calloc(values, sizeof *last_use);
    if (!plan->nodes || !used || !plan->value_block || !last_use)
        goto no_memory;
    plan->node_count = drop_dead_nodes(tape, plan->nodes, plan->node_count, used);
    plan->recomputed = count_recomputed(tape);
    plan->upload_bytes = count_upload_bytes(tape);
    plan->node_block = calloc((size_t)plan->node_count + 1, sizeof(int));
    plan->node_weight = calloc((size_t)plan->node_count + 1, sizeof(int));
    plan->blocks = calloc(values + 2 * (size_t)plan->node_count + 1, sizeof *plan->blocks);
    if (!plan->node_block || !plan->node_weight || !plan->blocks)
        goto no_memory;
    find_last_uses(plan, last_use, tape->value_count);
    make_blocks(tape, plan, last_use, true);
    plan->region_without_workspace = plan_offsets(plan->blocks, plan->block_count);
    make_blocks(tape, plan, last_use, false);
    plan->region_bytes = plan_offsets(plan->blocks, plan->block_count);
    plan->peak_live_bytes = peak_of(plan);
    if (plan->region_bytes == (size_t)-1)
        goto no_memory;
    free(used);
    free(last_use);
    return status->code;
no_memory:
    free(used);
    free(last_use);
    return status_set(status, STATUS_FAILURE, "out of memory planning the tape %s", tape->name);
}

/* Recomputation */

/* What the segmentation of one tape needs to know of each value and node. */
struct segmentation {
    struct tape *tape;
    int begin;        /* first node of a derivative */
    int *producer;    /* per value: node, or -1 */
    int *segment;     /* per forward node */
    bool *needed;     /* per value: by some node of a derivative */
    bool *checkpoint; /* per value: stays */
    value *clone;     /* per value: its recomputed copy, or NO_VALUE */
};

static bool can_run_again(const struct tape *tape, const struct node *node)
{
    return node->op < KERNEL_COUNT && !writes_state(tape, node);
}

/* State that a node reads must not change before its copy runs. */
static bool inputs_stay(const struct tape *tape, int n, int until)
{
    const struct node *node = &tape->nodes[n];
    for (int i = 0; i < op_inputs(node->op); i++) {
        value v = node->input[i];
        if (v < 0 || tape->values[v].kind != VALUE_STATE)
            continue;
        for (int m = n; m < until; m++)
            for (int k = 0; k < op_outputs(tape->nodes[m].op); k++)
                if (tape->nodes[m].output[k] == v)
                    return false;
    }
    return true;
}

static void find_producers(struct segmentation *s)
{
    const struct tape *tape = s->tape;
    for (value v = 0; v < tape->value_count; v++) {
        s->producer[v] = -1;
        s->clone[v] = NO_VALUE;
        s->checkpoint[v] = tape->values[v].kind != VALUE_TEMPORARY;
    }
    for (int n = 0; n < tape->node_count; n++) {
        const struct node *node = &tape->nodes[n];
        for (int i = 0; n >= s->begin && i < op_inputs(node->op); i++)
            if (node->input[i] >= 0)
                s->needed[node->input[i]] = true;
        for (int k = 0; k < op_outputs(node->op); k++)
            if (node->output[k] >= 0 && tape->values[node->output[k]].kind == VALUE_TEMPORARY)
                s->producer[node->output[k]] = n;
    }
}

static size_t kept_bytes(const struct segmentation *s, int n)
{
    size_t bytes = 0;
    for (int k = 0; k < op_outputs(s->tape->nodes[n].op); k++) {
        value v = s->tape->nodes[n].output[k];
        if (v >= 0 && !s->checkpoint[v] && s->needed[v])
            bytes += value_bytes(&s->tape->values[v]);
    }
    return bytes;
}

/* Cuts the forward part where the kept bytes reach equal shares; values that cross a cut stay. */
static void cut_segments(struct segmentation *s, int segments)
{
    const struct tape *tape = s->tape;
    size_t total = 0, sum = 0;
    for (int n = 0; n < s->begin; n++)
        total += kept_bytes(s, n);
    for (int n = 0; n < s->begin; n++) {
        int share = total ? (int)((double)sum / (double)total * segments) : 0;
        s->segment[n] = share < segments ? share : segments - 1;
        sum += kept_bytes(s, n);
    }
    for (int n = 0; n < s->begin; n++) {
        const struct node *node = &tape->nodes[n];
        for (int i = 0; i < op_inputs(node->op); i++) {
            value v = node->input[i];
            if (v >= 0 && s->producer[v] >= 0 && s->segment[s->producer[v]] != s->segment[n])
                s->checkpoint[v] = true;
        }
        bool stays = !can_run_again(tape, node) || !inputs_stay(tape, n, tape->node_count);
        for (int k = 0; stays && k < op_outputs(node->op); k++)
            if (node->output[k] >= 0)
                s->checkpoint[node->output[k]] = true;
    }
}

/* A phase starts without recomputed values; the first still has those of the last segment. */
static void begin_phase(struct segmentation *s, bool first, int segments)
{
    for (value v = 0; v < s->tape->recorded_values; v++) {
        int n = s->producer[v];
        bool last_segment = n >= 0 && n < s->begin && s->segment[n] == segments - 1;
        s->clone[v] = first && last_segment ? v : NO_VALUE;
    }
}

/* Appends copies of the nodes of segment `which` that produce what derivatives need of it. */
static bool append_segment(struct segmentation *s, int which, struct node *nodes, int *count)
{
    struct tape *tape = s->tape;
    bool *wanted = calloc((size_t)tape->recorded_values + 1, sizeof *wanted);
    bool *again = calloc((size_t)s->begin + 1, sizeof *again);
    bool done = wanted && again;
    for (int n = s->begin - 1; done && n >= 0; n--) {
        const struct node *node = &tape->nodes[n];
        if (s->segment[n] != which)
            continue;
        for (int k = 0; k < op_outputs(node->op); k++) {
            value v = node->output[k];
            again[n] |= v >= 0 && !s->checkpoint[v] && (wanted[v] || s->needed[v]);
        }
        for (int i = 0; again[n] && i < op_inputs(node->op); i++)
            if (node->input[i] >= 0)
                wanted[node->input[i]] = true;
    }
    for (int n = 0; done && n < s->begin; n++) {
        if (!again[n])
            continue;
        struct node copy = tape->nodes[n];
        for (int i = 0; i < op_inputs(copy.op); i++)
            if (copy.input[i] >= 0 && s->clone[copy.input[i]] >= 0)
                copy.input[i] = s->clone[copy.input[i]];
        for (int k = 0; k < op_outputs(copy.op); k++) {
            value v = copy.output[k];
            if (v < 0)
                continue;
            struct value_info info = tape->values[v];
            copy.output[k] = tape_add_value(tape, &info);
            if (!s->checkpoint[v])
                s->clone[v] = copy.output[k];
            done &= copy.output[k] >= 0;
        }
        nodes[(*count)++] = copy;
    }
    free(wanted);
    free(again);
    return done;
}

/* The segment whose values node n is the first of its phase to need, or -1. */
static int segment_needed(const struct segmentation *s, int n)
{
    const struct node *node = &s->tape->nodes[n];
    for (int i = 0; i < op_inputs(node->op); i++) {
        value v = node->input[i];
        if (v >= 0 && v < s->tape->recorded_values && s->producer[v] >= 0 &&
            s->producer[v] < s->begin && !s->checkpoint[v] && s->clone[v] < 0)
            return s->segment[s->producer[v]];
    }
    return -1;
}

static bool lay_out_segments(struct segmentation *s, int segments, struct node *nodes, int *count)
{
    const struct tape *tape = s->tape;
    int phase = 0;
    memcpy(nodes, tape->nodes, (size_t)s->begin * sizeof *nodes);
    *count = s->begin;
    for (int n = s->begin; n < tape->node_count; n++) {
        int segment;
        for (; phase < tape->phase_count && tape->phases[phase] == n; phase++)
            begin_phase(s, phase == 0, segments);
        while ((segment = segment_needed(s, n)) >= 0)
            if (!append_segment(s, segment, nodes, count))
                return false;
        struct node node = tape->nodes[n];
        for (int i = 0; i < op_inputs(node.op); i++)
            if (node.input[i] >= 0 && node.input[i] < tape->recorded_values &&
                s->clone[node.input[i]] >= 0)
                node.input[i] = s->clone[node.input[i]];
        nodes[(*count)++] = node;
    }
    return true;
}

bool can_recompute(const struct tape *tape)
{
    return tape->phase_count && tape->phases[0] > 0;
}

bool plan_recompute(struct tape *tape, int segments, struct node **nodes, int *count)
{
    size_t nodes_at_most =
        (size_t)tape->node_count + (size_t)tape->phase_count * (size_t)tape->phases[0];
    size_t values = (size_t)tape->value_count + 1;
    struct segmentation s = {.tape = tape, .begin = tape->phases[0]};
    s.producer = calloc(values, sizeof(int));
    s.segment = calloc((size_t)tape->node_count + 1, sizeof(int));
    s.needed = calloc(values, sizeof(bool));
    s.checkpoint = calloc(values, sizeof(bool));
    s.clone = calloc(values, sizeof(value));
    *nodes = malloc(nodes_at_most * sizeof **nodes);
    bool done = s.producer && s.segment && s.needed && s.checkpoint && s.clone && *nodes;
    if (done) {
        find_producers(&s);
        cut_segments(&s, segments);
        done = lay_out_segments(&s, segments, *nodes, count);
    }
    if (!done) {
        tape->value_count = tape->recorded_values;
        free(*nodes);
        *nodes = NULL;
    }
    free(s.producer);
    free(s.segment);
    free(s.needed);
    free(s.checkpoint);
    free(s.clone);
    return done;
}
