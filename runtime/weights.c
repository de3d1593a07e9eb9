/* The weights that a program's tapes use, and where they live. On a device whose memory is short,
 * some stay in pinned host memory: the plan gives each convolution that needs one a place for it in
 * the shared region, and the copy goes on the stream before the kernel. Loops keep theirs, so that
 * nothing is copied inside them. */
#include "runtime/tape_internal.h"

#include <stdlib.h>
#include <string.h>

bool is_body(const struct program *program, const struct tape *tape)
{
    for (int t = 0; t < program->tape_count; t++)
        for (int n = 0; n < program->tapes[t]->node_count; n++)
            if (program->tapes[t]->nodes[n].body == tape)
                return true;
    return false;
}

/* NULL without memory. */
static struct weight *find_weight(struct program *program, struct parameter *parameter,
                                  enum weight_form form)
{
    for (int i = 0; i < program->weight_count; i++)
        if (program->weights[i].parameter == parameter && program->weights[i].form == form)
            return &program->weights[i];
    if (!array_grow(&program->weights, &program->weight_capacity, program->weight_count,
                    sizeof *program->weights))
        return NULL;
    struct weight *weight = &program->weights[program->weight_count++];
    *weight = (struct weight){
        .parameter = parameter,
        .form = form,
        .bytes = parameter_form_bytes(parameter, program->kernels, program->real, form)};
    return weight;
}

static bool list_node(struct program *program, const struct tape *tape, const struct node *node,
                      bool in_loop)
{
    for (int i = 0; i < op_inputs(node->op); i++) {
        if (node->input[i] < 0 || tape->values[node->input[i]].kind != VALUE_PARAMETER)
            continue;
        bool kernel = is_convolution(node) && i == 1;
        struct weight *weight = find_weight(program, tape->values[node->input[i]].parameter,
                                            kernel ? node->attributes.conv2d.form : WEIGHT_PLAIN);
        if (!weight)
            return false;
        weight->stays |= in_loop || !kernel;
        weight->uploads += tape->expected_replays;
    }
    return true;
}

/* Those that must stay last, rare uploads before frequent ones, large weights before small ones. */
static int compare_weights(const void *a, const void *b)
{
    const struct weight *x = a, *y = b;
    if (x->stays != y->stays)
        return x->stays ? 1 : -1;
    if (x->uploads != y->uploads)
        return x->uploads < y->uploads ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    int names = strcmp(x->parameter->name, y->parameter->name);
    return names ? names : (int)x->form - (int)y->form;
}

void weights_keep_all(struct program *program)
{
    for (int t = 0; t < program->tape_count; t++)
        for (value v = 0; v < program->tapes[t]->value_count; v++)
            program->tapes[t]->values[v].offloaded = 0;
}

int weights_list(struct program *program, struct status *status)
{
    program->weight_count = 0;
    program->weights_bytes = program->offloaded_bytes = 0;
    for (int t = 0; t < program->tape_count; t++) {
        const struct tape *tape = program->tapes[t];
        bool in_loop = is_body(program, tape);
        for (int n = 0; n < tape->plan.node_count; n++)
            if (!list_node(program, tape, &tape->plan.nodes[n], in_loop))
                return status_set(status, STATUS_FAILURE, "out of memory planning the weights");
    }
    for (int i = 0; i < program->weight_count; i++)
        program->weights_bytes += program->weights[i].bytes;
    if (program->kernels->separate_memory)
        qsort(program->weights, (size_t)program->weight_count, sizeof *program->weights,
              compare_weights);
    return status->code;
}

static void offload(struct program *program, struct weight *weight)
{
    weight->offloaded = true;
    program->weights_bytes -= weight->bytes;
    program->offloaded_bytes += weight->bytes;
    for (int t = 0; t < program->tape_count; t++) {
        struct tape *tape = program->tapes[t];
        for (value v = 0; v < tape->value_count; v++)
            if (tape->values[v].parameter == weight->parameter)
                tape->values[v].offloaded |= 1u << weight->form;
    }
}

bool weights_offload(struct program *program, size_t bytes)
{
    size_t before = program->offloaded_bytes;
    for (int i = 0; i < program->weight_count; i++) {
        struct weight *weight = &program->weights[i];
        if (!weight->offloaded && !weight->stays && program->offloaded_bytes - before < bytes)
            offload(program, weight);
    }
    return program->offloaded_bytes > before;
}

int weights_pack(struct program *program, struct status *status)
{
    for (int i = 0; i < program->weight_count && status_ok(status); i++) {
        const struct weight *weight = &program->weights[i];
        enum place place = weight->offloaded ? PLACE_PINNED : kernels_place(program->kernels);
        parameter_pack(weight->parameter, program->kernels, place, program->real, weight->form,
                       program->threads, status);
    }
    return status->code;
}

size_t offloaded_bytes(const struct tape *tape, const struct node *node)
{
    if (!is_convolution(node))
        return 0;
    const struct value_info *info = &tape->values[node->input[1]];
    enum weight_form form = node->attributes.conv2d.form;
    if (!(info->offloaded >> form & 1))
        return 0;
    return parameter_form_bytes(info->parameter, tape->program->kernels, tape->program->real, form);
}

bool weight_upload(const struct tape *tape, int n, unsigned char *base)
{
    const struct node *node = &tape->plan.nodes[n];
    int block = tape->plan.node_weight[n];
    if (block < 0)
        return true;
    struct device *device = tape->program->kernels->device;
    const void *pinned = parameter_data(tape->values[node->input[1]].parameter, PLACE_PINNED,
                                        node->attributes.conv2d.form);
    return device->upload(device, base + tape->plan.blocks[block].offset, pinned,
                          offloaded_bytes(tape, node));
}
