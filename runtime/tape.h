/* The tape: a model is a function that records operations here; reverse mode appends each
 * operation's vector-Jacobian product as ordinary nodes, forward mode its Jacobian-vector product;
 * the program (program.h) plans and replays.
 *
 * A value is an index into the tape. The first error sticks in tape->status (every later call
 * returns -1), so that a network reads as straight lines and is checked once at its end. Shapes are
 * known when recording. Nothing runs before program_prepare.
 *
 * State (program.h) is what lives between replays; tape_state brings it in, and the nodes that
 * write it (assign, adam_step, ...) take effect in recorded order. A node whose result nobody uses
 * and that writes no state is dropped from the plan. */
#ifndef RUNTIME_TAPE_H
#define RUNTIME_TAPE_H

#include "kernels/kernels.h"
#include "runtime/parameter.h"
#include "runtime/status.h"

typedef int value; /* -1: none, or after an error */
enum { NO_VALUE = -1 };

struct program;
struct tape;

/* what a value's memory is */
enum value_kind {
    VALUE_TEMPORARY, /* planned in the arena */
    VALUE_STATE,     /* pinned: state or constant of the program */
    VALUE_PARAMETER  /* a parameter's packed form */
};

const int64_t *tape_shape(const struct tape *tape, value v); /* [N,H,W,C] */
struct status *tape_status(struct tape *tape);
/* A word that is put before the operation's name in messages and profiles ("decoder.mid.block_1");
 * printf-style; stays until the next call. */
void tape_label(struct tape *tape, const char *format, ...) __attribute__((format(printf, 2, 3)));

value tape_state(struct tape *tape, int slot);
value tape_parameter(struct tape *tape, struct parameter *parameter);

/* Networks. A frozen weight is a tape_parameter value, packed once for the kernels. A weight that
 * is trained is state, row-major in a parameter's shape: convolutions pack it anew at every replay.
 */
value tape_conv2d(struct tape *tape, value x, value weight, value bias, value residual,
                  const struct conv2d_attributes *attributes); /* form is chosen here */
value tape_group_norm(struct tape *tape, value x, value gamma, value beta, int groups,
                      double epsilon, bool silu);
value tape_attention(struct tape *tape, value qkv, int heads);
value tape_silu(struct tape *tape, value x);
value tape_leaky_relu(struct tape *tape, value x, double slope);
value tape_combine(struct tape *tape, double alpha, value a, double beta, value b);
value tape_combine_scaled(struct tape *tape, value a, value b, value coefficients, int index,
                          double factor); /* a + factor*coefficients[index]*b */
value tape_multiply(struct tape *tape, value x, value mask);
value tape_add_channel(struct tape *tape, value x, value b);
value tape_concat_channels(struct tape *tape, value a, value b);
value tape_slice_channels(struct tape *tape, value x, int64_t start, int64_t count);
/* x itself where it has that shape already. */
value tape_reshape(struct tape *tape, value x, const int64_t shape[4]);
value tape_timestep_embedding(struct tape *tape, value t, int64_t channels, double max_period);
/* Straight-through: derivatives pass to z as they are, none to the codebook. */
value tape_vector_quantize(struct tape *tape, value z, value codebook, value *index_or_null);
/* codebook[index]; index as the quantiser gives it. */
value tape_take_codes(struct tape *tape, value codebook, value index);
/* v itself, through which no derivative passes. */
value tape_detach(struct tape *tape, value v);

/* A real value in the type of the networks' (kernels.h), and back: v itself where it is that
 * already. */
value tape_to_network(struct tape *tape, value v);
value tape_to_real(struct tape *tape, value v);

/* Reductions: scalars {1,1,1,1}. */
value tape_mean_squared_error(struct tape *tape, value a, value b);
value tape_mean_absolute_error(struct tape *tape, value a, value b);
value tape_l2_norm(struct tape *tape, value r);
value tape_dot(struct tape *tape, value a, value b); /* has no derivative */
/* a/b of scalars, 0 where b is 0; has no derivative. */
value tape_quotient(struct tape *tape, value a, value b);
/* Sums over the pixels of each picture: [N,1,1,C]. */
value tape_sum_spatial(struct tape *tape, value x);

/* Operators' kernels. Tables are constants of the program (tape_state of a constant slot). For
 * axis_filter, transposed = the table of the transpose, used by the gradient. */
struct axis_table {
    int axis;
    int64_t input_length, output_length;
    int offsets, indices, weights;                                  /* slots */
    int transposed_offsets, transposed_indices, transposed_weights; /* slots */
};
value tape_axis_filter(struct tape *tape, value x, const struct axis_table *table);
value tape_axis_filter_adjoint(struct tape *tape, value y, const struct axis_table *table);
value tape_tap_filter(struct tape *tape, value x, value taps, value weights);
value tape_tap_filter_adjoint(struct tape *tape, value y, value taps, value weights);
value tape_radon(struct tape *tape, value x, value geometry, int64_t detectors);
value tape_radon_adjoint(struct tape *tape, value sinogram, value geometry, int64_t height,
                         int64_t width);

/* The sampler's nodes. Arguments named *_state are tape_state values and are written. */
value tape_philox_normal(struct tape *tape, value counter_state, const int64_t shape[4]);
void tape_ddim_step(struct tape *tape, value x, value e, value noise, value coefficients,
                    value *x_next, value *pred_x0, value *pseudo); /* outputs may be NULL */
value tape_stochastic_resample(struct tape *tape, value z0, value x_t, value noise,
                               value coefficients);
void tape_adam_step(struct tape *tape, value p_state, value g, value m_state, value v_state,
                    value step_state, double learning_rate, double weight_decay);
/* With the rate and the rest that changes from step to step in `control` (kernels.h). */
void tape_adamw_step(struct tape *tape, value p_state, value g, value m_state, value v_state,
                     value control, value squared_norm, double beta1, double beta2, double epsilon,
                     double weight_decay);
void tape_keep_best(struct tape *tape, value loss, value x, value best_loss_state,
                    value best_x_state);
value tape_stop_rule(struct tape *tape, value loss, value window_state, value iteration_state,
                     double threshold, bool inclusive);
/* One iteration of conjugate gradients in two halves: the direction at a point from its energy and
 * gradient, and the step along it once its curvature is known. */
void tape_search_direction(struct tape *tape, value energy, value gradient,
                           value previous_gradient_state, value direction_state,
                           value search_state);
void tape_search_step(struct tape *tape, value z_state, value base_state, value direction,
                      value curvature, value search_state);
void tape_assign(struct tape *tape, value state, value v);

/* Ends the enclosing loop's run here when the i32 scalar is not zero. */
void tape_exit_if(struct tape *tape, value stop);
/* Replays `body` (a tape that the same program made before this one) until it exits, `limit` times
 * at most. */
void tape_while(struct tape *tape, struct tape *body, int64_t limit);

/* d(scalar)/d(wrt), appended to the tape: shape of wrt. Zero (a zero node) if there is no path. */
value tape_gradient(struct tape *tape, value scalar, value wrt);
/* The same for `count` values in one reverse pass; all NO_VALUE after an error. */
void tape_gradients(struct tape *tape, value scalar, const value wrt[], int count,
                    value gradient[]);
/* The same, each handed over as soon as it is complete, in the midst of the pass: a consumer that
 * adds it to state at once lets its memory go before the next one needs any. It may record, but not
 * write what the pass reads; not called after an error. */
typedef void gradient_consumer(void *context, int i, value gradient);
void tape_each_gradient(struct tape *tape, value scalar, const value wrt[], int count,
                        gradient_consumer *consume, void *context);
/* J(wrt)^T cotangent of `output`. */
value tape_vjp(struct tape *tape, value output, value cotangent, value wrt);
/* J(input) tangent of `output`: how output changes when input moves by the tangent. Uses what the
 * forward pass left; touches only what lies between input and output. */
value tape_jvp(struct tape *tape, value output, value input, value tangent);

#endif
