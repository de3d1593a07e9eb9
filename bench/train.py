"""Times a step of training against PyTorch's in one run: the same network, batch, losses, optimiser and
number of threads, one step of each in turn, minima; PyTorch in both memory formats, of which the faster counts.

    python bench/train.py [--runs N] [--threads N] [--model ct-128] [--parts autoencoder,diffusion] [--batch N]

`sh bench/run.sh train` builds what this needs.
"""

import argparse
import sys

from compare import TUNED, commands, paths
from server import Server


def measure(model, part, batch, arguments):
    commands(model, arguments.threads)  # makes weights where none are shipped
    words = [*paths(model), part, str(batch), str(arguments.threads)]
    python = [sys.executable, "bench/pytorch_train.py", *words]
    servers = [Server(["build/bench/train", *words], {"OMP_WAIT_POLICY": "passive"}), Server(python, TUNED), Server(python + ["--channels-last"], TUNED)]
    for server in servers:
        server.ask("step")
    times = [[server.ask("step")[0] for server in servers] for _ in range(arguments.runs)]
    ours, *theirs = (min(column) for column in zip(*times))
    memory, plan = servers[0].ask("memory")
    print(f"  {part:12s} batch {batch:2d}   engine {1e3 * batch / ours:6.2f} images/s   PyTorch {1e3 * batch / theirs[0]:6.2f}, channels last {1e3 * batch / theirs[1]:6.2f}"
          f"   engine / faster PyTorch {min(theirs) / ours:5.2f}   memory {memory / 1e6:7.1f} MB (plan {plan / 1e6:.1f}), {servers[1].ask('memory')[0] / 1e6:7.1f} MB", flush=True)
    for server in servers:
        server.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="ct-128")
    parser.add_argument("--parts", default="autoencoder,diffusion")
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args()
    print(f"{arguments.model}, {arguments.threads} threads, minimum of {arguments.runs}, interleaved")
    for part in arguments.parts.split(","):
        measure(arguments.model, part, arguments.batch, arguments)


main()
