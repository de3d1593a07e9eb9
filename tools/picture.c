#include "tools/picture.h"

#include "runtime/array.h"
#include "tools/canvas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEAST_SIDE = 256, /* a panel smaller than this is enlarged */
    MARGIN = 8,
    LINE_HEIGHT = (FONT_HEIGHT + 3) * TEXT_SCALE,
    HEADER = 2 * LINE_HEIGHT + MARGIN
};

int picture_write(const char *path, const struct panel *panels, int count, int channels, int height,
                  int width, struct status *status)
{
    int side = height < width ? height : width;
    int zoom = side < LEAST_SIDE ? (LEAST_SIDE + side - 1) / side : 1;
    struct canvas canvas;
    if (canvas_create(&canvas, HEADER + height * zoom + MARGIN,
                      MARGIN + count * (width * zoom + MARGIN), status) != STATUS_OK)
        return status->code;
    for (int i = 0; i < count; i++) {
        int left = MARGIN + i * (width * zoom + MARGIN);
        for (int line = 0; line < 2; line++)
            canvas_text(&canvas, MARGIN / 2 + line * LINE_HEIGHT, left,
                        left + width * zoom + MARGIN, panels[i].label[line]);
        canvas_values(&canvas, HEADER, left, zoom, panels[i].values, channels, height, width);
    }
    canvas_write(&canvas, path, status);
    canvas_free(&canvas);
    return status->code;
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int picture_error(float *error, const float *a, const float *b, int channels, int height, int width,
                  struct status *status)
{
    static const int scales[] = {100, 50, 20, 10, 5, 2};
    size_t plane = (size_t)height * (size_t)width;
    float *sorted = status_calloc(status, plane, sizeof *sorted, "the error picture");
    if (!sorted)
        return 1;
    for (size_t i = 0; i < plane; i++) {
        float sum = 0;
        for (int c = 0; c < channels; c++)
            sum += fabsf(a[(size_t)c * plane + i] - (b ? b[(size_t)c * plane + i] : 0));
        sorted[i] = error[i] = sum / (float)channels;
    }
    qsort(sorted, plane, sizeof *sorted, compare_floats);
    float high = sorted[plane - 1 - plane / 100];
    free(sorted);
    int scale = 1;
    for (unsigned i = 0; i < sizeof scales / sizeof scales[0] && scale == 1; i++)
        if (high * (float)scales[i] <= 2)
            scale = scales[i];
    for (size_t i = 0; i < plane; i++)
        for (int c = channels - 1; c >= 0; c--)
            error[(size_t)c * plane + i] = error[i] * (float)scale - 1;
    return scale;
}

int picture_measurement(const char *path, const float *values, int channels, int height, int width,
                        struct status *status)
{
    const float slack =
        0.25f; /* noise and ringing beyond [-1,1] are clipped, not a reason to stretch */
    int shown = channels == 3 ? 3 : 1;
    size_t count = (size_t)shown * (size_t)height * (size_t)width;
    float least = INFINITY, most = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        least = fminf(least, values[i]);
        most = fmaxf(most, values[i]);
    }
    if (least >= -1 - slack && most <= 1 + slack)
        return png_write(path, values, shown, height, width, NULL, status);
    float *stretched = status_calloc(status, count, sizeof *stretched, "the measurement's picture");
    if (!stretched)
        return status->code;
    for (size_t i = 0; i < count; i++)
        stretched[i] = 2 * (values[i] - least) / (most - least) - 1;
    png_write(path, stretched, shown, height, width, NULL, status);
    free(stretched);
    return status->code;
}
