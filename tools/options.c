#include "tools/options.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum option_type {
    OPTION_FLAG,
    OPTION_TEXT,
    OPTION_INTEGER,
    OPTION_REAL,
    OPTION_BYTES,
    OPTION_CHOICE,
    OPTION_SHAPE
};

struct option {
    const char *name;
    enum option_type type;
    size_t offset; /* of the field in struct arguments */
    unsigned commands;
    const char *value; /* what follows it, for the help; the words of a choice, split by '|' */
    double least, most;
    const char *help;
};

enum {
    WITH_MODEL = FOR_NET | FOR_SOLVE | FOR_MEMORY | FOR_SAMPLE | FOR_ENCODE | FOR_DECODE |
                 FOR_CONVERT | FOR_TRAIN | FOR_FINETUNE,
    TRAINING = FOR_TRAIN | FOR_FINETUNE,
    WITH_NETWORKS = FOR_NET | FOR_SOLVE | FOR_SAMPLE | FOR_ENCODE | FOR_DECODE | TRAINING,
    WITH_TASK = FOR_MEASURE | FOR_ADJOINT | FOR_SOLVE | FOR_MEMORY,
    WITH_POSITIONAL = WITH_MODEL | FOR_INSPECT,
    EVERY = 4095
};

#define AT(field)  offsetof(struct arguments, field)
#define MOST_COUNT 1e9

static const struct option options[] = {
    {"model", OPTION_TEXT, AT(model), WITH_MODEL, "DIR|FILE", 0, 0,
     "a model folder or .safetensors file of ours"},
    {"ldm_config", OPTION_TEXT, AT(ldm_config), WITH_MODEL | FOR_INSPECT, "F.yaml", 0, 0,
     "official configuration of the model"},
    {"diffusion_config", OPTION_TEXT, AT(diffusion_config), WITH_MODEL, "F.ckpt", 0, 0,
     "official checkpoint (the official script's name for it)"},
    {"use-ema", OPTION_FLAG, AT(use_ema), WITH_MODEL, NULL, 0, 0,
     "the averaged weights of an original checkpoint"},
    {"task_config", OPTION_TEXT, AT(task_config), WITH_TASK, "T.yaml", 0, 0,
     "measurement operator and noise"},
    {"part", OPTION_CHOICE, AT(part), FOR_NET, "unet|decoder|encoder", 0, 0, "which network"},
    {"t", OPTION_INTEGER, AT(t), FOR_NET, "N", 0, 99999, "timestep of the UNet"},
    {"no-quantize", OPTION_FLAG, AT(no_quantize), FOR_NET | FOR_DECODE, NULL, 0, 0,
     "decode the latent as it is, not its nearest codes"},
    {"input", OPTION_TEXT, AT(input),
     FOR_NET | FOR_MEASURE | FOR_ADJOINT | FOR_SOLVE | FOR_ENCODE | FOR_DECODE, "FILE", 0, 0,
     "what to read: .npy, .png or .jpg (solve: a folder too)"},
    {"output", OPTION_TEXT, AT(output),
     FOR_NET | FOR_MEASURE | FOR_ADJOINT | FOR_ENCODE | FOR_DECODE | FOR_CONVERT, "FILE", 0, 0,
     "what to write"},
    {"cotangent", OPTION_TEXT, AT(cotangent), FOR_NET, "c.npy", 0, 0,
     "cotangent of the output; asks for the vector-Jacobian product"},
    {"gradient", OPTION_TEXT, AT(gradient), FOR_NET, "g.npy", 0, 0,
     "where the vector-Jacobian product goes"},
    {"shape", OPTION_SHAPE, AT(shape), FOR_ADJOINT, "C,H,W", 1, 65536, "shape of the picture"},
    {"measurement", OPTION_TEXT, AT(measurement), FOR_SOLVE, "y.npy", 0, 0,
     "a measurement to solve; --input beside it serves the metrics only"},
    {"save_dir", OPTION_TEXT, AT(save_dir), FOR_SOLVE | FOR_SAMPLE | TRAINING, "DIR", 0, 0,
     "folder for the results"},
    {"preset", OPTION_CHOICE, AT(preset), FOR_SOLVE | FOR_MEMORY, "official|paper|fast", 0, 0,
     "the authors' code step by step; Algorithm 1 with noise-aware stopping; or fewer passes by "
     "exact steps (default, unless a flag of the others alone is given)"},
    {"samples", OPTION_INTEGER, AT(samples), FOR_SOLVE, "N", 1, 10000,
     "solve with N seeds: their mean, their deviation and each (1)"},
    {"levels", OPTION_INTEGER, AT(levels), FOR_SOLVE, "N", 1, 10000, "fast: noise levels (20)"},
    {"iterations", OPTION_INTEGER, AT(iterations), FOR_SOLVE, "N", 1, MOST_COUNT,
     "fast: iterations over latents at such a level (5)"},
    {"latent-levels", OPTION_INTEGER, AT(latent_levels), FOR_SOLVE, "N", 0, 10000,
     "fast: the last levels, which fit latents after pixels (5)"},
    {"final-iterations", OPTION_INTEGER, AT(final_iterations), FOR_SOLVE, "N", 0, MOST_COUNT,
     "fast: most iterations over latents after the last level (0)"},
    {"sigma-max", OPTION_REAL, AT(sigma_max), FOR_SOLVE, "S", 1e-3, 1e3,
     "fast: highest noise level of the latent (10)"},
    {"sigma-min", OPTION_REAL, AT(sigma_min), FOR_SOLVE, "S", 1e-3, 1e3,
     "fast: lowest noise level of the latent (0.1)"},
    {"ddim_steps", OPTION_INTEGER, AT(ddim_steps), FOR_SOLVE | FOR_SAMPLE, "S", 1, 1000,
     "sampling steps (official 500, paper 100)"},
    {"ddim_eta", OPTION_REAL, AT(ddim_eta), FOR_SOLVE | FOR_SAMPLE, "E", 0, 1,
     "noise of the DDIM steps (0)"},
    {"seed", OPTION_INTEGER, AT(seed),
     FOR_SOLVE | FOR_SAMPLE | FOR_MEASURE | FOR_ADJOINT | TRAINING, "N", 0, 9.3e18,
     "fixes every draw (0)"},
    {"sigma", OPTION_REAL, AT(sigma), FOR_SOLVE | FOR_MEASURE, "S", 0, 1e6,
     "noise level of the measurement, instead of the task file's"},
    {"noiseless", OPTION_FLAG, AT(noiseless), FOR_MEASURE, NULL, 0, 0, "A(x) without noise"},
    {"gamma", OPTION_REAL, AT(gamma), FOR_SOLVE, "G", 1e-9, 1e9,
     "strength of the stochastic resampling (40)"},
    {"resample-every", OPTION_INTEGER, AT(resample_every), FOR_SOLVE, "N", 1, MOST_COUNT,
     "main steps between two optimisations (10)"},
    {"pixel-iterations", OPTION_INTEGER, AT(pixel_iterations), FOR_SOLVE, "N", 1, MOST_COUNT,
     "most iterations of a pixel optimisation (2000; fast 30)"},
    {"latent-iterations", OPTION_INTEGER, AT(latent_iterations), FOR_SOLVE, "N", 1, MOST_COUNT,
     "most iterations of a latent optimisation (500)"},
    {"noise", OPTION_TEXT, AT(noise), FOR_SOLVE, "draws.npy", 0, 0,
     "latent-shaped normal draws [K,C,h,w] in place of the generator"},
    {"count", OPTION_INTEGER, AT(count), FOR_SAMPLE, "N", 1, 100000, "pictures to draw (1)"},
    {"size", OPTION_INTEGER, AT(size), FOR_MEMORY | FOR_SAMPLE | TRAINING, "N", 1, 65536,
     "side of the pictures in pixels (the model's)"},
    {"type", OPTION_CHOICE, AT(type), FOR_CONVERT | TRAINING, "f16|f32|bf16", 0, 0,
     "how numbers are stored (f16; train: f32)"},
    {"threads", OPTION_INTEGER, AT(threads), WITH_NETWORKS | FOR_MEASURE | FOR_ADJOINT, "N", 1,
     1024, "threads (as many as this process may use); the results are the same bytes"},
    {"device", OPTION_CHOICE, AT(device), WITH_NETWORKS | FOR_MEMORY, "auto|cpu|cuda", 0, 0,
     "where it runs (this build: cpu)"},
    {"conv", OPTION_CHOICE, AT(conv), FOR_SOLVE, "auto|ours|cudnn", 0, 0,
     "on a card: time each convolution's ways once (auto), take the first of ours, or cuDNN"},
    {"precision", OPTION_CHOICE, AT(precision), WITH_NETWORKS | FOR_MEMORY, "f32|bf16", 0, 0,
     "number type of the networks: bf16 on a card alone (f32)"},
    {"memory-limit", OPTION_BYTES, AT(memory_limit), FOR_SOLVE | FOR_MEMORY | TRAINING, "BYTES", 1,
     9e18, "most memory for the plan, as 512M or 4G; offloads (cuda), recomputes to fit"},
    {"json", OPTION_FLAG, AT(json), FOR_MEMORY | FOR_INSPECT, NULL, 0, 0, "print JSON"},
    {"data", OPTION_TEXT, AT(data), TRAINING, "DIR", 0, 0,
     "pictures to learn from: PNG, JPEG, NPY, DICOM, subfolders too"},
    {"held_out", OPTION_TEXT, AT(held_out), TRAINING, "DIR", 0, 0,
     "pictures to judge by (a share of --data's)"},
    {"held-out-share", OPTION_REAL, AT(held_out_share), TRAINING, "X", 0.001, 0.9,
     "share of --data's photographs or patients that is held out (0.1)"},
    {"resume", OPTION_FLAG, AT(resume), TRAINING, NULL, 0, 0,
     "go on where the run in --save_dir stopped"},
    {"steps", OPTION_INTEGER, AT(steps), TRAINING, "N", 1, MOST_COUNT,
     "steps of the optimiser (autoencoder 5000, diffusion 20000)"},
    {"batch", OPTION_INTEGER, AT(batch), TRAINING, "N", 1, 4096,
     "pictures of one pass (autoencoder 8, diffusion 32)"},
    {"accumulate", OPTION_INTEGER, AT(accumulate), TRAINING, "N", 1, 4096,
     "passes whose gradients one step takes together (1)"},
    {"learning-rate", OPTION_REAL, AT(learning_rate), TRAINING, "R", 0, 1,
     "largest rate of AdamW (4e-4; finetune 1e-4)"},
    {"warmup", OPTION_INTEGER, AT(warmup), TRAINING, "N", 0, MOST_COUNT,
     "steps in which the rate rises from 0 (100)"},
    {"schedule", OPTION_CHOICE, AT(schedule), TRAINING, "cosine|constant", 0, 0,
     "the rate after that: falling to 0 at the last step, or not (cosine)"},
    {"weight-decay", OPTION_REAL, AT(weight_decay), TRAINING, "W", 0, 1,
     "decoupled decay (autoencoder 0, diffusion 0.01)"},
    {"beta1", OPTION_REAL, AT(beta1), TRAINING, "B", 0, 0.9999, "of AdamW (0.9)"},
    {"beta2", OPTION_REAL, AT(beta2), TRAINING, "B", 0, 0.999999,
     "of AdamW (autoencoder 0.99, diffusion 0.999)"},
    {"clip", OPTION_REAL, AT(clip), TRAINING, "N", 0, 1e9,
     "largest norm of a step's gradient, 0 for any (1)"},
    {"ema", OPTION_REAL, AT(ema), TRAINING, "D", 0, 0.99999,
     "decay of the averages that the model gets, 0 for none (autoencoder 0.995, diffusion 0.999)"},
    {"l1", OPTION_REAL, AT(l1), TRAINING, "W", 0, 1e6, "autoencoder: weight of mean |x - y| (1)"},
    {"mse", OPTION_REAL, AT(mse), TRAINING, "W", 0, 1e6,
     "autoencoder: weight of mean (x - y)^2 (1)"},
    {"codebook", OPTION_REAL, AT(codebook), TRAINING, "W", 0, 1e6,
     "autoencoder: weight of the codes' way to the latents (1)"},
    {"commitment", OPTION_REAL, AT(commitment), TRAINING, "W", 0, 1e6,
     "autoencoder: weight of the latents' way to the codes (0.25)"},
    {"adversary", OPTION_REAL, AT(adversary), TRAINING, "W", 0, 1e6,
     "autoencoder: weight of a patch discriminator, as the original code has it (0: none)"},
    {"adversary-start", OPTION_INTEGER, AT(adversary_start), TRAINING, "N", 0, MOST_COUNT,
     "steps before the discriminator joins (2000)"},
    {"quantize-from", OPTION_INTEGER, AT(quantize_from), TRAINING, "N", 0, MOST_COUNT,
     "autoencoder: steps before the codes join, which are then placed on its latents (0)"},
    {"components", OPTION_REAL, AT(components), TRAINING, "W", 0, 1e6,
     "autoencoder: weight of drawing latents to the pictures' components before that (0)"},
    {"restart-every", OPTION_INTEGER, AT(restart_every), TRAINING, "N", 0, MOST_COUNT,
     "autoencoder: steps after which unused codes are placed anew, 0: never (200; finetune 0)"},
    {"variants", OPTION_INTEGER, AT(variants), TRAINING, "N", 1, 10000,
     "diffusion: augmented latents kept of each picture (8)"},
    {"keep-scale", OPTION_FLAG, AT(keep_scale), TRAINING, NULL, 0, 0,
     "train diffusion: the model's scale_factor as it is, not 1/deviation of the latents"},
    {"flip", OPTION_FLAG, AT(flip), TRAINING, NULL, 0, 0, "mirror half of the pictures"},
    {"shuffle-colors", OPTION_FLAG, AT(shuffle_colors), TRAINING, NULL, 0, 0,
     "exchange the colours of a picture in all ways: an autoencoder for any colour"},
    {"rotate", OPTION_REAL, AT(rotate), TRAINING, "DEGREES", 0, 180, "turn by up to this (0)"},
    {"zoom", OPTION_REAL, AT(zoom), TRAINING, "F", 1, 4, "enlarge or shrink by up to this (1)"},
    {"shift", OPTION_REAL, AT(shift), TRAINING, "X", 0, 0.5,
     "move by up to this share of the side (0)"},
    {"shrink", OPTION_INTEGER, AT(shrink), TRAINING, "N", 0, 65536,
     "reduce pictures whose shorter side is larger to this many pixels, 0: none (0)"},
    {"low", OPTION_REAL, AT(low), TRAINING, "X", -1e9, 1e9,
     "NPY and DICOM: the value that becomes -1 (as it is; CT -1000)"},
    {"high", OPTION_REAL, AT(high), TRAINING, "X", -1e9, 1e9,
     "NPY and DICOM: the value that becomes 1 (as it is; CT 1500)"},
    {"save-every", OPTION_INTEGER, AT(save_every), TRAINING, "N", 1, MOST_COUNT,
     "steps between two states, models and evaluations (500)"},
    {"sheet-every", OPTION_INTEGER, AT(sheet_every), TRAINING, "N", 0, MOST_COUNT,
     "steps between two sheets of pictures, 0: none (1000)"},
    {"n_samples_per_class", OPTION_INTEGER, AT(n_samples_per_class), FOR_SOLVE, "N", 1, 1000,
     "official flag; one reconstruction per picture is made"},
    {"gpu", OPTION_INTEGER, AT(gpu), FOR_SOLVE, "N", 0, 1000, "official flag, does nothing"},
    {"ddim_scale", OPTION_REAL, AT(ddim_scale), FOR_SOLVE, "X", -1e9, 1e9,
     "official flag, does nothing"},
    {"model_config", OPTION_TEXT, AT(model_config), FOR_SOLVE, "F", 0, 0,
     "official flag, does nothing"},
    {"help", OPTION_FLAG, AT(help), EVERY, NULL, 0, 0, "this text"},
};
enum { OPTION_COUNT = sizeof options / sizeof options[0] };

static bool same_name(const char *name, const char *word, size_t length)
{
    if (strlen(name) != length)
        return false;
    for (size_t i = 0; i < length; i++)
        if (name[i] != word[i] && !(strchr("-_", name[i]) && strchr("-_", word[i])))
            return false;
    return true;
}

int edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 64 };
    int row[LONGEST + 1];
    size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    for (size_t j = 0; j <= m; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

static const struct option *find_option(unsigned command, const char *name, const char *word,
                                        size_t length, struct status *status)
{
    char given[65];
    snprintf(given, sizeof given, "%.*s", (int)length, word);
    const struct option *nearest = NULL;
    int least = 65;
    for (int i = 0; i < OPTION_COUNT; i++) {
        if (!(options[i].commands & command))
            continue;
        if (same_name(options[i].name, word, length))
            return &options[i];
        int distance = edit_distance(options[i].name, given);
        if (distance < least) {
            least = distance;
            nearest = &options[i];
        }
    }
    status_set(status, STATUS_BAD_INPUT,
               "unknown flag --%s of `resample %s`; the nearest is --%s (`resample %s --help` "
               "lists all)",
               given, name, nearest->name, name);
    return NULL;
}

static int set_integer(const struct option *option, const char *text, int64_t *result,
                       struct status *status)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (end == text || *end || errno || (double)number < option->least ||
        (double)number > option->most)
        return status_set(status, STATUS_BAD_INPUT,
                          "--%s: expected an integer from %.0f to %.10g, got '%s'", option->name,
                          option->least, option->most, text);
    *result = number;
    return STATUS_OK;
}

static int set_real(const struct option *option, const char *text, double *result,
                    struct status *status)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || !(number >= option->least && number <= option->most))
        return status_set(status, STATUS_BAD_INPUT,
                          "--%s: expected a number from %g to %g, got '%s'", option->name,
                          option->least, option->most, text);
    *result = number;
    return STATUS_OK;
}

static int set_bytes(const struct option *option, const char *text, int64_t *result,
                     struct status *status)
{
    char *end;
    double number = strtod(text, &end);
    bool good = end != text;
    static const char units[] = "KMGT";
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit) {
        number *= pow(1024, (double)(unit - units + 1));
        end++;
        if (*end == 'i')
            end++;
    }
    if (*end == 'B')
        end++;
    if (!good || *end || !(number >= option->least && number <= option->most))
        return status_set(status, STATUS_BAD_INPUT,
                          "--%s: expected a size such as 512M or 4G, got '%s'", option->name, text);
    *result = (int64_t)number;
    return STATUS_OK;
}

static int set_choice(const struct option *option, const char *text, int64_t *result,
                      struct status *status)
{
    size_t length = strlen(text);
    int64_t index = 0;
    for (const char *word = option->value; word; index++) {
        size_t span = strcspn(word, "|");
        if (span == length && strncmp(word, text, length) == 0) {
            *result = index;
            return STATUS_OK;
        }
        word = word[span] ? word + span + 1 : NULL;
    }
    return status_set(status, STATUS_BAD_INPUT, "--%s: expected %s, got '%s'", option->name,
                      option->value, text);
}

static int set_shape(const struct option *option, const char *text, int64_t result[3],
                     struct status *status)
{
    long long shape[3];
    int used = 0;
    if (sscanf(text, "%lld,%lld,%lld%n", &shape[0], &shape[1], &shape[2], &used) == 3 &&
        text[used] == '\0') {
        bool good = true;
        for (int i = 0; i < 3; i++) {
            good =
                good && shape[i] >= (long long)option->least && shape[i] <= (long long)option->most;
            result[i] = shape[i];
        }
        if (good)
            return STATUS_OK;
    }
    return status_set(status, STATUS_BAD_INPUT, "--%s: expected C,H,W such as 3,256,256, got '%s'",
                      option->name, text);
}

static int set_option(struct arguments *arguments, const struct option *option, const char *text,
                      struct status *status)
{
    void *field = (char *)arguments + option->offset;
    switch (option->type) {
    case OPTION_FLAG:
        *(bool *)field = true;
        return STATUS_OK;
    case OPTION_TEXT:
        if (!*text)
            return status_set(status, STATUS_BAD_INPUT, "--%s: expected %s, got nothing",
                              option->name, option->value);
        *(const char **)field = text;
        return STATUS_OK;
    case OPTION_INTEGER:
        return set_integer(option, text, field, status);
    case OPTION_REAL:
        return set_real(option, text, field, status);
    case OPTION_BYTES:
        return set_bytes(option, text, field, status);
    case OPTION_CHOICE:
        return set_choice(option, text, field, status);
    case OPTION_SHAPE:
        return set_shape(option, text, field, status);
    }
    return STATUS_OK;
}

static void set_absent(struct arguments *arguments)
{
    memset(arguments, 0, sizeof *arguments);
    for (int i = 0; i < OPTION_COUNT; i++) {
        void *field = (char *)arguments + options[i].offset;
        if (options[i].type == OPTION_REAL)
            *(double *)field = NAN;
        else if (options[i].type != OPTION_FLAG && options[i].type != OPTION_TEXT)
            *(int64_t *)field = UNSET;
    }
}

static int take_positional(struct arguments *arguments, unsigned command, const char *word,
                           struct status *status)
{
    if (arguments->positional || !(command & WITH_POSITIONAL))
        return status_set(status, STATUS_BAD_INPUT,
                          "unexpected argument '%s' (flags start with --)", word);
    arguments->positional = word;
    return STATUS_OK;
}

int options_parse(struct arguments *arguments, unsigned command, const char *name, int word_count,
                  char **words, struct status *status)
{
    set_absent(arguments);
    arguments->word_count = word_count;
    arguments->words = words;
    for (int i = 2; i < word_count; i++) {
        if (strcmp(words[i], "-h") == 0) {
            arguments->help = true;
            continue;
        }
        if (words[i][0] != '-' || !words[i][1]) {
            if (take_positional(arguments, command, words[i], status))
                return status->code;
            continue;
        }
        const char *word = words[i] + strspn(words[i], "-");
        size_t length = strcspn(word, "=");
        const struct option *option = find_option(command, name, word, length, status);
        if (!option)
            return status->code;
        const char *text = word[length] ? word + length + 1 : NULL;
        if (option->type == OPTION_FLAG && text)
            return status_set(status, STATUS_BAD_INPUT, "--%s takes no value", option->name);
        if (option->type != OPTION_FLAG && !text) {
            if (i + 1 == word_count || strncmp(words[i + 1], "--", 2) == 0)
                return status_set(status, STATUS_BAD_INPUT, "--%s needs a value: %s", option->name,
                                  option->value);
            text = words[++i];
        }
        if (set_option(arguments, option, text, status))
            return status->code;
    }
    return STATUS_OK;
}

void options_print(unsigned command, FILE *file)
{
    for (int i = 0; i < OPTION_COUNT; i++) {
        if (!(options[i].commands & command))
            continue;
        char flag[64];
        snprintf(flag, sizeof flag, "--%s %s", options[i].name,
                 options[i].value ? options[i].value : "");
        fprintf(file, "  %-30s %s\n", flag, options[i].help);
    }
}

void options_choice(const char *name, int64_t index, char word[static 16])
{
    word[0] = '\0';
    for (int i = 0; i < OPTION_COUNT; i++) {
        if (strcmp(options[i].name, name) != 0)
            continue;
        const char *from = options[i].value;
        for (; index > 0; index--)
            from += strcspn(from, "|") + 1;
        snprintf(word, 16, "%.*s", (int)strcspn(from, "|"), from);
    }
}
