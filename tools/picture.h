/* Pictures for people: panels side by side with two lines of label above each, small ones enlarged
 * by repeating pixels. */
#ifndef TOOLS_PICTURE_H
#define TOOLS_PICTURE_H

#include "runtime/status.h"

struct panel {
    const float
        *values; /* [C,H,W] in [-1,1], clipped when drawn; C is 3, or else the first channel */
    char label[2][48];
};

enum { PANELS_MOST = 5 };

/* All panels have the same shape. */
int picture_write(const char *path, const struct panel *panels, int count, int channels, int height,
                  int width, struct status *status);

/* |a - b| * scale as a picture, mean over channels repeated in each; the scale (1, 2, 5, 10, ...)
 * is the largest for which 99 % of the pixels stay within white. b NULL: |a|. Returns the scale. */
int picture_error(float *error, const float *a, const float *b, int channels, int height, int width,
                  struct status *status);

/* [C,H,W] of any range to a PNG; values beyond [-1,1] (a sinogram) are stretched to fit. */
int picture_measurement(const char *path, const float *values, int channels, int height, int width,
                        struct status *status);

#endif
