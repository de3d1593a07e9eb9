/* A network's weight as the runtime sees it: a name, a shape, a way to read its values, and the
 * forms into which it has been packed for the kernels, on the host, on a device, and in pinned host
 * memory from which a device uploads it, each made once and shared by every tape. The file behind
 * `read` may be dropped from memory once everything is packed. */
#ifndef RUNTIME_PARAMETER_H
#define RUNTIME_PARAMETER_H

#include "kernels/kernels.h"
#include "runtime/status.h"

enum place { PLACE_HOST, PLACE_DEVICE, PLACE_PINNED, PLACE_COUNT };

struct parameter {
    char name[192];
    int64_t shape[4]; /* {O,I,kh,kw} of a convolution; a vector {1,1,1,C}; a codebook {1,1,n,d} */
    /* Writes the values, row-major in that shape (rows of the checkpoint tensor in its own order).
     * NULL: no values (planning only). */
    void (*read)(const struct parameter *parameter, float *values);
    const void *source; /* read's context, owned by the model */
    struct packed_weight {
        void *data;
        struct device *device; /* whose memory it is, or that it is pinned for */
    } packed[PLACE_COUNT][WEIGHT_FORM_COUNT];
};

/* Where these kernels read their operands. */
enum place kernels_place(const struct kernels *kernels);
/* The packed form in that place; NULL before parameter_pack. */
void *parameter_data(const struct parameter *parameter, enum place place, enum weight_form form);
/* Makes `form` (in `real` where the form is WEIGHT_PLAIN) in that place if it is not there yet. */
int parameter_pack(struct parameter *parameter, const struct kernels *kernels, enum place place,
                   enum element_type real, enum weight_form form, int threads,
                   struct status *status);
size_t parameter_form_bytes(const struct parameter *parameter, const struct kernels *kernels,
                            enum element_type real, enum weight_form form);
void parameter_release(struct parameter *parameter);

#endif
