/* Principal components of the pictures' blocks, f*f pixels of C channels to a latent: the best
 * linear code, to which --components draws the latents of a new autoencoder while it does not
 * quantise yet. Learned from nothing, the latents of small networks tend to fall onto two or three
 * directions (brightness and one colour) and to stay there. */
#include "training/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PICTURES = 256 };

/* The block that belongs to latent (y,x), of a picture [C,side,side]. */
static void take_block(const struct training *training, const float *picture, int64_t y, int64_t x,
                       double *block)
{
    int64_t side = training->settings.side, factor = side / training->latent_side;
    for (int64_t c = 0; c < training->model->config.autoencoder.in_channels; c++)
        for (int64_t i = 0; i < factor; i++)
            for (int64_t j = 0; j < factor; j++)
                *block++ = picture[(c * side + y * factor + i) * side + x * factor + j];
}

/* Means and covariances of the blocks of the first pictures that the run draws. */
static void measure_blocks(const struct training *training, int64_t size, double *block,
                           double *mean, double *covariance)
{
    int64_t side = training->latent_side;
    double share = 1.0 / (double)(PICTURES * side * side);
    for (int index = 0; index < PICTURES; index++) {
        training->source.draw(training->source.context, training->settings.seed, (uint64_t)index,
                              training->pictures);
        for (int64_t at = 0; at < side * side; at++) {
            take_block(training, training->pictures, at / side, at % side, block);
            for (int64_t i = 0; i < size; i++) {
                mean[i] += share * block[i];
                for (int64_t j = 0; j <= i; j++)
                    covariance[i * size + j] += share * block[i] * block[j];
            }
        }
    }
    for (int64_t i = 0; i < size; i++)
        for (int64_t j = 0; j <= i; j++) {
            covariance[i * size + j] -= mean[i] * mean[j];
            covariance[j * size + i] = covariance[i * size + j];
        }
}

/* One of Jacobi's rotations: A[p,q] of the symmetric A becomes 0; the columns of V follow. */
static void rotate(double *a, double *v, int64_t size, int64_t p, int64_t q)
{
    if (a[p * size + q] == 0)
        return;
    double theta = (a[q * size + q] - a[p * size + p]) / (2 * a[p * size + q]);
    double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
    double c = 1 / sqrt(t * t + 1), s = t * c;
    for (int64_t i = 0; i < size; i++) {
        double ip = a[i * size + p], iq = a[i * size + q];
        double vp = v[i * size + p], vq = v[i * size + q];
        a[i * size + p] = c * ip - s * iq;
        a[i * size + q] = s * ip + c * iq;
        v[i * size + p] = c * vp - s * vq;
        v[i * size + q] = s * vp + c * vq;
    }
    for (int64_t i = 0; i < size; i++) {
        double pi = a[p * size + i], qi = a[q * size + i];
        a[p * size + i] = c * pi - s * qi;
        a[q * size + i] = s * pi + c * qi;
    }
}

/* The eigenvectors of A as the columns of V, the eigenvalues on A's diagonal (Golub and Van Loan,
 * section 8.5). */
static void diagonalise(double *a, double *v, int64_t size)
{
    enum { SWEEPS = 12 };
    for (int64_t i = 0; i < size; i++)
        v[i * size + i] = 1;
    for (int sweep = 0; sweep < SWEEPS; sweep++)
        for (int64_t p = 0; p < size; p++)
            for (int64_t q = p + 1; q < size; q++)
                rotate(a, v, size, p, q);
}

static int64_t largest(const double *a, int64_t size)
{
    int64_t best = 0;
    for (int64_t i = 1; i < size; i++)
        if (a[i * size + i] > a[best * size + best])
            best = i;
    return best;
}

/* Rows of the projection, strongest first, so that the channels' deviations are the square roots
 * of the components', times one factor that makes the latents' mean square 1. */
static void choose_components(struct training *training, double *a, const double *v, int64_t size)
{
    int64_t channels = training->model->config.autoencoder.embed_dim;
    double *projection = training->components.projection, squares = 0;
    for (int64_t k = 0; k < channels; k++) {
        int64_t best = largest(a, size);
        double deviation = sqrt(fmax(a[best * size + best], 1e-12));
        for (int64_t i = 0; i < size; i++)
            projection[k * size + i] = v[i * size + best] / sqrt(deviation);
        squares += deviation / (double)channels;
        a[best * size + best] = -1;
    }
    for (int64_t i = 0; i < channels * size; i++)
        projection[i] /= sqrt(squares);
}

int components_open(struct training *training, struct status *status)
{
    const struct autoencoder_config *config = &training->model->config.autoencoder;
    int64_t factor = training->settings.side / training->latent_side;
    int64_t size = training->components.block = factor * factor * config->in_channels;
    unsigned long square = (unsigned long)(size * size);
    if (config->embed_dim > size)
        return status_set(status, STATUS_BAD_INPUT,
                          "latents of %d channels: blocks of %lld numbers have fewer components",
                          config->embed_dim, (long long)size);
    double *scratch = status_calloc(status, 2 * square, sizeof *scratch, "the blocks' covariance");
    training->components.mean =
        status_calloc(status, 2 * (unsigned long)size, sizeof *scratch, "the blocks' mean");
    training->components.projection =
        status_calloc(status, (unsigned long)(config->embed_dim * size), sizeof *scratch,
                      "the blocks' components");
    if (status_ok(status)) {
        double *mean = training->components.mean;
        measure_blocks(training, size, mean + size, mean, scratch);
        diagonalise(scratch, scratch + square, size);
        choose_components(training, scratch, scratch + square, size);
    }
    free(scratch);
    return status->code;
}

static void project(const struct training *training, const float *picture, float *latent)
{
    int64_t side = training->latent_side, size = training->components.block;
    const double *mean = training->components.mean;
    double *block = training->components.mean + size;
    for (int64_t at = 0; at < side * side; at++) {
        take_block(training, picture, at / side, at % side, block);
        for (int64_t k = 0; k < training->model->config.autoencoder.embed_dim; k++) {
            const double *row = training->components.projection + k * size;
            double sum = 0;
            for (int64_t i = 0; i < size; i++)
                sum += row[i] * (block[i] - mean[i]);
            latent[k * side * side + at] = (float)sum;
        }
    }
}

void components_write(const struct training *training)
{
    float *latents = training->pictures + training->settings.batch * training->picture_elements;
    for (int i = 0; i < training->settings.batch; i++)
        project(training, training->pictures + i * training->picture_elements,
                latents + i * training->latent_elements);
    program_write_nchw(training->program, training->slot.components, latents);
}

void components_free(struct training *training)
{
    free(training->components.mean);
    free(training->components.projection);
}
