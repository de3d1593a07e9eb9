/* The configuration of a latent diffusion model, read from the official YAML files unchanged
 * (model.params.*). Only architecture matters; unknown keys are ignored. */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include "runtime/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { CONFIG_MAX_LEVELS = 8 };

struct unet_config {
    bool present;
    int image_size, in_channels, out_channels, model_channels, num_res_blocks;
    int levels, channel_mult[CONFIG_MAX_LEVELS];
    int attention_count, attention_resolutions[CONFIG_MAX_LEVELS]; /* down-sampling factors */
    int num_heads;         /* -1: by num_head_channels */
    int num_head_channels; /* -1: by num_heads */
};

struct autoencoder_config {
    bool present, is_vq;
    int embed_dim, n_embed, z_channels, resolution, in_channels, out_ch, ch, num_res_blocks;
    bool double_z;
    int levels, ch_mult[CONFIG_MAX_LEVELS];
    int attention_count, attn_resolutions[CONFIG_MAX_LEVELS];
};

struct model_config {
    double linear_start, linear_end, scale_factor; /* scale_factor 1 unless given */
    int timesteps, image_size, channels;
    struct unet_config unet;
    struct autoencoder_config autoencoder;
};

/* Reads a YAML file, or YAML text of `length` bytes (origin names it in messages). Errors name file,
 * key and line. Everything that the reference rejects or that we do not offer is an error here
 * (channels that 32 does not divide, use_scale_shift_norm, resblock_updown, use_spatial_transformer,
 * num_classes, dims != 2, conv_resample false ...). */
int config_read_file(struct model_config *config, const char *path, struct status *status);
int config_read_text(struct model_config *config, const char *text, size_t length,
                     const char *origin, struct status *status);

#endif
