/* Which picture is shown, which part of it, and how it is turned. */
#include "operators/draws.h"
#include "operators/operator.h"
#include "training/images_internal.h"

#include <math.h>
#include <string.h>

void average_axis(const float *x, float *y, int outer, int old_length, int new_length, int inner)
{
    double step = (double)old_length / new_length;
    for (int o = 0; o < outer; o++)
        for (int n = 0; n < new_length; n++) {
            double first = n * step, last = (n + 1) * step;
            int from = (int)first, to = (int)ceil(last - 1e-9);
            for (int i = 0; i < inner; i++) {
                double sum = 0;
                for (int k = from; k < to && k < old_length; k++)
                    sum += (fmin(k + 1, last) - fmax(k, first)) *
                           x[((int64_t)o * old_length + k) * inner + i];
                y[((int64_t)o * new_length + n) * inner + i] = (float)(sum / step);
            }
        }
}

/* ---- the order ---- */

/* A number below `count` from the pair (epoch's draws, place): Feistel rounds over the next power
 * of four, repeated until the number is below: a permutation, of which no list is kept. */
static uint32_t permute(uint64_t seed, uint64_t epoch, uint32_t place, uint32_t count)
{
    int half = 1;
    while ((uint64_t)1 << (2 * half) < count)
        half++;
    const uint32_t mask = ((uint32_t)1 << half) - 1,
                   key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    do {
        uint32_t left = place >> half, right = place & mask;
        for (uint32_t round = 0; round < 4; round++) {
            uint32_t words[4];
            const uint32_t counter[4] = {right, (uint32_t)epoch, round + 1, NOISE_STREAM_PICTURES};
            philox4x32_10(key, counter, words);
            uint32_t next = left ^ (words[0] & mask);
            left = right;
            right = next;
        }
        place = left << half | right;
    } while (place >= count);
    return place;
}

/* ---- the part that is shown ---- */

/* Which pixel of the picture the shown square's middle lies on, and how its axes run. */
struct view {
    double center_y, center_x;
    double cosine, sine; /* of the angle, divided by the zoom */
    bool flipped;
    int order[3]; /* of the channels */
};

static double between(struct draws *draws, double low, double high)
{
    return low + (high - low) * draws_uniform(draws);
}

static int reflected(int i, int length)
{
    int period = length > 1 ? 2 * (length - 1) : 1;
    i = ((i % period) + period) % period;
    return i < length ? i : period - i;
}

/* Bilinear, reflected at the borders. */
static float sample(const float *plane, int height, int width, double y, double x)
{
    int top = (int)floor(y), left = (int)floor(x);
    double dy = y - top, dx = x - left, sum = 0;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            sum += (i ? dy : 1 - dy) * (j ? dx : 1 - dx) *
                   plane[(int64_t)reflected(top + i, height) * width + reflected(left + j, width)];
    return (float)sum;
}

static void show(const struct image *image, int channels, int size, const struct view *view,
                 float *picture)
{
    int64_t plane = (int64_t)image->height * image->width;
    double middle = (size - 1) / 2.0;
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            double dy = y - middle, dx = view->flipped ? middle - x : x - middle;
            double from_y = view->center_y + view->cosine * dy + view->sine * dx;
            double from_x = view->center_x - view->sine * dy + view->cosine * dx;
            for (int c = 0; c < channels; c++)
                picture[((int64_t)c * size + y) * size + x] =
                    sample(image->values + view->order[c] * plane, image->height, image->width,
                           from_y, from_x);
        }
}

void image_set_draw(const struct image_set *set, uint64_t seed, uint64_t index, float *picture)
{
    const struct image_set_options *options = &set->options;
    uint64_t count = (uint64_t)set->training_count;
    uint32_t chosen = permute(seed, index / count, (uint32_t)(index % count), (uint32_t)count);
    const struct image *image = &set->images[set->order[chosen]];
    int size = options->size;
    struct draws draws = draws_begin(seed, NOISE_STREAM_PICTURES, (uint32_t)index + 1);
    int64_t top = draws_integer(&draws, 0, image->height - size + 1);
    int64_t left = draws_integer(&draws, 0, image->width - size + 1);
    double limit = options->rotate_degrees * M_PI / 180;
    double angle = between(&draws, -limit, limit);
    double zoom = exp(between(&draws, -1, 1) * log(options->zoom));
    double shift_y = between(&draws, -1, 1) * options->shift * size;
    double shift_x = between(&draws, -1, 1) * options->shift * size;
    struct view view = {
        .center_y = (double)top + (size - 1) / 2.0 + shift_y,
        .center_x = (double)left + (size - 1) / 2.0 + shift_x,
        .cosine = cos(angle) / zoom,
        .sine = sin(angle) / zoom,
        .flipped = options->flip && draws_uniform(&draws) < 0.5,
        .order = {0, 1, 2},
    };
    for (int last = options->shuffle_colors ? options->channels - 1 : 0; last > 0; last--) {
        int64_t other = draws_integer(&draws, 0, last + 1);
        int kept = view.order[last];
        view.order[last] = view.order[other];
        view.order[other] = kept;
    }
    show(image, options->channels, size, &view, picture);
}

void image_set_held_out(const struct image_set *set, int index, float *picture)
{
    const struct image *image = &set->images[set->order[set->training_count + index]];
    int size = set->options.size;
    struct view view = {
        .center_y = (image->height - size) / 2 + (size - 1) / 2.0,
        .center_x = (image->width - size) / 2 + (size - 1) / 2.0,
        .cosine = 1,
        .order = {0, 1, 2},
    };
    show(image, set->options.channels, size, &view, picture);
}
