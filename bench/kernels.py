"""Times the engine's kernels one by one against PyTorch's in one run: each in turn, minima.

    python bench/kernels.py [--runs N] [--threads N] [--only TEXT] [--stages]

bench/run.sh kernels builds what this needs. A line is a shape and a direction: the engine's
milliseconds, what a direct convolution would do in that time in GFLOP/s, the multiply-adds really
executed as a share of the peak (measured in the same run, registers alone), PyTorch's milliseconds, the ratio.
--stages adds what each stage of a Winograd convolution takes alone, and the products' share of the peak.
PyTorch's backward is that to the input alone; its attention is the faster of the fused one and of the
official code's two batched products around a softmax; its quantiser is the official code's.
"""

import argparse
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import torch
import torch.nn.functional as F
from server import Server


class Case:
    def __init__(self, index, line):
        self.index = index
        fields = line.split(";")
        self.name, self.kind = fields[:2]
        self.h, self.w, self.channels, self.outputs, self.kernel, self.stride, self.upsample = map(int, fields[2:])

    def direct_gflop(self):
        scale = self.upsample / self.stride if self.kind == "conv2d" else 0
        return 2e-9 * self.h * self.w * scale**2 * self.channels * self.outputs * self.kernel**2


def convolution(case, x):
    weight, bias = torch.randn(case.outputs, case.channels, case.kernel, case.kernel) * 0.01, torch.randn(case.outputs)

    def run(x):
        if case.upsample == 2:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        if case.stride == 2:
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, bias, stride=2)
        return F.conv2d(x, weight, bias, padding=case.kernel // 2)

    return [run], x


def group_norm(case, x):
    weight, bias = torch.randn(case.channels), torch.randn(case.channels)
    return [lambda x: F.silu(F.group_norm(x, 32, weight, bias, 1e-6))], x


def attention(case, x):
    heads, width = case.outputs, case.channels // case.outputs
    qkv = torch.randn(3, 1, heads, case.h * case.w, width)

    def products(qkv):
        q, k, v = qkv
        return (q @ k.transpose(-1, -2) * width**-0.5).softmax(-1) @ v

    return [lambda qkv: F.scaled_dot_product_attention(*qkv), products], qkv


def vector_quantize(case, x):
    codes = torch.randn(case.outputs, case.channels)

    def run(x):
        z = x.permute(0, 2, 3, 1).reshape(-1, case.channels)
        distance = (z**2).sum(1, keepdim=True) + (codes**2).sum(1) - 2 * torch.einsum("bd,dn->bn", z, codes.t())
        return codes[distance.argmin(1)]

    return [run], x


KINDS = {f.__name__: f for f in (convolution, group_norm, attention, vector_quantize)}
KINDS["conv2d"] = convolution


class PyTorch:
    """A case's ways to do it; run() is the fastest one's milliseconds."""

    def __init__(self, case, backward):
        self.ways, self.x = KINDS[case.kind](case, torch.randn(1, case.channels, case.h, case.w))
        if backward:
            self.x.requires_grad_()
            self.ways = [self.gradient(way(self.x)) for way in self.ways]

    def gradient(self, y):
        dy = torch.randn_like(y)
        return lambda x: torch.autograd.grad(y, x, dy, retain_graph=True)

    def run(self):
        best = float("inf")
        for way in self.ways:
            with torch.set_grad_enabled(self.x.requires_grad):
                begin = time.perf_counter()
                way(self.x)
                best = min(best, 1e3 * (time.perf_counter() - begin))
        return best


def show(engine, case, backward, runs, peak, stages):
    engine.send(f"open {case.index} {int(backward)}")
    executed, packed_mb, form = engine.line().split(" ", 2)
    pytorch = PyTorch(case, backward)
    engine.ask("run"), pytorch.run()
    ours, theirs = map(min, zip(*[(engine.ask("run")[0], pytorch.run()) for _ in range(runs)]))
    work = float(executed)
    text = f"{case.name:27s} {'backward' if backward else 'forward ':8s} {form:9s} {float(packed_mb):6.1f} MB {ours:8.2f} ms"
    text += f" {case.direct_gflop() / ours * 1e3:6.0f} GF/s direct" if case.direct_gflop() else " " * 19
    text += f" {100 * work / ours * 1e3 / peak:4.0f} % of peak" if work else " " * 15
    print(f"{text}   PyTorch {theirs:8.2f} ms   ratio {ours / theirs:5.2f}")
    if stages and form not in ("direct", "-"):
        transpose, inputs, products, outputs = map(min, zip(*[engine.ask("stages") for _ in range(runs)]))
        print(f"    weight transposed whole {transpose:.2f} ms, input transform {inputs:.2f} ms, products {products:.2f} ms"
              f" ({100 * work / products * 1e3 / peak:.0f} % of peak), output transform {outputs:.2f} ms")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--stages", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    engine = Server(["build/bench/kernels", str(arguments.threads)], {"OMP_WAIT_POLICY": "passive"})
    peak = engine.ask("peak")[0]
    print(f"engine {engine.name}, PyTorch {torch.__version__}, {arguments.threads} threads, peak {peak:.0f} GFLOP/s, minimum of {arguments.runs}, interleaved")
    engine.send("list")
    cases = [Case(i, engine.line()) for i in range(int(engine.line()))]
    for case in cases:
        if arguments.only in case.name:
            for backward in (False, True)[: 1 if case.kind == "vector_quantize" else 2]:
                show(engine, case, backward, arguments.runs, peak, arguments.stages)
    engine.close()


main()
