/* Opening cuDNN and cuBLAS. */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/libraries.cuh"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cudnn_library cudnn;
cublas_library cublas;

static char failure[160];
static bool failed;

static bool note(const char *library, const char *what, const char *why)
{
    if (!failed)
        snprintf(failure, sizeof failure, "%s: %s: %s", library, what, why);
    failed = true;
    return false;
}

bool cudnn_good(int status, const char *what)
{
    return status == 0 || note("cuDNN", what, cudnn.call.cudnnGetErrorString(status));
}

bool cublas_good(int status, const char *what)
{
    return status == 0 || note("cuBLAS", what, cublas.call.cublasGetStatusString(status));
}

const char *cuda_libraries_error(void)
{
    bool was = failed;
    failed = false;
    return was ? failure : NULL;
}

/* ---- opening ---- */

/* The file that the variable names, else the first of the names that opens. The real libraries
 * cannot be let near the emulator's streams. */
static void *open_file(const char *variable, const char *const names[], int count)
{
    const char *given = getenv(variable);
    void *file = NULL;
    if (given && *given)
        return dlopen(given, RTLD_NOW | RTLD_LOCAL);
    for (int i = 0; !file && i < (EMULATED ? 1 : count); i++)
        file = dlopen(EMULATED ? "no library for the emulator" : names[i], RTLD_NOW | RTLD_LOCAL);
    return file;
}

/* A symbol as a function: ISO C++ lets an implementation refuse the cast. */
static bool find(void *file, const char *name, void *function)
{
    void *symbol = dlsym(file, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

#define FIND(name, result, arguments) &&find(library.file, #name, &library.call.name)

static bool open_cudnn(cudnn_library &library)
{
    static const char *const names[] = {"libcudnn.so.9"};
    library.file = open_file("RESAMPLE_CUDNN", names, 1);
    return library.file CUDNN_FUNCTIONS(FIND);
}

static bool open_cublas(cublas_library &library)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12"};
    library.file = open_file("RESAMPLE_CUBLAS", names, 2);
    return library.file CUBLAS_FUNCTIONS(FIND);
}

#undef FIND

static void close_file(void *file)
{
    if (file)
        dlclose(file);
}

static void begin_cudnn(char *why, size_t bytes)
{
    bool opened = open_cudnn(cudnn);
    const char *missing = opened ? NULL : dlerror();
    int status = opened ? cudnn.call.cudnnCreate(&cudnn.handle) : 0;
    if (opened && status == 0)
        return;
    snprintf(why, bytes, "%s",
             missing  ? missing
             : opened ? cudnn.call.cudnnGetErrorString(status)
                      : "a function is missing");
    close_file(cudnn.file);
    cudnn = cudnn_library();
}

static void begin_cublas(void)
{
    /* calls have their own workspace: as little as can be asked for beside it */
    setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8", 0);
    if (open_cublas(cublas) && cublas.call.cublasCreate_v2(&cublas.handle) == 0)
        return;
    close_file(cublas.file);
    cublas = cublas_library();
}

static void write_versions(char *found, size_t bytes)
{
    char dnn[32] = "", blas[48] = "";
    int part[3] = {};
    if (cudnn.handle) {
        int version = (int)cudnn.call.cudnnGetVersion();
        snprintf(dnn, sizeof dnn, "cuDNN %d.%d.%d", version / 10000, version / 100 % 100,
                 version % 100);
    }
    if (cublas.handle) {
        for (int i = CUBLAS_MAJOR_VERSION; i <= CUBLAS_PATCH_VERSION; i++)
            cublas.call.cublasGetProperty(i, &part[i]);
        snprintf(blas, sizeof blas, "cuBLAS %d.%d.%d", part[0], part[1], part[2]);
    }
    snprintf(found, bytes, "%s%s%s", dnn, *dnn && *blas ? ", " : "", blas);
}

void cuda_libraries_open(char *found, size_t found_bytes, char *no_cudnn, size_t no_cudnn_bytes)
{
    *no_cudnn = '\0';
    if (!cudnn.handle)
        begin_cudnn(no_cudnn, no_cudnn_bytes);
    if (!cublas.handle)
        begin_cublas();
    write_versions(found, found_bytes);
}

void cuda_libraries_close(void)
{
    cudnn_forget_convolutions();
    if (cudnn.handle)
        cudnn.call.cudnnDestroy(cudnn.handle);
    if (cublas.handle)
        cublas.call.cublasDestroy_v2(cublas.handle);
    close_file(cudnn.file);
    close_file(cublas.file);
    cudnn = cudnn_library();
    cublas = cublas_library();
    failed = false;
}
