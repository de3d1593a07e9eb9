#include "kernels/plain/plain.h"

#include <math.h>
#include <string.h>

/* One head of one picture: token t's query, key and value start at qkv + t*stride + {0, d, 2d}. */
struct head {
    const real *qkv;
    int64_t tokens, width, stride;
    double scale;
};

static struct head head_of(const struct kernel_call *call, const struct tensor *qkv, int64_t n,
                           int64_t h)
{
    int64_t heads = call->attributes->attention.heads, tokens = qkv->shape[1] * qkv->shape[2];
    int64_t width = qkv->shape[3] / 3 / heads;
    const real *data = qkv->data;
    return (struct head){.qkv = data + n * tokens * qkv->shape[3] + h * 3 * width,
                         .tokens = tokens,
                         .width = width,
                         .stride = qkv->shape[3],
                         .scale = 1 / sqrt((double)width)};
}

static double dot(const real *a, const real *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* probability[j] of key j for query i; returns the log-sum-exp of the scaled scores */
static double probabilities(const struct head *head, int64_t i, double *probability)
{
    double largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < head->tokens; j++) {
        probability[j] = head->scale * dot(head->qkv + i * head->stride,
                                           head->qkv + j * head->stride + head->width, head->width);
        largest = fmax(largest, probability[j]);
    }
    for (int64_t j = 0; j < head->tokens; j++) {
        probability[j] = exp(probability[j] - largest);
        sum += probability[j];
    }
    for (int64_t j = 0; j < head->tokens; j++)
        probability[j] /= sum;
    return largest + log(sum);
}

size_t PLAIN(attention_workspace)(const struct kernel_call *call)
{
    return (size_t)(call->input[0].shape[1] * call->input[0].shape[2]) * sizeof(double);
}

void PLAIN(attention)(const struct kernel_call *call)
{
    const struct tensor *qkv = &call->input[0];
    int64_t heads = call->attributes->attention.heads;
    double *probability = call->workspace;
    for (int64_t n = 0; n < qkv->shape[0]; n++)
        for (int64_t h = 0; h < heads; h++) {
            struct head head = head_of(call, qkv, n, h);
            for (int64_t i = 0; i < head.tokens; i++) {
                real *o = output_data(call, 0) + ((n * head.tokens + i) * heads + h) * head.width;
                output_data(call, 1)[(n * heads + h) * head.tokens + i] =
                    (real)probabilities(&head, i, probability);
                for (int64_t c = 0; c < head.width; c++) {
                    double sum = 0;
                    for (int64_t j = 0; j < head.tokens; j++)
                        sum += probability[j] * head.qkv[j * head.stride + 2 * head.width + c];
                    o[c] = (real)sum;
                }
            }
        }
}

/* Adds query i's part to the gradients of its head, laid out [token][q, k, v]. */
static void add_query_gradient(const struct head *head, int64_t i, double lse, const real *d_o,
                               const real *o, double *gradient)
{
    int64_t d = head->width;
    const real *q = head->qkv + i * head->stride;
    double *dq = gradient + i * 3 * d, inner = dot(d_o, o, d);
    for (int64_t j = 0; j < head->tokens; j++) {
        const real *k = head->qkv + j * head->stride + d, *v = k + d;
        double *dk = gradient + j * 3 * d + d, *dv = dk + d;
        double probability = exp(head->scale * dot(q, k, d) - lse);
        double ds = head->scale * probability * (dot(d_o, v, d) - inner);
        for (int64_t c = 0; c < d; c++) {
            dq[c] += ds * k[c];
            dk[c] += ds * q[c];
            dv[c] += probability * d_o[c];
        }
    }
}

size_t PLAIN(attention_backward_workspace)(const struct kernel_call *call)
{
    const int64_t *shape = call->input[1].shape;
    return (size_t)(shape[1] * shape[2] * shape[3] / call->attributes->attention.heads) *
           sizeof(double);
}

void PLAIN(attention_backward)(const struct kernel_call *call)
{
    const struct tensor *qkv = &call->input[1];
    int64_t heads = call->attributes->attention.heads;
    double *gradient = call->workspace;
    for (int64_t n = 0; n < qkv->shape[0]; n++)
        for (int64_t h = 0; h < heads; h++) {
            struct head head = head_of(call, qkv, n, h);
            real *dqkv = output_data(call, 0) + (head.qkv - input_data(call, 1));
            memset(gradient, 0, (size_t)(head.tokens * 3 * head.width) * sizeof(double));
            for (int64_t i = 0; i < head.tokens; i++) {
                int64_t row = ((n * head.tokens + i) * heads + h) * head.width;
                add_query_gradient(&head, i, input_data(call, 3)[(n * heads + h) * head.tokens + i],
                                   input_data(call, 0) + row, input_data(call, 2) + row, gradient);
            }
            for (int64_t i = 0; i < head.tokens; i++)
                for (int64_t c = 0; c < 3 * head.width; c++)
                    dqkv[i * head.stride + c] = (real)gradient[i * 3 * head.width + c];
        }
}

/* The change of query i's output o. */
static void query_tangent(const struct head *head, const real *dqkv, int64_t i, double lse,
                          const real *o, double *sum)
{
    int64_t d = head->width;
    const real *q = head->qkv + i * head->stride, *dq = dqkv + i * head->stride;
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int64_t j = 0; j < head->tokens; j++) {
        const real *k = head->qkv + j * head->stride + d, *v = k + d;
        const real *dk = dqkv + j * head->stride + d, *dv = dk + d;
        double probability = exp(head->scale * dot(q, k, d) - lse);
        double ds = head->scale * (dot(dq, k, d) + dot(q, dk, d));
        for (int64_t c = 0; c < d; c++)
            sum[c] += probability * (dv[c] + ds * ((double)v[c] - o[c]));
    }
}

size_t PLAIN(attention_jvp_workspace)(const struct kernel_call *call)
{
    return (size_t)(call->input[1].shape[3] / 3 / call->attributes->attention.heads) *
           sizeof(double);
}

void PLAIN(attention_jvp)(const struct kernel_call *call)
{
    const struct tensor *qkv = &call->input[1];
    int64_t heads = call->attributes->attention.heads;
    double *sum = call->workspace;
    for (int64_t n = 0; n < qkv->shape[0]; n++)
        for (int64_t h = 0; h < heads; h++) {
            struct head head = head_of(call, qkv, n, h);
            const real *dqkv = input_data(call, 0) + (head.qkv - input_data(call, 1));
            for (int64_t i = 0; i < head.tokens; i++) {
                int64_t row = ((n * head.tokens + i) * heads + h) * head.width;
                query_tangent(&head, dqkv, i,
                              input_data(call, 3)[(n * heads + h) * head.tokens + i],
                              input_data(call, 2) + row, sum);
                for (int64_t c = 0; c < head.width; c++)
                    output_data(call, 0)[row + c] = (real)sum[c];
            }
        }
}
