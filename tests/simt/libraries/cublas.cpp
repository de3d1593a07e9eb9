/* The tests' own cuBLAS: the few functions that the backend calls. */
#include "kernels/cuda/library_functions.h"
#include "tests/simt/libraries/library.h"

enum { NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };

struct handle {
    void *stream, *workspace; /* NULL: its own pool */
    size_t workspace_bytes;
};

struct product {
    bool transposed, bf16;
    int m, n, k, lda, ldb, ldc;
    float alpha, beta;
    const void *a, *b;
    void *c, *workspace;
    size_t workspace_bytes;

    void run() const
    {
        spoil(workspace, workspace_bytes);
        for (int column = 0; column < n; column++)
            for (int row = 0; row < m; row++) {
                double sum = 0;
                for (int i = 0; i < k; i++)
                    sum += value_at(a, bf16,
                                    transposed ? (size_t)row * lda + i : (size_t)i * lda + row) *
                           value_at(b, bf16, (size_t)column * ldb + i);
                store_scaled(c, bf16, (size_t)column * ldc + row, sum, alpha, beta);
            }
    }
};

extern "C" {

int cublasGetProperty(int property, int *value)
{
    REQUIRE(property >= 0 && property <= 2, INVALID_VALUE);
    *value = property == CUBLAS_MAJOR_VERSION ? 13 : property;
    return 0;
}

const char *cublasGetStatusString(int status)
{
    return status == NOT_SUPPORTED ? "not supported" : "an invalid value";
}

int cublasCreate_v2(void **created)
{
    simt_count_allocation();
    *created = new handle();
    return 0;
}

int cublasDestroy_v2(void *destroyed)
{
    delete static_cast<handle *>(destroyed);
    return 0;
}

int cublasSetStream_v2(void *changed, void *stream)
{
    handle *h = static_cast<handle *>(changed);
    REQUIRE(h, NOT_INITIALIZED);
    *h = {stream, nullptr, 0};
    return 0;
}

int cublasSetWorkspace_v2(void *changed, void *workspace, size_t bytes)
{
    handle *h = static_cast<handle *>(changed);
    REQUIRE(h, NOT_INITIALIZED);
    REQUIRE(aligned(workspace, 256), INVALID_VALUE);
    h->workspace = workspace;
    h->workspace_bytes = bytes;
    return 0;
}

int cublasGemmEx(void *used, int operation_a, int operation_b, int m, int n, int k,
                 const void *alpha, const void *a, int type_a, int lda, const void *b, int type_b,
                 int ldb, const void *beta, void *c, int type_c, int ldc, int compute,
                 int algorithm)
{
    const handle *h = static_cast<handle *>(used);
    bool transposed = operation_a == CUBLAS_TRANSPOSED, bf16 = type_a == CUBLAS_TYPE_BF16;
    REQUIRE(h, NOT_INITIALIZED);
    /* without one it would allocate, which no loop's body may */
    REQUIRE(h->stream && h->workspace && h->workspace_bytes >= 4 << 20, NOT_SUPPORTED);
    REQUIRE(m > 0 && n > 0 && k > 0 && alpha && beta, INVALID_VALUE);
    REQUIRE(operation_b == CUBLAS_AS_IT_IS && (transposed || operation_a == CUBLAS_AS_IT_IS),
            NOT_SUPPORTED);
    REQUIRE(lda >= (transposed ? k : m) && ldb >= k && ldc >= m, INVALID_VALUE);
    REQUIRE(type_b == type_a && type_c == type_a, NOT_SUPPORTED);
    REQUIRE(bf16 ? compute == CUBLAS_SUM_F32
                 : type_a == CUBLAS_TYPE_F32 && compute == CUBLAS_SUM_F32_PEDANTIC,
            NOT_SUPPORTED);
    REQUIRE(algorithm == CUBLAS_ALGORITHM_DEFAULT, INVALID_VALUE);
    REQUIRE(aligned(a, 16) && aligned(b, 16) && aligned(c, 16), NOT_SUPPORTED);
    enqueue(h->stream, "SIMT_CUBLAS_THREADS",
            product{transposed, bf16, m, n, k, lda, ldb, ldc, *static_cast<const float *>(alpha),
                    *static_cast<const float *>(beta), a, b, c, h->workspace, h->workspace_bytes});
    return 0;
}
}
