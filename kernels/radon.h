/* The rays of the parallel-beam projector (operators.md section 6.1), in double, the same for the
 * ray sum and its transpose on every backend. A ray is the chord that its line cuts out of the
 * picture, sampled at both ends and at equal steps of at most one pixel between them. */
#ifndef KERNELS_RADON_H
#define KERNELS_RADON_H

#include "kernels/kernels.h"

#include <math.h>

#ifdef __CUDACC__
#define RADON_FUNCTION static __host__ __device__ __forceinline__
#else
#define RADON_FUNCTION static inline
#endif

struct radon_ray {
    double column, row;           /* first sample, in pixels; pixel centres are whole numbers */
    double column_step, row_step; /* from one sample to the next */
    double weight;                /* length of a step times the geometry's scale */
    int64_t samples;              /* 0: the line misses the picture */
};

/* Narrows [*enter, *leave] to where |position + t*direction| <= half. */
RADON_FUNCTION void radon_clip(double position, double direction, double half, double *enter,
                               double *leave)
{
    if (direction == 0) {
        if (fabs(position) > half)
            *leave = *enter - 1;
        return;
    }
    double a = (-half - position) / direction, b = (half - position) / direction;
    *enter = fmax(*enter, fmin(a, b));
    *leave = fmin(*leave, fmax(a, b));
}

RADON_FUNCTION struct radon_ray radon_ray(const double *geometry, int64_t view, int64_t detector,
                                          int64_t height, int64_t width)
{
    const double *angle = geometry + RADON_GEOMETRY_HEADER + 2 * view;
    double s = ((double)detector - geometry[RADON_CENTER]) * geometry[RADON_SPACING];
    double x = s * angle[0], y = -s * angle[1];
    double direction_x = -angle[1], direction_y = -angle[0];
    double reach = fabs(s) + (double)height + (double)width;
    double enter = -reach, leave = reach;
    radon_clip(x, direction_x, 0.5 * (double)width, &enter, &leave);
    radon_clip(y, direction_y, 0.5 * (double)height, &enter, &leave);
    struct radon_ray ray = {0, 0, 0, 0, 0, 0};
    double length = leave - enter;
    if (!(length > 0))
        return ray;
    /* a chord of a whole number of pixels must not gain a step by rounding */
    double steps = fmax(1.0, ceil(length - 1e-9));
    double step = length / steps;
    ray.column = x + enter * direction_x + 0.5 * (double)width - 0.5;
    ray.row = y + enter * direction_y + 0.5 * (double)height - 0.5;
    ray.column_step = step * direction_x;
    ray.row_step = step * direction_y;
    ray.weight = step * geometry[RADON_SCALE];
    ray.samples = (int64_t)steps + 1;
    return ray;
}

/* floor for positions above -1 (samples lie within half a pixel of the pixel centres) */
RADON_FUNCTION int32_t radon_floor(double position)
{
    return (int32_t)(position + 1.0) - 1;
}

#endif
