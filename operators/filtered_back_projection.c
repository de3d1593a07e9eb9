#include "operators/filtered_back_projection.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

/* The ramp filter in space: twice section 6.1's f, zero at even distances. Within the detector the
 * padded circular convolution there is this sum. */
static double ramp(int64_t distance)
{
    if (distance == 0)
        return 0.5;
    return distance % 2 ? -2 / (pi * pi * (double)(distance * distance)) : 0;
}

static void filter(const float *projection, int64_t detectors, double scale, double *filtered)
{
    for (int64_t r = 0; r < detectors; r++) {
        double sum = 0;
        for (int64_t k = 0; k < detectors; k++)
            sum += ramp(r - k) * (double)projection[k];
        filtered[r] = sum * scale;
    }
}

/* Adds a view, interpolated along the detector, zero outside it. */
static void back_project(const double *filtered, const double *angle, int64_t detectors,
                         double spacing, double center, double *image, int64_t height,
                         int64_t width)
{
    for (int64_t h = 0; h < height; h++)
        for (int64_t w = 0; w < width; w++) {
            double x = (double)w - 0.5 * (double)width + 0.5;
            double y = (double)h - 0.5 * (double)height + 0.5;
            double place = (angle[0] * x - angle[1] * y) / spacing + center;
            if (!(place > -1 && place < (double)detectors))
                continue;
            int64_t below = (int64_t)floor(place);
            double share = place - (double)below;
            if (below >= 0)
                image[h * width + w] += (1 - share) * filtered[below];
            if (below + 1 < detectors)
                image[h * width + w] += share * filtered[below + 1];
        }
}

int filtered_back_projection(const float *sinogram, const double *angles, int64_t views,
                             int64_t detectors, double spacing, double center, double *image,
                             int64_t height, int64_t width, struct status *status)
{
    double *filtered =
        status_calloc(status, (unsigned long)detectors, sizeof(double), "a filtered projection");
    if (!filtered)
        return status->code;
    memset(image, 0, (size_t)(height * width) * sizeof(double));
    for (int64_t view = 0; view < views; view++) {
        filter(sinogram + view * detectors, detectors, pi / (2 * (double)views * spacing),
               filtered);
        back_project(filtered, angles + 2 * view, detectors, spacing, center, image, height, width);
    }
    free(filtered);
    return STATUS_OK;
}
