"""Picture quality against work: every method on every held-out CT slice, with several seeds.

    python bench/quality.py run --data DIR [--threads N] [--methods a,b] [--slices head:43,..] [--seeds 0,1,2]
    python bench/quality.py report

DIR holds head_hu.npz, chest_hu.npz and abdomen_hu.npz (arrays `hu` [slices,256,256] in Hounsfield
units; weights.md says which series they are). `run` appends one line per solve to
bench/quality/results.jsonl and skips what is there already, so it may be stopped and started again at
any time. `report` prints the tables and draws bench/quality/quality.svg from that file.

The measurement is examples/ct/ct_25_views.yaml: 25 views, noise 0.01. A seed fixes the measurement's
noise and every draw, so methods are compared on the same measurements.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
RESULTS = os.path.join(ROOT, "bench", "quality", "results.jsonl")
FIGURE = os.path.join(ROOT, "bench", "quality", "quality.svg")

# Never trained on, nor are their two neighbours on each side (models/ct-128).
HELD_OUT = {"head": [*range(38, 50), *range(78, 88)], "chest": [*range(30, 40), *range(60, 70)], "abdomen": [*range(28, 38), *range(60, 68)]}
FIRST = ["head:43", "chest:35", "head:82", "abdomen:32"]

METHODS = {
    "official-50": "--preset official --ddim_steps 50",
    "official-500": "--preset official --ddim_steps 500",
    "paper-50": "--preset paper --ddim_steps 50",
    "paper-100": "--preset paper --ddim_steps 100",
    "fast-pixels": "--preset fast --latent-levels 0",
    "fast": "--preset fast",
    "fast-10": "--preset fast --iterations 10",
    "fast-mean4": "--preset fast --samples 4",
}


def all_slices():
    """The four best-known ones first, then the series in turn, so that a part of the run is balanced."""
    rest = {series: [f"{series}:{i}" for i in numbers if f"{series}:{i}" not in FIRST] for series, numbers in HELD_OUT.items()}
    order = list(FIRST)
    for i in range(max(map(len, rest.values()))):
        order += [names[i] for names in rest.values() if i < len(names)]
    return order


def read_results():
    if not os.path.exists(RESULTS):
        return []
    with open(RESULTS) as file:
        return [json.loads(line) for line in file]


def write_slice(data, name, path):
    """[1,1,128,128] in [-1,1]: clipped to [-1000, 1500] HU, averaged over 2x2 pixels."""
    import numpy

    series, index = name.split(":")
    hu = numpy.load(os.path.join(data, f"{series}_hu.npz"))["hu"][int(index)].astype(numpy.float64)
    x = (numpy.clip(hu, -1000, 1500) + 1000) / 1250 - 1
    x = x.reshape(128, 2, 128, 2).mean(axis=(1, 3))
    numpy.save(path, x.astype(numpy.float32)[None, None])


def solve(name, method, seed, data, threads):
    with tempfile.TemporaryDirectory() as folder:
        truth = os.path.join(folder, "truth.npy")
        write_slice(data, name, truth)
        command = ["build/resample", "solve", "--model", "models/ct-128", "--task_config", "examples/ct/ct_25_views.yaml",
                   "--input", truth, "--save_dir", os.path.join(folder, "out"), "--seed", str(seed), "--threads", str(threads)]
        subprocess.run(command + METHODS[method].split(), cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(os.path.join(folder, "out", "result.json")) as file:
            result = json.load(file)
    metrics = result["metrics"]
    return {"slice": name, "method": method, "seed": seed, "psnr_db": metrics["psnr_db"], "ssim": metrics["ssim"],
            "fbp_psnr_db": metrics["baseline"]["psnr_db"], "fbp_ssim": metrics["baseline"]["ssim"], **result["counts"],
            "seconds": result["seconds"], "threads": threads, "kernels": result["kernels"]}


def run(arguments):
    os.makedirs(os.path.dirname(RESULTS), exist_ok=True)
    slices = arguments.slices.split(",") if arguments.slices else all_slices()
    for seed in map(int, arguments.seeds.split(",")):
        for name in slices:
            for method in arguments.methods.split(","):
                if any((r["slice"], r["method"], r["seed"]) == (name, method, seed) for r in read_results()):
                    continue
                result = solve(name, method, seed, arguments.data, arguments.threads)
                with open(RESULTS, "a") as file:
                    file.write(json.dumps(result) + "\n")
                print(f"{name:11s} seed {seed}  {method:14s} {result['psnr_db']:6.2f} dB  FBP {result['fbp_psnr_db']:6.2f} dB"
                      f"  {result['decoder_evaluations']:5d} passes  {result['seconds']:6.1f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--data", required=True)
    runner.add_argument("--threads", type=int, default=2)
    runner.add_argument("--methods", default=",".join(METHODS))
    runner.add_argument("--slices", default="")
    runner.add_argument("--seeds", default="0,1,2")
    runner.set_defaults(run=run)
    arguments = parser.parse_args()
    arguments.run(arguments)


main()
