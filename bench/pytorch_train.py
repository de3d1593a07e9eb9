"""PyTorch's side of the comparison of training: the same steps as bench/train.c, one per line of standard input.

    python bench/pytorch_train.py CONFIG.yaml WEIGHTS.safetensors autoencoder|diffusion BATCH THREADS [--channels-last]

The networks are those of tests/reference/networks.py in float32, whose losses the engine's follow within
1e-5 over 200 steps (tests/test_training.c); clipping, AdamW (fused) and averages as there.
"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tests", "reference"))

import torch
import torch.nn.functional as F
import yaml
from networks import Autoencoder, UNet, Weights
from pytorch import peak_bytes, read_safetensors


class Training:
    def __init__(self, config, tensors, part, batch, channels_last):
        prefix = {"autoencoder": "first_stage_model.", "diffusion": "model.diffusion_model."}[part]
        params = config["model"]["params"]
        first_stage = params["first_stage_config"]["params"]
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        tensors = {name: t.contiguous(memory_format=self.format) if t.dim() == 4 else t for name, t in tensors.items()}
        self.trained = [t.requires_grad_() for name, t in tensors.items() if name.startswith(prefix)]
        self.averages = [t.detach().clone() for t in self.trained]
        weights = Weights(tensors, dtype=torch.float32)
        self.unet = UNet(weights, params["unet_config"]["params"])
        self.stage = Autoencoder(weights, first_stage)
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        dd = first_stage["ddconfig"]
        side = dd["resolution"] if part == "autoencoder" else dd["resolution"] // 2 ** (len(dd["ch_mult"]) - 1)
        channels = dd["in_channels"] if part == "autoencoder" else first_stage["embed_dim"]
        self.x = (torch.rand(batch, channels, side, side) * 2 - 1).contiguous(memory_format=self.format)
        self.noise = torch.randn(self.x.shape).contiguous(memory_format=self.format)
        self.t = torch.randint(0, 1000, (batch,))
        self.loss = self.autoencoder_loss if part == "autoencoder" else self.diffusion_loss

    def autoencoder_loss(self):
        latent = self.stage.encode(self.x)
        codes = self.stage.get("quantize.embedding.weight", (self.stage.config["n_embed"], self.stage.config["embed_dim"]))
        rows = latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1])
        with torch.no_grad():
            index = ((rows**2).sum(1, keepdim=True) + (codes**2).sum(1) - 2 * rows @ codes.T).argmin(dim=1)
        taken = codes[index].reshape(latent.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        y = self.stage.decode(latent + (taken - latent).detach(), False)
        return (y - self.x).abs().mean() + F.mse_loss(y, self.x) + F.mse_loss(taken, latent.detach()) + 0.25 * F.mse_loss(latent, taken.detach())

    def diffusion_loss(self):
        return F.mse_loss(self.unet(self.x, self.t), self.noise)

    def step(self):
        self.optimizer.zero_grad()
        self.loss().backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.trained, 0.001)


def main():
    config = yaml.safe_load(open(sys.argv[1]))
    torch.set_num_threads(int(sys.argv[5]))
    training = Training(config, read_safetensors(sys.argv[2]), sys.argv[3], int(sys.argv[4]), "--channels-last" in sys.argv)
    print(torch.__version__, flush=True)
    for line in sys.stdin:
        if line.strip() == "memory":
            print(peak_bytes(), flush=True)
            continue
        begin = time.perf_counter()
        training.step()
        print(f"{1e3 * (time.perf_counter() - begin):.3f}", flush=True)


main()
