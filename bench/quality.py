"""Picture quality against work: every method on every held-out CT slice, with several seeds.

    python bench/quality.py run --data DIR [--threads N] [--methods a,b] [--slices head:43,..] [--seeds 0,1,2]
    python bench/quality.py report [--slices head:43,..]
    python bench/quality.py robustness --data DIR [--slices head:43] [--threads N]

DIR holds head_hu.npz, chest_hu.npz and abdomen_hu.npz (arrays `hu` [slices,256,256] in Hounsfield
units; weights.md says which series they are). `run` appends one line per solve to
bench/quality/results.jsonl and skips what is there already, so it may be stopped and started again at
any time. `report` prints the tables and draws bench/quality/quality.svg from that file. `robustness`
solves one slice under other noise, other geometries and other operators with the fast preset.

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


def run_engine(name, data, flags, task="examples/ct/ct_25_views.yaml"):
    """result.json of one solve."""
    with tempfile.TemporaryDirectory() as folder:
        truth = os.path.join(folder, "truth.npy")
        write_slice(data, name, truth)
        command = ["build/resample", "solve", "--model", "models/ct-128", "--task_config", task,
                   "--input", truth, "--save_dir", os.path.join(folder, "out")]
        subprocess.run(command + flags, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(os.path.join(folder, "out", "result.json")) as file:
            return json.load(file)


def solve(name, method, seed, data, threads):
    result = run_engine(name, data, METHODS[method].split() + ["--seed", str(seed), "--threads", str(threads)])
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


def robustness(arguments):
    operators = {f"CT, {views} views": f"name: ct_radon\n    views: {views}" for views in (10, 25, 60)}
    operators["random mask, 70 % hidden"] = "name: inpainting\n  mask_opt:\n    mask_type: random\n    mask_prob_range: [0.7, 0.71]\n    image_size: 128"
    operators["Gaussian blur, deviation 3"] = "name: gaussian_blur\n    kernel_size: 61\n    intensity: 3.0"
    operators["super-resolution x4"] = "name: super_resolution\n    scale_factor: 4"
    cases = [("CT, 25 views", sigma) for sigma in (0, 0.01, 0.05, 0.1)] + [(name, 0.01) for name in operators if name != "CT, 25 views"]
    print("| operator | sigma | baseline dB | fast dB | steps shortened | passes forward + VJP + JVP |\n|---|---|---|---|---|---|")
    for name, sigma in cases:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as task:
            task.write(f"measurement:\n  operator:\n    {operators[name]}\n  noise:\n    name: gaussian\n    sigma: {sigma}\n")
            task.flush()
            result = run_engine(arguments.slices, arguments.data, ["--preset", "fast", "--threads", str(arguments.threads)], task.name)
        metrics, counts = result["metrics"], result["counts"]
        baseline = metrics.get("baseline", {"psnr_db": math.nan})
        print(f"| {name} | {sigma} | {baseline['psnr_db']:.2f} | {metrics['psnr_db']:.2f} | {counts['shortened_steps']}"
              f" | {counts['decoder_evaluations']} + {counts['decoder_vjps']} + {counts['decoder_jvps']} |", flush=True)


def mean_and_error(values):
    """Mean and its standard error (0 for one value)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def products(row):
    """Decoder passes: forward, vector-Jacobian and Jacobian-vector products, each counted."""
    return row["decoder_evaluations"] + row["decoder_vjps"] + row["decoder_jvps"]


def by_slice(rows, key):
    """The mean over seeds of each slice: the slices are what the standard error is over."""
    groups = {}
    for row in rows:
        groups.setdefault(row["slice"], []).append(row[key])
    return {name: sum(values) / len(values) for name, values in groups.items()}


def print_table(rows):
    print("| method | slices | solves | PSNR dB | SSIM | over FBP dB | over official-50 dB, same slices (least) | decoder passes: forward + VJP + JVP | encoder | UNet | core seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    official = by_slice([r for r in rows if r["method"] == "official-50"], "psnr_db")
    for method in METHODS:
        own = [r for r in rows if r["method"] == method]
        if not own:
            continue
        psnr = by_slice(own, "psnr_db")
        mean, error = mean_and_error(list(psnr.values()))
        fbp = by_slice(own, "fbp_psnr_db")
        gain = [psnr[name] - official[name] for name in psnr if name in official]
        paired = "-" if method == "official-50" or not gain else "{:+.2f} ± {:.2f}, n={} ({:+.2f})".format(*mean_and_error(gain), len(gain), min(gain))
        average = lambda key: sum(r[key] for r in own) / len(own)
        print(f"| {method} | {len(psnr)} | {len(own)} | {mean:.2f} ± {error:.2f} | {average('ssim'):.3f} | {mean - sum(fbp.values()) / len(fbp):+.2f} | {paired}"
              f" | {average('decoder_evaluations'):.0f} + {average('decoder_vjps'):.0f} + {average('decoder_jvps'):.0f}"
              f" | {average('encoder_evaluations'):.0f} | {average('unet_evaluations'):.0f} | {sum(r['seconds'] * r['threads'] for r in own) / len(own):.0f} |")


def print_slices(rows):
    names = [name for name in all_slices() if any(r["slice"] == name for r in rows)]
    used = [m for m in METHODS if any(r["method"] == m for r in rows)]
    print("\n| slice | FBP | " + " | ".join(used) + " |\n|" + "---|" * (len(used) + 2))
    for name in names:
        own = [r for r in rows if r["slice"] == name]
        cells = []
        for method in used:
            values = [r["psnr_db"] for r in own if r["method"] == method]
            cells.append(f"{sum(values) / len(values):.2f} ({len(values)})" if values else "")
        print(f"| {name} | {sum(r['fbp_psnr_db'] for r in own) / len(own):.2f} | " + " | ".join(cells) + " |")


def draw(rows, path):
    """Mean PSNR against decoder passes on the slices that every drawn method has: those methods that
    have been run on at least four."""
    slices = {m: {r["slice"] for r in rows if r["method"] == m} for m in METHODS}
    used = [m for m in METHODS if len(slices[m]) >= 4]
    common = set.intersection(*(slices[m] for m in used)) if used else set()
    if not common:
        return
    points = []
    for method in used:
        own = [r for r in rows if r["method"] == method and r["slice"] in common]
        passes = sum(map(products, own)) / len(own)
        points.append((method, passes, *mean_and_error(list(by_slice(own, "psnr_db").values()))))
    low, high = math.floor(min(p[2] - p[3] for p in points)), math.ceil(max(p[2] + p[3] for p in points))
    least, most = 10 ** math.floor(math.log10(min(p[1] for p in points))), 10 ** math.ceil(math.log10(max(p[1] for p in points)))
    x = lambda passes: 70 + 600 * math.log(passes / least) / math.log(most / least)
    y = lambda psnr: 340 - 300 * (psnr - low) / (high - low)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 400" font-family="sans-serif" font-size="13">', '<rect width="760" height="400" fill="white"/>']
    for psnr in range(low, high + 1):
        out.append(f'<path d="M70 {y(psnr):.1f}H670" stroke="#ddd"/><text x="60" y="{y(psnr) + 4:.1f}" text-anchor="end">{psnr}</text>')
    decade = least
    while decade <= most:
        out.append(f'<path d="M{x(decade):.1f} 40V340" stroke="#ddd"/><text x="{x(decade):.1f}" y="360" text-anchor="middle">{decade}</text>')
        decade *= 10
    out.append('<text x="370" y="385" text-anchor="middle">decoder passes (forward, VJP and JVP each counted)</text>')
    out.append(f'<text x="70" y="25">mean PSNR in dB, {len(common)} held-out slices, 25 views; bars: standard error over slices</text>')
    for method, passes, mean, error in points:
        color = "#c0392b" if method.startswith("fast") else "#2c3e50"
        out.append(f'<path d="M{x(passes):.1f} {y(mean - error):.1f}V{y(mean + error):.1f}" stroke="{color}"/>'
                   f'<circle cx="{x(passes):.1f}" cy="{y(mean):.1f}" r="5" fill="{color}"/><text x="{x(passes) + 9:.1f}" y="{y(mean) - 7:.1f}" fill="{color}">{method}</text>')
    with open(path + ".part", "w") as file:
        file.write("\n".join(out) + "\n</svg>\n")
    os.rename(path + ".part", path)


def report(arguments):
    rows = [r for r in read_results() if not arguments.slices or r["slice"] in arguments.slices.split(",")]
    if not rows:
        sys.exit(f"quality: no results in {RESULTS}; `run` makes them")
    print_table(rows)
    print_slices(rows)
    draw(rows, FIGURE)


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
    reporter = commands.add_parser("report")
    reporter.add_argument("--slices", default="")
    reporter.set_defaults(run=report)
    robust = commands.add_parser("robustness")
    robust.add_argument("--data", required=True)
    robust.add_argument("--slices", default="head:43")
    robust.add_argument("--threads", type=int, default=2)
    robust.set_defaults(run=robustness)
    arguments = parser.parse_args()
    arguments.run(arguments)


main()
