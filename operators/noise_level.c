#include "operators/noise_level.h"

#include <math.h>
#include <stdlib.h>

/* Median of |x| over the deviation of x, for a normal variable. */
static const double median_of_normal = 0.674489750196;

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static double median(float *values, int64_t count)
{
    qsort(values, (size_t)count, sizeof *values, compare_floats);
    return count % 2 ? (double)values[count / 2]
                     : ((double)values[count / 2 - 1] + values[count / 2]) / 2;
}

static float second_difference(const float *row, int64_t w)
{
    return row[w - 1] - 2 * row[w] + row[w + 1];
}

/* |second differences| of one plane into values; returns how many. */
static int64_t along_rows(const float *plane, int64_t height, int64_t width, float *values)
{
    int64_t count = 0;
    for (int64_t h = 0; h < height; h++)
        for (int64_t w = 1; w + 1 < width; w++)
            values[count++] = fabsf(second_difference(plane + h * width, w));
    return count;
}

static int64_t along_both(const float *plane, int64_t height, int64_t width, float *values)
{
    int64_t count = 0;
    for (int64_t h = 1; h + 1 < height; h++)
        for (int64_t w = 1; w + 1 < width; w++)
            values[count++] = fabsf(second_difference(plane + (h - 1) * width, w) -
                                    2 * second_difference(plane + h * width, w) +
                                    second_difference(plane + (h + 1) * width, w));
    return count;
}

double noise_level_estimate(const float *measurement_nchw, const int64_t shape[4],
                            struct status *status)
{
    int64_t planes = shape[0] * shape[1], height = shape[2], width = shape[3];
    int64_t rows = 0, both = 0;
    if (width < 3 || planes * height < 1)
        return NAN;
    float *values = status_calloc(status, (unsigned long)(planes * height * width), sizeof *values,
                                  "the noise estimate");
    if (!values)
        return NAN;
    for (int64_t p = 0; p < planes; p++)
        rows += along_rows(measurement_nchw + p * height * width, height, width, values + rows);
    double level = median(values, rows) / (median_of_normal * sqrt(6));
    for (int64_t p = 0; p < planes; p++)
        both += along_both(measurement_nchw + p * height * width, height, width, values + both);
    if (both > 0)
        level = fmin(level, median(values, both) / (median_of_normal * 6));
    free(values);
    return level;
}
