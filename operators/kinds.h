/* The operators that there are; each is a file of that name. */
#ifndef OPERATORS_KINDS_H
#define OPERATORS_KINDS_H

#include "operators/operator.h"

extern const struct operator_kind operator_super_resolution;
extern const struct operator_kind operator_gaussian_blur;
extern const struct operator_kind operator_motion_blur;
extern const struct operator_kind operator_inpainting;
extern const struct operator_kind operator_denoise;
extern const struct operator_kind operator_ct_radon;

#endif
