"""A process that runs one job per line of its standard input and answers with a line: what the
benches talk to, so that the engine and PyTorch can take turns without sharing a process."""

import os
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


class Server:
    def __init__(self, command, extra):
        environment = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
        environment.update(extra)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
        self.name = self.line()

    def send(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def line(self):
        answer = self.process.stdout.readline().strip()
        if not answer:
            sys.exit("bench: a process ended early")
        return answer

    def ask(self, text):
        """The numbers that answer it."""
        self.send(text)
        return [float(word) for word in self.line().split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()
