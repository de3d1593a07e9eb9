#include "runtime/backend.h"
#include "tools/command.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

int require(const char *value, const char *flag, const char *what, struct status *status)
{
    if (value)
        return STATUS_OK;
    return status_set(status, STATUS_BAD_INPUT, "--%s is missing: %s", flag, what);
}

/* Open until the process ends: a model's weights may lie on the card. */
static struct cuda_backend cuda;

static const struct kernels *choose_cuda(const struct arguments *arguments, bool card,
                                         struct status *status)
{
    enum element_type network = arguments->precision == PRECISION_BF16 ? TYPE_BF16 : TYPE_F32;
    return cuda_backend_open(&cuda, network, card, status) == STATUS_OK ? &cuda.kernels : NULL;
}

static const struct kernels *choose_cpu(struct status *status)
{
    const char *isa = getenv("RESAMPLE_ISA");
    if (!isa || !*isa)
        return kernels_cpu();
    if (strcmp(isa, "plain") == 0)
        return kernels_plain_f32();
    const struct kernels *kernels = kernels_cpu_isa(isa);
    if (!kernels)
        status_set(status, STATUS_BAD_INPUT,
                   "RESAMPLE_ISA=%s: expected plain, scalar, avx2 or avx512, and a processor that "
                   "has it (the best here is %s)",
                   isa, kernels_cpu()->name);
    return kernels;
}

const struct kernels *choose_kernels(const struct arguments *arguments, bool planning,
                                     struct status *status)
{
    struct status without = {0};
    const struct kernels *kernels = NULL;
    bool bf16 = arguments->precision == PRECISION_BF16;
    if (bf16 && arguments->device == DEVICE_CPU) {
        status_set(status, STATUS_BAD_INPUT,
                   "--precision bf16 needs --device cuda: the CPU computes in f32");
        return NULL;
    }
    if (bf16 || arguments->device == DEVICE_CUDA) {
        kernels = choose_cuda(arguments, !planning, status);
        status_prefix(status, bf16 ? "--precision bf16" : "--device cuda");
        return kernels;
    }
    if (arguments->device == DEVICE_AUTO && cuda_backend_present()) {
        kernels = choose_cuda(arguments, true, &without);
        if (!kernels)
            fprintf(stderr, "resample: %s; using the CPU\n", without.message);
    }
    return kernels ? kernels : choose_cpu(status);
}

int choose_threads(const struct arguments *arguments)
{
    if (arguments->threads != UNSET)
        return (int)arguments->threads;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

enum resample_preset choose_preset(const struct arguments *arguments)
{
    if (arguments->preset != UNSET)
        return (enum resample_preset)arguments->preset;
    bool of_fast = arguments->levels != UNSET || arguments->latent_levels != UNSET ||
                   arguments->iterations != UNSET || arguments->final_iterations != UNSET ||
                   !isnan(arguments->sigma_max) || !isnan(arguments->sigma_min);
    bool of_the_schedule = arguments->ddim_steps != UNSET || arguments->resample_every != UNSET ||
                           arguments->pixel_iterations != UNSET ||
                           arguments->latent_iterations != UNSET || !isnan(arguments->ddim_eta) ||
                           !isnan(arguments->gamma) || arguments->noise;
    return of_the_schedule && !of_fast ? PRESET_OFFICIAL : PRESET_FAST;
}

uint64_t choose_seed(const struct arguments *arguments)
{
    return arguments->seed == UNSET ? 0 : (uint64_t)arguments->seed;
}

int open_model(struct model *model, const struct arguments *arguments, bool weights,
               struct status *status)
{
    const char *path = arguments->model ? arguments->model : arguments->positional;
    if (arguments->model && arguments->positional)
        return status_set(status, STATUS_BAD_INPUT, "two models: --model %s and '%s'",
                          arguments->model, arguments->positional);
    if (path && (arguments->ldm_config || arguments->diffusion_config))
        return status_set(status, STATUS_BAD_INPUT,
                          "two models: '%s' and --ldm_config/--diffusion_config; give one", path);
    if (!path && !arguments->ldm_config)
        return status_set(status, STATUS_BAD_INPUT,
                          "no model: give --model DIR, or --ldm_config F.yaml%s",
                          weights ? " with --diffusion_config F.ckpt" : "");
    if (!path && weights && !arguments->diffusion_config)
        return status_set(status, STATUS_BAD_INPUT,
                          "--ldm_config needs --diffusion_config F.ckpt beside it (the weights)");
    return model_open(model, path, arguments->ldm_config, arguments->diffusion_config,
                      arguments->use_ema, status);
}

char *config_text(const struct model *model, struct status *status)
{
    enum { MOST_BYTES = 1 << 20 };
    size_t length;
    if (model->config_path)
        return file_read_text(model->config_path, MOST_BYTES, &length, status);
    char *text = strdup(checkpoint_metadata(model->checkpoint, "config"));
    if (!text)
        status_set(status, STATUS_FAILURE, "out of memory for the configuration");
    return text;
}

const char *model_file(const struct arguments *arguments)
{
    return arguments->model              ? arguments->model
           : arguments->positional       ? arguments->positional
           : arguments->diffusion_config ? arguments->diffusion_config
                                         : arguments->ldm_config;
}

int check_finite(const struct array *array, const char *path, struct status *status)
{
    int64_t count = array_elements(array);
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(array->values[i]))
            return status_set(status, STATUS_BAD_INPUT,
                              "%s: element %lld is %f; every number must be finite", path,
                              (long long)i, array->values[i]);
    return STATUS_OK;
}

static int64_t nearest_multiple(int64_t size, int multiple)
{
    int64_t rounded = (size + multiple / 2) / multiple * multiple;
    return rounded > 0 ? rounded : multiple;
}

int check_size(const char *what, int64_t height, int64_t width, int multiple, struct status *status)
{
    if (height > 0 && width > 0 && height % multiple == 0 && width % multiple == 0)
        return STATUS_OK;
    return status_set(status, STATUS_BAD_INPUT,
                      "%s: %lldx%lld does not divide by %d, which this model needs; the nearest "
                      "size that does is %lldx%lld",
                      what, (long long)height, (long long)width, multiple,
                      (long long)nearest_multiple(height, multiple),
                      (long long)nearest_multiple(width, multiple));
}

int check_measurement(const struct operator* operator, const struct array * measurement,
                      const char *path, struct status *status)
{
    const int64_t *y = operator->measurement_shape, *x = operator->image_shape;
    const int64_t expected[4] = {y[0], y[3], y[1], y[2]}, image[4] = {x[0], x[3], x[1], x[2]};
    char given_text[96], expected_text[96], image_text[96];
    if (measurement->rank == 4 && memcmp(measurement->shape, expected, sizeof expected) == 0)
        return STATUS_OK;
    return status_set(status, STATUS_BAD_INPUT, "%s: its shape is %s; %s of a picture %s gives %s",
                      path,
                      shape_text(given_text, measurement->rank, measurement->shape), operator->name,
                      shape_text(image_text, 4, image), shape_text(expected_text, 4, expected));
}

const char *shape_text(char text[static 96], int rank, const int64_t *shape)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < rank && used < 80; i++)
        used +=
            (size_t)snprintf(text + used, 96 - used, "%s%lld", i ? "x" : "", (long long)shape[i]);
    return text;
}

size_t peak_memory_bytes(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (size_t)usage.ru_maxrss * 1024;
}

const char *bytes_text(char text[static 32], double bytes)
{
    if (bytes >= 1024.0 * 1024 * 1024)
        snprintf(text, 32, "%.2f GiB", bytes / (1024.0 * 1024 * 1024));
    else
        snprintf(text, 32, "%.1f MiB", bytes / (1024.0 * 1024));
    return text;
}

const char *duration_text(char text[static 32], double seconds)
{
    if (seconds < 10)
        snprintf(text, 32, "%.1f s", seconds);
    else if (seconds < 90)
        snprintf(text, 32, "%.0f s", seconds);
    else if (seconds < 600)
        snprintf(text, 32, "%d min %02d s", (int)seconds / 60, (int)seconds % 60);
    else if (seconds < 5400)
        snprintf(text, 32, "%.0f min", seconds / 60);
    else if (seconds < 86400.0 * 4)
        snprintf(text, 32, "%.1f h", seconds / 3600);
    else
        snprintf(text, 32, "%.1f days", seconds / 86400);
    return text;
}
