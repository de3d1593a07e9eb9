#include "tools/sheet.h"

#include "tools/canvas.h"

#include <math.h>
#include <stdio.h>

enum { MARGIN = 4 };

int sheet_write(const char *path, const float *pictures, int rows, int columns, int channels,
                int height, int width, struct status *status)
{
    struct canvas canvas;
    if (canvas_create(&canvas, MARGIN + rows * (height + MARGIN),
                      MARGIN + columns * (width + MARGIN), status) != STATUS_OK)
        return status->code;
    for (int i = 0; i < rows * columns; i++)
        canvas_values(&canvas, MARGIN + i / columns * (height + MARGIN),
                      MARGIN + i % columns * (width + MARGIN), 1,
                      pictures + (long)i * channels * height * width, channels, height, width);
    canvas_write(&canvas, path, status);
    canvas_free(&canvas);
    return status->code;
}

/* ---- curves ---- */

enum { HEIGHT = 500, WIDTH = 900, LEFT = 110, RIGHT = 780, TOP = 40, BOTTOM = 450 };

struct axes {
    double last_step, low, high; /* low, high: powers of ten */
};

static const unsigned char colors[CURVES_MOST][3] = {{31, 90, 180},  {210, 90, 20}, {30, 140, 60},
                                                     {150, 60, 160}, {90, 90, 90},  {180, 150, 0}};
static const unsigned char grid[3] = {190, 190, 190};

static double x_of(const struct axes *axes, double step)
{
    return LEFT + (RIGHT - LEFT) * step / axes->last_step;
}

static double y_of(const struct axes *axes, double value)
{
    return BOTTOM - (BOTTOM - TOP) * (log10(value) - axes->low) / (axes->high - axes->low);
}

static void find_axes(struct axes *axes, const struct curve *curves, int count)
{
    *axes = (struct axes){1, INFINITY, -INFINITY};
    for (int c = 0; c < count; c++)
        for (int i = 0; i < curves[c].count; i++) {
            if (!(curves[c].values[i] > 0))
                continue;
            axes->last_step = fmax(axes->last_step, curves[c].steps[i]);
            axes->low = fmin(axes->low, floor(log10(curves[c].values[i])));
            axes->high = fmax(axes->high, ceil(log10(curves[c].values[i])));
        }
    if (!(axes->low < axes->high))
        axes->high = axes->low + 1;
    if (!isfinite(axes->low))
        *axes = (struct axes){1, 0, 1};
}

static void draw_line(struct canvas *canvas, const double from[2], const double to[2],
                      const unsigned char color[3], double share)
{
    int count = 1 + (int)(2 * fmax(fabs(to[0] - from[0]), fabs(to[1] - from[1])));
    for (int i = 0; i <= count; i++)
        canvas_mix(canvas, from[0] + (to[0] - from[0]) * i / count,
                   from[1] + (to[1] - from[1]) * i / count, color, share);
}

/* A round number of steps, about five of which fill the axis. */
static double tick_step(double last)
{
    double power = pow(10, floor(log10(last / 5))), share = last / 5 / power;
    return power * (share < 2 ? 1 : share < 5 ? 2 : 5);
}

static void draw_axes(struct canvas *canvas, const struct axes *axes, const char *title)
{
    char text[32];
    canvas_text(canvas, 12, LEFT, WIDTH, title);
    for (double power = axes->low; power <= axes->high + 0.5; power++) {
        double y = y_of(axes, pow(10, power));
        draw_line(canvas, (double[]){y, LEFT}, (double[]){y, RIGHT}, grid, 1);
        snprintf(text, sizeof text, "%g", pow(10, power));
        canvas_text(canvas, (int)y - 7, LEFT - 10 - canvas_text_width(text), LEFT, text);
    }
    double spacing = tick_step(axes->last_step);
    for (double step = 0; step <= axes->last_step; step += spacing) {
        double x = x_of(axes, step);
        draw_line(canvas, (double[]){TOP, x}, (double[]){BOTTOM, x}, grid, 0.5);
        snprintf(text, sizeof text, "%g", step);
        canvas_text(canvas, BOTTOM + 12, (int)x - canvas_text_width(text) / 2, WIDTH, text);
    }
}

/* The running mean forgets over a fiftieth of the curve. */
static double draw_curve(struct canvas *canvas, const struct axes *axes, const struct curve *curve,
                         const unsigned char color[3])
{
    double mean = 0, weight = 0, previous[2] = {NAN, NAN}, keep = 1 - 1 / (1 + curve->count / 50.0);
    for (int i = 0; i < curve->count; i++) {
        if (!(curve->values[i] > 0))
            continue;
        double x = x_of(axes, curve->steps[i]);
        canvas_mix(canvas, y_of(axes, curve->values[i]), x, color, 0.25);
        mean = keep * mean + (1 - keep) * curve->values[i];
        weight = keep * weight + (1 - keep);
        double point[2] = {y_of(axes, mean / weight), x};
        for (int thick = 0; thick < 2 && !isnan(previous[0]); thick++)
            draw_line(canvas, (double[]){previous[0] + thick, previous[1]},
                      (double[]){point[0] + thick, point[1]}, color, 0.6);
        previous[0] = point[0];
        previous[1] = point[1];
    }
    return previous[0];
}

/* Names at the curves' ends, pushed down where they would meet. */
static void draw_names(struct canvas *canvas, const struct curve *curves, const double ends[],
                       int count)
{
    enum { LINE = 20 };
    double taken = TOP - LINE;
    for (int drawn = 0; drawn < count; drawn++) {
        int next = -1, above = 0;
        for (int i = 0; i < count; i++) {
            above = 0;
            for (int k = 0; k < count; k++)
                above += ends[k] < ends[i] || (ends[k] == ends[i] && k < i);
            if (above == drawn)
                next = i;
        }
        if (next < 0)
            continue;
        double y = fmax(ends[next] - 7, taken + LINE);
        taken = y;
        for (int i = 0; i < 12 * 12; i++)
            canvas_set(canvas, (int)y + 1 + i / 12, RIGHT + 6 + i % 12, colors[next]);
        canvas_text(canvas, (int)y, RIGHT + 24, WIDTH, curves[next].name);
    }
}

int curve_write(const char *path, const char *title, const struct curve *curves, int count,
                struct status *status)
{
    struct canvas canvas;
    struct axes axes;
    double ends[CURVES_MOST];
    count = count < CURVES_MOST ? count : CURVES_MOST;
    if (canvas_create(&canvas, HEIGHT, WIDTH, status) != STATUS_OK)
        return status->code;
    find_axes(&axes, curves, count);
    draw_axes(&canvas, &axes, title);
    for (int i = 0; i < count; i++)
        ends[i] = draw_curve(&canvas, &axes, &curves[i], colors[i]);
    draw_names(&canvas, curves, ends, count);
    canvas_write(&canvas, path, status);
    canvas_free(&canvas);
    return status->code;
}
