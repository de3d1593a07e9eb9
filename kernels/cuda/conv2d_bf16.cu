#include "kernels/cuda/convolution.cuh"

DEFINE_LAUNCH_CONVOLUTION(OPERAND_BF16, float)
