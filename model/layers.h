/* The layers of which the networks are built: each asks the model for its parameters by their names
 * in the checkpoint and records one operation. A layer's name is `block` and `leaf` joined by a
 * dot; the same name labels the operation. */
#ifndef MODEL_LAYERS_H
#define MODEL_LAYERS_H

#include "model/model.h"

struct layers {
    struct tape *tape;
    struct model *model;
    const char *prefix; /* of the network's names in an LDM checkpoint */
};

enum { GROUP_NORM_GROUPS = 32 };

/* A parameter's value, an error of the tape where there was no memory for it. */
value layer_parameter(const struct layers *layers, struct parameter *parameter);
/* Convolution with bias, kernel_size 1 or 3, same size; plus residual (NO_VALUE: none). A linear
 * layer is kernel_size 1 on [N,1,1,C]. */
value layer_convolution(const struct layers *layers, value x, const char *block, const char *leaf,
                        int64_t channels, int kernel_size, value residual);
/* 3x3 with stride 2; zeros on every side, or (asymmetric) on the right and the bottom only. */
value layer_downsample(const struct layers *layers, value x, const char *block, const char *leaf,
                       bool asymmetric);
/* Nearest x2, then 3x3. */
value layer_upsample(const struct layers *layers, value x, const char *block, const char *leaf);
value layer_norm(const struct layers *layers, value x, const char *block, const char *leaf,
                 double epsilon, bool silu);
/* x + proj_out(attention(norm(x))), the three projections from the layer `qkv`. */
value layer_attention(const struct layers *layers, value x, const char *block, const char *qkv,
                      int heads, double epsilon);

/* Tells the model's visitor of a block's output. */
void layer_visit(const struct layers *layers, const char *block, value v);
/* NO_VALUE and an error of the tape unless x has so many channels and sides that divide by
 * `multiple`; `what` names x. */
value layer_input(const struct layers *layers, value x, const char *what, int channels,
                  int multiple);

#endif
