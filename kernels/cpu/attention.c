/* Attention in chunks of queries and keys with a running softmax (forward) or with the
 * probabilities recomputed (forward derivative), and block by block (backward). Scores stand
 * transposed, [key][query]: the lanes of a vector are queries, so the softmax runs down the keys
 * without crossing lanes, and the scores are the next product's packed operand as they are. */
#include "kernels/cpu/gemm.h"

#include <math.h>
#include <omp.h>

enum {
    QUERIES = 64,                    /* of one unit of work */
    PANELS = QUERIES / GEMM_COLUMNS, /* of queries in a unit */
    KEYS = 512,                      /* about as many keys pass at a time */
    QUERY_BLOCK = 512,               /* backward: queries whose probabilities are kept at once */
    PACK_KEYS = GEMM_ROWS * GEMM_BLOCKS,
    SLOTS = 32 /* units in flight at once, each with its own scratch */
};

struct attention {
    int64_t heads, pairs; /* of picture and head */
    int64_t tokens, width, channels;
    int64_t key_rows, width_rows; /* tokens and width in whole blocks of A */
    int64_t keys;                 /* that pass at a time: whole blocks of A */
};

static int64_t round_up(int64_t a, int64_t b)
{
    return ceil_divide(a, b) * b;
}

static struct attention attention_of(const struct tensor *qkv, int heads)
{
    struct attention t = {.heads = heads,
                          .pairs = qkv->shape[0] * heads,
                          .tokens = qkv->shape[1] * qkv->shape[2],
                          .width = qkv->shape[3] / 3 / heads,
                          .channels = qkv->shape[3] / 3};
    t.key_rows = round_up(t.tokens, GEMM_ROWS);
    t.width_rows = round_up(t.width, GEMM_ROWS);
    t.keys = round_up(ceil_divide(t.tokens, ceil_divide(t.tokens, KEYS)), GEMM_ROWS);
    return t;
}

/* where a pair's first token's q stands in qkv, and its first value in o */
static int64_t qkv_offset(const struct attention *t, int64_t pair)
{
    return (pair / t->heads * t->tokens * t->heads + pair % t->heads) * 3 * t->width;
}

static int64_t output_offset(const struct attention *t, int64_t pair)
{
    return (pair / t->heads * t->tokens * t->heads + pair % t->heads) * t->width;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Keys (or values) [first, last) as the A of a product over the width: [block][width][row]. */
static void pack_by_token(const struct attention *t, const float *source, int64_t first,
                          int64_t last, float *packed)
{
    for (int64_t k = first; k < last; k += GEMM_ROWS)
        gemm_pack(packed + k * t->width, GEMM_ROWS, source + k * 3 * t->channels, t->width, 1,
                  t->tokens - k, 3 * t->channels, 1);
}

/* The same as the A of a product over the tokens: [block of channels][token][channel]. */
static void pack_by_channel(const struct attention *t, const float *source, int64_t first,
                            int64_t last, float *packed)
{
    for (int64_t c = 0; c < t->width; c += GEMM_ROWS)
        gemm_pack(packed + (c * t->tokens) + first * GEMM_ROWS, GEMM_ROWS,
                  source + first * 3 * t->channels + c, min64(last, t->tokens) - first,
                  3 * t->channels, t->width - c, 1, 1);
}

/* Queries' rows as the B of a product over the width: [panel][width][query]. */
static void pack_queries(const struct attention *t, const float *source, int64_t stride,
                         int64_t count, float scale, float *packed)
{
    for (int64_t q = 0; q < count; q += GEMM_COLUMNS)
        gemm_pack(packed + q * t->width, GEMM_COLUMNS, source + q * stride, t->width, 1, count - q,
                  stride, scale);
}

static float score_scale(const struct attention *t)
{
    return (float)(1 / sqrt((double)t->width));
}

/* ---- forward ---- */

struct forward {
    struct attention shape;
    const float *qkv;
    float *o, *lse;
    float *keys, *values; /* packed, by pair */
    float *scratch;       /* by slot */
};

static size_t slot_floats(const struct attention *t)
{
    return (size_t)(QUERIES * (t->width + t->keys + t->width_rows));
}

size_t ISA_NAME(attention_workspace)(const struct kernel_call *call)
{
    struct attention t = attention_of(&call->input[0], call->attributes->attention.heads);
    int64_t packed = t.pairs * (t.key_rows * t.width + t.width_rows * t.tokens);
    int64_t units = t.pairs * ceil_divide(t.tokens, QUERIES);
    return sizeof(float) *
           ((size_t)round_up(packed, 16) + (size_t)min64(units, SLOTS) * slot_floats(&t));
}

struct softmax {
    vector_f32 largest, sum;
};

/* One vector of queries over `keys` rows of scores, which become exp(score - largest); returns the
 * factor by which what was accumulated before shrinks. */
static vector_f32 softmax_rows(struct softmax *state, float *score, int64_t keys, bool first)
{
    vector_f32 largest = first ? vector_load(score) : state->largest;
    for (int64_t k = 0; k < keys; k++)
        largest = vector_max(vector_load(score + k * GEMM_COLUMNS), largest);
    vector_f32 partial[4] = {{0}, {0}, {0}, {0}};
    for (int64_t k = 0; k < keys; k++) {
        vector_f32 p = vector_exp(vector_load(score + k * GEMM_COLUMNS) - largest);
        vector_store(score + k * GEMM_COLUMNS, p);
        partial[k % 4] += p;
    }
    vector_f32 shrink = first ? vector_set(0) : vector_exp(state->largest - largest);
    vector_f32 sum = (partial[0] + partial[1]) + (partial[2] + partial[3]);
    state->sum = first ? sum : state->sum * shrink + sum;
    state->largest = largest;
    return shrink;
}

static void softmax_panel(const struct attention *t, struct softmax *state, float *score,
                          int64_t keys, bool first, float *o)
{
    for (int v = 0; v < 2; v++) {
        vector_f32 shrink = softmax_rows(&state[v], score + v * LANES, keys, first);
        if (first)
            continue;
        for (int64_t c = 0; c < t->width; c++) {
            float *p = o + c * GEMM_COLUMNS + v * LANES;
            vector_store(p, vector_load(p) * shrink);
        }
    }
}

/* One query of a panel: its output divided by its sum, and the log-sum-exp. */
static void store_query(const struct attention *t, const float *panel, int lane,
                        const struct softmax *state, float *o, float *lse)
{
    float sum = state->sum[lane % LANES];
    for (int64_t c = 0; c < t->width; c++)
        o[c] = panel[c * GEMM_COLUMNS + lane] / sum;
    *lse = state->largest[lane % LANES] + logf(sum);
}

static void attend(const struct forward *f, int64_t pair, int64_t first_query, float *scratch)
{
    const struct attention *t = &f->shape;
    int64_t queries = min64(QUERIES, t->tokens - first_query);
    int64_t panels = ceil_divide(queries, GEMM_COLUMNS);
    const float *source = f->qkv + qkv_offset(t, pair) + first_query * 3 * t->channels;
    float *packed = scratch, *score = packed + QUERIES * t->width, *o = score + QUERIES * t->keys;
    struct softmax state[PANELS][2];
    pack_queries(t, source, 3 * t->channels, queries, score_scale(t), packed);
    for (int64_t key = 0; key < t->tokens; key += t->keys) {
        int64_t keys = min64(t->keys, t->tokens - key);
        gemm_run(&(struct gemm){f->keys + (pair * t->key_rows + key) * t->width, packed, score,
                                ceil_divide(keys, GEMM_ROWS), panels, t->width,
                                t->width * GEMM_ROWS, t->width * GEMM_COLUMNS,
                                t->keys * GEMM_COLUMNS},
                 false);
        for (int64_t p = 0; p < panels; p++)
            softmax_panel(t, state[p], score + p * t->keys * GEMM_COLUMNS, keys, key == 0,
                          o + p * t->width_rows * GEMM_COLUMNS);
        gemm_run(&(struct gemm){f->values + pair * t->width_rows * t->tokens + key * GEMM_ROWS,
                                score, o, t->width_rows / GEMM_ROWS, panels, keys,
                                t->tokens * GEMM_ROWS, t->keys * GEMM_COLUMNS,
                                t->width_rows * GEMM_COLUMNS},
                 key > 0);
    }
    for (int64_t q = 0; q < queries; q++) {
        int64_t panel = q / GEMM_COLUMNS, lane = q % GEMM_COLUMNS, token = first_query + q;
        store_query(
            t, o + panel * t->width_rows * GEMM_COLUMNS, (int)lane, &state[panel][lane / LANES],
            f->o + output_offset(t, pair) + token * t->channels, f->lse + pair * t->tokens + token);
    }
}

void ISA_NAME(attention)(const struct kernel_call *call)
{
    struct forward f = {.shape = attention_of(&call->input[0], call->attributes->attention.heads),
                        .qkv = call->input[0].data,
                        .o = call->output[0].data,
                        .lse = call->output[1].data,
                        .keys = call->workspace};
    const struct attention *t = &f.shape;
    f.values = f.keys + t->pairs * t->key_rows * t->width;
    f.scratch =
        f.keys + round_up(t->pairs * (t->key_rows * t->width + t->width_rows * t->tokens), 16);
    int64_t ranges = ceil_divide(t->tokens, PACK_KEYS), chunks = ceil_divide(t->tokens, QUERIES);
    int threads = call->threads < SLOTS ? call->threads : SLOTS;
    threads = (int)min64(threads, t->pairs * chunks);
#pragma omp parallel num_threads(threads)
    {
        float *scratch = f.scratch + (size_t)omp_get_thread_num() * slot_floats(t);
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < t->pairs * ranges; unit++) {
            int64_t pair = unit / ranges, first = unit % ranges * PACK_KEYS;
            int64_t last = min64(first + PACK_KEYS, t->tokens);
            const float *keys = f.qkv + qkv_offset(t, pair) + t->width;
            pack_by_token(t, keys, first, last, f.keys + pair * t->key_rows * t->width);
            pack_by_channel(t, keys + t->width, first, last,
                            f.values + pair * t->width_rows * t->tokens);
        }
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < t->pairs * chunks; unit++)
            attend(&f, unit / chunks, unit % chunks * QUERIES, scratch);
    }
}

/* ---- forward derivative ---- */

struct tangent {
    struct attention shape;
    const float *dqkv, *qkv, *o, *lse;
    float *d_o;
    float *keys, *key_tangents, *values, *value_tangents; /* packed, by pair */
    float *scratch;                                       /* by slot */
};

static size_t tangent_slot_floats(const struct attention *t)
{
    return (size_t)(QUERIES * (2 * t->width + 2 * t->keys + t->width_rows));
}

size_t ISA_NAME(attention_jvp_workspace)(const struct kernel_call *call)
{
    struct attention t = attention_of(&call->input[1], call->attributes->attention.heads);
    int64_t packed = 2 * t.pairs * (t.key_rows * t.width + t.width_rows * t.tokens);
    int64_t units = t.pairs * ceil_divide(t.tokens, QUERIES);
    return sizeof(float) *
           ((size_t)round_up(packed, 16) + (size_t)min64(units, SLOTS) * tangent_slot_floats(&t));
}

static void pack_tangent_keys(const struct tangent *j, int64_t pair, int64_t first)
{
    const struct attention *t = &j->shape;
    int64_t last = min64(first + PACK_KEYS, t->tokens), offset = qkv_offset(t, pair) + t->width;
    int64_t keys = pair * t->key_rows * t->width, values = pair * t->width_rows * t->tokens;
    pack_by_token(t, j->qkv + offset, first, last, j->keys + keys);
    pack_by_token(t, j->dqkv + offset, first, last, j->key_tangents + keys);
    pack_by_channel(t, j->qkv + offset + t->width, first, last, j->values + values);
    pack_by_channel(t, j->dqkv + offset + t->width, first, last, j->value_tangents + values);
}

/* For one vector of queries: scores -> probabilities P, changes dS of the scores -> P dS; returns
 * the sum of P dS. */
static vector_f32 probability_tangents(float *score, float *tangent, int64_t keys, vector_f32 lse)
{
    vector_f32 partial[4] = {{0}, {0}, {0}, {0}};
    for (int64_t k = 0; k < keys; k++) {
        vector_f32 p = vector_exp(vector_load(score + k * GEMM_COLUMNS) - lse);
        vector_f32 d = p * vector_load(tangent + k * GEMM_COLUMNS);
        vector_store(score + k * GEMM_COLUMNS, p);
        vector_store(tangent + k * GEMM_COLUMNS, d);
        partial[k % 4] += d;
    }
    return (partial[0] + partial[1]) + (partial[2] + partial[3]);
}

static void store_query_tangents(const struct tangent *j, const float *sums, const float *inner,
                                 int64_t pair, int64_t first, int64_t queries)
{
    const struct attention *t = &j->shape;
    for (int64_t q = 0; q < queries; q++) {
        const float *panel = sums + q / GEMM_COLUMNS * t->width_rows * GEMM_COLUMNS;
        int64_t row = output_offset(t, pair) + (first + q) * t->channels;
        for (int64_t c = 0; c < t->width; c++)
            j->d_o[row + c] = panel[c * GEMM_COLUMNS + q % GEMM_COLUMNS] - inner[q] * j->o[row + c];
    }
}

/* A unit of queries: their outputs' change. */
static void attend_tangent(const struct tangent *j, int64_t pair, int64_t first, float *scratch)
{
    const struct attention *t = &j->shape;
    int64_t queries = min64(QUERIES, t->tokens - first);
    int64_t panels = ceil_divide(queries, GEMM_COLUMNS), stride = 3 * t->channels;
    int64_t source = qkv_offset(t, pair) + first * stride;
    float *q = scratch, *dq = q + QUERIES * t->width, *score = dq + QUERIES * t->width;
    float *tangent = score + QUERIES * t->keys, *sums = tangent + QUERIES * t->keys;
    float lse[QUERIES] = {0}, inner[QUERIES] = {0};
    memcpy(lse, j->lse + pair * t->tokens + first, (size_t)queries * sizeof(float));
    pack_queries(t, j->qkv + source, stride, queries, score_scale(t), q);
    pack_queries(t, j->dqkv + source, stride, queries, score_scale(t), dq);
    for (int64_t key = 0; key < t->tokens; key += t->keys) {
        int64_t keys = min64(t->keys, t->tokens - key);
        int64_t row = (pair * t->key_rows + key) * t->width;
        int64_t column = pair * t->width_rows * t->tokens + key * GEMM_ROWS;
        struct gemm scores = {j->keys + row,
                              q,
                              score,
                              ceil_divide(keys, GEMM_ROWS),
                              panels,
                              t->width,
                              t->width * GEMM_ROWS,
                              t->width * GEMM_COLUMNS,
                              t->keys * GEMM_COLUMNS};
        struct gemm outputs = {j->value_tangents + column,
                               score,
                               sums,
                               t->width_rows / GEMM_ROWS,
                               panels,
                               keys,
                               t->tokens * GEMM_ROWS,
                               t->keys * GEMM_COLUMNS,
                               t->width_rows * GEMM_COLUMNS};
        gemm_run(&scores, false);
        scores.b = dq, scores.c = tangent;
        gemm_run(&scores, false);
        scores.a = j->key_tangents + row, scores.b = q;
        gemm_run(&scores, true);
        for (int64_t v = 0; v < panels * 2; v++) {
            int64_t offset = v / 2 * t->keys * GEMM_COLUMNS + v % 2 * LANES;
            vector_f32 sum = probability_tangents(score + offset, tangent + offset, keys,
                                                  vector_load(lse + v * LANES));
            vector_store(inner + v * LANES, vector_load(inner + v * LANES) + sum);
        }
        gemm_run(&outputs, key > 0);
        outputs.a = j->values + column, outputs.b = tangent;
        gemm_run(&outputs, true);
    }
    store_query_tangents(j, sums, inner, pair, first, queries);
}

void ISA_NAME(attention_jvp)(const struct kernel_call *call)
{
    struct tangent j = {.shape = attention_of(&call->input[1], call->attributes->attention.heads),
                        .dqkv = call->input[0].data,
                        .qkv = call->input[1].data,
                        .o = call->input[2].data,
                        .lse = call->input[3].data,
                        .d_o = call->output[0].data,
                        .keys = call->workspace};
    const struct attention *t = &j.shape;
    int64_t keys = t->pairs * t->key_rows * t->width, values = t->pairs * t->width_rows * t->tokens;
    j.key_tangents = j.keys + keys;
    j.values = j.key_tangents + keys;
    j.value_tangents = j.values + values;
    j.scratch = j.keys + round_up(2 * (keys + values), 16);
    int64_t ranges = ceil_divide(t->tokens, PACK_KEYS), chunks = ceil_divide(t->tokens, QUERIES);
    int threads = call->threads < SLOTS ? call->threads : SLOTS;
    threads = (int)min64(threads, t->pairs * chunks);
#pragma omp parallel num_threads(threads)
    {
        float *scratch = j.scratch + (size_t)omp_get_thread_num() * tangent_slot_floats(t);
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < t->pairs * ranges; unit++)
            pack_tangent_keys(&j, unit / ranges, unit % ranges * PACK_KEYS);
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < t->pairs * chunks; unit++)
            attend_tangent(&j, unit / chunks, unit % chunks * QUERIES, scratch);
    }
}

/* ---- backward ---- */

/* What is kept for one pair of a batch; offsets in floats. The probabilities and their gradients of
 * a block of queries are [panel of queries][key][query]. */
struct layout {
    int64_t keys_by_token, keys_by_channel, values_by_token;
    int64_t queries, output_gradients;        /* B of products over the width */
    int64_t query_rows, output_gradient_rows; /* B of products over the queries */
    int64_t query_gradients;                  /* [panel][width_rows][query] */
    int64_t probabilities, score_gradients;
    int64_t block;        /* queries at a time: whole units */
    int64_t score_stride; /* from panel to panel, off the caches' powers of two */
    int64_t floats;
};

struct backward {
    struct attention shape;
    struct layout layout;
    const float *d_o, *qkv, *o, *lse;
    float *dqkv, *workspace;
    int64_t batch; /* pairs at a time */
};

static int64_t take(int64_t *floats, int64_t count)
{
    int64_t offset = *floats;
    *floats += round_up(count, 16);
    return offset;
}

static struct layout layout_of(const struct attention *t)
{
    struct layout l = {.block = min64(round_up(t->tokens, QUERIES), QUERY_BLOCK)};
    int64_t rows = t->key_rows + (t->key_rows % 64 == 0 ? GEMM_ROWS : 0);
    int64_t columns = round_up(t->width, GEMM_COLUMNS), *floats = &l.floats;
    l.score_stride = rows * GEMM_COLUMNS;
    l.keys_by_token = take(floats, t->key_rows * t->width);
    l.keys_by_channel = take(floats, t->width_rows * t->tokens);
    l.values_by_token = take(floats, t->key_rows * t->width);
    l.queries = take(floats, l.block * t->width);
    l.output_gradients = take(floats, l.block * t->width);
    l.query_rows = take(floats, l.block * columns);
    l.output_gradient_rows = take(floats, l.block * columns);
    l.query_gradients = take(floats, l.block * t->width_rows);
    l.probabilities = take(floats, l.block * rows);
    l.score_gradients = take(floats, l.block * rows);
    return l;
}

static int64_t batch_of(const struct attention *t, const struct layout *l)
{
    return min64(t->pairs, QUERY_BLOCK / l->block);
}

size_t ISA_NAME(attention_backward_workspace)(const struct kernel_call *call)
{
    struct attention t = attention_of(&call->input[1], call->attributes->attention.heads);
    struct layout l = layout_of(&t);
    return sizeof(float) * (size_t)(batch_of(&t, &l) * l.floats);
}

static void pack_keys(const struct backward *b, float *kept, int64_t pair, int64_t first)
{
    const struct attention *t = &b->shape;
    const float *keys = b->qkv + qkv_offset(t, pair) + t->width;
    int64_t last = min64(first + PACK_KEYS, t->tokens);
    pack_by_token(t, keys, first, last, kept + b->layout.keys_by_token);
    pack_by_channel(t, keys, first, last, kept + b->layout.keys_by_channel);
    pack_by_token(t, keys + t->width, first, last, kept + b->layout.values_by_token);
}

/* [panel of channels][query of the block][channel], from query `row` of the block on */
static void pack_rows(const struct backward *b, const float *source, int64_t stride, int64_t row,
                      int64_t count, int64_t padded, float scale, float *packed)
{
    for (int64_t c = 0; c < b->shape.width; c += GEMM_COLUMNS) {
        float *panel = packed + c * b->layout.block + row * GEMM_COLUMNS;
        gemm_pack(panel, GEMM_COLUMNS, source + c, count, stride, b->shape.width - c, 1, scale);
        memset(panel + count * GEMM_COLUMNS, 0,
               (size_t)((padded - count) * GEMM_COLUMNS) * sizeof(float));
    }
}

/* scores -> probabilities, gradients of probabilities -> of scores, for one vector of queries */
static void score_gradient(float *score, float *gradient, int64_t keys, vector_f32 lse,
                           vector_f32 inner)
{
    for (int64_t k = 0; k < keys; k++) {
        vector_f32 p = vector_exp(vector_load(score + k * GEMM_COLUMNS) - lse);
        vector_f32 d = vector_load(gradient + k * GEMM_COLUMNS);
        vector_store(score + k * GEMM_COLUMNS, p);
        vector_store(gradient + k * GEMM_COLUMNS, p * (d - inner));
    }
}

/* The log-sum-exp and <d_o, o> of a unit's queries; zeros for the padding. */
static void query_terms(const struct backward *b, int64_t pair, int64_t first, int64_t queries,
                        float lse[QUERIES], float inner[QUERIES])
{
    const struct attention *t = &b->shape;
    memset(lse, 0, QUERIES * sizeof(float));
    memset(inner, 0, QUERIES * sizeof(float));
    for (int64_t q = 0; q < queries; q++) {
        int64_t row = output_offset(t, pair) + (first + q) * t->channels;
        double sum = 0;
        for (int64_t c = 0; c < t->width; c++)
            sum += (double)b->d_o[row + c] * b->o[row + c];
        lse[q] = b->lse[pair * t->tokens + first + q];
        inner[q] = (float)sum;
    }
}

static void pack_unit(const struct backward *b, float *kept, int64_t pair, int64_t first,
                      int64_t queries)
{
    const struct attention *t = &b->shape;
    const struct layout *l = &b->layout;
    int64_t row = first % l->block, padded = round_up(queries, GEMM_COLUMNS);
    const float *q = b->qkv + qkv_offset(t, pair) + first * 3 * t->channels;
    const float *d_o = b->d_o + output_offset(t, pair) + first * t->channels;
    float scale = score_scale(t);
    pack_queries(t, q, 3 * t->channels, queries, scale, kept + l->queries + row * t->width);
    pack_queries(t, d_o, t->channels, queries, 1, kept + l->output_gradients + row * t->width);
    pack_rows(b, q, 3 * t->channels, row, queries, padded, scale, kept + l->query_rows);
    pack_rows(b, d_o, t->channels, row, queries, padded, 1, kept + l->output_gradient_rows);
}

static void store_query_gradients(const struct backward *b, const float *gradients, int64_t pair,
                                  int64_t first, int64_t queries)
{
    const struct attention *t = &b->shape;
    float scale = score_scale(t);
    for (int64_t q = 0; q < queries; q++) {
        const float *panel = gradients + q / GEMM_COLUMNS * t->width_rows * GEMM_COLUMNS;
        float *dq = b->dqkv + qkv_offset(t, pair) + (first + q) * 3 * t->channels;
        for (int64_t c = 0; c < t->width; c++)
            dq[c] = scale * panel[c * GEMM_COLUMNS + q % GEMM_COLUMNS];
    }
}

/* A unit of queries: its probabilities and score gradients, kept, and its dq, stored. */
static void backward_queries(const struct backward *b, float *kept, int64_t pair, int64_t first)
{
    const struct attention *t = &b->shape;
    const struct layout *l = &b->layout;
    int64_t queries = min64(QUERIES, t->tokens - first), row = first % l->block;
    int64_t panels = ceil_divide(queries, GEMM_COLUMNS);
    float lse[QUERIES], inner[QUERIES];
    float *dq = kept + l->query_gradients + row * t->width_rows;
    query_terms(b, pair, first, queries, lse, inner);
    pack_unit(b, kept, pair, first, queries);
    for (int64_t key = 0; key < t->tokens; key += t->keys) {
        int64_t keys = min64(t->keys, t->tokens - key), blocks = ceil_divide(keys, GEMM_ROWS);
        int64_t scores = row / GEMM_COLUMNS * l->score_stride + key * GEMM_COLUMNS;
        float *score = kept + l->probabilities + scores;
        float *gradient = kept + l->score_gradients + scores;
        gemm_run(&(struct gemm){kept + l->keys_by_token + key * t->width,
                                kept + l->queries + row * t->width, score, blocks, panels, t->width,
                                t->width * GEMM_ROWS, t->width * GEMM_COLUMNS, l->score_stride},
                 false);
        gemm_run(&(struct gemm){kept + l->values_by_token + key * t->width,
                                kept + l->output_gradients + row * t->width, gradient, blocks,
                                panels, t->width, t->width * GEMM_ROWS, t->width * GEMM_COLUMNS,
                                l->score_stride},
                 false);
        for (int64_t v = 0; v < panels * 2; v++) {
            int64_t offset = v / 2 * l->score_stride + v % 2 * LANES;
            score_gradient(score + offset, gradient + offset, keys, vector_load(lse + v * LANES),
                           vector_load(inner + v * LANES));
        }
        gemm_run(&(struct gemm){kept + l->keys_by_channel + key * GEMM_ROWS, gradient, dq,
                                t->width_rows / GEMM_ROWS, panels, keys, t->tokens * GEMM_ROWS,
                                l->score_stride, t->width_rows * GEMM_COLUMNS},
                 key > 0);
    }
    store_query_gradients(b, dq, pair, first, queries);
}

/* rows x columns of a tile into a gradient's rows, which are as wide as qkv */
static void store_part(const struct gemm_tile *tile, float *c, int64_t stride, int64_t rows,
                       int64_t columns, bool add)
{
    float values[GEMM_ROWS * GEMM_COLUMNS];
    gemm_store(tile, values, GEMM_COLUMNS, false);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < columns; k++)
            c[r * stride + k] = values[r * GEMM_COLUMNS + k] + (add ? c[r * stride + k] : 0);
}

/* gradient[key][channel] (+)= sum over queries of weight[key][query] row[query][channel], for one
 * tile and at most GEMM_DEPTH queries from panel `first` on. */
static void multiply_queries(const struct backward *b, const float *weight, const float *rows,
                             int64_t panels, float *gradient, int64_t keys, int64_t channels,
                             bool add)
{
    struct gemm_tile tile = {0};
    for (int64_t p = 0; p < panels; p++)
        gemm_multiply(&tile, weight + p * b->layout.score_stride, GEMM_COLUMNS, 1,
                      rows + p * GEMM_COLUMNS * GEMM_COLUMNS, GEMM_COLUMNS);
    int64_t stride = 3 * b->shape.channels;
    if (keys >= GEMM_ROWS && channels >= GEMM_COLUMNS)
        gemm_store(&tile, gradient, stride, add);
    else
        store_part(&tile, gradient, stride, min64(keys, GEMM_ROWS), min64(channels, GEMM_COLUMNS),
                   add);
}

/* The part of one block of queries in the gradient of keys (or values) [first, first + PACK_KEYS).
 */
static void backward_keys(const struct backward *b, const float *weight, const float *rows,
                          float *gradient, int64_t first, int64_t panels, bool add)
{
    const struct attention *t = &b->shape;
    int64_t last = min64(first + PACK_KEYS, t->tokens), step = GEMM_DEPTH / GEMM_COLUMNS;
    for (int64_t p = 0; p < panels; p += step)
        for (int64_t c = 0; c < t->width; c += GEMM_COLUMNS)
            for (int64_t k = first; k < last; k += GEMM_ROWS)
                multiply_queries(b, weight + p * b->layout.score_stride + k * GEMM_COLUMNS,
                                 rows + c * b->layout.block + p * GEMM_COLUMNS * GEMM_COLUMNS,
                                 min64(step, panels - p), gradient + k * 3 * t->channels + c,
                                 last - k, t->width - c, add || p > 0);
}

/* A batch of pairs, by all threads of the team together. */
static void backward_batch(const struct backward *b, int64_t first_pair, int64_t pairs)
{
    const struct attention *t = &b->shape;
    const struct layout *l = &b->layout;
    int64_t ranges = ceil_divide(t->tokens, PACK_KEYS);
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < pairs * ranges; unit++)
        pack_keys(b, b->workspace + unit / ranges * l->floats, first_pair + unit / ranges,
                  unit % ranges * PACK_KEYS);
    for (int64_t block = 0; block < t->tokens; block += l->block) {
        int64_t queries = min64(l->block, t->tokens - block),
                chunks = ceil_divide(queries, QUERIES);
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < pairs * chunks; unit++)
            backward_queries(b, b->workspace + unit / chunks * l->floats,
                             first_pair + unit / chunks, block + unit % chunks * QUERIES);
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < pairs * ranges; unit++) {
            const float *kept = b->workspace + unit / ranges * l->floats;
            float *dk = b->dqkv + qkv_offset(t, first_pair + unit / ranges) + t->width;
            int64_t first = unit % ranges * PACK_KEYS, panels = ceil_divide(queries, GEMM_COLUMNS);
            backward_keys(b, kept + l->score_gradients, kept + l->query_rows, dk, first, panels,
                          block > 0);
            backward_keys(b, kept + l->probabilities, kept + l->output_gradient_rows, dk + t->width,
                          first, panels, block > 0);
        }
    }
}

void ISA_NAME(attention_backward)(const struct kernel_call *call)
{
    struct backward b = {.shape = attention_of(&call->input[1], call->attributes->attention.heads),
                         .d_o = call->input[0].data,
                         .qkv = call->input[1].data,
                         .o = call->input[2].data,
                         .lse = call->input[3].data,
                         .dqkv = call->output[0].data,
                         .workspace = call->workspace};
    b.layout = layout_of(&b.shape);
    b.batch = batch_of(&b.shape, &b.layout);
#pragma omp parallel num_threads(call->threads)
    for (int64_t pair = 0; pair < b.shape.pairs; pair += b.batch)
        backward_batch(&b, pair, min64(b.batch, b.shape.pairs - pair));
}
