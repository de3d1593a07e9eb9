#include "tools/canvas.h"

#include "runtime/array.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int canvas_create(struct canvas *canvas, int height, int width, struct status *status)
{
    size_t bytes = (size_t)height * (size_t)width * 3;
    *canvas = (struct canvas){status_calloc(status, bytes, 1, "a picture"), height, width};
    if (canvas->rgb)
        memset(canvas->rgb, 255, bytes);
    return status->code;
}

void canvas_free(struct canvas *canvas)
{
    free(canvas->rgb);
    *canvas = (struct canvas){0};
}

int canvas_write(const struct canvas *canvas, const char *path, struct status *status)
{
    return png_write_rgb(path, canvas->rgb, canvas->height, canvas->width, NULL, status);
}

void canvas_set(struct canvas *canvas, int y, int x, const unsigned char color[3])
{
    if (y >= 0 && y < canvas->height && x >= 0 && x < canvas->width)
        memcpy(canvas->rgb + ((size_t)y * (size_t)canvas->width + (size_t)x) * 3, color, 3);
}

void canvas_mix(struct canvas *canvas, double y, double x, const unsigned char color[3],
                double share)
{
    int row = (int)floor(y), column = (int)floor(x);
    if (row < 0 || row >= canvas->height || column < 0 || column >= canvas->width)
        return;
    unsigned char *pixel = canvas->rgb + ((size_t)row * (size_t)canvas->width + (size_t)column) * 3;
    for (int i = 0; i < 3; i++)
        pixel[i] = (unsigned char)lrint(pixel[i] + share * (color[i] - pixel[i]));
}

void canvas_text(struct canvas *canvas, int top, int left, int right, const char *text)
{
    static const unsigned char ink[3] = {20, 20, 20};
    const int advance = (FONT_WIDTH + 1) * TEXT_SCALE;
    for (; *text && left + advance <= right; text++, left += advance) {
        char letter = strncmp(text, "dB", 2) == 0 ? 'd' : (char)toupper((unsigned char)*text);
        for (int y = 0; y < FONT_HEIGHT * TEXT_SCALE; y++)
            for (int x = 0; x < FONT_WIDTH * TEXT_SCALE; x++)
                if (font_pixel(letter, y / TEXT_SCALE, x / TEXT_SCALE))
                    canvas_set(canvas, top + y, left + x, ink);
    }
}

int canvas_text_width(const char *text)
{
    return (int)strlen(text) * (FONT_WIDTH + 1) * TEXT_SCALE;
}

static unsigned char to_byte(float value)
{
    float unit = (value + 1) * 0.5f;
    if (!(unit > 0))
        return 0;
    return unit >= 1 ? 255 : (unsigned char)lrintf(unit * 255);
}

void canvas_values(struct canvas *canvas, int top, int left, int zoom, const float *values,
                   int channels, int height, int width)
{
    size_t plane = channels == 3 ? (size_t)height * (size_t)width : 0;
    for (int y = 0; y < height * zoom; y++)
        for (int x = 0; x < width * zoom; x++) {
            const float *value = values + (size_t)(y / zoom) * (size_t)width + x / zoom;
            const unsigned char color[3] = {to_byte(value[0]), to_byte(value[plane]),
                                            to_byte(value[2 * plane])};
            canvas_set(canvas, top + y, left + x, color);
        }
}
