#include "kernels/cuda/convolution.cuh"

DEFINE_LAUNCH_CONVOLUTION(OPERAND_3XTF32, float)
