/* PSNR and SSIM of pictures in [0,1], as in metrics.md. Arrays [C,H,W] float in [-1,1], clipped here. */
#ifndef OPERATORS_METRICS_H
#define OPERATORS_METRICS_H

double metric_psnr(const float *truth, const float *image, int channels, int height, int width);
/* uniform 7x7 window (skimage's default); pictures smaller than 7 give NaN. */
double metric_ssim(const float *truth, const float *image, int channels, int height, int width);
double metric_ssim_gaussian(const float *truth, const float *image, int channels, int height,
                            int width);

#endif
