"""Writes tests/data/networks: four small models of random weights, and what PyTorch computes with them.

    python tests/reference/make_networks.py                 check the twin on tests/data/tiny, then write
    python tests/reference/make_networks.py --ct-128        also tests/data/networks/ct-128 (from models/ct-128)

Needs torch, numpy and pyyaml; only for making the data, never for building or testing. Everything is
computed in double and stored in float; weights are exact in float16.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import yaml

from networks import Autoencoder, UNet, Weights, vector_jacobian_product

TESTS = pathlib.Path(__file__).resolve().parent.parent
DATA = TESTS / "data" / "networks"


def latent_diffusion(unet, first_stage, kind="VQModelInterface", **params):
    return {
        "model": {
            "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
            "params": {
                "linear_start": 0.0015,
                "linear_end": 0.0195,
                "timesteps": 1000,
                "first_stage_key": "image",
                "image_size": unet["image_size"],
                "channels": unet["in_channels"],
                **params,
                "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet},
                "first_stage_config": {"target": "ldm.models.autoencoder." + kind, "params": first_stage},
                "cond_stage_config": "__is_unconditional__",
            },
        }
    }


def unet(**params):
    return {"image_size": 8, "in_channels": 3, "out_channels": 3, "model_channels": 32, "num_res_blocks": 1, **params}


def first_stage(embed_dim, ddconfig, **params):
    base = {"double_z": False, "in_channels": 3, "out_ch": 3, "ch": 32, "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}
    return {"embed_dim": embed_dim, **params, "ddconfig": {**base, **ddconfig}, "lossconfig": {"target": "torch.nn.Identity"}}


# name -> (configuration, batch, latent height, latent width)
MODELS = {
    # one-channel pictures, two residual blocks, attention at a level of the autoencoder
    "gray": (
        latent_diffusion(
            unet(in_channels=2, out_channels=2, num_res_blocks=2, channel_mult=[1, 1], attention_resolutions=[1], num_head_channels=8),
            first_stage(2, dict(z_channels=2, resolution=16, in_channels=1, out_ch=1, ch_mult=[1, 1], num_res_blocks=2, attn_resolutions=[8]), n_embed=40),
        ),
        1, 8, 8,
    ),
    # heads by number, four levels in the UNet, attention at some of them
    "heads": (
        latent_diffusion(
            unet(channel_mult=[1, 1, 1, 1], attention_resolutions=[2, 8], num_heads=2),
            first_stage(3, dict(z_channels=3, resolution=32, ch_mult=[1, 1], attn_resolutions=[32]), n_embed=16),
        ),
        1, 16, 8,
    ),
    # a KL autoencoder alone: four levels, latents of another width than the encoder's output
    "kl": (
        {
            "model": {
                "target": "ldm.models.autoencoder.AutoencoderKL",
                "params": first_stage(4, dict(double_z=True, z_channels=3, resolution=64, ch_mult=[1, 1, 1, 1], attn_resolutions=[16, 8])),
            }
        },
        1, 4, 6,
    ),
    # widths that shrink with depth, a scale factor, two pictures that are not square
    "wide": (
        latent_diffusion(
            unet(in_channels=4, out_channels=4, channel_mult=[2, 1], attention_resolutions=[2], num_heads=1, num_head_channels=16),
            first_stage(4, dict(z_channels=4, resolution=32, ch_mult=[2, 1]), n_embed=24),
            scale_factor=0.5,
        ),
        2, 6, 10,
    ),
}


def write_safetensors(path, tensors, metadata):
    header, offset = {"__metadata__": metadata}, 0
    for name, tensor in tensors.items():
        size = 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.half().numpy().astype("<f2").tobytes())


def read_safetensors(path):
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            values = np.frombuffer(data[start + begin : start + end], {"F16": "<f2", "F32": "<f4"}[entry["dtype"]])
            tensors[name] = torch.from_numpy(values.astype("<f4").reshape(entry["shape"]))
    return tensors


def save(folder, name, tensor):
    np.save(folder / f"{name}.npy", tensor.numpy().astype("<f4"))


def draw(generator, *shape):
    """Inputs that are exact in float32."""
    return torch.randn(shape, generator=generator).double()


def record(folder, part, function, x, generator):
    cotangent = draw(generator, *function(x).shape)
    y, gradient = vector_jacobian_product(function, x, cotangent)
    for name, tensor in [("input", x), ("output", y), ("cotangent", cotangent), ("gradient", gradient)]:
        save(folder, f"{part}_{name}", tensor)


def towards_codes(autoencoder, z):
    """Half way to the nearest code, so that rounding cannot change which one is nearest."""
    return (z + autoencoder.quantize(z)[0]) / 2


def make_goldens(folder, config, weights, generator, batch, height, width):
    params = config["model"]["params"]
    stage = params["first_stage_config"]["params"] if "unet_config" in params else params
    autoencoder = Autoencoder(weights, stage, "first_stage_model." if "unet_config" in params else "", params.get("scale_factor", 1))
    factor = 2 ** (len(stage["ddconfig"]["ch_mult"]) - 1)
    z = draw(generator, batch, stage["embed_dim"], height, width)
    image = draw(generator, batch, stage["ddconfig"]["in_channels"], factor * height, factor * width).clamp(-1, 1)
    record(folder, "encoder", autoencoder.encode, image, generator)
    record(folder, "decoder", lambda z: autoencoder.decode(z, False), z, generator)
    if "n_embed" in stage:
        scale = autoencoder.scale_factor
        z = (scale * towards_codes(autoencoder, z / scale)).float().double()
        record(folder, "quantized", lambda z: autoencoder.decode(z, True), z, generator)
        gap = autoencoder.quantize(z / scale)[2]
        assert gap > 1e-4, f"{folder.name}: two codes are too close to call ({gap})"
    if "unet_config" in params:
        network = UNet(weights, params["unet_config"]["params"])
        x = draw(generator, batch, params["unet_config"]["params"]["in_channels"], height, width)
        t = torch.tensor([500, 3][:batch])
        save(folder, "unet_time", t.reshape(-1, 1, 1, 1))
        record(folder, "unet", lambda x: network(x, t), x, generator)


def make_model(name, seed):
    config, batch, height, width = MODELS[name]
    folder = DATA / name
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    weights = Weights(generator=generator)
    make_goldens(folder, config, weights, generator, batch, height, width)
    text = yaml.safe_dump(config, sort_keys=False)
    (folder / f"{name}.yaml").write_text(text)
    write_safetensors(folder / f"{name}.safetensors", weights.tensors, {"format": "pt"})
    count = sum(tensor.numel() for tensor in weights.tensors.values())
    print(f"{name}: {len(weights.tensors)} tensors, {count} parameters")


def make_ct_128():
    """The shipped model at its own size: one picture, one latent."""
    source = TESTS.parent / "models" / "ct-128"
    config = yaml.safe_load((source / "ct-128.yaml").read_text())
    weights = Weights(read_safetensors(source / "ct-128.safetensors"))
    folder = DATA / "ct-128"
    folder.mkdir(parents=True, exist_ok=True)
    make_goldens(folder, config, weights, torch.Generator().manual_seed(5), 1, 32, 32)


def check(name, got, wanted, tolerance):
    difference = ((got - wanted).norm() / wanted.norm()).item()
    print(f"tiny {name}: relative difference {difference:.1e}")
    assert difference < tolerance, name


def check_twin():
    """The twin against tests/data/tiny, whose values come from other code."""
    folder = TESTS / "data" / "tiny"
    load = lambda name: torch.from_numpy(np.load(folder / f"{name}.npy")).double()
    config = yaml.safe_load((folder / "tiny.yaml").read_text())["model"]["params"]
    state = torch.load(folder / "tiny.ckpt", map_location="cpu", weights_only=False)["state_dict"]
    weights = Weights(state)
    network = UNet(weights, config["unet_config"]["params"])
    for t in (0, 1, 250, 999):
        y, gradient = vector_jacobian_product(lambda x: network(x, torch.tensor([t])), load("x"), load("cot_eps"))
        check(f"eps_t{t}", y, load(f"eps_t{t}"), 1e-5)
        check(f"eps_vjp_t{t}", gradient, load(f"eps_vjp_t{t}"), 1e-5)
    autoencoder = Autoencoder(weights, config["first_stage_config"]["params"])
    for name, quantize in [("decode_noquant", False), ("decode_quant", True)]:
        y, gradient = vector_jacobian_product(lambda z: autoencoder.decode(z, quantize), load("z"), load("cot_img"))
        check(name, y, load(name), 1e-5)
        check(name + "_vjp", gradient, load(name + "_vjp"), 1e-5)
    y, gradient = vector_jacobian_product(autoencoder.encode, load("img"), load("cot_h"))
    check("encode", y, load("encode"), 1e-5)
    check("encode_vjp", gradient, load("encode_vjp"), 1e-5)


if __name__ == "__main__":
    check_twin()
    for seed, name in enumerate(MODELS, start=1):
        make_model(name, seed)
    if "--ct-128" in sys.argv:
        make_ct_128()
