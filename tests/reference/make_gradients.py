"""Writes tests/data/gradients: what PyTorch gives for the gradient of a training
loss with respect to every parameter of a model, its UNet and its autoencoder.

    python tests/reference/make_gradients.py

Needs torch, numpy and pyyaml; only for making the data. Inputs are those of make_networks.py, whose
cotangents are the targets here. Computed in double. Of each gradient 64 numbers are kept, a count
sketch: element i, times a sign that depends on i, is added to number i % 64. The distance between two
sketches is on average that between the gradients; up to 64 elements it is the same.
"""

import json
import pathlib
import re

import numpy as np
import torch
import torch.nn.functional as F
import yaml

from make_networks import read_safetensors
from networks import Autoencoder, UNet, Weights

DATA = pathlib.Path(__file__).resolve().parent.parent / "data" / "networks"
SIZE = 64
COMMITMENT = 0.25


def signs(count):
    h = np.arange(count, dtype=np.uint32)
    for shift, factor in [(16, 0x7FEB352D), (15, 0x846CA68B)]:
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    return 1 - 2.0 * (h >> np.uint32(31))


def sketch(gradient):
    values = gradient.flatten().numpy()
    padded = np.zeros(-(-values.size // SIZE) * SIZE)
    padded[: values.size] = values * signs(values.size)
    return padded.reshape(-1, SIZE).sum(0).astype("<f4")


def training_loss(folder, config, weights):
    load = lambda name: torch.from_numpy(np.load(folder / f"{name}.npy")).double()
    unet = UNet(weights, config["unet_config"]["params"])
    stage = Autoencoder(weights, config["first_stage_config"]["params"], scale_factor=config.get("scale_factor", 1))
    noise = unet(load("unet_input"), load("unet_time").flatten())
    z = load("quantized_input")
    latent = z / stage.scale_factor
    codes = stage.get("quantize.embedding.weight", (stage.config["n_embed"], stage.config["embed_dim"]))
    taken = codes[stage.quantize(latent)[1]].reshape(latent.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
    return (
        F.mse_loss(noise, load("unet_cotangent"))
        + F.mse_loss(stage.encode(load("encoder_input")), load("encoder_cotangent"))
        + F.mse_loss(stage.decode(z, True), load("quantized_cotangent"))
        + F.mse_loss(taken, latent)
        + COMMITMENT * F.mse_loss(latent, taken.detach())
    )


def stacked(gradients):
    """The engine has one parameter for q, k and v."""
    result = {}
    for name, gradient in gradients.items():
        key = re.sub(r"\.[qkv]\.(weight|bias)$", r".{q,k,v}.\1", name)
        result.setdefault(key, []).append(gradient)
    return {name: torch.cat(parts) for name, parts in result.items()}


def write_safetensors(path, sketches):
    header = {name: {"dtype": "F32", "shape": [SIZE], "data_offsets": [4 * SIZE * i, 4 * SIZE * (i + 1)]} for i, name in enumerate(sketches)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in sketches.values():
            file.write(values.tobytes())


for name in ("gray", "wide"):
    folder = DATA / name
    config = yaml.safe_load((folder / f"{name}.yaml").read_text())["model"]["params"]
    tensors = {key: tensor.double().requires_grad_() for key, tensor in read_safetensors(folder / f"{name}.safetensors").items()}
    loss = training_loss(folder, config, Weights(tensors))
    gradients = dict(zip(tensors, torch.autograd.grad(loss, list(tensors.values()))))
    sketches = {key: sketch(gradient) for key, gradient in stacked(gradients).items()}
    write_safetensors(DATA.parent / "gradients" / f"{name}.safetensors", {"loss": np.full(SIZE, loss.item(), "<f4"), **sketches})
    print(f"{name}: loss {loss.item():.6f}, {len(sketches)} gradients")
