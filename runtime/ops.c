/* The operation table: one row per kernel (and the two loop nodes): shape rule, vector-Jacobian and
 * Jacobian-vector product, which inputs the result may overwrite, which state it writes. */
#include "runtime/tape_internal.h"

#include <stdio.h>
#include <string.h>

static const struct value_info *info(const struct tape *tape, value v)
{
    return &tape->values[v];
}

/* In shape and type. */
static bool alike(const struct value_info *a, const struct value_info *b)
{
    return a->type == b->type && memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

static bool is_scalar(const struct value_info *a)
{
    return a->shape[0] == 1 && a->shape[1] == 1 && a->shape[2] == 1 && a->shape[3] == 1;
}

static bool is_vector(const struct value_info *a, int64_t length)
{
    return a->shape[0] == 1 && a->shape[1] == 1 && a->shape[2] == 1 && a->shape[3] == length;
}

static bool refuse(struct tape *tape, const struct node *node, const char *why)
{
    char shapes[256] = "";
    for (int i = 0; i < op_inputs(node->op); i++) {
        if (node->input[i] < 0)
            continue;
        const int64_t *s = info(tape, node->input[i])->shape;
        size_t length = strlen(shapes);
        snprintf(shapes + length, sizeof shapes - length, "%s[%ld,%ld,%ld,%ld]", i ? " " : "",
                 (long)s[0], (long)s[1], (long)s[2], (long)s[3]);
    }
    status_set(&tape->status, STATUS_BAD_INPUT, "%s: %s: %s (inputs %s)", tape->labels[node->label],
               op_name(node->op), why, shapes);
    return false;
}

static void set_shape(struct value_info *output, enum element_type type, int64_t n, int64_t h,
                      int64_t w, int64_t c)
{
    *output = (struct value_info){.type = type, .shape = {n, h, w, c}};
}

static enum element_type real_of(const struct tape *tape)
{
    return tape->program->real;
}

/* Of a result that is of its input's type. */
static enum element_type type_like(const struct tape *tape, value v)
{
    return info(tape, v)->type == TYPE_BF16 ? TYPE_BF16 : real_of(tape);
}

static void scalar_output(const struct tape *tape, struct value_info *output)
{
    set_shape(output, real_of(tape), 1, 1, 1, 1);
}

static bool same_as(struct tape *tape, value v, struct value_info output[])
{
    output[0] = (struct value_info){.type = type_like(tape, v)};
    memcpy(output[0].shape, info(tape, v)->shape, sizeof output[0].shape);
    return true;
}

static bool same_as_first(struct tape *tape, struct node *node, struct value_info output[])
{
    return same_as(tape, node->input[0], output);
}

static bool same_as_second(struct tape *tape, struct node *node, struct value_info output[])
{
    return same_as(tape, node->input[1], output);
}

static bool same_as_third(struct tape *tape, struct node *node, struct value_info output[])
{
    return same_as(tape, node->input[2], output);
}

static bool shape_of_node(struct tape *tape, struct node *node, struct value_info output[])
{
    set_shape(output, real_of(tape), node->shape[0], node->shape[1], node->shape[2],
              node->shape[3]);
    return true;
}

static bool binary_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    if (node->input[1] >= 0 && !alike(info(tape, node->input[0]), info(tape, node->input[1])))
        return refuse(tape, node, "the shapes or types differ");
    return same_as_first(tape, node, output);
}

/* An operation that is linear in its first input is its own tangent. */
static void linear_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                       value *output_tangent)
{
    struct node again = *node;
    again.input[0] = input_tangent[0];
    output_tangent[0] = tape_append(tape, &again);
}

static value scaled(struct tape *tape, double factor, value v)
{
    return factor == 1 ? v : tape_combine(tape, factor, v, 0, NO_VALUE);
}

static value zero_like(struct tape *tape, value v)
{
    return tape_combine(tape, 0, v, 0, NO_VALUE);
}

/* alpha*a + beta*b, either of which may be missing */
static value weighted_sum(struct tape *tape, double alpha, value a, double beta, value b)
{
    return a < 0   ? scaled(tape, beta, b)
           : b < 0 ? scaled(tape, alpha, a)
                   : tape_combine(tape, alpha, a, beta, b);
}

/* convolution */

/* The node that packed this weight; NULL: it is not packed. */
static const struct node *packing_of(const struct tape *tape, value weight)
{
    for (int n = tape->node_count - 1; n >= 0; n--)
        if (tape->nodes[n].op == KERNEL_conv2d_pack_weight && tape->nodes[n].output[0] == weight)
            return &tape->nodes[n];
    return NULL;
}

/* The weight as it was before it was packed. */
static value unpacked(const struct tape *tape, value weight)
{
    const struct node *packing = packing_of(tape, weight);
    return packing ? packing->input[0] : weight;
}

/* A weight that is no parameter comes to its convolution through a node that packs it. */
static void pack_weight(struct tape *tape, struct node *convolution)
{
    value weight = convolution->input[1];
    if (info(tape, weight)->kind == VALUE_PARAMETER || packing_of(tape, weight))
        return;
    if (tape->program->kernels->network == TYPE_BF16) {
        refuse(tape, convolution, "a weight that is trained needs networks in f32");
        return;
    }
    struct node pack =
        node_of(KERNEL_conv2d_pack_weight, weight, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE);
    pack.attributes.conv2d = convolution->attributes.conv2d;
    convolution->input[1] = tape_append(tape, &pack);
}

static bool conv2d_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    struct conv2d_attributes *a = &node->attributes.conv2d;
    const struct value_info *x = info(tape, node->input[0]), *w = info(tape, node->input[1]);
    if (w->shape[1] != x->shape[3] || w->shape[2] != a->kernel_height ||
        w->shape[3] != a->kernel_width)
        return refuse(tape, node, "the weight does not fit the input's channels");
    int64_t rows = x->shape[1] * a->upsample + a->pad_top + a->pad_bottom - a->kernel_height;
    int64_t columns = x->shape[2] * a->upsample + a->pad_left + a->pad_right - a->kernel_width;
    if (rows < 0 || columns < 0)
        return refuse(tape, node, "the picture is smaller than the kernel");
    set_shape(output, type_like(tape, node->input[0]), x->shape[0], rows / a->stride + 1,
              columns / a->stride + 1, w->shape[0]);
    if ((x->type == TYPE_BF16) != (tape->program->kernels->network == TYPE_BF16))
        return refuse(tape, node, "the input is not of the networks' type");
    if (node->input[2] >= 0 && !is_vector(info(tape, node->input[2]), w->shape[0]))
        return refuse(tape, node, "the bias does not fit");
    if (node->input[3] >= 0 && !alike(info(tape, node->input[3]), output))
        return refuse(tape, node, "the residual does not fit");
    a->form = tape->program->kernels->conv2d_form(a, x->shape, output->shape, false);
    pack_weight(tape, node);
    return status_ok(&tape->status);
}

/* Backwards a weight is packed again, even where the form is the same, so that its bytes are not
 * kept from the forward part on. */
static void conv2d_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                       const bool *wanted, value *input_gradient)
{
    if (wanted[0]) {
        struct node back = node_of(KERNEL_conv2d_backward_data, output_gradient[0],
                                   unpacked(tape, node->input[1]), NO_VALUE, NO_VALUE, NO_VALUE);
        back.attributes = node->attributes;
        const int64_t *x = info(tape, node->input[0])->shape;
        memcpy(back.shape, x, sizeof back.shape);
        back.attributes.conv2d.form = tape->program->kernels->conv2d_form(
            &node->attributes.conv2d, x, info(tape, node->output[0])->shape, true);
        input_gradient[0] = tape_append(tape, &back);
    }
    if (wanted[1]) {
        struct node back = node_of(KERNEL_conv2d_backward_weight, node->input[0],
                                   output_gradient[0], NO_VALUE, NO_VALUE, NO_VALUE);
        back.attributes = node->attributes;
        memcpy(back.shape, info(tape, node->input[1])->shape, sizeof back.shape);
        input_gradient[1] = tape_append(tape, &back);
    }
    if (wanted[2]) {
        struct node sum =
            node_of(KERNEL_sum_pixels, output_gradient[0], NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE);
        input_gradient[2] = tape_append(tape, &sum);
    }
    if (wanted[3])
        input_gradient[3] = output_gradient[0];
}

/* dx*w + dbias + dresidual, then x*dw on top of it. */
static void conv2d_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                       value *output_tangent)
{
    const struct conv2d_attributes *a = &node->attributes.conv2d;
    value dx = input_tangent[0], dw = input_tangent[1], bias = input_tangent[2];
    output_tangent[0] = input_tangent[3];
    if (dx >= 0)
        output_tangent[0] = tape_conv2d(tape, dx, node->input[1], bias, output_tangent[0], a);
    else if (bias >= 0)
        output_tangent[0] = tape_conv2d(tape, zero_like(tape, node->input[0]), node->input[1], bias,
                                        output_tangent[0], a);
    if (dw >= 0)
        output_tangent[0] = tape_conv2d(tape, node->input[0], dw, NO_VALUE, output_tangent[0], a);
}

static bool conv2d_backward_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    shape_of_node(tape, node, output);
    output->type = type_like(tape, node->input[0]);
    pack_weight(tape, node);
    return status_ok(&tape->status);
}

/* Derivatives of a weight are row-major, packed or not. */
static void pack_weight_vjp(struct tape *tape, const struct node *node,
                            const value *output_gradient, const bool *wanted, value *input_gradient)
{
    (void)tape, (void)node;
    if (wanted[0])
        input_gradient[0] = output_gradient[0];
}

static void pack_weight_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                            value *output_tangent)
{
    (void)tape, (void)node;
    output_tangent[0] = input_tangent[0];
}

/* normalisation, attention, activation */

static bool group_norm_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    const struct value_info *x = info(tape, node->input[0]);
    int groups = node->attributes.group_norm.groups;
    if (groups < 1 || x->shape[3] % groups || !is_vector(info(tape, node->input[1]), x->shape[3]) ||
        !is_vector(info(tape, node->input[2]), x->shape[3]))
        return refuse(tape, node, "the groups or the affine do not fit the channels");
    set_shape(&output[1], real_of(tape), x->shape[0], 1, groups, 2);
    return same_as_first(tape, node, output);
}

static void group_norm_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                           const bool *wanted, value *input_gradient)
{
    struct node back = node_of(KERNEL_group_norm_backward, output_gradient[0], node->input[0],
                               node->input[1], node->input[2], node->output[1]);
    back.attributes = node->attributes;
    if (wanted[0])
        input_gradient[0] = tape_append(tape, &back);
    if (wanted[1] || wanted[2]) {
        back.op = KERNEL_group_norm_backward_affine;
        tape_append(tape, &back);
        input_gradient[1] = back.output[0];
        input_gradient[2] = back.output[1];
    }
}

/* The change of y when gamma and beta move: silu'(u) du, u the norm without SiLU. */
static value affine_tangent(struct tape *tape, const struct node *node, value dgamma, value dbeta)
{
    int groups = node->attributes.group_norm.groups;
    double epsilon = node->attributes.group_norm.epsilon;
    value gamma = node->input[1], beta = node->input[2];
    dgamma = dgamma >= 0 ? dgamma : zero_like(tape, gamma);
    dbeta = dbeta >= 0 ? dbeta : zero_like(tape, beta);
    value du = tape_group_norm(tape, node->input[0], dgamma, dbeta, groups, epsilon, false);
    if (!node->attributes.group_norm.silu)
        return du;
    value u = tape_group_norm(tape, node->input[0], gamma, beta, groups, epsilon, false);
    struct node slope = node_of(KERNEL_silu_backward, du, u, NO_VALUE, NO_VALUE, NO_VALUE);
    return tape_append(tape, &slope);
}

static void group_norm_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                           value *output_tangent)
{
    struct node tangent = node_of(KERNEL_group_norm_jvp, input_tangent[0], node->input[0],
                                  node->input[1], node->input[2], node->output[1]);
    tangent.attributes = node->attributes;
    value dy = input_tangent[0] >= 0 ? tape_append(tape, &tangent) : NO_VALUE;
    if (input_tangent[1] >= 0 || input_tangent[2] >= 0)
        dy = weighted_sum(tape, 1, dy, 1,
                          affine_tangent(tape, node, input_tangent[1], input_tangent[2]));
    output_tangent[0] = dy;
}

static bool affine_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    same_as(tape, node->input[2], &output[0]);
    return same_as(tape, node->input[3], &output[1]);
}

static bool attention_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    const struct value_info *x = info(tape, node->input[0]);
    int heads = node->attributes.attention.heads;
    if (heads < 1 || x->shape[3] % (3 * (int64_t)heads))
        return refuse(tape, node, "the heads do not divide the channels");
    set_shape(&output[0], type_like(tape, node->input[0]), x->shape[0], x->shape[1], x->shape[2],
              x->shape[3] / 3);
    set_shape(&output[1], real_of(tape), x->shape[0], heads, x->shape[1] * x->shape[2], 1);
    return true;
}

static void attention_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                          const bool *wanted, value *input_gradient)
{
    if (!wanted[0])
        return;
    struct node back = node_of(KERNEL_attention_backward, output_gradient[0], node->input[0],
                               node->output[0], node->output[1], NO_VALUE);
    back.attributes = node->attributes;
    input_gradient[0] = tape_append(tape, &back);
}

static void attention_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                          value *output_tangent)
{
    struct node tangent = node_of(KERNEL_attention_jvp, input_tangent[0], node->input[0],
                                  node->output[0], node->output[1], NO_VALUE);
    tangent.attributes = node->attributes;
    output_tangent[0] = tape_append(tape, &tangent);
}

static void silu_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                     const bool *wanted, value *input_gradient)
{
    if (!wanted[0])
        return;
    struct node back = node_of(KERNEL_silu_backward, output_gradient[0], node->input[0], NO_VALUE,
                               NO_VALUE, NO_VALUE);
    input_gradient[0] = tape_append(tape, &back);
}

static void silu_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                     value *output_tangent)
{
    struct node tangent = node_of(KERNEL_silu_backward, input_tangent[0], node->input[0], NO_VALUE,
                                  NO_VALUE, NO_VALUE);
    output_tangent[0] = tape_append(tape, &tangent);
}

static value leaky_slope(struct tape *tape, const struct node *node, value v)
{
    struct node slope =
        node_of(KERNEL_leaky_relu_backward, v, node->input[0], NO_VALUE, NO_VALUE, NO_VALUE);
    slope.attributes = node->attributes;
    return tape_append(tape, &slope);
}

static void leaky_relu_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                           const bool *wanted, value *input_gradient)
{
    if (wanted[0])
        input_gradient[0] = leaky_slope(tape, node, output_gradient[0]);
}

static void leaky_relu_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                           value *output_tangent)
{
    output_tangent[0] = leaky_slope(tape, node, input_tangent[0]);
}

/* elementwise */

static void combine_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                        const bool *wanted, value *input_gradient)
{
    if (wanted[0])
        input_gradient[0] = scaled(tape, node->attributes.combine.alpha, output_gradient[0]);
    if (wanted[1])
        input_gradient[1] = scaled(tape, node->attributes.combine.beta, output_gradient[0]);
}

static void combine_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                        value *output_tangent)
{
    output_tangent[0] = weighted_sum(tape, node->attributes.combine.alpha, input_tangent[0],
                                     node->attributes.combine.beta, input_tangent[1]);
}

static void combine_scaled_vjp(struct tape *tape, const struct node *node,
                               const value *output_gradient, const bool *wanted,
                               value *input_gradient)
{
    if (wanted[0])
        input_gradient[0] = output_gradient[0];
    if (wanted[1]) {
        value zero = zero_like(tape, output_gradient[0]);
        input_gradient[1] =
            tape_combine_scaled(tape, zero, output_gradient[0], node->input[2],
                                node->attributes.combine.index, node->attributes.combine.beta);
    }
}

static void combine_scaled_jvp(struct tape *tape, const struct node *node,
                               const value *input_tangent, value *output_tangent)
{
    value da = input_tangent[0], db = input_tangent[1];
    output_tangent[0] = da;
    if (db >= 0)
        output_tangent[0] =
            tape_combine_scaled(tape, da < 0 ? zero_like(tape, db) : da, db, node->input[2],
                                node->attributes.combine.index, node->attributes.combine.beta);
}

static bool multiply_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    const int64_t *x = info(tape, node->input[0])->shape, *m = info(tape, node->input[1])->shape;
    if (m[0] != 1 || m[1] != x[1] || m[2] != x[2] || (m[3] != 1 && m[3] != x[3]))
        return refuse(tape, node, "the mask does not fit the picture");
    return same_as_first(tape, node, output);
}

static void multiply_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                         const bool *wanted, value *input_gradient)
{
    if (wanted[0])
        input_gradient[0] = tape_multiply(tape, output_gradient[0], node->input[1]);
}

static bool add_channel_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    const int64_t *x = info(tape, node->input[0])->shape, *b = info(tape, node->input[1])->shape;
    if (b[0] != x[0] || b[1] != 1 || b[2] != 1 || b[3] != x[3] ||
        info(tape, node->input[0])->type != info(tape, node->input[1])->type)
        return refuse(tape, node, "the shapes or types do not fit");
    return same_as_first(tape, node, output);
}

static void add_channel_vjp(struct tape *tape, const struct node *node,
                            const value *output_gradient, const bool *wanted, value *input_gradient)
{
    (void)node;
    if (wanted[0])
        input_gradient[0] = output_gradient[0];
    if (wanted[1]) {
        input_gradient[1] = tape_sum_spatial(tape, output_gradient[0]);
    }
}

static void add_channel_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                            value *output_tangent)
{
    value dx = input_tangent[0], db = input_tangent[1];
    output_tangent[0] = dx;
    if (db >= 0)
        output_tangent[0] =
            tape_add_channel(tape, dx < 0 ? zero_like(tape, node->input[0]) : dx, db);
}

static bool sum_spatial_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    const int64_t *x = info(tape, node->input[0])->shape;
    set_shape(output, type_like(tape, node->input[0]), x[0], 1, 1, x[3]);
    return true;
}

static void sum_spatial_vjp(struct tape *tape, const struct node *node,
                            const value *output_gradient, const bool *wanted, value *input_gradient)
{
    if (!wanted[0])
        return;
    input_gradient[0] = tape_add_channel(tape, zero_like(tape, node->input[0]), output_gradient[0]);
}

static bool sum_pixels_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    set_shape(output, real_of(tape), 1, 1, 1, info(tape, node->input[0])->shape[3]);
    return true;
}

static void straight_through_vjp(struct tape *tape, const struct node *node,
                                 const value *output_gradient, const bool *wanted,
                                 value *input_gradient)
{
    (void)tape, (void)node;
    if (wanted[0])
        input_gradient[0] = output_gradient[0];
}

static void straight_through_jvp(struct tape *tape, const struct node *node,
                                 const value *input_tangent, value *output_tangent)
{
    (void)tape, (void)node;
    output_tangent[0] = input_tangent[0];
}

/* channels */

static bool concat_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    const int64_t *a = info(tape, node->input[0])->shape, *b = info(tape, node->input[1])->shape;
    if (memcmp(a, b, 3 * sizeof *a) != 0 ||
        info(tape, node->input[0])->type != info(tape, node->input[1])->type)
        return refuse(tape, node, "the pictures differ in size or type");
    set_shape(output, type_like(tape, node->input[0]), a[0], a[1], a[2], a[3] + b[3]);
    return true;
}

static void concat_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                       const bool *wanted, value *input_gradient)
{
    int64_t first = info(tape, node->input[0])->shape[3];
    int64_t second = info(tape, node->input[1])->shape[3];
    if (wanted[0])
        input_gradient[0] = tape_slice_channels(tape, output_gradient[0], 0, first);
    if (wanted[1])
        input_gradient[1] = tape_slice_channels(tape, output_gradient[0], first, second);
}

static value padded(struct tape *tape, value v, int64_t start, int64_t total)
{
    struct node pad = node_of(KERNEL_pad_channels, v, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE);
    pad.attributes.channels.start = start;
    pad.attributes.channels.count = info(tape, v)->shape[3];
    pad.attributes.channels.total = total;
    return tape_append(tape, &pad);
}

static void concat_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                       value *output_tangent)
{
    value da = input_tangent[0], db = input_tangent[1];
    int64_t first = info(tape, node->input[0])->shape[3];
    int64_t total = info(tape, node->output[0])->shape[3];
    output_tangent[0] = da < 0   ? padded(tape, db, first, total)
                        : db < 0 ? padded(tape, da, 0, total)
                                 : tape_concat_channels(tape, da, db);
}

static bool slice_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    const int64_t *x = info(tape, node->input[0])->shape;
    int64_t start = node->attributes.channels.start, count = node->attributes.channels.count;
    if (start < 0 || count < 1 || start + count > x[3])
        return refuse(tape, node, "the range exceeds the channels");
    node->attributes.channels.total = x[3];
    set_shape(output, type_like(tape, node->input[0]), x[0], x[1], x[2], count);
    return true;
}

static void slice_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                      const bool *wanted, value *input_gradient)
{
    if (wanted[0])
        input_gradient[0] = padded(tape, output_gradient[0], node->attributes.channels.start,
                                   node->attributes.channels.total);
}

static bool pad_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    const int64_t *x = info(tape, node->input[0])->shape;
    set_shape(output, type_like(tape, node->input[0]), x[0], x[1], x[2],
              node->attributes.channels.total);
    return true;
}

static void pad_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                    const bool *wanted, value *input_gradient)
{
    if (wanted[0])
        input_gradient[0] =
            tape_slice_channels(tape, output_gradient[0], node->attributes.channels.start,
                                node->attributes.channels.count);
}

static bool reshape_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    const int64_t *from = info(tape, node->input[0])->shape, *to = node->shape;
    if (from[0] * from[1] * from[2] * from[3] != to[0] * to[1] * to[2] * to[3])
        return refuse(tape, node, "the new shape has another number of elements");
    return shape_of_node(tape, node, output);
}

static void reshape_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                        const bool *wanted, value *input_gradient)
{
    if (wanted[0])
        input_gradient[0] =
            tape_reshape(tape, output_gradient[0], info(tape, node->input[0])->shape);
}

static bool embedding_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    const int64_t *t = info(tape, node->input[0])->shape;
    if (t[1] != 1 || t[2] != 1 || t[3] != 1)
        return refuse(tape, node, "one time per picture is wanted");
    return shape_of_node(tape, node, output);
}

/* Each way between the networks' type and real, and so are its derivatives. */
static bool cast_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    same_as_first(tape, node, output);
    output->type = output->type == TYPE_BF16 ? real_of(tape) : TYPE_BF16;
    return true;
}

static value cast(struct tape *tape, value v)
{
    struct node node = node_of(KERNEL_cast, v, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE);
    return tape_append(tape, &node);
}

static void cast_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                     const bool *wanted, value *input_gradient)
{
    (void)node;
    if (wanted[0])
        input_gradient[0] = cast(tape, output_gradient[0]);
}

static void cast_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                     value *output_tangent)
{
    (void)node;
    output_tangent[0] = cast(tape, input_tangent[0]);
}

/* quantiser and reductions */

static bool quantize_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    const int64_t *z = info(tape, node->input[0])->shape, *e = info(tape, node->input[1])->shape;
    if (e[3] != z[3])
        return refuse(tape, node, "the codes have another width than the latent");
    set_shape(&output[1], TYPE_I32, z[0], z[1], z[2], 1);
    return same_as_first(tape, node, output);
}

static bool take_codes_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    const struct value_info *codebook = info(tape, node->input[0]);
    const struct value_info *index = info(tape, node->input[1]);
    const int64_t *s = index->shape;
    if (index->type != TYPE_I32 || s[3] != 1)
        return refuse(tape, node, "one index per pixel is wanted");
    set_shape(output, real_of(tape), s[0], s[1], s[2], codebook->shape[3]);
    return true;
}

static void take_codes_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                           const bool *wanted, value *input_gradient)
{
    if (!wanted[0])
        return;
    struct node back = node_of(KERNEL_take_codes_backward, output_gradient[0], node->input[1],
                               NO_VALUE, NO_VALUE, NO_VALUE);
    memcpy(back.shape, info(tape, node->input[0])->shape, sizeof back.shape);
    input_gradient[0] = tape_append(tape, &back);
}

static bool mse_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    if (!binary_infer(tape, node, output))
        return false;
    scalar_output(tape, output);
    return true;
}

/* Backward kernels of errors take the gradient, the input and the other one. */
static void error_vjp(struct tape *tape, int backward, const struct node *node,
                      value output_gradient, const bool *wanted, value *input_gradient)
{
    for (int i = 0; i < 2; i++) {
        if (!wanted[i])
            continue;
        struct node back = node_of(backward, output_gradient, node->input[i], node->input[1 - i],
                                   NO_VALUE, NO_VALUE);
        input_gradient[i] = tape_append(tape, &back);
    }
}

static void mse_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                    const bool *wanted, value *input_gradient)
{
    error_vjp(tape, KERNEL_mean_squared_error_backward, node, output_gradient[0], wanted,
              input_gradient);
}

static void mae_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                    const bool *wanted, value *input_gradient)
{
    error_vjp(tape, KERNEL_mean_absolute_error_backward, node, output_gradient[0], wanted,
              input_gradient);
}

/* The derivative is the backward kernel's row times the inputs' change. */
static void mae_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                    value *output_tangent)
{
    struct node signs = node_of(KERNEL_mean_absolute_error_backward, tape_one(tape), node->input[0],
                                node->input[1], NO_VALUE, NO_VALUE);
    value change = weighted_sum(tape, 1, input_tangent[0], -1, input_tangent[1]);
    output_tangent[0] = tape_dot(tape, tape_append(tape, &signs), change);
}

static void mse_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                    value *output_tangent)
{
    const int64_t *s = info(tape, node->input[0])->shape;
    double elements = (double)(s[0] * s[1] * s[2] * s[3]);
    value difference = tape_combine(tape, 1, node->input[0], -1, node->input[1]);
    value change = weighted_sum(tape, 1, input_tangent[0], -1, input_tangent[1]);
    output_tangent[0] = scaled(tape, 2 / elements, tape_dot(tape, difference, change));
}

static bool l2_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    (void)node;
    scalar_output(tape, output);
    return true;
}

static void l2_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                   const bool *wanted, value *input_gradient)
{
    if (!wanted[0])
        return;
    struct node back = node_of(KERNEL_l2_norm_backward, output_gradient[0], node->input[0],
                               node->output[0], NO_VALUE, NO_VALUE);
    input_gradient[0] = tape_append(tape, &back);
}

static void l2_jvp(struct tape *tape, const struct node *node, const value *input_tangent,
                   value *output_tangent)
{
    struct node direction = node_of(KERNEL_l2_norm_backward, tape_one(tape), node->input[0],
                                    node->output[0], NO_VALUE, NO_VALUE);
    output_tangent[0] = tape_dot(tape, tape_append(tape, &direction), input_tangent[0]);
}

/* sampler */

static bool adam_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    (void)output;
    for (int i = 1; i < 4; i++)
        if (!alike(info(tape, node->input[0]), info(tape, node->input[i])))
            return refuse(tape, node, "the shapes or types differ");
    return is_scalar(info(tape, node->input[4])) || refuse(tape, node, "step is not a scalar");
}

static bool adamw_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    (void)output;
    for (int i = 1; i < 4; i++)
        if (!alike(info(tape, node->input[0]), info(tape, node->input[i])))
            return refuse(tape, node, "the shapes or types differ");
    return is_scalar(info(tape, node->input[5])) ||
           refuse(tape, node, "the squared norm is not a scalar");
}

static bool ddim_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    const struct value_info *x = info(tape, node->input[0]);
    if (!alike(x, info(tape, node->input[1])) ||
        (node->input[2] >= 0 && !alike(x, info(tape, node->input[2]))))
        return refuse(tape, node, "the shapes or types differ");
    for (int k = 0; k < 3; k++)
        same_as_first(tape, node, &output[k]);
    return true;
}

static bool resample_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    for (int i = 1; i < 3; i++)
        if (!alike(info(tape, node->input[0]), info(tape, node->input[i])))
            return refuse(tape, node, "the shapes or types differ");
    return same_as_first(tape, node, output);
}

static bool stop_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    (void)node;
    (void)tape;
    set_shape(output, TYPE_I32, 1, 1, 1, 1);
    return true;
}

static bool keep_best_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    (void)output;
    if (!alike(info(tape, node->input[1]), info(tape, node->input[3])))
        return refuse(tape, node, "the shapes or types differ");
    return true;
}

static bool is_search(struct tape *tape, const struct node *node)
{
    const int64_t *shape = info(tape, node->input[4])->shape;
    return shape[0] * shape[1] * shape[2] == 1 && shape[3] == SEARCH_STATE;
}

static bool direction_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    (void)output;
    const struct value_info *g = info(tape, node->input[1]);
    if (!alike(g, info(tape, node->input[2])) || !alike(g, info(tape, node->input[3])))
        return refuse(tape, node, "the shapes or types differ");
    return (is_scalar(info(tape, node->input[0])) && is_search(tape, node)) ||
           refuse(tape, node, "the energy is not a scalar, or the search state has another shape");
}

static bool step_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    (void)output;
    const struct value_info *z = info(tape, node->input[0]);
    if (!alike(z, info(tape, node->input[1])) || !alike(z, info(tape, node->input[2])))
        return refuse(tape, node, "the shapes or types differ");
    return (is_scalar(info(tape, node->input[3])) && is_search(tape, node)) ||
           refuse(tape, node, "curvature is not a scalar, or the search state has another shape");
}

/* operators */

static bool axis_filter_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    int axis = node->attributes.axis_filter.axis;
    same_as_first(tape, node, output);
    if (output->shape[axis] != node->table.input_length)
        return refuse(tape, node, "the table is for another length");
    output->shape[axis] = node->attributes.axis_filter.length;
    return true;
}

static void axis_filter_vjp(struct tape *tape, const struct node *node,
                            const value *output_gradient, const bool *wanted, value *input_gradient)
{
    if (wanted[0])
        input_gradient[0] = tape_axis_filter_adjoint(tape, output_gradient[0], &node->table);
}

static void tap_filter_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                           const bool *wanted, value *input_gradient)
{
    if (wanted[0])
        input_gradient[0] =
            tape_tap_filter_adjoint(tape, output_gradient[0], node->input[1], node->input[2]);
}

static void tap_filter_adjoint_vjp(struct tape *tape, const struct node *node,
                                   const value *output_gradient, const bool *wanted,
                                   value *input_gradient)
{
    if (wanted[0])
        input_gradient[0] =
            tape_tap_filter(tape, output_gradient[0], node->input[1], node->input[2]);
}

static void radon_vjp(struct tape *tape, const struct node *node, const value *output_gradient,
                      const bool *wanted, value *input_gradient)
{
    const int64_t *x = info(tape, node->input[0])->shape;
    if (wanted[0])
        input_gradient[0] =
            tape_radon_adjoint(tape, output_gradient[0], node->input[1], x[1], x[2]);
}

static void radon_adjoint_vjp(struct tape *tape, const struct node *node,
                              const value *output_gradient, const bool *wanted,
                              value *input_gradient)
{
    if (wanted[0])
        input_gradient[0] = tape_radon(tape, output_gradient[0], node->input[1],
                                       info(tape, node->input[0])->shape[2]);
}

static bool nothing_infer(struct tape *tape, struct node *node, struct value_info output[])
{
    (void)tape, (void)node, (void)output;
    return true;
}

static const struct op_row rows[OP_COUNT] = {
    [KERNEL_conv2d] = {conv2d_infer, conv2d_vjp, conv2d_jvp, 0xfu, 1u << 3, {0}},
    [KERNEL_conv2d_backward_data] = {conv2d_backward_infer, NULL, NULL, 0, 0, {0}},
    [KERNEL_conv2d_backward_weight] = {shape_of_node, NULL, NULL, 0, 0, {0}},
    [KERNEL_conv2d_pack_weight] =
        {same_as_first, pack_weight_vjp, pack_weight_jvp, 1u << 0, 0, {0}},
    [KERNEL_group_norm] = {group_norm_infer, group_norm_vjp, group_norm_jvp, 7u, 0, {0}},
    [KERNEL_group_norm_backward] = {same_as_first, NULL, NULL, 0, 1u << 0, {0}},
    [KERNEL_group_norm_backward_affine] = {affine_infer, NULL, NULL, 0, 0, {0}},
    [KERNEL_group_norm_jvp] = {same_as_first, NULL, NULL, 0, 1u << 0, {0}},
    [KERNEL_attention] = {attention_infer, attention_vjp, attention_jvp, 1u << 0, 0, {0}},
    [KERNEL_attention_backward] = {same_as_second, NULL, NULL, 0, 0, {0}},
    [KERNEL_attention_jvp] = {same_as_third, NULL, NULL, 0, 0, {0}},
    [KERNEL_silu] = {same_as_first, silu_vjp, silu_jvp, 1u << 0, 1u << 0, {0}},
    [KERNEL_silu_backward] = {same_as_first, NULL, NULL, 0, 1u << 0, {0}},
    [KERNEL_leaky_relu] = {same_as_first, leaky_relu_vjp, leaky_relu_jvp, 1u << 0, 1u << 0, {0}},
    [KERNEL_leaky_relu_backward] = {same_as_first, NULL, NULL, 0, 1u << 0, {0}},
    [KERNEL_combine] = {binary_infer, combine_vjp, combine_jvp, 3u, 3u, {0}},
    [KERNEL_combine_scaled] = {binary_infer, combine_scaled_vjp, combine_scaled_jvp, 3u, 3u, {0}},
    [KERNEL_multiply] = {multiply_infer, multiply_vjp, linear_jvp, 1u << 0, 1u << 0, {0}},
    [KERNEL_add_channel] = {add_channel_infer, add_channel_vjp, add_channel_jvp, 3u, 1u << 0, {0}},
    [KERNEL_sum_spatial] = {sum_spatial_infer, sum_spatial_vjp, linear_jvp, 1u << 0, 0, {0}},
    [KERNEL_sum_pixels] = {sum_pixels_infer, NULL, NULL, 0, 0, {0}},
    [KERNEL_concat_channels] = {concat_infer, concat_vjp, concat_jvp, 3u, 0, {0}},
    [KERNEL_slice_channels] = {slice_infer, slice_vjp, linear_jvp, 1u << 0, 0, {0}},
    [KERNEL_pad_channels] = {pad_infer, pad_vjp, linear_jvp, 1u << 0, 0, {0}},
    [KERNEL_timestep_embedding] = {embedding_infer, NULL, NULL, 0, 0, {0}},
    [KERNEL_vector_quantize] =
        {quantize_infer, straight_through_vjp, straight_through_jvp, 3u, 0, {0}},
    [KERNEL_take_codes] = {take_codes_infer, take_codes_vjp, linear_jvp, 1u << 0, 0, {0}},
    [KERNEL_take_codes_backward] = {shape_of_node, NULL, NULL, 0, 0, {0}},
    [KERNEL_mean_squared_error] = {mse_infer, mse_vjp, mse_jvp, 3u, 0, {0}},
    [KERNEL_mean_squared_error_backward] = {same_as_second, NULL, NULL, 0, 0, {0}},
    [KERNEL_mean_absolute_error] = {mse_infer, mae_vjp, mae_jvp, 3u, 0, {0}},
    [KERNEL_mean_absolute_error_backward] = {same_as_second, NULL, NULL, 0, 0, {0}},
    [KERNEL_l2_norm] = {l2_infer, l2_vjp, l2_jvp, 1u << 0, 0, {0}},
    [KERNEL_l2_norm_backward] = {same_as_second, NULL, NULL, 0, 0, {0}},
    [KERNEL_dot] = {mse_infer, NULL, NULL, 0, 0, {0}},
    [KERNEL_adam_step] = {adam_infer, NULL, NULL, 0, 0, {1, 3, 4, 5}},
    [KERNEL_adamw_step] = {adamw_infer, NULL, NULL, 0, 0, {1, 3, 4}},
    [KERNEL_copy] = {same_as_first, NULL, NULL, 0, 0, {0}},
    [KERNEL_reshape] = {reshape_infer, reshape_vjp, linear_jvp, 1u << 0, 1u << 0, {0}},
    [KERNEL_cast] = {cast_infer, cast_vjp, cast_jvp, 1u << 0, 0, {0}},
    [KERNEL_philox_normal] = {shape_of_node, NULL, NULL, 0, 0, {0, 1}},
    [KERNEL_ddim_step] = {ddim_infer, NULL, NULL, 0, 0, {0}},
    [KERNEL_stochastic_resample] = {resample_infer, NULL, NULL, 0, 0, {0}},
    [KERNEL_stop_rule] = {stop_infer, NULL, NULL, 0, 0, {0, 2, 3}},
    [KERNEL_keep_best] = {keep_best_infer, NULL, NULL, 0, 0, {3, 4}},
    [KERNEL_search_direction] = {direction_infer, NULL, NULL, 0, 0, {3, 4, 5}},
    [KERNEL_search_step] = {step_infer, NULL, NULL, 0, 0, {1, 2, 5}},
    [KERNEL_axis_filter] = {axis_filter_infer, axis_filter_vjp, linear_jvp, 1u << 0, 0, {0}},
    [KERNEL_tap_filter] = {same_as_first, tap_filter_vjp, linear_jvp, 1u << 0, 0, {0}},
    [KERNEL_tap_filter_adjoint] =
        {same_as_first, tap_filter_adjoint_vjp, linear_jvp, 1u << 0, 0, {0}},
    [KERNEL_radon] = {shape_of_node, radon_vjp, linear_jvp, 1u << 0, 0, {0}},
    [KERNEL_radon_adjoint] = {shape_of_node, radon_adjoint_vjp, linear_jvp, 1u << 0, 0, {0}},
    [OP_WHILE] = {nothing_infer, NULL, NULL, 0, 0, {0}},
    [OP_EXIT_IF] = {nothing_infer, NULL, NULL, 0, 0, {0}},
};

const struct op_row *op_row(int op)
{
    return &rows[op];
}

const char *op_name(int op)
{
    return op == OP_WHILE ? "while" : op == OP_EXIT_IF ? "exit_if" : kernel_name(op);
}

int op_inputs(int op)
{
    return op == OP_WHILE ? 0 : op == OP_EXIT_IF ? 1 : kernel_inputs(op);
}

int op_outputs(int op)
{
    return op >= KERNEL_COUNT ? 0 : kernel_outputs(op);
}
