#include "kernels/cuda/convolution.cuh"

DEFINE_LAUNCH_CONVOLUTION(OPERAND_TF32, float)
