/* Filtered back-projection with the ramp filter (operators.md section 6.1), in double. */
#ifndef OPERATORS_FILTERED_BACK_PROJECTION_H
#define OPERATORS_FILTERED_BACK_PROJECTION_H

#include "runtime/status.h"

#include <stdint.h>

/* sinogram [views,detectors] of ray sums in pixels -> image [height,width]. angles: cos, sin per
 * view, taken as evenly spread over half a turn; detector r lies at (r - center)*spacing from the
 * middle. */
int filtered_back_projection(const float *sinogram, const double *angles, int64_t views,
                             int64_t detectors, double spacing, double center, double *image,
                             int64_t height, int64_t width, struct status *status);

#endif
