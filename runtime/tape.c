#include "runtime/tape_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

bool array_grow(void *array, int *capacity, int count, size_t item_bytes)
{
    if (count < *capacity)
        return true;
    int larger = *capacity ? *capacity * 2 : 64;
    void *grown = realloc(*(void **)array, (size_t)larger * item_bytes);
    if (!grown)
        return false;
    *(void **)array = grown;
    *capacity = larger;
    return true;
}

const int64_t *tape_shape(const struct tape *tape, value v)
{
    static const int64_t none[4];
    return v >= 0 && v < tape->value_count ? tape->values[v].shape : none;
}

struct status *tape_status(struct tape *tape)
{
    return &tape->status;
}

const char *tape_name(const struct tape *tape)
{
    return tape->name;
}

void tape_label(struct tape *tape, const char *format, ...)
{
    if (!array_grow(&tape->labels, &tape->label_capacity, tape->label_count,
                    sizeof *tape->labels)) {
        status_set(&tape->status, STATUS_FAILURE, "out of memory for the tape %s", tape->name);
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(tape->labels[tape->label_count++], sizeof *tape->labels, format, arguments);
    va_end(arguments);
}

value tape_add_value(struct tape *tape, const struct value_info *info)
{
    if (!array_grow(&tape->values, &tape->value_capacity, tape->value_count,
                    sizeof *tape->values)) {
        status_set(&tape->status, STATUS_FAILURE, "out of memory for the tape %s", tape->name);
        return NO_VALUE;
    }
    tape->values[tape->value_count] = *info;
    return tape->value_count++;
}

struct node node_of(int op, value a, value b, value c, value d, value e)
{
    struct node node;
    memset(&node, 0, sizeof node);
    node.op = op;
    node.input[0] = a;
    node.input[1] = b;
    node.input[2] = c;
    node.input[3] = d;
    node.input[4] = e;
    node.input[5] = NO_VALUE;
    for (int k = 0; k < KERNEL_MAX_OUTPUTS; k++)
        node.output[k] = NO_VALUE;
    return node;
}

/* The inputs that may be absent: conv2d's bias and residual, combine's b, ddim_step's noise,
 * stop_rule's window. */
static bool input_is_optional(int op, int input)
{
    return (op == KERNEL_conv2d && input >= 2) || (op == KERNEL_combine && input == 1) ||
           (op == KERNEL_ddim_step && input == 2) || (op == KERNEL_stop_rule && input == 1);
}

/* bf16 is for what networks are made of. */
static bool takes_bf16(int op)
{
    switch (op) {
    case KERNEL_conv2d:
    case KERNEL_conv2d_backward_data:
    case KERNEL_group_norm:
    case KERNEL_group_norm_backward:
    case KERNEL_group_norm_jvp:
    case KERNEL_attention:
    case KERNEL_attention_backward:
    case KERNEL_attention_jvp:
    case KERNEL_silu:
    case KERNEL_silu_backward:
    case KERNEL_combine:
    case KERNEL_add_channel:
    case KERNEL_sum_spatial:
    case KERNEL_concat_channels:
    case KERNEL_slice_channels:
    case KERNEL_pad_channels:
    case KERNEL_cast:
        return true;
    default:
        return false;
    }
}

static bool inputs_are_there(struct tape *tape, const struct node *node)
{
    for (int i = 0; i < op_inputs(node->op); i++) {
        value v = node->input[i];
        if (v >= tape->value_count || (v < 0 && !input_is_optional(node->op, i))) {
            status_set(&tape->status, STATUS_FAILURE, "%s: %s: input %d is missing",
                       tape->labels[node->label], op_name(node->op), i);
            return false;
        }
        if (v >= 0 && tape->values[v].type == TYPE_BF16 && !takes_bf16(node->op)) {
            status_set(&tape->status, STATUS_FAILURE, "%s: %s does not take bf16",
                       tape->labels[node->label], op_name(node->op));
            return false;
        }
    }
    return true;
}

value tape_append(struct tape *tape, struct node *node)
{
    if (!status_ok(&tape->status))
        return NO_VALUE;
    const struct op_row *row = op_row(node->op);
    struct value_info output[KERNEL_MAX_OUTPUTS];
    memset(output, 0, sizeof output);
    node->label = tape->label_count - 1;
    if (!inputs_are_there(tape, node) || !row->infer(tape, node, output))
        return NO_VALUE;
    for (int k = 0; k < op_outputs(node->op); k++) {
        int written = row->written_input[k];
        node->output[k] = written ? node->input[written - 1] : tape_add_value(tape, &output[k]);
        if (written && node->output[k] >= 0 && tape->values[node->output[k]].kind != VALUE_STATE)
            status_set(&tape->status, STATUS_FAILURE, "%s writes a value that is not state",
                       op_name(node->op));
    }
    if (!array_grow(&tape->nodes, &tape->node_capacity, tape->node_count, sizeof *tape->nodes))
        status_set(&tape->status, STATUS_FAILURE, "out of memory for the tape %s", tape->name);
    if (!status_ok(&tape->status))
        return NO_VALUE;
    tape->nodes[tape->node_count++] = *node;
    tape->recorded_values = tape->value_count;
    return node->output[0];
}

static value append(struct tape *tape, int op, value a, value b, value c)
{
    struct node node = node_of(op, a, b, c, NO_VALUE, NO_VALUE);
    return tape_append(tape, &node);
}

value tape_state(struct tape *tape, int slot)
{
    if (slot < 0 || slot >= tape->program->slot_count) {
        status_set(&tape->status, STATUS_FAILURE, "%s: no such state slot", tape->name);
        return NO_VALUE;
    }
    const struct slot *s = &tape->program->slots[slot];
    struct value_info info = {.kind = VALUE_STATE, .type = s->type, .slot = slot};
    memcpy(info.shape, s->shape, sizeof info.shape);
    for (value v = 0; v < tape->value_count; v++)
        if (tape->values[v].kind == VALUE_STATE && tape->values[v].slot == slot)
            return v;
    value v = tape_add_value(tape, &info);
    tape->recorded_values = tape->value_count;
    return v;
}

value tape_parameter(struct tape *tape, struct parameter *parameter)
{
    if (!parameter) {
        status_set(&tape->status, STATUS_FAILURE, "%s: a parameter is missing", tape->name);
        return NO_VALUE;
    }
    for (value v = 0; v < tape->value_count; v++)
        if (tape->values[v].parameter == parameter)
            return v;
    struct value_info info = {
        .kind = VALUE_PARAMETER, .type = tape->program->real, .parameter = parameter};
    memcpy(info.shape, parameter->shape, sizeof info.shape);
    value v = tape_add_value(tape, &info);
    tape->recorded_values = tape->value_count;
    return v;
}

value tape_conv2d(struct tape *tape, value x, value weight, value bias, value residual,
                  const struct conv2d_attributes *attributes)
{
    struct node node = node_of(KERNEL_conv2d, x, weight, bias, residual, NO_VALUE);
    node.attributes.conv2d = *attributes;
    return tape_append(tape, &node);
}

value tape_group_norm(struct tape *tape, value x, value gamma, value beta, int groups,
                      double epsilon, bool silu)
{
    struct node node = node_of(KERNEL_group_norm, x, gamma, beta, NO_VALUE, NO_VALUE);
    node.attributes.group_norm.groups = groups;
    node.attributes.group_norm.epsilon = epsilon;
    node.attributes.group_norm.silu = silu;
    return tape_append(tape, &node);
}

value tape_attention(struct tape *tape, value qkv, int heads)
{
    struct node node = node_of(KERNEL_attention, qkv, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE);
    node.attributes.attention.heads = heads;
    return tape_append(tape, &node);
}

value tape_silu(struct tape *tape, value x)
{
    return append(tape, KERNEL_silu, x, NO_VALUE, NO_VALUE);
}

value tape_leaky_relu(struct tape *tape, value x, double slope)
{
    struct node node = node_of(KERNEL_leaky_relu, x, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE);
    node.attributes.leaky_relu.slope = slope;
    return tape_append(tape, &node);
}

value tape_combine(struct tape *tape, double alpha, value a, double beta, value b)
{
    struct node node = node_of(KERNEL_combine, a, b, NO_VALUE, NO_VALUE, NO_VALUE);
    node.attributes.combine.alpha = alpha;
    node.attributes.combine.beta = beta;
    return tape_append(tape, &node);
}

value tape_combine_scaled(struct tape *tape, value a, value b, value coefficients, int index,
                          double factor)
{
    struct node node = node_of(KERNEL_combine_scaled, a, b, coefficients, NO_VALUE, NO_VALUE);
    node.attributes.combine.index = index;
    node.attributes.combine.beta = factor;
    return tape_append(tape, &node);
}

value tape_multiply(struct tape *tape, value x, value mask)
{
    return append(tape, KERNEL_multiply, x, mask, NO_VALUE);
}

value tape_add_channel(struct tape *tape, value x, value b)
{
    return append(tape, KERNEL_add_channel, x, b, NO_VALUE);
}

value tape_concat_channels(struct tape *tape, value a, value b)
{
    return append(tape, KERNEL_concat_channels, a, b, NO_VALUE);
}

value tape_slice_channels(struct tape *tape, value x, int64_t start, int64_t count)
{
    struct node node = node_of(KERNEL_slice_channels, x, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE);
    node.attributes.channels.start = start;
    node.attributes.channels.count = count;
    return tape_append(tape, &node);
}

value tape_reshape(struct tape *tape, value x, const int64_t shape[4])
{
    if (memcmp(tape_shape(tape, x), shape, sizeof(int64_t[4])) == 0)
        return x;
    struct node node = node_of(KERNEL_reshape, x, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE);
    memcpy(node.shape, shape, sizeof node.shape);
    return tape_append(tape, &node);
}

value tape_timestep_embedding(struct tape *tape, value t, int64_t channels, double max_period)
{
    struct node node =
        node_of(KERNEL_timestep_embedding, t, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE);
    node.attributes.timestep.max_period = max_period;
    const int64_t shape[4] = {tape_shape(tape, t)[0], 1, 1, channels};
    memcpy(node.shape, shape, sizeof shape);
    return tape_append(tape, &node);
}

static value to_type(struct tape *tape, value v, enum element_type type)
{
    return v < 0 || tape->values[v].type == type ? v
                                                 : append(tape, KERNEL_cast, v, NO_VALUE, NO_VALUE);
}

value tape_to_network(struct tape *tape, value v)
{
    const struct program *program = tape->program;
    return to_type(tape, v, program->kernels->network == TYPE_BF16 ? TYPE_BF16 : program->real);
}

value tape_to_real(struct tape *tape, value v)
{
    return to_type(tape, v, tape->program->real);
}

value tape_vector_quantize(struct tape *tape, value z, value codebook, value *index_or_null)
{
    struct node node = node_of(KERNEL_vector_quantize, z, codebook, NO_VALUE, NO_VALUE, NO_VALUE);
    value quantized = tape_append(tape, &node);
    if (index_or_null)
        *index_or_null = node.output[1];
    return quantized;
}

value tape_take_codes(struct tape *tape, value codebook, value index)
{
    return append(tape, KERNEL_take_codes, codebook, index, NO_VALUE);
}

value tape_detach(struct tape *tape, value v)
{
    return append(tape, KERNEL_copy, v, NO_VALUE, NO_VALUE);
}

value tape_mean_squared_error(struct tape *tape, value a, value b)
{
    return append(tape, KERNEL_mean_squared_error, a, b, NO_VALUE);
}

value tape_mean_absolute_error(struct tape *tape, value a, value b)
{
    return append(tape, KERNEL_mean_absolute_error, a, b, NO_VALUE);
}

value tape_l2_norm(struct tape *tape, value r)
{
    return append(tape, KERNEL_l2_norm, r, NO_VALUE, NO_VALUE);
}

value tape_dot(struct tape *tape, value a, value b)
{
    return append(tape, KERNEL_dot, a, b, NO_VALUE);
}

value tape_quotient(struct tape *tape, value a, value b)
{
    return append(tape, KERNEL_l2_norm_backward, a, tape_one(tape), b);
}

value tape_sum_spatial(struct tape *tape, value x)
{
    return append(tape, KERNEL_sum_spatial, x, NO_VALUE, NO_VALUE);
}

static value axis_filter(struct tape *tape, value x, const struct axis_table *table)
{
    struct node node =
        node_of(KERNEL_axis_filter, x, tape_state(tape, table->offsets),
                tape_state(tape, table->indices), tape_state(tape, table->weights), NO_VALUE);
    node.attributes.axis_filter.axis = table->axis;
    node.attributes.axis_filter.length = table->output_length;
    node.table = *table;
    return tape_append(tape, &node);
}

value tape_axis_filter(struct tape *tape, value x, const struct axis_table *table)
{
    return axis_filter(tape, x, table);
}

value tape_axis_filter_adjoint(struct tape *tape, value y, const struct axis_table *table)
{
    const struct axis_table transposed = {.axis = table->axis,
                                          .input_length = table->output_length,
                                          .output_length = table->input_length,
                                          .offsets = table->transposed_offsets,
                                          .indices = table->transposed_indices,
                                          .weights = table->transposed_weights,
                                          .transposed_offsets = table->offsets,
                                          .transposed_indices = table->indices,
                                          .transposed_weights = table->weights};
    return axis_filter(tape, y, &transposed);
}

value tape_tap_filter(struct tape *tape, value x, value taps, value weights)
{
    return append(tape, KERNEL_tap_filter, x, taps, weights);
}

value tape_tap_filter_adjoint(struct tape *tape, value y, value taps, value weights)
{
    return append(tape, KERNEL_tap_filter_adjoint, y, taps, weights);
}

value tape_radon(struct tape *tape, value x, value geometry, int64_t detectors)
{
    struct node node = node_of(KERNEL_radon, x, geometry, NO_VALUE, NO_VALUE, NO_VALUE);
    const int64_t *s = tape_shape(tape, x);
    int64_t views = (tape_shape(tape, geometry)[3] - RADON_GEOMETRY_HEADER) / 2;
    const int64_t shape[4] = {s[0], views, detectors, s[3]};
    memcpy(node.shape, shape, sizeof shape);
    return tape_append(tape, &node);
}

value tape_radon_adjoint(struct tape *tape, value sinogram, value geometry, int64_t height,
                         int64_t width)
{
    struct node node =
        node_of(KERNEL_radon_adjoint, sinogram, geometry, NO_VALUE, NO_VALUE, NO_VALUE);
    const int64_t *s = tape_shape(tape, sinogram);
    const int64_t shape[4] = {s[0], height, width, s[3]};
    memcpy(node.shape, shape, sizeof shape);
    return tape_append(tape, &node);
}

value tape_philox_normal(struct tape *tape, value counter_state, const int64_t shape[4])
{
    struct node node =
        node_of(KERNEL_philox_normal, counter_state, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE);
    memcpy(node.shape, shape, sizeof node.shape);
    return tape_append(tape, &node);
}

void tape_ddim_step(struct tape *tape, value x, value e, value noise, value coefficients,
                    value *x_next, value *pred_x0, value *pseudo)
{
    struct node node = node_of(KERNEL_ddim_step, x, e, noise, coefficients, NO_VALUE);
    tape_append(tape, &node);
    value *results[] = {x_next, pred_x0, pseudo};
    for (int k = 0; k < 3; k++)
        if (results[k])
            *results[k] = node.output[k];
}

value tape_stochastic_resample(struct tape *tape, value z0, value x_t, value noise,
                               value coefficients)
{
    struct node node = node_of(KERNEL_stochastic_resample, z0, x_t, noise, coefficients, NO_VALUE);
    return tape_append(tape, &node);
}

void tape_adam_step(struct tape *tape, value p_state, value g, value m_state, value v_state,
                    value step_state, double learning_rate, double weight_decay)
{
    struct node node = node_of(KERNEL_adam_step, p_state, g, m_state, v_state, step_state);
    node.attributes.adam.learning_rate = learning_rate;
    node.attributes.adam.beta1 = 0.9;
    node.attributes.adam.beta2 = 0.999;
    node.attributes.adam.epsilon = 1e-8;
    node.attributes.adam.weight_decay = weight_decay;
    tape_append(tape, &node);
}

void tape_adamw_step(struct tape *tape, value p_state, value g, value m_state, value v_state,
                     value control, value squared_norm, double beta1, double beta2, double epsilon,
                     double weight_decay)
{
    struct node node = node_of(KERNEL_adamw_step, p_state, g, m_state, v_state, control);
    node.input[5] = squared_norm;
    node.attributes.adam.beta1 = beta1;
    node.attributes.adam.beta2 = beta2;
    node.attributes.adam.epsilon = epsilon;
    node.attributes.adam.weight_decay = weight_decay;
    tape_append(tape, &node);
}

void tape_keep_best(struct tape *tape, value loss, value x, value best_loss_state,
                    value best_x_state)
{
    struct node node = node_of(KERNEL_keep_best, loss, x, best_loss_state, best_x_state, NO_VALUE);
    tape_append(tape, &node);
}

value tape_stop_rule(struct tape *tape, value loss, value window_state, value iteration_state,
                     double threshold, bool inclusive)
{
    struct node node =
        node_of(KERNEL_stop_rule, loss, window_state, iteration_state, NO_VALUE, NO_VALUE);
    node.attributes.stop.threshold = threshold;
    node.attributes.stop.inclusive = inclusive;
    return tape_append(tape, &node);
}

void tape_search_direction(struct tape *tape, value energy, value gradient,
                           value previous_gradient_state, value direction_state, value search_state)
{
    struct node node = node_of(KERNEL_search_direction, energy, gradient, previous_gradient_state,
                               direction_state, search_state);
    tape_append(tape, &node);
}

void tape_search_step(struct tape *tape, value z_state, value base_state, value direction,
                      value curvature, value search_state)
{
    struct node node =
        node_of(KERNEL_search_step, z_state, base_state, direction, curvature, search_state);
    tape_append(tape, &node);
}

void tape_assign(struct tape *tape, value state, value v)
{
    if (!status_ok(&tape->status))
        return;
    if (state < 0 || v < 0 || tape->values[state].kind != VALUE_STATE ||
        memcmp(tape->values[state].shape, tape->values[v].shape, sizeof tape->values[v].shape)) {
        status_set(&tape->status, STATUS_FAILURE, "%s: assign: not a state of that shape",
                   tape->labels[tape->label_count - 1]);
        return;
    }
    value copied = append(tape, KERNEL_copy, v, NO_VALUE, NO_VALUE);
    if (copied != NO_VALUE)
        tape->nodes[tape->node_count - 1].output[0] = state;
}

void tape_exit_if(struct tape *tape, value stop)
{
    append(tape, OP_EXIT_IF, stop, NO_VALUE, NO_VALUE);
}

void tape_while(struct tape *tape, struct tape *body, int64_t limit)
{
    struct node node = node_of(OP_WHILE, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE);
    node.body = body;
    node.limit = limit;
    node.loop_slot = -1;
    if (tape->program->kernels->separate_memory)
        node.loop_slot =
            program_state(tape->program, "loop", TYPE_I32, (const int64_t[4]){1, 1, 1, 2});
    bool earlier = false;
    for (int t = 0; t < tape->program->tape_count && tape->program->tapes[t] != tape; t++)
        earlier |= tape->program->tapes[t] == body;
    if (!earlier)
        status_set(&tape->status, STATUS_FAILURE,
                   "%s: a loop's body is a tape that its program made before", tape->name);
    tape_append(tape, &node);
}

/* derivatives */

value tape_one(struct tape *tape)
{
    const int64_t shape[4] = {1, 1, 1, 1};
    const double unit = 1;
    return tape_state(tape, program_constant_real(tape->program, "one", shape, &unit));
}

/* No derivative passes through a copy: tape_detach makes one for that. */
static bool is_detached(const struct node *node)
{
    return node->op == KERNEL_copy;
}

static bool carries_derivatives(const struct value_info *info)
{
    return info->kind == VALUE_TEMPORARY && info->type != TYPE_I32;
}

/* Marks the values before node `end` that depend on those marked already. */
static void mark_dependent(const struct tape *tape, int end, bool *depends)
{
    for (int n = 0; n < end; n++) {
        const struct node *node = &tape->nodes[n];
        bool any = false;
        for (int i = 0; !is_detached(node) && i < op_inputs(node->op); i++)
            any |= node->input[i] >= 0 && depends[node->input[i]];
        for (int k = 0; any && k < op_outputs(node->op); k++)
            if (node->output[k] >= 0 && carries_derivatives(&tape->values[node->output[k]]))
                depends[node->output[k]] = true;
    }
}

/* Marks the values before node `end` on which `output` depends. */
static void mark_needed(const struct tape *tape, value output, int end, bool *needed)
{
    needed[output] = true;
    for (int n = end - 1; n >= 0; n--) {
        const struct node *node = &tape->nodes[n];
        bool any = false;
        for (int k = 0; k < op_outputs(node->op); k++)
            any |= node->output[k] >= 0 && needed[node->output[k]] &&
                   tape->values[node->output[k]].kind == VALUE_TEMPORARY;
        for (int i = 0; any && i < op_inputs(node->op); i++)
            if (node->input[i] >= 0)
                needed[node->input[i]] = true;
    }
}

static void begin_phase(struct tape *tape)
{
    if (array_grow(&tape->phases, &tape->phase_capacity, tape->phase_count, sizeof *tape->phases))
        tape->phases[tape->phase_count++] = tape->node_count;
    else
        status_set(&tape->status, STATUS_FAILURE, "out of memory for the tape %s", tape->name);
}

/* What is appended next is named after this node. */
static void label_like(struct tape *tape, const struct node *node)
{
    char label[sizeof *tape->labels];
    memcpy(label, tape->labels[node->label], sizeof label);
    tape_label(tape, "%s", label);
}

static void refuse_derivative(struct tape *tape, const struct node *node, const char *what)
{
    status_set(&tape->status, STATUS_FAILURE, "%s: %s has no %s", tape->labels[node->label],
               op_name(node->op), what);
}

/* Derivatives pass through some inputs only: not through a mask or a table. */
static bool passes_derivatives(struct tape *tape, const struct node *node, const bool *active,
                               const char *what)
{
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++)
        if (active[i] && !(op_row(node->op)->differentiable_inputs >> i & 1)) {
            refuse_derivative(tape, node, what);
            return false;
        }
    return true;
}

/* One node's contribution to the gradients of its inputs. */
static void propagate(struct tape *tape, int n, const bool *depends, value *gradient, int values)
{
    struct node node = tape->nodes[n];
    value output_gradient[KERNEL_MAX_OUTPUTS], input_gradient[KERNEL_MAX_INPUTS];
    bool wanted[KERNEL_MAX_INPUTS] = {false};
    bool flows = false, any = false;
    for (int k = 0; k < KERNEL_MAX_OUTPUTS; k++) {
        value v = k < op_outputs(node.op) ? node.output[k] : NO_VALUE;
        bool temporary = v >= 0 && v < values && tape->values[v].kind == VALUE_TEMPORARY;
        output_gradient[k] = temporary ? gradient[v] : NO_VALUE;
        flows |= output_gradient[k] >= 0;
    }
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++) {
        input_gradient[i] = NO_VALUE;
        wanted[i] = i < op_inputs(node.op) && node.input[i] >= 0 && depends[node.input[i]];
        any |= wanted[i];
    }
    if (!flows || !any)
        return;
    if (!op_row(node.op)->vjp || output_gradient[0] < 0) {
        refuse_derivative(tape, &node, "gradient");
        return;
    }
    if (!passes_derivatives(tape, &node, wanted, "gradient with respect to this input"))
        return;
    label_like(tape, &node);
    op_row(node.op)->vjp(tape, &node, output_gradient, wanted, input_gradient);
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++) {
        if (!wanted[i] || input_gradient[i] < 0)
            continue;
        value *sum = &gradient[node.input[i]];
        *sum = *sum < 0 ? input_gradient[i] : tape_combine(tape, 1, *sum, 1, input_gradient[i]);
    }
}

/* For each value the first node that reads it, after whose turn in reverse its gradient is
 * complete; -1: none. */
static void find_first_readers(const struct tape *tape, int *reader)
{
    for (value v = 0; v < tape->value_count; v++)
        reader[v] = -1;
    for (int n = tape->node_count - 1; n >= 0; n--)
        for (int i = 0; i < op_inputs(tape->nodes[n].op); i++)
            if (tape->nodes[n].input[i] >= 0)
                reader[tape->nodes[n].input[i]] = n;
}

/* J(wrt[i])^T cotangent of `output`, for each i, in one pass. */
static void reverse(struct tape *tape, value output, value cotangent, const value wrt[], int count,
                    gradient_consumer *consume, void *context)
{
    int values = tape->value_count, end = tape->node_count;
    bool *depends = calloc((size_t)values, sizeof *depends);
    value *gradient = malloc((size_t)values * sizeof *gradient);
    int *reader = malloc((size_t)values * sizeof *reader);
    if (!depends || !gradient || !reader) {
        status_set(&tape->status, STATUS_FAILURE, "out of memory for a gradient");
        goto done;
    }
    for (value v = 0; v < values; v++)
        gradient[v] = NO_VALUE;
    find_first_readers(tape, reader);
    begin_phase(tape);
    for (int i = 0; i < count; i++)
        depends[wrt[i]] = true;
    mark_dependent(tape, end, depends);
    gradient[output] = depends[output] ? cotangent : NO_VALUE;
    for (int n = end - 1; n >= -1; n--) {
        if (n >= 0 && status_ok(&tape->status))
            propagate(tape, n, depends, gradient, values);
        for (int i = 0; i < count && status_ok(&tape->status); i++)
            if (reader[wrt[i]] == n)
                consume(context, i,
                        gradient[wrt[i]] >= 0 ? gradient[wrt[i]]
                                              : tape_combine(tape, 0, wrt[i], 0, NO_VALUE));
    }
done:
    free(depends);
    free(gradient);
    free(reader);
}

static void store_gradient(void *context, int i, value gradient)
{
    ((value *)context)[i] = gradient;
}

value tape_vjp(struct tape *tape, value output, value cotangent, value wrt)
{
    value result = NO_VALUE;
    if (status_ok(&tape->status) && output >= 0 && cotangent >= 0 && wrt >= 0)
        reverse(tape, output, cotangent, &wrt, 1, store_gradient, &result);
    return status_ok(&tape->status) ? result : NO_VALUE;
}

void tape_each_gradient(struct tape *tape, value scalar, const value wrt[], int count,
                        gradient_consumer *consume, void *context)
{
    const int64_t one[4] = {1, 1, 1, 1};
    if (memcmp(tape_shape(tape, scalar), one, sizeof one) != 0)
        status_set(&tape->status, STATUS_FAILURE, "%s: the gradient of what is not a scalar",
                   tape->name);
    for (int i = 0; i < count; i++)
        if (wrt[i] < 0)
            status_set(&tape->status, STATUS_FAILURE, "%s: the gradient of nothing", tape->name);
    if (status_ok(&tape->status))
        reverse(tape, scalar, tape_one(tape), wrt, count, consume, context);
}

void tape_gradients(struct tape *tape, value scalar, const value wrt[], int count, value gradient[])
{
    tape_each_gradient(tape, scalar, wrt, count, store_gradient, gradient);
    for (int i = 0; i < count && !status_ok(&tape->status); i++)
        gradient[i] = NO_VALUE;
}

value tape_gradient(struct tape *tape, value scalar, value wrt)
{
    value gradient;
    tape_gradients(tape, scalar, &wrt, 1, &gradient);
    return gradient;
}

/* The tangents of one node's outputs from those of its inputs. */
static void push_forward(struct tape *tape, int n, const bool *needed, value *tangent)
{
    struct node node = tape->nodes[n];
    value input_tangent[KERNEL_MAX_INPUTS], output_tangent[KERNEL_MAX_OUTPUTS];
    bool active[KERNEL_MAX_INPUTS] = {false}, flows = false, leads_on = false;
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++) {
        value v = i < op_inputs(node.op) ? node.input[i] : NO_VALUE;
        input_tangent[i] = v >= 0 ? tangent[v] : NO_VALUE;
        active[i] = input_tangent[i] >= 0;
        flows |= active[i];
    }
    for (int k = 0; k < KERNEL_MAX_OUTPUTS; k++) {
        output_tangent[k] = NO_VALUE;
        if (k >= op_outputs(node.op) || node.output[k] < 0 ||
            tape->values[node.output[k]].kind != VALUE_TEMPORARY)
            node.output[k] = NO_VALUE;
        else
            leads_on |= needed[node.output[k]];
    }
    if (!flows || !leads_on || is_detached(&node))
        return;
    if (!op_row(node.op)->jvp) {
        refuse_derivative(tape, &node, "tangent");
        return;
    }
    if (!passes_derivatives(tape, &node, active, "tangent for this input"))
        return;
    label_like(tape, &node);
    op_row(node.op)->jvp(tape, &node, input_tangent, output_tangent);
    for (int k = 0; k < KERNEL_MAX_OUTPUTS; k++)
        if (node.output[k] >= 0)
            tangent[node.output[k]] = output_tangent[k];
}

value tape_jvp(struct tape *tape, value output, value input, value tangent)
{
    if (!status_ok(&tape->status) || output < 0 || input < 0 || tangent < 0)
        return NO_VALUE;
    const int64_t *x = tape_shape(tape, input), *dx = tape_shape(tape, tangent);
    if (memcmp(x, dx, 4 * sizeof *x) != 0) {
        status_set(&tape->status, STATUS_FAILURE,
                   "%s: a tangent of [%ld,%ld,%ld,%ld] for a value of [%ld,%ld,%ld,%ld]",
                   tape->name, (long)dx[0], (long)dx[1], (long)dx[2], (long)dx[3], (long)x[0],
                   (long)x[1], (long)x[2], (long)x[3]);
        return NO_VALUE;
    }
    int values = tape->value_count, end = tape->node_count;
    bool *needed = calloc((size_t)values, sizeof *needed);
    value *tangents = malloc((size_t)values * sizeof *tangents);
    value result = NO_VALUE;
    if (needed && tangents) {
        for (value v = 0; v < values; v++)
            tangents[v] = NO_VALUE;
        begin_phase(tape);
        mark_needed(tape, output, end, needed);
        tangents[input] = tangent;
        for (int n = 0; n < end && status_ok(&tape->status); n++)
            push_forward(tape, n, needed, tangents);
        result =
            tangents[output] >= 0 ? tangents[output] : tape_combine(tape, 0, output, 0, NO_VALUE);
    } else {
        status_set(&tape->status, STATUS_FAILURE, "out of memory for a tangent");
    }
    free(needed);
    free(tangents);
    return result;
}
