"""Writes tests/data/discriminator: PyTorch's patch discriminator, its losses and their gradients.

    python tests/reference/make_discriminator.py

Needs torch and numpy; only for making the data. The layers are those of taming-transformers'
NLayerDiscriminator with batch norm. Parameters and pictures are those of tests/test_discriminator.c,
by a formula; computed in double, stored as float32, gradients of all parameters one after the other.
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "discriminator"
PICTURES, COLOURS, HEIGHT, WIDTH, CHANNELS = 2, 3, 24, 32, 4


def wave(shape, scale, offset, phase):
    """Numbers between offset - scale and offset + scale, in the order of the array."""
    i = np.arange(np.prod(shape), dtype=np.float64)
    return torch.from_numpy((offset + scale * np.sin(0.37 * i + 0.011 * i * i % 5 + phase)).astype(np.float32).reshape(shape)).double()


def discriminator():
    layers, inputs = [nn.Conv2d(COLOURS, CHANNELS, 4, 2, 1), nn.LeakyReLU(0.2)], CHANNELS
    for layer in (1, 2, 3):
        outputs = CHANNELS * 2**layer
        layers += [nn.Conv2d(inputs, outputs, 4, 2 if layer < 3 else 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
        inputs = outputs
    network = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4, 1, 1)).double()
    for index, parameter in enumerate(network.parameters()):
        fan = np.prod(parameter.shape[1:])
        convolution = parameter.ndim == 4
        with torch.no_grad():
            parameter.copy_(wave(parameter.shape, 2 / np.sqrt(fan) if convolution else 0.3, 0 if convolution else 0.7, index))
    return network


network = discriminator()
real = wave((PICTURES, COLOURS, HEIGHT, WIDTH), 0.9, 0, 20)
source = wave((PICTURES, COLOURS, HEIGHT, WIDTH), 0.8, 0.1, 21)
last = wave((COLOURS, COLOURS, 1, 1), 0.6, 0.1, 22).requires_grad_()
fake = F.conv2d(source, last)

real_logits, fake_logits = network(real), network(fake.detach())
loss = 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())
gradients = torch.autograd.grad(loss, list(network.parameters()))

reconstruction_loss, generator_loss = (fake - real).abs().mean(), -network(fake).mean()
wanted, = torch.autograd.grad(reconstruction_loss, last, retain_graph=True)
given, = torch.autograd.grad(generator_loss, last, retain_graph=True)
weight = torch.clamp(wanted.norm() / (given.norm() + 1e-4), 0, 1e4)
balanced, = torch.autograd.grad(reconstruction_loss + weight * generator_loss, last)

OUTPUT.mkdir(exist_ok=True)
arrays = {
    "logits": torch.cat([real_logits, fake_logits]),
    "losses": torch.stack([loss, generator_loss, weight]),
    "gradients": torch.cat([gradient.flatten() for gradient in gradients]),
    "last_gradient": balanced,
}
for name, array in arrays.items():
    np.save(OUTPUT / f"{name}.npy", array.detach().numpy().astype("<f4"))
    print(name, list(array.shape), array.flatten()[:4].tolist())
