/* PNG through libpng. Its errors come back by longjmp: all that must be freed lives in a struct
 * that the caller of the jumping function owns. */
#include "runtime/array.h"
#include "runtime/raster.h"

#include <limits.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CHUNK_BYTES = 8 << 20 };

struct png_context {
    const char *path;
    struct status *status;
    const char *doing; /* "damaged PNG" or "cannot be written as PNG" */
    int code;          /* of an error */
    png_struct *png;
    png_info *info;
};

static void fail(png_struct *png, const char *message)
{
    const struct png_context *context = png_get_error_ptr(png);
    status_set(context->status, context->code, "%s: %s: %s", context->path, context->doing,
               message);
    png_longjmp(png, 1);
}

static void ignore_warning(png_struct *png, const char *message)
{
    (void)png;
    (void)message;
}

/* Samples of 8 or 16 bits, grey or RGB: palettes and small depths expanded, alpha dropped. */
static void ask_for_plain_samples(struct png_context *context, struct raster *raster)
{
    png_struct *png = context->png;
    int color = png_get_color_type(png, context->info);
    int depth = png_get_bit_depth(png, context->info);
    if (color == PNG_COLOR_TYPE_PALETTE)
        png_set_palette_to_rgb(png);
    else if (depth < 8)
        png_set_expand_gray_1_2_4_to_8(png);
    png_set_strip_alpha(png);
    const uint16_t one = 1;
    if (depth == 16 && *(const unsigned char *)&one == 1)
        png_set_swap(png);
    raster->channels = color & PNG_COLOR_MASK_COLOR ? 3 : 1;
    raster->sample_bytes = depth == 16 ? 2 : 1;
}

static void decode(struct png_context *context, struct raster *raster, FILE *file)
{
    if (setjmp(png_jmpbuf(context->png)))
        return;
    png_struct *png = context->png;
    png_init_io(png, file);
    png_set_chunk_malloc_max(png, MAX_CHUNK_BYTES);
    png_read_info(png, context->info);
    ask_for_plain_samples(context, raster);
    if (raster_create(raster, context->path, png_get_image_width(png, context->info),
                      png_get_image_height(png, context->info), context->status))
        return;
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, context->info);
    size_t row_bytes =
        (size_t)raster->width * (size_t)raster->channels * (size_t)raster->sample_bytes;
    if (png_get_rowbytes(png, context->info) != row_bytes)
        png_error(png, "unexpected layout of a row");
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < raster->height; y++)
            png_read_row(png, raster->samples + (size_t)y * row_bytes, NULL);
    png_read_end(png, NULL);
}

int raster_read_png(struct raster *raster, FILE *file, const char *path, struct status *status)
{
    struct png_context context = {path, status, "damaged PNG", STATUS_BAD_INPUT, NULL, NULL};
    context.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &context, fail, ignore_warning);
    if (context.png)
        context.info = png_create_info_struct(context.png);
    if (context.info)
        decode(&context, raster, file);
    else
        status_set(status, STATUS_FAILURE, "%s: out of memory for a PNG", path);
    png_destroy_read_struct(&context.png, &context.info, NULL);
    return status->code;
}

/* Writing: into memory, then to the file as a whole. */

struct output {
    struct png_context context;
    unsigned char *bytes;
    size_t length, capacity;
};

static void append(png_struct *png, png_byte *bytes, size_t length)
{
    struct output *output = png_get_io_ptr(png);
    if (length > output->capacity - output->length) {
        size_t capacity = 2 * (output->capacity + length);
        unsigned char *grown = realloc(output->bytes, capacity);
        if (!grown)
            png_error(png, "out of memory");
        output->bytes = grown;
        output->capacity = capacity;
    }
    memcpy(output->bytes + output->length, bytes, length);
    output->length += length;
}

static void no_flush(png_struct *png)
{
    (void)png;
}

static void add_text(struct output *output, const char *const *text)
{
    for (; text && text[0] && text[1]; text += 2) {
        png_text entry = {.compression = PNG_TEXT_COMPRESSION_NONE,
                          .key = (char *)text[0],
                          .text = (char *)text[1],
                          .text_length = strlen(text[1])};
        png_set_text(output->context.png, output->context.info, &entry, 1);
    }
}

static void encode(struct output *output, const unsigned char *pixels, int channels, int height,
                   int width, const char *const *text)
{
    png_struct *png = output->context.png;
    if (setjmp(png_jmpbuf(png)))
        return;
    png_set_write_fn(png, output, append, no_flush);
    png_set_IHDR(png, output->context.info, (png_uint_32)width, (png_uint_32)height, 8,
                 channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    add_text(output, text);
    png_write_info(png, output->context.info);
    for (int y = 0; y < height; y++)
        png_write_row(png, pixels + (size_t)y * (size_t)width * (size_t)channels);
    png_write_end(png, output->context.info);
}

static int write_pixels(const char *path, const unsigned char *pixels, int channels, int height,
                        int width, const char *const *text, struct status *status)
{
    struct output output = {
        .context = {path, status, "cannot be written as PNG", STATUS_FAILURE, NULL, NULL}};
    struct png_context *context = &output.context;
    context->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, context, fail, ignore_warning);
    if (context->png)
        context->info = png_create_info_struct(context->png);
    if (context->info)
        encode(&output, pixels, channels, height, width, text);
    else
        status_set(status, STATUS_FAILURE, "%s: out of memory for a PNG", path);
    png_destroy_write_struct(&context->png, &context->info);
    if (status_ok(status))
        file_write(path, output.bytes, output.length, status);
    free(output.bytes);
    return status->code;
}

int png_write_rgb(const char *path, const unsigned char *rgb, int height, int width,
                  const char *const *text, struct status *status)
{
    return write_pixels(path, rgb, 3, height, width, text, status);
}

/* NaN becomes black. */
static unsigned char to_byte(float value)
{
    if (!(value > -1))
        return 0;
    return value >= 1 ? 255 : (unsigned char)((value + 1) / 2 * 255 + 0.5f);
}

int png_write(const char *path, const float *values, int channels, int height, int width,
              const char *const *text, struct status *status)
{
    size_t plane = (size_t)height * (size_t)width, count = plane * (size_t)channels;
    unsigned char *pixels = status_calloc(status, count, 1, path);
    if (!pixels)
        return status->code;
    for (size_t i = 0; i < count; i++)
        pixels[i % plane * (size_t)channels + i / plane] = to_byte(values[i]);
    write_pixels(path, pixels, channels, height, width, text, status);
    free(pixels);
    return status->code;
}
