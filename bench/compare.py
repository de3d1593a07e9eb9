"""Times the engine's networks against PyTorch's in one run: the same weights, the same number of
threads, one replay of each in turn, minima; then the peak memory of one inner iteration, each in a
process of its own. bench/run.sh builds what this needs.

    python bench/compare.py [--runs N] [--threads N] [--models ldm-vq4-256,ct-128] [--jobs a,b]

PyTorch is timed with the allocator settings that make it fastest on a CPU (it keeps memory instead
of returning it), and measured for memory without them.
"""

import argparse
import os
import subprocess
import sys

from server import ROOT, Server

TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "30000000000", "MALLOC_TOP_PAD_": "67108864"}
LABELS = {"inner": "inner iteration", "decoder": "decoder forward", "encoder": "encoder forward", "unet": "UNet forward", "unet_gradient": "UNet forward + backward"}


def paths(model):
    config = f"models/{model}/{model}.yaml"
    shipped = f"models/{model}/{model}.safetensors"
    return config, shipped if os.path.exists(os.path.join(ROOT, shipped)) else f"build/bench/{model}.safetensors"


def commands(model, threads):
    config, weights = paths(model)
    python = [sys.executable, "bench/pytorch.py", config, weights, str(threads)]
    if not os.path.exists(os.path.join(ROOT, weights)):
        subprocess.run(python + ["--make-weights"], cwd=ROOT, check=True)
    return ["build/bench/engine", config, weights, str(threads)], python


def time_model(model, jobs, runs, threads):
    engine_command, python_command = commands(model, threads)
    engine = Server(engine_command, {"OMP_WAIT_POLICY": "passive"})
    pytorch = Server(python_command, TUNED)
    print(f"{model}: engine {engine.name}, PyTorch {pytorch.name}, {threads} threads, minimum of {runs}, interleaved")
    for job in jobs:
        engine.ask(job), pytorch.ask(job)
        times = [(engine.ask(job)[0], pytorch.ask(job)[0]) for _ in range(runs)]
        ours, theirs = (min(t[i] for t in times) for i in (0, 1))
        print(f"  {LABELS[job]:23s} engine {ours:9.1f} ms   PyTorch {theirs:9.1f} ms   ratio {ours / theirs:5.2f}", flush=True)
    engine.close(), pytorch.close()


def measure_memory(model, threads):
    engine_command, python_command = commands(model, threads)
    peaks = []
    for command, job in ((engine_command, "inner"), (engine_command, "inner_least"), (python_command, "inner")):
        server = Server(command, {})
        times = [server.ask(job)[0] for _ in range(3)]
        peaks.append((*server.ask("memory"), min(times)))
        server.close()
    theirs = peaks[2][0]
    for name, (ours, plan, ms) in zip(("inner iteration", "  in the least memory"), peaks):
        print(f"  {name:23s} engine {ours / 1e6:9.1f} MB   PyTorch {theirs / 1e6:9.1f} MB   ratio {ours / theirs:5.2f}"
              f"   (engine's plan {plan / 1e6:.1f} MB, {ms:.1f} ms)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", default="ldm-vq4-256,ct-128")
    parser.add_argument("--jobs", default="inner,decoder,encoder,unet,unet_gradient")
    arguments = parser.parse_args()
    for model in arguments.models.split(","):
        time_model(model, arguments.jobs.split(","), arguments.runs, arguments.threads)
        measure_memory(model, arguments.threads)


if __name__ == "__main__":
    main()
