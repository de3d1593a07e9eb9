/* mma.sync and ldmatrix: the fragments by cuda.md 1.2 and 1.3, the arithmetic by 1.4 and 1.5. */
#include "tests/simt/internal.h"
#include "tests/simt/ptx.h"

#include <algorithm>
#include <math.h>
#include <string.h>

namespace simt
{

/* ---- numbers ---- */
/* significand * 2^(exponent - 10): all of tf32, f16 and bf16 fit. */
struct operand {
    int exponent, significand; /* with the sign */
    bool finite;
    float value;
};

static operand decode_bits(uint32_t f32_bits)
{
    operand operand;
    operand.value = __builtin_bit_cast(float, f32_bits);
    int field = f32_bits >> 23 & 0xff;
    operand.finite = field != 0xff;
    operand.exponent = std::max(field, 1) - 127;
    operand.significand = (f32_bits >> 13 & 0x3ff) | (field ? 0x400 : 0);
    if (f32_bits >> 31)
        operand.significand = -operand.significand;
    return operand;
}

/* f16 subnormals keep f16's least exponent: the model aligns products that are not normalised. */
static operand decode_f16(uint16_t bits)
{
    operand operand;
    operand.value = from_f16(bits);
    int field = bits >> 10 & 0x1f;
    operand.finite = field != 0x1f;
    operand.exponent = std::max(field, 1) - 15;
    operand.significand = (bits & 0x3ff) | (field ? 0x400 : 0);
    if (bits >> 15)
        operand.significand = -operand.significand;
    return operand;
}

/* sum * 2^exponent, cut toward zero to a float. */
static float cut_to_float(int64_t sum, int exponent)
{
    uint64_t magnitude = sum < 0 ? -static_cast<uint64_t>(sum) : sum;
    if (!magnitude)
        return 0;
    int top = 63 - __builtin_clzll(magnitude);
    int excess = std::max(top - 23, -149 - exponent); /* bits beyond a float's */
    if (excess > 0) {
        magnitude = excess > 63 ? 0 : magnitude >> excess;
        exponent += excess;
    }
    /* exact: 24 bits, and a double's exponents reach further than any float's */
    double scale = __builtin_bit_cast(double, static_cast<uint64_t>(exponent + 1023) << 52);
    float value = static_cast<float>(static_cast<double>(magnitude) * scale);
    return sum < 0 ? -value : value;
}

struct accumulation {
    int extra_bits, tf32_block, half_block, lowest_exponent;
};

static accumulation accumulation_of(int architecture)
{
    if (architecture >= 90 && architecture < 120)
        return {2, 8, 16, -133};
    return {1, 4, 8, -132};
}

/* Values that are not finite follow IEEE 754: what the cards do is not confirmed. */
static float add_special(const operand *a, const operand *b, int count, float accumulator)
{
    for (int i = 0; i < count; i++)
        accumulator += a[i].value * b[i].value;
    return accumulator;
}

static int64_t align(int64_t significand, int fraction_bits, int wanted_bits, int shift)
{
    int64_t magnitude = significand < 0 ? -significand : significand;
    magnitude = shift > 62 ? 0 : magnitude << (wanted_bits - fraction_bits) >> shift;
    return significand < 0 ? -magnitude : magnitude;
}

/* One block of the model: exact products, cut at the largest exponent, added, cut to a float. */
static float add_block(const operand *a, const operand *b, int count, float accumulator,
                       const accumulation &model)
{
    uint32_t bits = __builtin_bit_cast(uint32_t, accumulator);
    int field = bits >> 23 & 0xff;
    bool finite = field != 0xff;
    for (int i = 0; i < count; i++)
        finite = finite && a[i].finite && b[i].finite;
    if (!finite)
        return add_special(a, b, count, accumulator);
    int exponent = std::max(field, 1) - 127, largest = model.lowest_exponent;
    int64_t significand = (bits & 0x7fffff) | (field ? 0x800000 : 0);
    if (bits >> 31)
        significand = -significand;
    if (significand)
        largest = std::max(largest, exponent);
    for (int i = 0; i < count; i++)
        if (a[i].significand && b[i].significand)
            largest = std::max(largest, a[i].exponent + b[i].exponent);
    int fraction = 23 + model.extra_bits;
    int64_t sum = significand ? align(significand, 23, fraction, largest - exponent) : 0;
    for (int i = 0; i < count; i++) {
        int64_t product = static_cast<int64_t>(a[i].significand) * b[i].significand;
        if (product)
            sum += align(product, 20, fraction, largest - a[i].exponent - b[i].exponent);
    }
    return cut_to_float(sum, largest - fraction);
}

/* ---- fragments ---- */
struct shape {
    int depth;
    bool is_tf32, is_f16;
};

static shape shape_of(int number)
{
    switch (number) {
    case SIMT_M16N8K4_TF32:
        return {4, true, false};
    case SIMT_M16N8K8_TF32:
        return {8, true, false};
    case SIMT_M16N8K8_BF16:
        return {8, false, false};
    case SIMT_M16N8K8_F16:
        return {8, false, true};
    case SIMT_M16N8K16_BF16:
        return {16, false, false};
    default:
        return {16, false, true};
    }
}

enum { ROWS = 16, COLUMNS = 8, MAX_DEPTH = 16 };

struct fragments {
    operand a[ROWS][MAX_DEPTH], b[COLUMNS][MAX_DEPTH];
};

static void check_rounded(thread &thread, const uint32_t *registers, int count, place where)
{
    for (int i = 0; i < count; i++) {
        float value = __builtin_bit_cast(float, registers[i]);
        if (registers[i] & 0x1fff && value == value)
            report(SIMT_TENSOR_OPERAND, &thread, where, 0, "register %d holds %#x", i,
                   registers[i]);
    }
}

static void gather_tf32(thread &any, mma_operands *const lanes[WARP], int depth,
                        fragments &fragments)
{
    for (unsigned number = 0; number < WARP; number++) {
        int group = number >> 2, member = number & 3;
        const mma_operands &operands = *lanes[number];
        check_rounded(lane(any, number), operands.a, depth / 2, operands.where);
        check_rounded(lane(any, number), operands.b, depth / 4, operands.where);
        for (int i = 0; i < depth / 2; i++)
            fragments.a[group + 8 * (i & 1)][member + 4 * (i >> 1)] =
                decode_bits(operands.a[i] & 0xffffe000);
        for (int i = 0; i < depth / 4; i++)
            fragments.b[group][member + 4 * i] = decode_bits(operands.b[i] & 0xffffe000);
    }
}

static operand decode_half(uint32_t bits, int half, bool is_f16)
{
    uint16_t part = bits >> 16 * half;
    return is_f16 ? decode_f16(part) : decode_bits(uint32_t(part) << 16);
}

static void gather_halves(mma_operands *const lanes[WARP], const shape &shape, fragments &fragments)
{
    for (unsigned number = 0; number < WARP; number++) {
        int group = number >> 2, member = number & 3;
        for (int r = 0; r < shape.depth / 4; r++)
            for (int half = 0; half < 2; half++)
                fragments.a[group + 8 * (r & 1)][2 * member + half + 8 * (r >> 1)] =
                    decode_half(lanes[number]->a[r], half, shape.is_f16);
        for (int r = 0; r < shape.depth / 8; r++)
            for (int half = 0; half < 2; half++)
                fragments.b[group][2 * member + half + 8 * r] =
                    decode_half(lanes[number]->b[r], half, shape.is_f16);
    }
}

/* tf32 with sums in double, rounded once: for whole solves, where the cards' own rounding would cost
 * minutes. */
static void run_tf32_in_double(mma_operands *const lanes[WARP], int depth)
{
    float a[ROWS][MAX_DEPTH], b[MAX_DEPTH][COLUMNS];
    double sums[ROWS][COLUMNS];
    for (unsigned number = 0; number < WARP; number++) {
        int group = number >> 2, member = number & 3;
        const mma_operands &operands = *lanes[number];
        for (int i = 0; i < depth / 2; i++)
            a[group + 8 * (i & 1)][member + 4 * (i >> 1)] =
                __builtin_bit_cast(float, operands.a[i]);
        for (int i = 0; i < depth / 4; i++)
            b[member + 4 * i][group] = __builtin_bit_cast(float, operands.b[i]);
        for (int i = 0; i < 4; i++)
            sums[group + 8 * (i >> 1)][2 * member + (i & 1)] = operands.accumulator[i];
    }
    for (int row = 0; row < ROWS; row++)
        for (int k = 0; k < depth; k++)
            for (int column = 0; column < COLUMNS; column++)
                sums[row][column] += static_cast<double>(a[row][k]) * b[k][column];
    for (unsigned number = 0; number < WARP; number++)
        for (int i = 0; i < 4; i++)
            lanes[number]->accumulator[i] = static_cast<float>(
                sums[(number >> 2) + 8 * (i >> 1)][2 * (number & 3) + (i & 1)]);
}

void run_mma(thread &any, mma_operands *const lanes[WARP])
{
    static fragments fragments;
    shape shape = shape_of(lanes[0]->shape);
    if (!ROUNDS_AS_CARDS && shape.is_tf32) {
        run_tf32_in_double(lanes, shape.depth);
        return;
    }
    if (shape.is_tf32)
        gather_tf32(any, lanes, shape.depth, fragments);
    else
        gather_halves(lanes, shape, fragments);
    accumulation model = accumulation_of(M.options.architecture);
    int block = std::min(shape.is_tf32 ? model.tf32_block : model.half_block, shape.depth);
    for (unsigned number = 0; number < WARP; number++)
        for (int i = 0; i < 4; i++) {
            int row = (number >> 2) + 8 * (i >> 1), column = 2 * (number & 3) + (i & 1);
            float sum = lanes[number]->accumulator[i];
            for (int k = 0; k < shape.depth; k += block)
                sum = add_block(&fragments.a[row][k], &fragments.b[column][k], block, sum, model);
            lanes[number]->accumulator[i] = sum;
        }
    M.counters.tensor_instructions++;
    M.counters.tensor_multiply_adds += ROWS * COLUMNS * shape.depth;
}

/* ---- ldmatrix ---- */
void run_load_matrices(thread &any, matrix_rows *const lanes[WARP])
{
    enum : unsigned { MATRIX = 8, ROW_BYTES = 16 };
    static uint16_t rows[WARP][MATRIX];
    unsigned count = lanes[0]->count * MATRIX;
    for (unsigned i = 0; i < count; i++) {
        if (WATCHED && !is_shared(lanes[i]->row)) {
            report(SIMT_SHARED_BOUNDS, &lane(any, i), lanes[i]->where, 0, "ldmatrix from %p",
                   lanes[i]->row);
            abandon_launch();
        }
        watch(lane(any, i), {reinterpret_cast<uintptr_t>(lanes[i]->row), ROW_BYTES, effect::load,
                             lanes[i]->where});
        memcpy(rows[i], lanes[i]->row, ROW_BYTES);
    }
    for (unsigned number = 0; number < WARP; number++)
        for (unsigned matrix = 0; matrix < lanes[0]->count; matrix++) {
            const uint16_t(*block)[MATRIX] = &rows[matrix * MATRIX];
            unsigned row = number >> 2, column = 2 * (number & 3);
            uint16_t low = lanes[0]->transposed ? block[column][row] : block[row][column];
            uint16_t high = lanes[0]->transposed ? block[column + 1][row] : block[row][column + 1];
            lanes[number]->registers[matrix] = uint32_t(high) << 16 | low;
        }
}

} // namespace simt

/* ---- conversions ---- */
uint32_t to_tf32(float value)
{
    uint32_t bits = __builtin_bit_cast(uint32_t, value);
    if ((bits & 0x7fffffff) < 0x7f800000)
        bits += 0x1000;
    return bits & 0xffffe000;
}

uint16_t to_bf16(float value)
{
    uint32_t bits = __builtin_bit_cast(uint32_t, value);
    if (value != value)
        return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

uint16_t to_f16(float value)
{
    uint32_t bits = __builtin_bit_cast(uint32_t, value);
    uint16_t sign = bits >> 16 & 0x8000;
    float magnitude = fabsf(value);
    if (value != value)
        return 0x7fff;
    if (magnitude >= 65520)
        return sign | 0x7c00;
    if (magnitude < 0x1p-14f)
        return sign | static_cast<uint16_t>(lrintf(magnitude * 0x1p24f));
    uint32_t rebiased = (bits & 0x7fffffff) - (112u << 23);
    return sign | static_cast<uint16_t>((rebiased + 0xfff + (rebiased >> 13 & 1)) >> 13);
}

float from_bf16(uint16_t bits)
{
    return __builtin_bit_cast(float, uint32_t(bits) << 16);
}

float from_f16(uint16_t bits)
{
    int field = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
    float value = field == 0x1f ? (fraction ? NAN : INFINITY)
                                : ldexpf((field ? 0x400 : 0) | fraction, std::max(field, 1) - 25);
    return bits >> 15 ? -value : value;
}
