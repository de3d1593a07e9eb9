/* JPEG through libjpeg-turbo. Its errors come back by longjmp: all that must be freed lives in a
 * struct that the caller of the jumping function owns. */
#include "runtime/raster.h"

#include <jpeglib.h>

#include <jerror.h>
#include <setjmp.h>

enum { MAX_SCANS = 256 };

struct jpeg_context {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;
    const char *path;
    struct status *status;
};

static void fail(j_common_ptr jpeg)
{
    struct jpeg_context *context = jpeg->client_data;
    char message[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, message);
    status_set(context->status, STATUS_BAD_INPUT, "%s: damaged JPEG: %s", context->path, message);
    longjmp(context->escape, 1);
}

static void print_nothing(j_common_ptr jpeg)
{
    (void)jpeg;
}

/* libjpeg fills what is missing with grey and warns: such a picture is damaged all the same.
 * Stray bytes between segments and odd version numbers lose nothing. */
static void judge_warning(j_common_ptr jpeg, int level)
{
    int code = jpeg->err->msg_code;
    if (level < 0 && code != JWRN_EXTRANEOUS_DATA && code != JWRN_ADOBE_XFORM &&
        code != JWRN_JFIF_MAJOR && code != JWRN_TOO_MUCH_DATA)
        fail(jpeg);
}

/* A few bytes can ask for one more pass over the whole picture. */
static void limit_scans(j_common_ptr jpeg)
{
    struct jpeg_context *context = jpeg->client_data;
    if (context->jpeg.input_scan_number > MAX_SCANS) {
        status_set(context->status, STATUS_BAD_INPUT, "%s: more than %d scans in a JPEG",
                   context->path, MAX_SCANS);
        longjmp(context->escape, 1);
    }
}

static void decode(struct jpeg_context *context, struct raster *raster, FILE *file)
{
    struct jpeg_decompress_struct *jpeg = &context->jpeg;
    if (setjmp(context->escape))
        return;
    jpeg_create_decompress(jpeg);
    jpeg->progress = &context->progress;
    jpeg_stdio_src(jpeg, file);
    jpeg_read_header(jpeg, TRUE);
    if (jpeg->num_components != 1 && jpeg->num_components != 3) {
        status_set(context->status, STATUS_BAD_INPUT,
                   "%s: JPEG of %d components (CMYK?), expected grey or colour", context->path,
                   jpeg->num_components);
        return;
    }
    jpeg->out_color_space = jpeg->num_components == 3 ? JCS_RGB : JCS_GRAYSCALE;
    raster->channels = jpeg->num_components;
    raster->sample_bytes = 1;
    if (raster_create(raster, context->path, jpeg->image_width, jpeg->image_height,
                      context->status))
        return;
    jpeg_start_decompress(jpeg);
    size_t row_bytes = (size_t)raster->width * (size_t)raster->channels;
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = raster->samples + jpeg->output_scanline * row_bytes;
        jpeg_read_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_decompress(jpeg);
}

int raster_read_jpeg(struct raster *raster, FILE *file, const char *path, struct status *status)
{
    struct jpeg_context context = {.path = path, .status = status};
    context.jpeg.err = jpeg_std_error(&context.errors);
    context.jpeg.client_data = &context;
    context.errors.error_exit = fail;
    context.errors.output_message = print_nothing;
    context.errors.emit_message = judge_warning;
    context.progress.progress_monitor = limit_scans;
    decode(&context, raster, file);
    jpeg_destroy_decompress(&context.jpeg);
    return status->code;
}
