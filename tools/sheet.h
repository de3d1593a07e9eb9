/* What a training shows: sheets of pictures and curves. */
#ifndef TOOLS_SHEET_H
#define TOOLS_SHEET_H

#include "runtime/status.h"

/* pictures [rows*columns,C,height,width] in [-1,1], row by row. */
int sheet_write(const char *path, const float *pictures, int rows, int columns, int channels,
                int height, int width, struct status *status);

struct curve {
    const char *name;
    const double *steps, *values; /* values above 0 are drawn */
    int count;
};
enum { CURVES_MOST = 6 };

/* Over steps, on a logarithmic axis: each value palely, their running mean strongly, names beside
 * its end. */
int curve_write(const char *path, const char *title, const struct curve *curves, int count,
                struct status *status);

#endif
