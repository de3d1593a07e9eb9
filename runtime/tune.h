/* Which of its ways a card does each convolution in, cuDNN's and cuBLAS's among them where they are
 * installed: timed once on the card itself for every shape, kept in a text file, found there by
 * every later program on a card of that name with these libraries. Rounding follows the choice, so
 * that two cards may differ in the last bits, and two files as well. */
#ifndef RUNTIME_TUNE_H
#define RUNTIME_TUNE_H

#include "runtime/program.h"

struct tuning {
    int convolutions; /* distinct ones of the program */
    int timed;        /* of them not found in the file */
    int by_cudnn, by_cublas;
    bool saved; /* the file has them all */
};

/* After recording and before program_plan. Nothing is done (convolutions 0) where the kernels have
 * no device or one way only. A file that is not there yet is made, its folder is not; one that
 * cannot be written is no error (saved false). STATUS_BAD_INPUT, naming file and line, where it
 * holds something else; STATUS_FAILURE where the card fails. */
int program_tune(struct program *program, const char *path, struct tuning *tuning,
                 struct status *status);
/* The same without a file: every convolution that cuDNN can do is its, the others stay as they
 * were. STATUS_BAD_INPUT where there is no cuDNN. */
int program_take_cudnn(struct program *program, struct tuning *tuning, struct status *status);

#endif
