#include "operators/metrics.h"

#include <math.h>
#include <stdint.h>

enum { MAX_WINDOW = 11 };

/* [-1,1], clipped, to [0,1]. */
static double unit(float value)
{
    double v = 0.5 * ((double)value + 1);
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

double metric_psnr(const float *truth, const float *image, int channels, int height, int width)
{
    int64_t count = (int64_t)channels * height * width;
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        double difference = unit(truth[i]) - unit(image[i]);
        sum += difference * difference;
    }
    return 10 * log10((double)count / sum);
}

struct window {
    int size;
    double weight[MAX_WINDOW]; /* per axis, sums to one */
    double covariance_factor;
};

/* SSIM of the window whose first pixel is a[0], b[0]. */
static double window_ssim(const struct window *window, const float *a, const float *b, int width)
{
    double ua = 0, ub = 0, aa = 0, bb = 0, ab = 0;
    for (int i = 0; i < window->size; i++)
        for (int j = 0; j < window->size; j++) {
            double w = window->weight[i] * window->weight[j];
            double pa = unit(a[i * width + j]), pb = unit(b[i * width + j]);
            ua += w * pa;
            ub += w * pb;
            aa += w * pa * pa;
            bb += w * pb * pb;
            ab += w * pa * pb;
        }
    double f = window->covariance_factor, c1 = 1e-4, c2 = 9e-4;
    double va = f * (aa - ua * ua), vb = f * (bb - ub * ub), cov = f * (ab - ua * ub);
    return (2 * ua * ub + c1) * (2 * cov + c2) / ((ua * ua + ub * ub + c1) * (va + vb + c2));
}

static double mean_ssim(const struct window *window, const float *truth, const float *image,
                        int channels, int height, int width)
{
    if (height < window->size || width < window->size)
        return NAN;
    double sum = 0;
    for (int c = 0; c < channels; c++)
        for (int h = 0; h + window->size <= height; h++)
            for (int w = 0; w + window->size <= width; w++) {
                int64_t first = ((int64_t)c * height + h) * width + w;
                sum += window_ssim(window, truth + first, image + first, width);
            }
    return sum / ((double)channels * (height - window->size + 1) * (width - window->size + 1));
}

double metric_ssim(const float *truth, const float *image, int channels, int height, int width)
{
    struct window window = {.size = 7, .covariance_factor = 49.0 / 48.0};
    for (int i = 0; i < window.size; i++)
        window.weight[i] = 1.0 / window.size;
    return mean_ssim(&window, truth, image, channels, height, width);
}

double metric_ssim_gaussian(const float *truth, const float *image, int channels, int height,
                            int width)
{
    struct window window = {.size = 11, .covariance_factor = 1};
    double sum = 0, deviation = 1.5;
    for (int i = 0; i < window.size; i++) {
        window.weight[i] = exp(-0.5 * (i - 5) * (i - 5) / (deviation * deviation));
        sum += window.weight[i];
    }
    for (int i = 0; i < window.size; i++)
        window.weight[i] /= sum;
    return mean_ssim(&window, truth, image, channels, height, width);
}
