/* DICOM files, read by GDCM through build/libresample-dicom.so (`make dicom`), which is opened at
 * run time: the program itself depends on no DICOM library. Each file is read by a process of its
 * own, of 60 seconds and 2 GiB at most, since Debian's GDCM keeps its assertions and ends the
 * process over a damaged file. */
#ifndef TRAINING_DICOM_H
#define TRAINING_DICOM_H

#include "runtime/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { DICOM_MOST_PIXELS = 1 << 26 }; /* of all frames together; a larger file is refused */

struct dicom_picture {
    float *values; /* [frames,channels,height,width]; of one channel in the file's units (CT:
                      Hounsfield), of three in [-1,1] */
    int frames, channels, height, width;
    bool inverted;                  /* MONOCHROME1: small values are white */
    char patient[65], modality[17]; /* PatientID and Modality, empty where the file has none */
};

struct dicom_library;

/* Errors: there is no library. */
int dicom_library_open(struct dicom_library **library, struct status *status);
void dicom_library_close(struct dicom_library *library); /* NULL: nothing */
/* Errors: no DICOM file, damaged, too large, colours that are neither grey nor RGB. */
int dicom_read(const struct dicom_library *library, const char *path, struct dicom_picture *picture,
               struct status *status);
void dicom_picture_free(struct dicom_picture *picture);

/* What the library exports; values come from malloc. Returns whether it was read; else `message`
 * says why not. */
bool resample_dicom_read(const char *path, struct dicom_picture *picture, char *message,
                         size_t message_bytes);

#ifdef __cplusplus
}
#endif

#endif
