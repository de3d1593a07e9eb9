/* The nearest code with the lanes over codes. Distances must round exactly as the plain kernel's,
 * or near ties go to another code: this file is compiled without contraction (see the Makefile). */
#include "kernels/cpu/math.h"

enum { VECTORS = 4 /* searched together in one pass over the codebook */ };

struct search {
    int64_t codes, padded, width;
    const float *planes; /* [width][padded]: the codebook by component */
    const float *norms;  /* |e|^2; of the padding +infinity */
};

static int64_t padded_codes(const struct tensor *codebook)
{
    return ceil_divide(codebook->shape[2], LANES) * LANES;
}

size_t ISA_NAME(vector_quantize_workspace)(const struct kernel_call *call)
{
    return (size_t)((call->input[1].shape[3] + 1) * padded_codes(&call->input[1])) * sizeof(float);
}

static void transpose_codebook(const struct search *s, const float *codebook, float *planes,
                               float *norms)
{
    for (int64_t k = 0; k < s->padded; k++) {
        float norm = 0;
        for (int64_t c = 0; c < s->width; c++) {
            float e = k < s->codes ? codebook[k * s->width + c] : 0;
            planes[c * s->padded + k] = e;
            norm += e * e;
        }
        norms[k] = k < s->codes ? norm : __builtin_inff();
    }
}

struct nearest {
    vector_f32 distance;
    vector_i32 index;
};

/* Each lane's nearest code, for VECTORS vectors z[i]. */
static void search_codes(const struct search *s, const float *const z[VECTORS],
                         struct nearest nearest[VECTORS])
{
    vector_i32 index;
    float norm[VECTORS] = {0};
    for (int lane = 0; lane < LANES; lane++)
        index[lane] = lane;
    for (int i = 0; i < VECTORS; i++) {
        nearest[i] = (struct nearest){vector_set(__builtin_inff()), {0}};
        for (int64_t c = 0; c < s->width; c++)
            norm[i] += z[i][c] * z[i][c];
    }
    for (int64_t k = 0; k < s->padded; k += LANES, index += LANES) {
        vector_f32 dot[VECTORS] = {{0}};
        for (int64_t c = 0; c < s->width; c++) {
            vector_f32 e = vector_load(s->planes + c * s->padded + k);
            for (int i = 0; i < VECTORS; i++)
                dot[i] += z[i][c] * e;
        }
        for (int i = 0; i < VECTORS; i++) {
            vector_f32 distance = (norm[i] + vector_load(s->norms + k)) - 2 * dot[i];
            vector_i32 closer = distance < nearest[i].distance;
            nearest[i].distance = vector_select(closer, distance, nearest[i].distance);
            nearest[i].index = (closer & index) | (~closer & nearest[i].index);
        }
    }
}

/* Among the lanes the least distance, then the least index. */
static int32_t first_nearest(const struct nearest *nearest)
{
    int32_t best = nearest->index[0];
    float least = nearest->distance[0];
    for (int lane = 1; lane < LANES; lane++) {
        float distance = nearest->distance[lane];
        int32_t index = nearest->index[lane];
        if (distance < least || (distance == least && index < best)) {
            least = distance;
            best = index;
        }
    }
    return best;
}

void ISA_NAME(vector_quantize)(const struct kernel_call *call)
{
    const int64_t *shape = call->input[0].shape;
    const float *z = call->input[0].data, *codebook = call->input[1].data;
    float *quantized = call->output[0].data, *workspace = call->workspace;
    int32_t *index = call->output[1].data;
    int64_t points = shape[0] * shape[1] * shape[2], width = shape[3];
    struct search s = {call->input[1].shape[2], padded_codes(&call->input[1]), width, workspace,
                       workspace + width * padded_codes(&call->input[1])};
    transpose_codebook(&s, codebook, workspace, workspace + width * s.padded);
#pragma omp parallel for num_threads(threads_for(call, points *s.codes))
    for (int64_t first = 0; first < points; first += VECTORS) {
        const float *vectors[VECTORS];
        struct nearest nearest[VECTORS];
        for (int64_t i = 0; i < VECTORS; i++)
            vectors[i] = z + (first + i < points ? first + i : points - 1) * width;
        search_codes(&s, vectors, nearest);
        for (int64_t p = first; p < points && p < first + VECTORS; p++) {
            index[p] = first_nearest(&nearest[p - first]);
            const float *e = codebook + index[p] * width;
            for (int64_t c = 0; c < width; c++)
                quantized[p * width + c] = z[p * width + c] + (e[c] - z[p * width + c]);
        }
    }
}
