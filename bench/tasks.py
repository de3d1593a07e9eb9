"""The shipped models against the simple baseline of each task at its best, on held-out pictures.

    python bench/tasks.py run --data DATA [--tasks a,b] [--threads N] [--limit N] [--ct MODEL] [--photo MODEL]
    python bench/tasks.py report [--against FILE]
    python bench/tasks.py sheets | picture

DATA holds ct/ and photo/ as tools/data/ct.py and tools/data/photos.py write them. `run` appends one line per picture to
bench/quality/tasks.jsonl (or --results FILE) and skips what is there already; it keeps the pictures in build/sheets. `report` prints the table: means, and paired
differences with their standard errors; against the results of other models, theirs too. `sheets` writes build/sheets/TASK.png: truth, baseline
and reconstruction of six of the pictures that `run` kept, in rows; `picture` docs/photos.png, one for each task of photographs. Needs numpy, scipy and pillow.

Baselines: CT, filtered back-projection with the window (Ram-Lak, Shepp-Logan, cosine, Hamming, Hann, each
cut off at 1, 0.8, 0.6 or 0.4 of the highest frequency) that is best on training slices; super-resolution, bicubic enlargement; inpainting, the
nearest visible pixel; deblurring, Wiener's filter with the noise-to-signal ratio that is best on training pictures.
"""

import argparse
import glob
import json
import math
import os
import subprocess
import tempfile

import numpy as np

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
RESULTS = os.path.join(ROOT, "bench", "quality", "tasks.jsonl")
SHEETS = os.path.join(ROOT, "build", "sheets")
SIDE, TUNING, SHEET_ROWS, GAP = 128, 12, 6, 8
SHOWN = {"super-resolution-4": "dogs_1", "inpainting-random": "wine_1", "inpainting-box": "aitzgorri_1", "gaussian-deblurring": "brushes_1"}

TASKS = {
    "ct-25": ("ct", "examples/ct/ct_25_views.yaml"),
    "super-resolution-4": ("photo", "examples/photo/super_resolution_x4.yaml"),
    "inpainting-random": ("photo", "examples/photo/inpainting_random.yaml"),
    "inpainting-box": ("photo", "examples/photo/inpainting_box.yaml"),
    "gaussian-deblurring": ("photo", "examples/photo/gaussian_deblur.yaml"),
}


def engine(*words):
    subprocess.run([os.path.join(ROOT, "build", "resample"), *map(str, words)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def read_picture(path):
    """[C,H,W] in [-1,1]; of a slice [1,128,128]."""
    if path.endswith(".npy"):
        return np.load(path).astype(np.float32).reshape(-1, SIDE, SIDE)
    from PIL import Image

    picture = np.asarray(Image.open(path).convert("RGB"), np.float32) / 127.5 - 1
    return picture.transpose(2, 0, 1)


def middle(picture):
    top, left = ((n - SIDE) // 2 for n in picture.shape[1:])
    return picture[:, top : top + SIDE, left : left + SIDE]


def held_out(kind, data):
    """As many of each kind, spread over the series."""
    if kind == "photo":
        return sorted(glob.glob(os.path.join(data, "photo", "test", "*.png")))
    series = [sorted(glob.glob(os.path.join(data, "ct", "held_out", name, "*.npy"))) for name in ("head", "chest")]
    return [paths[i] for paths in series for i in range(0, len(paths), 2)]


def training(kind, data):
    """A few pictures to tune baselines on: slices, or the middles of photographs at the test crops' scale."""
    pattern = ("photo", "train", "*_256.png") if kind == "photo" else ("ct", "train", "*", "*.npy")
    paths = sorted(glob.glob(os.path.join(data, *pattern)))
    return [middle(read_picture(paths[i * len(paths) // TUNING])) for i in range(TUNING)]


def psnr(truth, picture):
    return 10 * math.log10(4 / np.mean((truth.astype(np.float64) - np.clip(picture, -1, 1)) ** 2))


def ssim(truth, picture):
    """scikit-image's default: uniform 7x7, sample covariance, whole windows (metrics.md)."""
    from scipy.ndimage import uniform_filter

    total = []
    for a, b in zip((truth + 1.0) / 2, (np.clip(picture, -1, 1) + 1.0) / 2):
        mean = lambda x: uniform_filter(x, 7)[3:-3, 3:-3]
        ma, mb = mean(a), mean(b)
        va, vb, vab = (49 / 48 * (mean(x) - m) for x, m in ((a * a, ma * ma), (b * b, mb * mb), (a * b, ma * mb)))
        total.append(np.mean((2 * ma * mb + 1e-4) * (2 * vab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))))
    return float(np.mean(total))


class Case:
    """One picture under one task: files in a folder of its own."""

    def __init__(self, folder, task, truth, seed):
        self.folder, self.task, self.truth, self.seed = folder, TASKS[task][1], truth, seed
        np.save(self.path("truth.npy"), truth[None])
        engine("measure", "--task_config", self.task, "--input", self.path("truth.npy"), "--output", self.path("y.npy"), "--seed", seed)
        self.y = np.load(self.path("y.npy"))

    def path(self, name):
        return os.path.join(self.folder, name)

    def adjoint(self, y):
        np.save(self.path("in.npy"), y.astype(np.float32))
        engine("adjoint", "--task_config", self.task, "--input", self.path("in.npy"), "--shape", ",".join(map(str, self.truth.shape)),
               "--output", self.path("out.npy"), "--seed", self.seed)
        return np.load(self.path("out.npy"))[0]

    def solve(self, model, threads):
        engine("solve", "--model", model, "--task_config", self.task, "--measurement", self.path("y.npy"), "--input", self.path("truth.npy"),
               "--save_dir", self.path("solve"), "--seed", self.seed, "--threads", threads)
        with open(self.path("solve/result.json")) as file:
            return np.load(self.path("solve/recon.npy"))[0], json.load(file)


WINDOWS = {
    "Ram-Lak": lambda f: 1 + 0 * f,
    "Shepp-Logan": lambda f: np.sinc(f / 2),
    "cosine": lambda f: np.cos(np.pi * f / 2),
    "Hamming": lambda f: 0.54 + 0.46 * np.cos(np.pi * f),
    "Hann": lambda f: 0.5 + 0.5 * np.cos(np.pi * f),
}


def filtered_back_projection(case, choice):
    """operators.md 6.4: ray sums y*H/2 of (x+1)/2, the ramp in space as the engine has it, and a window on its spectrum."""
    window, cutoff = choice
    views, detectors = case.y.shape[2:]
    size = 1 << (2 * detectors - 1).bit_length()
    n = np.concatenate([np.arange(size // 2), np.arange(-size // 2, 0)])
    ramp = np.where(n % 2 == 1, -2 / (np.pi * np.where(n == 0, 1, n)) ** 2, 0.0)
    ramp[0] = 0.5
    frequency = np.abs(np.fft.fftfreq(size)) / 0.5 / cutoff
    response = np.real(np.fft.fft(ramp)) * np.where(frequency <= 1, WINDOWS[window](np.minimum(frequency, 1)), 0)
    filtered = np.real(np.fft.ifft(np.fft.fft(case.y[0, 0] * (SIDE / 2), size) * response))[:, :detectors]
    place = np.arange(SIDE) - (SIDE - 1) / 2
    picture = np.zeros((SIDE, SIDE))
    for view, projection in enumerate(filtered):
        angle = np.pi * view / views
        detector = np.cos(angle) * place[None, :] - np.sin(angle) * place[:, None] + (detectors - 1) / 2
        picture += np.interp(detector, np.arange(-1, detectors + 1), np.pad(projection, 1))
    return 2 * picture[None] * np.pi / (2 * views) - 1


def bicubic(case, choice):
    from PIL import Image

    return np.stack([np.asarray(Image.fromarray(channel).resize((SIDE, SIDE), Image.BICUBIC)) for channel in case.y[0]])


def nearest_pixel(case, choice):
    from scipy.ndimage import distance_transform_edt

    mask = case.adjoint(np.ones_like(case.y))[0] > 0.5
    rows, columns = distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return case.y[0][:, rows, columns]


def wiener(case, choice):
    pad, radius = 64, np.arange(-30, 31)
    padded = np.pad(case.y[0], ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    taps = np.exp(-(radius**2) / (2 * 3.0**2))
    line = np.zeros(padded.shape[1])
    line[radius] = taps / taps.sum()
    response = np.real(np.fft.fft(line))
    h = response[:, None] * response[None, :]
    restored = np.real(np.fft.ifft2(np.fft.fft2(padded) * h / (h**2 + choice)))
    return restored[:, pad:-pad, pad:-pad]


BASELINES = {
    "ct-25": (filtered_back_projection, [(window, cutoff) for window in WINDOWS for cutoff in (1, 0.8, 0.6, 0.4)]),
    "super-resolution-4": (bicubic, [None]),
    "inpainting-random": (nearest_pixel, [None]),
    "inpainting-box": (nearest_pixel, [None]),
    "gaussian-deblurring": (wiener, [float(k) for k in np.logspace(-4.5, -1, 29)]),
}


def tune(task, data):
    """The baseline's choice with the best mean PSNR over training pictures."""
    baseline, choices = BASELINES[task]
    if len(choices) == 1:
        return choices[0]
    scores = np.zeros(len(choices))
    for seed, picture in enumerate(training(TASKS[task][0], data)):
        with tempfile.TemporaryDirectory() as folder:
            case = Case(folder, task, picture, 1000 + seed)
            scores += [psnr(case.truth, baseline(case, choice)) for choice in choices]
    return choices[int(np.argmax(scores))]


def read_results(path):
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file]


def keep_row(task, name, pictures):
    from PIL import Image

    folder = os.path.join(SHEETS, task)
    os.makedirs(folder, exist_ok=True)
    row = np.clip((np.concatenate(pictures, axis=2) + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)
    Image.fromarray(row.transpose(1, 2, 0).squeeze()).save(os.path.join(folder, name.replace("/", "_").rpartition(".")[0] + ".png"))


def solve_one(task, path, name, seed, choice, arguments):
    with tempfile.TemporaryDirectory() as folder:
        case = Case(folder, task, read_picture(path), seed)
        simple = BASELINES[task][0](case, choice)
        picture, result = case.solve(arguments.ct if TASKS[task][0] == "ct" else arguments.photo, arguments.threads)
        keep_row(task, name, [case.truth, simple, picture])
        return {"task": task, "picture": name, "seed": seed,
                "baseline_choice": choice, "baseline_psnr_db": psnr(case.truth, simple), "baseline_ssim": ssim(case.truth, simple),
                "psnr_db": psnr(case.truth, picture), "ssim": ssim(case.truth, picture),
                "decoder_evaluations": result["counts"]["decoder_evaluations"], "seconds": result["seconds"]}


def run(arguments):
    for task in arguments.tasks.split(","):
        done = {r["picture"] for r in read_results(arguments.results) if r["task"] == task}
        choice = None
        for seed, path in enumerate(held_out(TASKS[task][0], arguments.data)[: arguments.limit]):
            name = os.path.basename(os.path.dirname(path)) + "/" + os.path.basename(path)
            if name in done:
                continue
            choice = choice or tune(task, arguments.data)
            result = solve_one(task, path, name, seed, choice, arguments)
            with open(arguments.results, "a") as file:
                file.write(json.dumps(result) + "\n")
            print(f"{task:20s} {name:24s} baseline {result['baseline_psnr_db']:6.2f} dB  ReSample {result['psnr_db']:6.2f} dB", flush=True)


def mean_and_error(values):
    return np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values))


def report(arguments):
    print("| task | pictures | baseline | its PSNR | its SSIM | ReSample PSNR | SSIM | PSNR gain | SSIM gain | better on |\n|---|---|---|---|---|---|---|---|---|---|")
    for task in TASKS:
        rows = [r for r in read_results(arguments.results) if r["task"] == task]
        if len(rows) < 2:
            continue
        column = lambda key: np.array([r[key] for r in rows])
        gain, error = mean_and_error(column("psnr_db") - column("baseline_psnr_db"))
        gain_ssim, error_ssim = mean_and_error(column("ssim") - column("baseline_ssim"))
        name = BASELINES[task][0].__name__.replace("_", " ")
        choice = rows[0]["baseline_choice"]
        name += "" if choice is None else f" ({choice[0]}, {choice[1]:g})" if isinstance(choice, list) else f" ({choice:.2g})"
        print(f"| {task} | {len(rows)} | {name} | {column('baseline_psnr_db').mean():.2f} | {column('baseline_ssim').mean():.3f} | {column('psnr_db').mean():.2f} | {column('ssim').mean():.3f} "
              f"| {gain:+.2f} ± {error:.2f} | {gain_ssim:+.3f} ± {error_ssim:.3f} | {np.mean(column('psnr_db') > column('baseline_psnr_db')):.0%} |")
    if arguments.against:
        compare(read_results(arguments.results), read_results(arguments.against))


def compare(ours, theirs):
    """By task, and by folder (the series of a slice) where there are several."""
    others = {(r["task"], r["picture"], r["seed"]): r for r in theirs}
    pairs = [(r, others[key]) for r in ours if (key := (r["task"], r["picture"], r["seed"])) in others]
    print("\n| task | pictures | PSNR | theirs | SSIM | theirs | PSNR gain | SSIM gain |\n|---|---|---|---|---|---|---|---|")
    for task in TASKS:
        of_task = [pair for pair in pairs if pair[0]["task"] == task]
        folders = sorted({r["picture"].split("/")[0] for r, _ in of_task})
        for folder in folders + [""] if len(folders) > 1 else [""]:
            rows = [pair for pair in of_task if pair[0]["picture"].startswith(folder)]
            if len(rows) < 2:
                continue
            column = lambda side, key: np.array([pair[side][key] for pair in rows])
            gains = [mean_and_error(column(0, key) - column(1, key)) for key in ("psnr_db", "ssim")]
            means = [f"{column(side, key).mean():.{digits}f}" for key, digits in (("psnr_db", 2), ("ssim", 3)) for side in (0, 1)]
            print(f"| {task} {folder} | {len(rows)} | {' | '.join(means)} | {gains[0][0]:+.2f} ± {gains[0][1]:.2f} | {gains[1][0]:+.3f} ± {gains[1][1]:.3f} |")


def sheets(arguments):
    from PIL import Image

    for task in arguments.tasks.split(","):
        rows = sorted(glob.glob(os.path.join(SHEETS, task, "*.png")))
        chosen = [np.asarray(Image.open(row)) for row in rows[:: max(1, len(rows) // SHEET_ROWS)][:SHEET_ROWS]]
        if chosen:
            Image.fromarray(np.concatenate(chosen)).save(os.path.join(SHEETS, task + ".png"))


def picture(arguments):
    from PIL import Image

    rows = [np.asarray(Image.open(os.path.join(SHEETS, task, f"test_{name}.png"))) for task, name in SHOWN.items()]
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    pairs = [np.concatenate([rows[i], gap, rows[i + 1]], axis=1) for i in range(0, len(rows), 2)]
    gap = np.full((GAP, *pairs[0].shape[1:]), 255, np.uint8)
    Image.fromarray(np.concatenate([pairs[0], gap, pairs[1]])).save(os.path.join(ROOT, "docs", "photos.png"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "report", "sheets", "picture"])
    parser.add_argument("--data", default=os.path.join(ROOT, "data"))
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--ct", default="models/ct-128")
    parser.add_argument("--photo", default="models/photo-128")
    parser.add_argument("--results", default=RESULTS)
    parser.add_argument("--against", help="results of other models on the same pictures")
    arguments = parser.parse_args()
    {"run": run, "report": report, "sheets": sheets, "picture": picture}[arguments.action](arguments)


main()
