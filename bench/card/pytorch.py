"""PyTorch's times of the convolutions that `convolutions ... list` lists: reads the list, and writes a line
of milliseconds for each shape: forward f32, backward f32, forward tf32, backward tf32.

    python bench/card/pytorch.py [DEVICE] <LIST >TIMES          (DEVICE: cuda)

The faster of both memory layouts, cuDNN's choice by its own trials. A picture that is upsampled or padded on one
side alone is given ready.
"""

import sys
import time

import torch
import torch.nn.functional as F


def milliseconds(call, device, repetitions=5):
    """The least of several batches, after one call that does not count."""
    def batch(count):
        if device == "cpu":
            begin = time.perf_counter()
            for _ in range(count):
                call()
            return 1e3 * (time.perf_counter() - begin)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    batch(1)
    count = max(1, int(2 / max(batch(1), 0.01)))
    return min(batch(count) / count for _ in range(repetitions))


def times(shape, device):
    n, h, w, inputs, outputs, kernel_h, kernel_w, stride, top, left, bottom, right, upsample = shape
    symmetric = top == bottom and left == right
    height, width = (h * upsample, w * upsample) if symmetric else (h * upsample + top + bottom, w * upsample + left + right)
    padding = (top, left) if symmetric else (0, 0)
    least = [float("inf")] * 2
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.rand(n, inputs, height, width, device=device).to(memory_format=layout)
        weight = torch.rand(outputs, inputs, kernel_h, kernel_w, device=device).to(memory_format=layout)
        bias = torch.rand(outputs, device=device)
        dy = F.conv2d(x, weight, bias, stride, padding)

        def forward():
            F.conv2d(x, weight, bias, stride, padding)

        def backward():
            torch.ops.aten.convolution_backward(dy, x, weight, None, (stride, stride), padding, (1, 1), False, (0, 0), 1, (True, False, False))

        for i, call in enumerate((forward, backward)):
            least[i] = min(least[i], milliseconds(call, device))
    return least


def main():
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    torch.backends.cudnn.benchmark = True
    with torch.no_grad():
        for line in sys.stdin:
            row = []
            for tf32 in (False, True):
                torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
                row += times([int(number) for number in line.split()], device)
            print(*(f"{ms:.5f}" for ms in row), flush=True)


main()
