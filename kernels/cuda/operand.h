/* How the tensor cores see the f32 operands of a product. */
#ifndef KERNELS_CUDA_OPERAND_H
#define KERNELS_CUDA_OPERAND_H

enum operand {
    OPERAND_3XTF32, /* as sums of two tf32 numbers: f32-grade, and what "f32" means */
    OPERAND_TF32,
    OPERAND_BF16,
    OPERAND_F16,
    OPERAND_COUNT
};

#endif
