#include "kernels/cuda/convolution.cuh"

DEFINE_LAUNCH_CONVOLUTION(OPERAND_F16, float)
