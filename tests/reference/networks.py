"""The networks of latent diffusion in PyTorch, as functions over named weights.

A weight is made when a network first asks for it (Weights.get), so a configuration's list of names
and shapes is whatever the network uses. Written from the papers' architecture for checking the
engine; plain, slow, any floating type.
"""

import math

import torch
import torch.nn.functional as F


class Weights:
    """Tensors by name: looked up, or drawn at random (exact in float16) when `generator` is given."""

    def __init__(self, tensors=None, generator=None, dtype=torch.float64):
        self.tensors = {} if tensors is None else tensors
        self.generator = generator
        self.dtype = dtype

    def get(self, name, shape, kind="weight"):
        if name not in self.tensors:
            assert self.generator is not None, f"no tensor {name}"
            self.tensors[name] = self.draw(shape, kind)
        tensor = self.tensors[name]
        assert tuple(tensor.shape) == tuple(shape), (name, tensor.shape, shape)
        return tensor.to(self.dtype)

    def draw(self, shape, kind):
        noise = torch.randn(shape, generator=self.generator)
        if kind == "scale":
            noise = 1 + 0.2 * noise
        elif kind == "bias":
            noise = 0.1 * noise
        elif kind == "weight":
            noise = noise / math.sqrt(math.prod(shape[1:]))
        return noise.half().float()


class Network:
    """A part of the checkpoint: the layers that the networks share."""

    def __init__(self, weights, prefix, epsilon):
        self.weights, self.prefix, self.epsilon = weights, prefix, epsilon

    def get(self, name, shape, kind="weight"):
        return self.weights.get(self.prefix + name, shape, kind)

    def conv(self, x, name, channels, size, **options):
        weight = self.get(name + ".weight", (channels, x.shape[1], size, size))
        bias = self.get(name + ".bias", (channels,), "bias")
        return F.conv2d(x, weight, bias, **options)

    def linear(self, x, name, channels):
        weight = self.get(name + ".weight", (channels, x.shape[1]))
        return F.linear(x, weight, self.get(name + ".bias", (channels,), "bias"))

    def norm(self, x, name):
        channels = x.shape[1]
        gamma = self.get(name + ".weight", (channels,), "scale")
        beta = self.get(name + ".bias", (channels,), "bias")
        return F.group_norm(x, 32, gamma, beta, self.epsilon)


def attention(q, k, v):
    """[batch, width, tokens] each; softmax over the keys."""
    scores = torch.einsum("bci,bcj->bij", q, k) / math.sqrt(q.shape[1])
    return torch.einsum("bij,bcj->bci", scores.softmax(dim=-1), v)


class UNet(Network):
    def __init__(self, weights, config):
        super().__init__(weights, "model.diffusion_model.", 1e-5)
        self.config = config

    def embedding(self, t):
        width = self.config["model_channels"]
        half = width // 2
        i = torch.arange(half, dtype=torch.float64)
        angles = t.double()[:, None] * torch.exp(-math.log(10000) * i / half)[None]
        h = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.weights.dtype)
        h = self.linear(h, "time_embed.0", 4 * width)
        return self.linear(F.silu(h), "time_embed.2", 4 * width)

    def residual(self, x, embedding, name, channels):
        h = self.conv(F.silu(self.norm(x, name + ".in_layers.0")), name + ".in_layers.2", channels, 3, padding=1)
        h = h + self.linear(F.silu(embedding), name + ".emb_layers.1", channels)[:, :, None, None]
        h = self.conv(F.silu(self.norm(h, name + ".out_layers.0")), name + ".out_layers.3", channels, 3, padding=1)
        skip = x if x.shape[1] == channels else self.conv(x, name + ".skip_connection", channels, 1)
        return skip + h

    def attend(self, x, name):
        batch, channels, height, width = x.shape
        head_width = self.config.get("num_head_channels", -1)
        heads = self.config["num_heads"] if head_width == -1 else channels // head_width
        h = self.norm(x, name + ".norm").reshape(batch, channels, -1)
        weight = self.get(name + ".qkv.weight", (3 * channels, channels, 1))
        h = F.conv1d(h, weight, self.get(name + ".qkv.bias", (3 * channels,), "bias"))
        q, k, v = h.reshape(batch * heads, 3 * channels // heads, -1).chunk(3, dim=1)
        h = attention(q, k, v).reshape(batch, channels, -1)
        weight = self.get(name + ".proj_out.weight", (channels, channels, 1))
        h = F.conv1d(h, weight, self.get(name + ".proj_out.bias", (channels,), "bias"))
        return x + h.reshape(x.shape)

    def __call__(self, x, t):
        config = self.config
        width, multipliers = config["model_channels"], config["channel_mult"]
        embedding = self.embedding(t)
        h = self.conv(x, "input_blocks.0.0", width, 3, padding=1)
        skips, index, last = [h], 1, len(multipliers) - 1
        for level, multiplier in enumerate(multipliers):
            attends = 2**level in config["attention_resolutions"]
            for _ in range(config["num_res_blocks"]):
                h = self.residual(h, embedding, f"input_blocks.{index}.0", multiplier * width)
                h = self.attend(h, f"input_blocks.{index}.1") if attends else h
                skips.append(h)
                index += 1
            if level != last:
                h = self.conv(h, f"input_blocks.{index}.0.op", h.shape[1], 3, stride=2, padding=1)
                skips.append(h)
                index += 1
        h = self.residual(h, embedding, "middle_block.0", h.shape[1])
        h = self.attend(h, "middle_block.1")
        h = self.residual(h, embedding, "middle_block.2", h.shape[1])
        index = 0
        for level in range(last, -1, -1):
            attends = 2**level in config["attention_resolutions"]
            for block in range(config["num_res_blocks"] + 1):
                name = f"output_blocks.{index}"
                h = torch.cat([h, skips.pop()], dim=1)
                h = self.residual(h, embedding, name + ".0", multipliers[level] * width)
                h = self.attend(h, name + ".1") if attends else h
                if level > 0 and block == config["num_res_blocks"]:
                    h = F.interpolate(h, scale_factor=2, mode="nearest")
                    h = self.conv(h, f"{name}.{2 if attends else 1}.conv", h.shape[1], 3, padding=1)
                index += 1
        return self.conv(F.silu(self.norm(h, "out.0")), "out.2", config["out_channels"], 3, padding=1)


class Autoencoder(Network):
    def __init__(self, weights, config, prefix="first_stage_model.", scale_factor=1):
        super().__init__(weights, prefix, 1e-6)
        self.config, self.dd, self.scale_factor = config, config["ddconfig"], scale_factor

    def residual(self, x, name, channels):
        h = self.conv(F.silu(self.norm(x, name + ".norm1")), name + ".conv1", channels, 3, padding=1)
        h = self.conv(F.silu(self.norm(h, name + ".norm2")), name + ".conv2", channels, 3, padding=1)
        skip = x if x.shape[1] == channels else self.conv(x, name + ".nin_shortcut", channels, 1)
        return skip + h

    def attend(self, x, name):
        h = self.norm(x, name + ".norm")
        q, k, v = (self.conv(h, f"{name}.{part}", x.shape[1], 1).flatten(2) for part in "qkv")
        h = attention(q, k, v).reshape(x.shape)
        return x + self.conv(h, name + ".proj_out", x.shape[1], 1)

    def middle(self, h, part):
        h = self.residual(h, part + ".mid.block_1", h.shape[1])
        h = self.attend(h, part + ".mid.attn_1")
        return self.residual(h, part + ".mid.block_2", h.shape[1])

    def level(self, h, name, blocks, channels, attends):
        for i in range(blocks):
            h = self.residual(h, f"{name}.block.{i}", channels)
            h = self.attend(h, f"{name}.attn.{i}") if attends else h
        return h

    def encode(self, image):
        dd, config = self.dd, self.config
        h = self.conv(image, "encoder.conv_in", dd["ch"], 3, padding=1)
        last, resolution = len(dd["ch_mult"]) - 1, dd["resolution"]
        for i, multiplier in enumerate(dd["ch_mult"]):
            attends = resolution in dd["attn_resolutions"]
            h = self.level(h, f"encoder.down.{i}", dd["num_res_blocks"], dd["ch"] * multiplier, attends)
            if i != last:
                h = self.conv(F.pad(h, (0, 1, 0, 1)), f"encoder.down.{i}.downsample.conv", h.shape[1], 3, stride=2)
                resolution //= 2
        h = F.silu(self.norm(self.middle(h, "encoder"), "encoder.norm_out"))
        z_channels = (2 if dd["double_z"] else 1) * dd["z_channels"]
        h = self.conv(h, "encoder.conv_out", z_channels, 3, padding=1)
        if "n_embed" in config:
            return self.conv(h, "quant_conv", config["embed_dim"], 1)
        return self.conv(h, "quant_conv", 2 * config["embed_dim"], 1).chunk(2, dim=1)[0]

    def quantize(self, z):
        """Nearest code, straight-through; also the smallest gap between best and second distance."""
        codes = self.get("quantize.embedding.weight", (self.config["n_embed"], self.config["embed_dim"]), "code")
        rows = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        distances = (rows**2).sum(1, keepdim=True) + (codes**2).sum(1) - 2 * rows @ codes.T
        nearest = distances.topk(2, dim=1, largest=False).values
        index = distances.argmin(dim=1)
        chosen = codes[index].reshape(z.shape[0], z.shape[2], z.shape[3], -1).permute(0, 3, 1, 2)
        return z + (chosen - z).detach(), index, (nearest[:, 1] - nearest[:, 0]).min().item()

    def decode(self, z, quantize):
        dd = self.dd
        h = z / self.scale_factor
        if quantize and "n_embed" in self.config:
            h = self.quantize(h)[0]
        h = self.conv(h, "post_quant_conv", dd["z_channels"], 1)
        last = len(dd["ch_mult"]) - 1
        resolution = dd["resolution"] // 2**last
        h = self.conv(h, "decoder.conv_in", dd["ch"] * dd["ch_mult"][last], 3, padding=1)
        h = self.middle(h, "decoder")
        for i in range(last, -1, -1):
            attends = resolution in dd["attn_resolutions"]
            h = self.level(h, f"decoder.up.{i}", dd["num_res_blocks"] + 1, dd["ch"] * dd["ch_mult"][i], attends)
            if i > 0:
                h = F.interpolate(h, scale_factor=2, mode="nearest")
                h = self.conv(h, f"decoder.up.{i}.upsample.conv", h.shape[1], 3, padding=1)
                resolution *= 2
        h = F.silu(self.norm(h, "decoder.norm_out"))
        return self.conv(h, "decoder.conv_out", dd["out_ch"], 3, padding=1)


def vector_jacobian_product(function, x, cotangent):
    """(function(x), J(x)^T cotangent)."""
    x = x.clone().requires_grad_(True)
    y = function(x)
    return y.detach(), torch.autograd.grad(y, x, cotangent)[0]
