"""Writes tests/data/training: 200 losses of PyTorch's AdamW on the small model `gray`, autoencoder and UNet.

    python tests/reference/make_training.py

Needs torch, numpy and pyyaml; only for making the data. Weights, pictures, noise, times and settings
are those of tests/test_training.c: pictures by a formula, the rest by the engine's Philox streams.
Computed in double; the largest relative difference to float32, which is what rounding alone does, is printed.
"""

import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
import yaml

from make_networks import read_safetensors
from networks import Autoencoder, UNet, Weights

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
STEPS, WARMUP, ACCUMULATE, SEED = 200, 20, 2, 7
PICTURES, SIDE, VARIANTS = 6, 16, 2
# The autoencoder's are those of ten tried whose latents stay farthest from a tie between two codes
# (6e-6): rounding that decides one otherwise changes the loss by some percent from there on.
RATES, BATCHES = {"autoencoder": 1.2e-3, "diffusion": 1e-3}, {"autoencoder": 1, "diffusion": 2}
CLIP, DECAY, COMMITMENT = 1.0, 0.01, 0.25
STREAM_DIFFUSION = 6


def picture(index):
    """The index-th training picture."""
    i = index % PICTURES
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    return (0.8 * np.sin(0.3 * (i + 1) * x + 0.2 * y) * np.cos(0.25 * i * y)).astype(np.float32)[None]


def philox(seed, counter):
    mask, k0, k1 = 0xFFFFFFFF, seed & 0xFFFFFFFF, seed >> 32
    c0, c1, c2, c3 = counter
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & mask, (p0 >> 32) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c0, c1, c2, c3


def integers(stream, element, bounds):
    """operators/draws.h: one integer below each of the bounds."""
    words = [word for block in range((len(bounds) + 1) // 2) for word in philox(SEED, (block, element, 0, stream))]
    uniforms = [((words[2 * i] >> 5) * 2**26 + (words[2 * i + 1] >> 6)) / 2**53 for i in range(len(bounds))]
    return [int(u * bound) for u, bound in zip(uniforms, bounds)]


def normals(stream, draw, count):
    """kernels/normal.h."""
    result = []
    for block in range((count + 3) // 4):
        words = philox(SEED, (block, 0, draw, stream))
        for a, b in (words[:2], words[2:]):
            radius, angle = math.sqrt(-2 * math.log((a + 1) * 2.0**-32)), 2 * math.pi * b * 2.0**-32
            result += [radius * math.cos(angle), radius * math.sin(angle)]
    return np.array(result[:count])


def rate_at(rate, step):
    if step <= WARMUP:
        return rate * step / WARMUP
    return rate * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def autoencoder_loss(stage, samples):
    x = torch.from_numpy(np.stack([picture(i) for i in samples])).to(stage.weights.dtype)
    latent = stage.encode(x)
    codes = stage.get("quantize.embedding.weight", (stage.config["n_embed"], stage.config["embed_dim"]))
    quantized, index, _ = stage.quantize(latent)
    taken = codes[index].reshape(latent.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
    y = stage.decode(quantized * stage.scale_factor, False)
    return (y - x).abs().mean() + F.mse_loss(y, x) + F.mse_loss(taken, latent.detach()) + COMMITMENT * F.mse_loss(latent, taken.detach())


class Diffusion:
    def __init__(self, unet, stage, config):
        self.unet, self.timesteps = unet, config["timesteps"]
        ramp = np.linspace(config["linear_start"] ** 0.5, config["linear_end"] ** 0.5, self.timesteps) ** 2
        self.alphas = np.cumprod(1 - ramp).astype(np.float32)
        pictures = torch.from_numpy(np.stack([picture(i) for i in range(PICTURES * VARIANTS)])).to(stage.weights.dtype)
        with torch.no_grad():
            latents = stage.encode(pictures)
        self.latents = latents / latents.std(unbiased=False)

    def loss(self, samples):
        dtype = self.latents.dtype
        drawn = [integers(STREAM_DIFFUSION, sample + 1, [len(self.latents), self.timesteps]) for sample in samples]
        shape = self.latents.shape[1:]
        noise = torch.stack([torch.from_numpy(normals(STREAM_DIFFUSION, s, math.prod(shape))).reshape(shape) for s in samples]).to(dtype)
        a = torch.tensor([self.alphas[t] for _, t in drawn], dtype=dtype)[:, None, None, None]
        noisy = a.sqrt() * self.latents[[i for i, _ in drawn]] + (1 - a).sqrt() * noise
        return F.mse_loss(self.unet(noisy, torch.tensor([t for _, t in drawn])), noise)


def train(part, dtype):
    config = yaml.safe_load((DATA / "networks" / "gray" / "gray.yaml").read_text())["model"]["params"]
    tensors = {key: tensor.to(dtype) for key, tensor in read_safetensors(DATA / "networks" / "gray" / "gray.safetensors").items()}
    prefix = {"autoencoder": "first_stage_model.", "diffusion": "model.diffusion_model."}[part]
    weights = Weights(tensors, dtype=dtype)
    stage = Autoencoder(weights, config["first_stage_config"]["params"], scale_factor=config.get("scale_factor", 1))
    unet = UNet(weights, config["unet_config"]["params"])
    loss_of = (lambda samples: autoencoder_loss(stage, samples)) if part == "autoencoder" else Diffusion(unet, stage, config).loss
    trained = [tensor.requires_grad_() for key, tensor in tensors.items() if key.startswith(prefix)]
    optimiser = torch.optim.AdamW(trained, lr=RATES[part], betas=(0.9, 0.99), eps=1e-8, weight_decay=DECAY)
    losses = []
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = rate_at(RATES[part], step + 1)
        optimiser.zero_grad()
        total = 0
        for index in range(ACCUMULATE):
            first = (step * ACCUMULATE + index) * BATCHES[part]
            loss = loss_of(range(first, first + BATCHES[part])) / ACCUMULATE
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimiser.step()
        losses.append(total)
    return np.array(losses)


for part in ("autoencoder", "diffusion"):
    losses, single = train(part, torch.float64), train(part, torch.float32)
    (DATA / "training").mkdir(exist_ok=True)
    np.save(DATA / "training" / f"{part}.npy", losses.astype("<f4"))
    print(f"{part}: {losses[0]:.5f} to {losses[-1]:.5f}, float32 differs by at most {np.abs(single / losses - 1).max():.1e}")
