/* What the commands share: opening what the command line names, and the checks that are cheap
 * enough to come before anything slow. A command fills `status`; main prints its one line and exits
 * with its code. */
#ifndef TOOLS_COMMAND_H
#define TOOLS_COMMAND_H

#include "model/model.h"
#include "operators/operator.h"
#include "runtime/array.h"
#include "solvers/resample.h"
#include "tools/options.h"

#include <signal.h>

#define RESAMPLE_VERSION "0.1.0"

int net_command(const struct arguments *arguments, struct status *status);
int encode_command(const struct arguments *arguments, struct status *status);
int decode_command(const struct arguments *arguments, struct status *status);
int measure_command(const struct arguments *arguments, struct status *status);
int adjoint_command(const struct arguments *arguments, struct status *status);
int solve_command(const struct arguments *arguments, struct status *status);
int memory_command(const struct arguments *arguments, struct status *status);
int inspect_command(const struct arguments *arguments, struct status *status);
int sample_command(const struct arguments *arguments, struct status *status);
int train_command(const struct arguments *arguments, struct status *status);
int finetune_command(const struct arguments *arguments, struct status *status);
int convert_command(const struct arguments *arguments, struct status *status);

/* An error unless the flag was given. */
int require(const char *value, const char *flag, const char *what, struct status *status);

/* The backend of --device; auto is the card where the CUDA library lies beside the program and
 * finds one (what it says otherwise goes to stderr), else the CPU. There RESAMPLE_ISA (scalar,
 * avx2, avx512, plain) pins the kernels, else they are the best here. planning: no card is needed.
 * NULL and an error for a device or precision that is not to be had. */
const struct kernels *choose_kernels(const struct arguments *arguments, bool planning,
                                     struct status *status);
/* --threads, else the processors that this process may run on. */
int choose_threads(const struct arguments *arguments);
/* --preset, else official where a flag of its schedule is given and none of fast's own, else fast.
 */
enum resample_preset choose_preset(const struct arguments *arguments);
uint64_t choose_seed(const struct arguments *arguments); /* --seed, else 0 */

/* Opens --model (or the positional MODEL), or --ldm_config with --diffusion_config. Without
 * `weights` a configuration alone will do. */
int open_model(struct model *model, const struct arguments *arguments, bool weights,
               struct status *status);
char *config_text(const struct model *model, struct status *status); /* allocated */
const char *model_file(const struct arguments *arguments);           /* for messages and records */

/* Whether FILE could be written: its folder is there and writable, and it is no folder itself. */
int check_output_file(const char *path, struct status *status);
/* Makes a folder with its parents, which must be writable; *existing is the length of the prefix of
 * `path` that was there. directory_undo removes what was made as far as it is empty. */
int directory_make(const char *path, size_t *existing, struct status *status);
void directory_undo(const char *path, size_t existing);

int check_finite(const struct array *array, const char *path, struct status *status);
/* Pictures must divide by `multiple`; the error names the nearest sizes that do. */
int check_size(const char *what, int64_t height, int64_t width, int multiple,
               struct status *status);
/* Whether y has the shape that the operator gives for its picture. */
int check_measurement(const struct operator* operator, const struct array * measurement,
                      const char *path, struct status *status);
/* "3x128x128" for messages. */
const char *shape_text(char text[static 96], int rank, const int64_t *shape);

/* Paths of the pictures under a folder, in path order. */
struct picture_list {
    char **paths;
    int count;
};
int list_pictures(struct picture_list *list, const char *folder, struct status *status);
void list_free(struct picture_list *list);

/* Ctrl-C and SIGTERM. Until interrupt_defer the process ends at once with status 130; after it
 * *interrupt_flag() is set instead, and a second signal ends the process. */
void interrupt_install(void);
void interrupt_defer(bool defer);
const volatile sig_atomic_t *interrupt_flag(void);

size_t peak_memory_bytes(void);
/* "1.9 GiB", "2 h 10 min" */
const char *bytes_text(char text[static 32], double bytes);
const char *duration_text(char text[static 32], double seconds);

#endif
