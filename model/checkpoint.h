/* Reads tensors from PyTorch zip checkpoints (.ckpt, .pt) and safetensors, memory-mapped, without a
 * second copy. A hostile file gets an error: every offset is checked, nothing is executed, nothing is
 * allocated beyond the file's own size. Writes safetensors. */
#ifndef MODEL_CHECKPOINT_H
#define MODEL_CHECKPOINT_H

#include "runtime/status.h"

#include <stddef.h>
#include <stdint.h>

enum checkpoint_type { CHECKPOINT_F32, CHECKPOINT_F16, CHECKPOINT_BF16, CHECKPOINT_F64, CHECKPOINT_I64, CHECKPOINT_I32, CHECKPOINT_OTHER };
enum { CHECKPOINT_MAX_RANK = 8 };

struct checkpoint_tensor {
    const char *name;
    enum checkpoint_type type;
    int rank;
    int64_t shape[CHECKPOINT_MAX_RANK], stride[CHECKPOINT_MAX_RANK]; /* strides in elements */
    const unsigned char *data; /* first element; every reachable element lies within the file */
};

struct checkpoint;

/* Opens by content, not by name. A zip's top-level dictionary may hold the tensors itself or under
 * "state_dict". Old (pre-1.6, non-zip) files: an error that says how to convert. */
struct checkpoint *checkpoint_open(const char *path, struct status *status);
void checkpoint_close(struct checkpoint *checkpoint);
const char *checkpoint_path(const struct checkpoint *checkpoint);
const char *checkpoint_format(const struct checkpoint *checkpoint); /* "pytorch-zip", "safetensors" */
int checkpoint_count(const struct checkpoint *checkpoint);
const struct checkpoint_tensor *checkpoint_at(const struct checkpoint *checkpoint, int index); /* file order */
const struct checkpoint_tensor *checkpoint_find(const struct checkpoint *checkpoint, const char *name);
/* A string of a safetensors file's __metadata__; NULL if there is none. */
const char *checkpoint_metadata(const struct checkpoint *checkpoint, const char *key);
/* Compares the tensor's bytes with the checksum that a zip holds (a shared storage once); OK without
 * one, as in safetensors. `tensor` is one of this checkpoint's. Reads all the bytes, which
 * checkpoint_open does not: call it for the tensors that are used. */
int checkpoint_verify(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                      struct status *status);
/* All elements, row-major, converted to float (CHECKPOINT_OTHER: zeros). */
void checkpoint_read(const struct checkpoint_tensor *tensor, float *values);
/* Tells the system that the mapped pages are not needed for now (they come back when read). */
void checkpoint_drop_pages(const struct checkpoint *checkpoint);
const char *checkpoint_type_name(enum checkpoint_type type);

/* Writes tensors (converted to `type`: F32, F16 or BF16, the last two rounded to nearest, ties to
 * even; a scalar, of rank 0, is always F32) with metadata pairs {key, value, ..., NULL} or NULL; to a temporary name, then renamed.
 * Names must differ. Errors: a CHECKPOINT_OTHER tensor, a finite value beyond the range of `type`, a
 * file that cannot be written. */
int safetensors_write(const char *path, const struct checkpoint_tensor *tensors, int count,
                      enum checkpoint_type type, const char *const *metadata,
                      struct status *status);

#endif
