/* A model: the networks of one latent diffusion checkpoint as functions that write a tape, with the
 * configuration they were read from and their parameters. Networks are recorded at any size; the
 * parameters are collected as they are first asked for, so that the list of what a configuration
 * expects is whatever the network functions ask for, and never a second table. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "model/checkpoint.h"
#include "model/config.h"
#include "runtime/program.h"

struct model {
    struct model_config config;
    struct checkpoint *checkpoint; /* NULL: planning only */
    bool use_ema;
    struct parameter **parameters; /* in the order in which the networks asked for them */
    int parameter_count, parameter_capacity;
    struct status status; /* first error of a parameter (missing, misshapen) */
};

/* Opens what the command line names: `path` is a folder or file of ours (a folder holds one .yaml and
 * one .safetensors or .ckpt; a .safetensors file carries its configuration in the metadata key
 * "config" or has a .yaml beside it), or NULL with an official pair of config and checkpoint files.
 * checkpoint_path NULL: configuration only (planning). Verifies every tensor that the configuration
 * expects; the error lists by name the missing, then the misshapen ones. */
int model_open(struct model *model, const char *path, const char *config_path,
               const char *checkpoint_path, bool use_ema, struct status *status);
void model_close(struct model *model);
/* Names that the checkpoint has and the configuration does not ask for (EMA copies and schedule
 * buffers are known and not listed). */
int model_list_extra(struct model *model, char ***names, int *count, struct status *status);

/* The parameter called `name` (relative to the prefix of its part, as in models.md) with this shape;
 * records an error in model->status if the checkpoint has none or another shape. Never NULL but
 * without memory. `parts` names that are stacked along the first axis (q, k, v of the VQ model's
 * attention become one weight): names separated by '|'. */
struct parameter *model_parameter(struct model *model, const char *name, int64_t o, int64_t i,
                                  int64_t kernel_height, int64_t kernel_width);
struct parameter *model_vector(struct model *model, const char *name, int64_t channels);

/* The networks. Shapes: x, z [N,h,w,channels]; image [N,H,W,C]; t [N,1,1,1]. */
value unet_record(struct tape *tape, struct model *model, value x, value t);
value encoder_record(struct tape *tape, struct model *model, value image); /* with quant_conv; KL: the mean */
value decoder_record(struct tape *tape, struct model *model, value z, bool quantize);

/* 2^(autoencoder levels - 1), and times 2^(UNet levels - 1): pictures must divide by the latter. */
int model_latent_factor(const struct model *model);
int model_size_multiple(const struct model *model);

/* The schedule (algorithm.md section 2). */
struct schedule {
    int timesteps;         /* N */
    float *alphas_cumprod; /* [N]: cumprod in double, stored float; from the checkpoint's buffer when it has one */
};
int schedule_create(struct schedule *schedule, const struct model *model, struct status *status);
void schedule_free(struct schedule *schedule);
struct ddim_schedule {
    int length;            /* L */
    int *tau;              /* [L] UNet times */
    float *a, *a_prev, *sigma, *sqrt_one_minus_a; /* [L] */
};
int ddim_schedule_create(struct ddim_schedule *ddim, const struct schedule *schedule, int steps,
                         double eta, struct status *status);
void ddim_schedule_free(struct ddim_schedule *ddim);

#endif
