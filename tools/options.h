/* The flags of every command in one table: name, type, range, help, and the commands that take it.
 * `--name value` and `--name=value` mean the same, and so do '-' and '_' inside a name. */
#ifndef TOOLS_OPTIONS_H
#define TOOLS_OPTIONS_H

#include "runtime/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Sets of commands, to say which takes a flag. */
enum {
    FOR_NET = 1,
    FOR_MEASURE = 2,
    FOR_ADJOINT = 4,
    FOR_SOLVE = 8,
    FOR_MEMORY = 16,
    FOR_INSPECT = 32,
    FOR_SAMPLE = 64,
    FOR_ENCODE = 128,
    FOR_DECODE = 256,
    FOR_CONVERT = 512,
    FOR_TRAIN = 1024,
    FOR_FINETUNE = 2048
};

/* Choices, in the order of their words in the option table. */
enum part { PART_UNET, PART_DECODER, PART_ENCODER };
enum device_choice { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA };
enum conv_choice { CONV_AUTO, CONV_OURS, CONV_CUDNN };
enum precision { PRECISION_F32, PRECISION_BF16 };
enum schedule_choice { SCHEDULE_COSINE, SCHEDULE_CONSTANT };
enum file_type { FILE_F16, FILE_F32, FILE_BF16 };

/* What the command line said. Absent: NULL, UNSET for integers and choices, NaN for reals. */
#define UNSET INT64_MIN
struct arguments {
    const char *positional;
    const char *model, *ldm_config, *diffusion_config, *task_config;
    const char *input, *measurement, *output, *save_dir, *noise, *cotangent, *gradient;
    const char *model_config;
    const char *data, *held_out;
    int64_t part, t, preset, ddim_steps, seed, threads, device, conv, precision, memory_limit;
    int64_t resample_every, pixel_iterations, latent_iterations, size, count, type;
    int64_t levels, iterations, final_iterations, samples;
    int64_t latent_levels;
    int64_t n_samples_per_class, gpu;
    int64_t steps, batch, accumulate, warmup, schedule, restart_every, variants, shrink;
    int64_t save_every, sheet_every, adversary_start, quantize_from;
    int64_t shape[3]; /* C,H,W; shape[0] UNSET when absent */
    double ddim_eta, sigma, gamma, ddim_scale, sigma_max, sigma_min;
    double learning_rate, weight_decay, beta1, beta2, clip, ema, l1, mse, codebook, commitment;
    double adversary, components;
    double held_out_share, rotate, zoom, shift, low, high;
    bool use_ema, no_quantize, noiseless, json, help, resume, flip, keep_scale, shuffle_colors;
    int word_count; /* the whole command line, for the record */
    char **words;
};

/* Reads words[2..] for the command of this set; `name` is for messages. */
int options_parse(struct arguments *arguments, unsigned command, const char *name, int word_count,
                  char **words, struct status *status);
/* One line per flag that the command takes. */
void options_print(unsigned command, FILE *file);
/* The word of a choice ("paper" for --preset). */
void options_choice(const char *option, int64_t index, char word[static 16]);
/* Number of edits between two words, for "did you mean". */
int edit_distance(const char *a, const char *b);

#endif
