/* Task files: the official YAMLs, read unchanged, and our additions (cli.md). Opening checks every
 * key; errors name file, key and line. Keys that do nothing here are accepted with a note. Relative
 * file names are taken from the task file's folder, or else from the working directory. */
#ifndef OPERATORS_TASK_H
#define OPERATORS_TASK_H

#include "runtime/status.h"

#include <stdbool.h>
#include <stdint.h>

struct task; /* a parsed task file */
struct operator_kind;

struct task *task_open(const char *path, struct status *status);
void task_free(struct task *task);
const struct operator_kind *task_operator_kind(const struct task *task);
const char *task_data_root(const struct task *task);  /* data.root, found as above; NULL: none */
double task_noise_sigma(const struct task *task);     /* gaussian; 0 for clean; negative: unknown */
double task_noise_rate(const struct task *task);      /* poisson */
const char *task_noise_name(const struct task *task); /* "gaussian", "poisson", "clean" */
/* Notes about accepted keys that do nothing; NULL-terminated. */
const char *const *task_notes(const struct task *task);

/* Look-ups for operators. Keys are paths below `measurement`: "operator.views",
 * "mask_opt.mask_type". Where the key is absent the result stays as it is. */
bool task_has(const struct task *task, const char *key);
int task_integer(const struct task *task, const char *key, int64_t least, int64_t most,
                 int64_t *result, struct status *status);
int task_real(const struct task *task, const char *key, double least, double most, double *result,
              struct status *status);
const char *task_string(const struct task *task, const char *key); /* NULL: absent */
/* A list of finite numbers, at least one; the caller frees, after an error too. Absent: an error.
 */
int task_reals(const struct task *task, const char *key, double **values, int64_t *count,
               struct status *status);
/* The file that a key names; the caller frees. NULL and an error if the key names none. */
char *task_path(const struct task *task, const char *key, struct status *status);
/* Sets "FILE: measurement.KEY (line L): ..." (the line of the nearest section that exists). */
int task_error(const struct task *task, const char *key, struct status *status, const char *format,
               ...) __attribute__((format(printf, 4, 5)));

#endif
