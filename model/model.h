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
    char *config_path; /* the .yaml that was read; NULL: the checkpoint's metadata */
    bool use_ema;
    bool bare_first_stage; /* the file is a stand-alone autoencoder: keys without a prefix */
    struct parameter **parameters; /* in the order in which the networks asked for them */
    int parameter_count, parameter_capacity;
    /* Called with each block's output while a network is recorded ("input_blocks.3",
     * "encoder.mid"), for those who look inside. May be NULL. */
    void (*visit)(void *context, struct tape *tape, const char *block, value v);
    void *visit_context;
    /* The value that a network takes for a parameter, such as the state of a trained one
     * (trainable.h). NULL: tape_parameter. */
    value (*parameter_value)(void *context, struct tape *tape, struct parameter *parameter);
    void *parameter_context;
};

/* Opens what the command line names: `path` is a folder or file of ours (a folder holds one
 * .safetensors or .ckpt and one .yaml; a file has its .yaml beside it under the same name; where
 * there is no .yaml, a .safetensors file's metadata key "config" holds its text), or NULL with an
 * official pair of config and checkpoint files. checkpoint_path NULL: configuration only
 * (planning). Verifies every tensor that the configuration expects; the error lists by name the
 * missing, then the misshapen ones. A stand-alone autoencoder (configuration without a UNet) may
 * have keys without prefix; an autoencoder whose UNet is still to be trained (no tensor of one in
 * the file) opens as a model without one. A `scale_factor` in the checkpoint (models trained with
 * scale_by_std) replaces the configuration's. */
int model_open(struct model *model, const char *path, const char *config_path,
               const char *checkpoint_path, bool use_ema, struct status *status);
/* The same without the verification: for those who list what does not fit. */
int model_open_any(struct model *model, const char *path, const char *config_path,
                   const char *checkpoint_path, bool use_ema, struct status *status);
void model_close(struct model *model);
/* A tensor that the configuration expects: its name in an LDM checkpoint (never an EMA copy's), its
 * shape (a file may leave out ones at the end), what the checkpoint holds for it (NULL: missing),
 * and what is wrong with that (NULL: it fits). */
struct expected_tensor {
    const char *name;
    const struct parameter *parameter; /* that it is, or is a part of */
    int64_t first;                     /* element of the parameter at which it begins */
    int rank;
    int64_t shape[4];
    const struct checkpoint_tensor *found;
    const char *misfit;
};
void model_visit_tensors(const struct model *model,
                         void (*visit)(void *context, const struct expected_tensor *tensor),
                         void *context);
/* Names that the checkpoint has and the configuration does not ask for (EMA and plain copies of
 * what is used, schedule buffers and training losses are known and not listed). The names live as
 * long as the model; the caller frees the list. */
int model_list_extra(struct model *model, const char ***names, int *count, struct status *status);

/* The parameter called `name`, with the prefix of an LDM checkpoint (models.md section 3); made
 * when first asked for, NULL only without memory. A name with braces ("mid.attn_1.{q,k,v}.weight")
 * stacks tensors of equal shape along the first axis. Shapes: {o,i,kernel_height,kernel_width} (the
 * file may leave out ones at the end), {1,1,1,channels}, {1,1,codes,width}. */
struct parameter *model_parameter(struct model *model, const char *name, int64_t o, int64_t i,
                                  int64_t kernel_height, int64_t kernel_width);
struct parameter *model_vector(struct model *model, const char *name, int64_t channels);
struct parameter *model_codebook(struct model *model, const char *name, int64_t codes,
                                 int64_t width);

/* The networks, recorded for any batch and any size that divides (the error says by what). Shapes:
 * x, z [N,h,w,channels]; image [N,H,W,C]; t [N,1,1,1], the DDPM time. */

/* The noise that the UNet predicts at x (models.md section 2). */
value unet_record(struct tape *tape, struct model *model, value x, value t);
/* quant_conv(Encoder(image)), not quantised and not scaled (algorithm.md section 7); KL: the mean.
 */
value encoder_record(struct tape *tape, struct model *model, value image);
/* Decoder(post_quant_conv(Q(z / scale_factor))), Q the nearest code if `quantize` (KL models:
 * none). */
value decoder_record(struct tape *tape, struct model *model, value z, bool quantize);

/* The codebook as decoder_record takes it. */
value codebook_record(struct tape *tape, struct model *model);

/* Pixels per latent: 2^(autoencoder levels - 1). */
int model_latent_factor(const struct model *model);
/* What the sides of a picture must divide by: the latent factor times 2^(UNet levels - 1). */
int model_size_multiple(const struct model *model);

/* The DDPM schedule (algorithm.md section 2.1): cumulative products in double, stored as float; the
 * checkpoint's buffer alphas_cumprod where it has one of this length. */
struct schedule {
    int timesteps;
    float *alphas_cumprod; /* [timesteps] */
};
int schedule_create(struct schedule *schedule, const struct model *model, struct status *status);
void schedule_free(struct schedule *schedule);

/* The DDIM tables (section 2.2) for `steps` steps; length may be another number. A number of steps
 * whose times leave the schedule (above half of it, and some that nearly divide it) is an error
 * that names the next smaller one that works. eta: 0..1. */
struct ddim_schedule {
    int length;
    int *tau;                                     /* [length] UNet times */
    float *a, *a_prev, *sigma, *sqrt_one_minus_a; /* [length] */
};
int ddim_schedule_create(struct ddim_schedule *ddim, const struct schedule *schedule, int steps,
                         double eta, struct status *status);
void ddim_schedule_free(struct ddim_schedule *ddim);

#endif
