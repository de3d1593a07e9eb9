/* The one binary: finds the command, reads its flags, runs it, and turns its status into one line
 * on stderr and an exit status. */
#include "tools/command.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct command {
    const char *name;
    unsigned set;
    int (*run)(const struct arguments *arguments, struct status *status);
    const char *summary, *example;
};

static const struct command commands[] = {
    {"solve", FOR_SOLVE, solve_command, "reconstruct pictures from measurements",
     "resample solve --model models/ct-128 --task_config examples/ct/ct_25_views.yaml "
     "--input examples/ct/head_43.png --save_dir out"},
    {"measure", FOR_MEASURE, measure_command, "measure a picture: y = A(x) + noise",
     "resample measure --task_config examples/ct/ct_25_views.yaml --input examples/ct/head_43.png "
     "--output y.npy"},
    {"adjoint", FOR_ADJOINT, adjoint_command, "apply the exact transpose of a linear operator",
     "resample adjoint --task_config examples/ct/ct_25_views.yaml --input y.npy --shape 1,128,128 "
     "--output x.npy"},
    {"memory", FOR_MEMORY, memory_command, "plan the memory of a solve; needs no weights",
     "resample memory --ldm_config models/ct-128/ct-128.yaml --task_config "
     "examples/ct/ct_25_views.yaml"},
    {"sample", FOR_SAMPLE, sample_command, "draw pictures from the model alone",
     "resample sample --model models/ct-128 --count 4 --save_dir out"},
    {"encode", FOR_ENCODE, encode_command, "picture to latent",
     "resample encode --model models/ct-128 --input examples/ct/head_43.png --output z.npy"},
    {"decode", FOR_DECODE, decode_command, "latent to picture",
     "resample decode --model models/ct-128 --input z.npy --output picture.png"},
    {"net", FOR_NET, net_command, "one pass of one network, and its vector-Jacobian product",
     "resample net --model models/ct-128 --part decoder --input z.npy --output image.npy"},
    {"inspect", FOR_INSPECT, inspect_command, "list the tensors of a checkpoint",
     "resample inspect model.ckpt --ldm_config model.yaml"},
    {"train", FOR_TRAIN, train_command,
     "learn an autoencoder, or the UNet over an autoencoder's latents, from pictures",
     "resample train autoencoder --ldm_config models/ct-128/ct-128.yaml --data data/ct/train "
     "--held_out data/ct/held_out --flip --save_dir runs/ct-autoencoder"},
    {"finetune", FOR_FINETUNE, finetune_command, "the same, from a model's weights",
     "resample finetune diffusion --model models/ct-128 --data scans --save_dir runs/scans"},
    {"convert", FOR_CONVERT, convert_command, "rewrite a checkpoint as safetensors of ours",
     "resample convert --ldm_config model.yaml --diffusion_config model.ckpt --type f16 --output "
     "model.safetensors"},
};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static void print_overview(FILE *file)
{
    fprintf(file, "resample %s: inverse problems with latent diffusion models\n\n",
            RESAMPLE_VERSION);
    for (int i = 0; i < COMMAND_COUNT; i++)
        fprintf(file, "  resample %-8s %s\n", commands[i].name, commands[i].summary);
    fprintf(file, "\n`resample COMMAND --help` lists a command's flags. To begin with:\n\n  %s\n",
            commands[0].example);
}

static void print_help(const struct command *command)
{
    printf("resample %s: %s\n\n", command->name, command->summary);
    options_print(command->set, stdout);
    printf("\nexample:\n  %s\n", command->example);
}

static const struct command *find_command(const char *name, struct status *status)
{
    int nearest = 0;
    for (int i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
        if (edit_distance(commands[i].name, name) < edit_distance(commands[nearest].name, name))
            nearest = i;
    }
    status_set(status, STATUS_BAD_INPUT,
               "unknown command '%s'; the nearest is %s (`resample help` lists all)", name,
               commands[nearest].name);
    return NULL;
}

static int run_command(int word_count, char **words, struct status *status)
{
    const struct command *command = find_command(words[1], status);
    struct arguments arguments;
    if (!command ||
        options_parse(&arguments, command->set, command->name, word_count, words, status))
        return status->code;
    if (arguments.help)
        print_help(command);
    else
        command->run(&arguments, status);
    return status->code;
}

static int run_help(const char *name, struct status *status)
{
    const struct command *command = name ? find_command(name, status) : NULL;
    if (command)
        print_help(command);
    else if (!name)
        print_overview(stdout);
    return status->code;
}

/* Threads that wait for each other soon go to sleep instead of spinning: spinning gains nothing
 * measurable on a machine of one's own, and on a shared one it costs a factor of ten and more. The
 * OpenMP library reads this when it is loaded, so the program has to start once more. */
static void wait_asleep(char **words)
{
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || length <= 0)
        return;
    path[length] = '\0';
    if (setenv("GOMP_SPINCOUNT", "1000", 1) == 0)
        execv(path, words);
}

int main(int word_count, char **words)
{
    struct status status = {0};
    wait_asleep(words);
    interrupt_install();
    if (word_count < 2)
        status_set(&status, STATUS_BAD_INPUT, "no command (`resample help` lists them)");
    else if (strcmp(words[1], "--version") == 0)
        printf("resample %s\n", RESAMPLE_VERSION);
    else if (strcmp(words[1], "help") == 0 || strcmp(words[1], "--help") == 0 ||
             strcmp(words[1], "-h") == 0)
        run_help(word_count > 2 ? words[2] : NULL, &status);
    else
        run_command(word_count, words, &status);
    fflush(stdout);
    if (status.code == STATUS_INTERRUPTED)
        fprintf(stderr, "resample: %s\n", status.message);
    else if (!status_ok(&status))
        fprintf(stderr, "resample: error: %s\n", status.message);
    return status.code;
}
