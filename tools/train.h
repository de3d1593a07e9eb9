/* The folder of a training: what it holds, and the record of its steps.
 *
 *   model/model.safetensors, model/model.yaml   the averages so far, a model folder
 *   state.safetensors                           what --resume reads
 *   latents.npy                                 diffusion: the pictures' latents
 *   log.jsonl                                   a line a step, and one an evaluation
 *   loss.png                                    the curve of that
 *   sheets/step_000500.png                      held-out reconstructions, or samples */
#ifndef TOOLS_TRAIN_H
#define TOOLS_TRAIN_H

#include "training/training.h"

#include <stdio.h>

enum { TRAIN_PATH_BYTES = 4096 };

/* SAVE_DIR/name */
const char *train_path(char path[static TRAIN_PATH_BYTES], const char *save_dir, const char *name);

/* log.jsonl. Opening keeps the lines up to `step` and drops what came after. */
FILE *train_log_open(const char *save_dir, int64_t step, struct status *status);
void train_log_step(FILE *log, const struct training_settings *settings,
                    const struct training_report *report, double seconds);
void train_log_evaluation(FILE *log, const struct training_settings *settings, int64_t step,
                          const struct training_evaluation *evaluation);
/* Draws loss.png from it. */
int train_log_draw(const char *save_dir, struct status *status);

#endif
