/* What libraries.cu opened, for the functions that call it. */
#ifndef KERNELS_CUDA_LIBRARIES_CUH
#define KERNELS_CUDA_LIBRARIES_CUH

#include "kernels/cuda/libraries.h"
#include "kernels/cuda/library_functions.h"

struct cudnn_library {
    cudnn_functions call;
    void *file, *handle; /* handle NULL: not there */
};

struct cublas_library {
    cublas_functions call;
    void *file, *handle;
};

extern cudnn_library cudnn;
extern cublas_library cublas;

/* Whether the call succeeded; its failure is kept for cuda_libraries_error. */
bool cudnn_good(int status, const char *what);
bool cublas_good(int status, const char *what);
/* Frees what cuDNN has been prepared for; before its handle goes. */
void cudnn_forget_convolutions(void);

#endif
