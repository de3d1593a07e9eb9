/* PSNR and SSIM of pictures in [0,1], as in metrics.md. Arrays [C,H,W] float in [-1,1], clipped
 * here; computed in double. */
#ifndef OPERATORS_METRICS_H
#define OPERATORS_METRICS_H

/* In dB, peak 1; infinite for equal pictures. */
double metric_psnr(const float *truth, const float *image, int channels, int height, int width);
/* Mean over channels and whole windows, uniform 7x7 with sample covariance (scikit-image's
 * default); NaN for pictures smaller than the window. */
double metric_ssim(const float *truth, const float *image, int channels, int height, int width);
/* Gaussian 11x11 window of deviation 1.5, biased covariance (Wang et al. 2004). */
double metric_ssim_gaussian(const float *truth, const float *image, int channels, int height,
                            int width);

#endif
