"""Makes tests/data/checkpoint with PyTorch: small checkpoints of every kind that the reader meets, each
with NAME.txt, the values as PyTorch sees them. A line holds: name, type, shape ("2x3", "-" for a
scalar), then every element as float32, row-major, in hexadecimal bits.

    python tests/reference/make_checkpoints.py
"""

import collections
import json
import pathlib
import struct
import sys
import types

import torch

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "data" / "checkpoint"
TYPES = {
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.float64: "f64",
    torch.int64: "i64",
    torch.int32: "i32",
}


def write_values(name, tensors):
    lines = []
    for key, tensor in tensors.items():
        kind = TYPES.get(tensor.dtype, "other")
        shape = "x".join(map(str, tensor.shape)) or "-"
        values = tensor.detach().to(torch.float32).contiguous().reshape(-1).view(torch.int32)
        if kind == "other":
            values = []
        bits = " ".join(f"{int(v) & 0xFFFFFFFF:08x}" for v in values)
        lines.append(f"{key} {kind} {shape} {bits}".rstrip())
    (FOLDER / (name + ".txt")).write_text("\n".join(lines) + "\n")


def save(name, contents, tensors, **options):
    torch.save(contents, FOLDER / name, **options)
    write_values(name, tensors)


def every_type():
    special = torch.tensor(
        [0.0, -0.0, 1.0, -1.5, 65504.0, -65504.0, 2.0**-14, 2.0**-24, -3 * 2.0**-24, 1023 * 2.0**-24,
         float("inf"), float("-inf"), float("nan"), 0.1, 3.14159, 12345.0]
    )
    subnormal = torch.tensor([1e-40, -1e-45, 3.4e38])
    integers = torch.tensor([[0, 1, -1], [2**31 - 1, -(2**31), 16777217]])
    return {
        "f32": torch.cat([special, subnormal]),
        "f16": special.half(),
        "bf16": torch.cat([special, subnormal]).bfloat16(),
        "f64": torch.cat([special.double(), torch.tensor([1e-46, 1e39, 1 / 3], dtype=torch.float64)]),
        "i64": torch.cat([integers, torch.tensor([[2**53 + 1, -(2**63), 2**63 - 1]])]),
        "i32": integers.int(),
        "flags": torch.tensor([True, False]),
        "bytes": torch.arange(5, dtype=torch.uint8),
    }


def views(generator):
    base = torch.randn(6, 4, 5, generator=generator)
    halves = torch.randn(4, 3, 3, 2, generator=generator).half()
    return {
        "base": base,
        "transposed": base.transpose(0, 2),
        "every_other": base[1::2, :, ::3],
        "tail": base.reshape(-1)[117:],
        "diagonal": base[:, :, 0].diagonal(),
        "expanded": base[0, 0, :1].expand(3, 7),
        "channels_last": halves.contiguous(memory_format=torch.channels_last),
        "permuted": halves.permute(3, 1, 0, 2),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "one_by_one": torch.randn(4, 3, 1, 1, generator=generator),
        "parameter": torch.nn.Parameter(torch.randn(2, 3, generator=generator)),
    }


def unknown_classes():
    """Classes that no reader can import."""
    module = types.ModuleType("trainer_that_is_gone")
    sys.modules[module.__name__] = module

    def define(name, base):
        kind = type(name, (base,), {"__module__": module.__name__})
        setattr(module, name, kind)
        return kind

    plain, mapping, sequence = define("Callback", object), define("Settings", dict), define("Log", list)
    callback = plain()
    callback.best, callback.path, callback.weights = 0.25, "best.ckpt", torch.ones(3)
    settings = mapping(lr=1e-4, betas=(0.9, 0.999), big=2**80, negative=-5, seeds={1, 2}, raw=b"abc")
    settings["self"] = settings
    return callback, settings, sequence([1, None, callback])


def lightning(generator):
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.GroupNorm(1, 3), torch.nn.Linear(3, 2).half()
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    state = network.state_dict()
    state["tied"] = state["0.weight"]
    state["steps"] = torch.tensor(7)
    optimizer = torch.optim.AdamW(network.parameters())
    callback, settings, log = unknown_classes()
    contents = {
        "epoch": 3,
        "global_step": 2**40,
        "pytorch-lightning_version": "1.4.2",
        "callbacks": {type(callback): callback, "log": log},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hyper_parameters": settings,
        "state_dict": state,
    }
    return contents, state


def write_safetensors(name, tensors, metadata):
    kinds = {torch.bool: "BOOL", torch.uint8: "U8", **{k: v.upper() for k, v in TYPES.items()}}
    header, data = {"__metadata__": metadata}, b""
    for key, tensor in tensors.items():
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[key] = {
            "dtype": kinds[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    (FOLDER / name).write_bytes(struct.pack("<Q", len(text)) + text + data)
    write_values(name, tensors)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(1)
    tensors = every_type()
    save("types.pt", tensors, tensors)
    save("protocol4.pt", collections.OrderedDict(tensors), tensors, pickle_protocol=4)
    write_safetensors("types.safetensors", tensors, {"format": "pt", "note": "\u00e9 \"quoted\"\n"})
    tensors = views(generator)
    save("views.pt", tensors, tensors)
    contents, tensors = lightning(generator)
    save("lightning.ckpt", contents, tensors)
    torch.serialization.set_crc32_options(False)
    save("no_checksums.pt", {"weight": torch.arange(4.0)}, {"weight": torch.arange(4.0)})
    torch.save({"weight": torch.ones(2)}, FOLDER / "before_1_6.pt", _use_new_zipfile_serialization=False)


main()
