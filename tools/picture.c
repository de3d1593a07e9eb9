#include "tools/picture.h"

#include "runtime/array.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEAST_SIDE = 256, /* a panel smaller than this is enlarged */
    TEXT_SCALE = 2,
    MARGIN = 8,
    LINE_HEIGHT = (FONT_HEIGHT + 3) * TEXT_SCALE,
    HEADER = 2 * LINE_HEIGHT + MARGIN
};

struct canvas {
    unsigned char *rgb;
    int height, width;
};

static void set_pixel(struct canvas *canvas, int y, int x, const unsigned char color[3])
{
    if (y >= 0 && y < canvas->height && x >= 0 && x < canvas->width)
        memcpy(canvas->rgb + ((size_t)y * (size_t)canvas->width + (size_t)x) * 3, color, 3);
}

static void draw_text(struct canvas *canvas, int top, int left, int right, const char *text)
{
    static const unsigned char ink[3] = {20, 20, 20};
    const int advance = (FONT_WIDTH + 1) * TEXT_SCALE;
    for (; *text && left + advance <= right; text++, left += advance)
        for (int y = 0; y < FONT_HEIGHT * TEXT_SCALE; y++)
            for (int x = 0; x < FONT_WIDTH * TEXT_SCALE; x++)
                if (font_pixel(*text, y / TEXT_SCALE, x / TEXT_SCALE))
                    set_pixel(canvas, top + y, left + x, ink);
}

static unsigned char to_byte(float value)
{
    float unit = (value + 1) * 0.5f;
    if (!(unit > 0))
        return 0;
    return unit >= 1 ? 255 : (unsigned char)lrintf(unit * 255);
}

static void draw_values(struct canvas *canvas, int top, int left, int zoom, const float *values,
                        int channels, int height, int width)
{
    size_t plane = channels == 3 ? (size_t)height * (size_t)width : 0;
    for (int y = 0; y < height * zoom; y++)
        for (int x = 0; x < width * zoom; x++) {
            const float *value = values + (size_t)(y / zoom) * (size_t)width + x / zoom;
            const unsigned char color[3] = {to_byte(value[0]), to_byte(value[plane]),
                                            to_byte(value[2 * plane])};
            set_pixel(canvas, top + y, left + x, color);
        }
}

int picture_write(const char *path, const struct panel *panels, int count, int channels, int height,
                  int width, struct status *status)
{
    int side = height < width ? height : width;
    int zoom = side < LEAST_SIDE ? (LEAST_SIDE + side - 1) / side : 1;
    struct canvas canvas = {.height = HEADER + height * zoom + MARGIN,
                            .width = MARGIN + count * (width * zoom + MARGIN)};
    size_t bytes = (size_t)canvas.height * (size_t)canvas.width * 3;
    canvas.rgb = status_calloc(status, bytes, 1, "comparison.png");
    if (!canvas.rgb)
        return status->code;
    memset(canvas.rgb, 255, bytes);
    for (int i = 0; i < count; i++) {
        int left = MARGIN + i * (width * zoom + MARGIN);
        for (int line = 0; line < 2; line++)
            draw_text(&canvas, MARGIN / 2 + line * LINE_HEIGHT, left, left + width * zoom + MARGIN,
                      panels[i].label[line]);
        draw_values(&canvas, HEADER, left, zoom, panels[i].values, channels, height, width);
    }
    png_write_rgb(path, canvas.rgb, canvas.height, canvas.width, NULL, status);
    free(canvas.rgb);
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
