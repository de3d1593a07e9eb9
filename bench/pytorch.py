"""PyTorch's side of the comparison: the same jobs as bench/engine.c, one per line of standard input.

    python bench/pytorch.py CONFIG.yaml WEIGHTS.safetensors THREADS [--make-weights]

--make-weights draws random weights, writes them and ends. "memory" answers with the peak resident
bytes. The networks are those of tests/reference/networks.py in float32, weights frozen.
"""

import json
import os
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tests", "reference"))

import torch
import yaml
from networks import Autoencoder, UNet, Weights


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * 4
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".part", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().numpy().tobytes())
    os.rename(path + ".part", path)


def read_safetensors(path):
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
        tensors = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            file.seek(8 + length + begin)
            kind = {"F32": torch.float32, "F16": torch.float16}[entry["dtype"]]
            buffer = bytearray(file.read(end - begin))
            tensors[name] = torch.frombuffer(buffer, dtype=kind).reshape(entry["shape"]).float()
    return tensors


class Jobs:
    def __init__(self, config, weights):
        params = config["model"]["params"]
        first_stage = params["first_stage_config"]["params"]
        self.dd = first_stage["ddconfig"]
        self.unet_config = params["unet_config"]["params"]
        self.unet_network = UNet(weights, self.unet_config)
        self.autoencoder = Autoencoder(weights, first_stage)
        size = self.dd["resolution"]
        latent = size // 2 ** (len(self.dd["ch_mult"]) - 1)
        generator = torch.Generator().manual_seed(1)
        self.image = torch.rand(1, self.dd["in_channels"], size, size, generator=generator) * 2 - 1
        self.x = torch.randn(1, self.unet_config["in_channels"], latent, latent, generator=generator)
        self.z = torch.randn(1, first_stage["embed_dim"], latent, latent, generator=generator)
        self.optimizer = None

    def encoder(self):
        with torch.no_grad():
            return self.autoencoder.encode(self.image)

    def decoder(self):
        with torch.no_grad():
            return self.autoencoder.decode(self.z, quantize=True)

    def unet(self):
        with torch.no_grad():
            return self.unet_network(self.x, torch.tensor([250]))

    def unet_gradient(self):
        x = self.x.clone().requires_grad_()
        torch.nn.functional.mse_loss(self.unet_network(x, torch.tensor([250])), self.z).backward()
        return x.grad

    def inner(self):
        """quantise, decode, mean squared error, backward to z, AdamW"""
        if self.optimizer is None:
            self.latent = self.z.clone().requires_grad_()
            self.optimizer = torch.optim.AdamW([self.latent], lr=5e-3)
        self.optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(self.image, self.autoencoder.decode(self.latent, quantize=True))
        loss.backward()
        self.optimizer.step()


def peak_bytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def main():
    config = yaml.safe_load(open(sys.argv[1]))
    torch.set_num_threads(int(sys.argv[3]))
    if "--make-weights" in sys.argv:
        weights = Weights(generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        jobs = Jobs(config, weights)
        for job in (jobs.encoder, jobs.decoder, jobs.unet):
            job()
        write_safetensors(sys.argv[2], weights.tensors)
        return
    jobs = Jobs(config, Weights(read_safetensors(sys.argv[2]), dtype=torch.float32))
    print(torch.__version__, flush=True)
    for line in sys.stdin:
        name = line.strip()
        if name == "memory":
            print(peak_bytes(), flush=True)
            continue
        begin = time.perf_counter()
        getattr(jobs, name)()
        print(f"{1e3 * (time.perf_counter() - begin):.3f}", flush=True)


if __name__ == "__main__":
    main()
