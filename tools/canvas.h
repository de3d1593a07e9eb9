/* A picture that is drawn pixel by pixel and written as a PNG: for people. */
#ifndef TOOLS_CANVAS_H
#define TOOLS_CANVAS_H

#include "runtime/status.h"

#include <stdbool.h>

enum { FONT_WIDTH = 5, FONT_HEIGHT = 7, TEXT_SCALE = 2 };
/* Whether the letter's pixel at row 0..6, column 0..4 is set. */
bool font_pixel(char letter, int row, int column);

struct canvas {
    unsigned char *rgb; /* owned */
    int height, width;
};

/* White. */
int canvas_create(struct canvas *canvas, int height, int width, struct status *status);
void canvas_free(struct canvas *canvas);
int canvas_write(const struct canvas *canvas, const char *path, struct status *status);
/* Nothing happens outside. */
void canvas_set(struct canvas *canvas, int y, int x, const unsigned char color[3]);
/* Mixes the color in by `share`. */
void canvas_mix(struct canvas *canvas, double y, double x, const unsigned char color[3],
                double share);
/* As far as whole letters stay left of `right`. */
void canvas_text(struct canvas *canvas, int top, int left, int right, const char *text);
int canvas_text_width(const char *text);
/* [C,H,W] in [-1,1], clipped; every pixel repeated zoom by zoom times. C is 3, or else the first
 * channel is drawn. */
void canvas_values(struct canvas *canvas, int top, int left, int zoom, const float *values,
                   int channels, int height, int width);

#endif
