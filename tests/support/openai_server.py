"""A server of the OpenAI wire to be run as a command: llama.cpp behind the arguments of others.

``openai_server.py serve MODEL --served-model-name NAME ...`` takes those of vLLM, with its key in
``VLLM_API_KEY``; ``openai_server.py --config FILE --model-path MODEL ...`` those of SGLang, with
its key in the file. ``--children`` makes it run in a process of its own, as servers on GPUs do, and
``--open`` forgets the key.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import xllamacpp
import yaml


def main() -> None:
    """Serve until killed."""
    arguments = sys.argv[1:]
    if "--children" in arguments:
        arguments.remove("--children")
        sys.exit(subprocess.run([sys.executable, __file__, *arguments], check=False).returncode)
    found = read(arguments)
    server = xllamacpp.Server(make_parameters(found))
    print("serving at", server.listening_address, flush=True)
    while True:
        signal.pause()


def read(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments of either."""
    parser = argparse.ArgumentParser()
    if arguments[:1] == ["serve"]:
        arguments = arguments[1:]
        parser.add_argument("model")
        parser.add_argument("--max-model-len", type=int, dest="context")
        parser.add_argument("--max-num-seqs", type=int, dest="slots")
    else:
        parser.add_argument("--model-path", dest="model")
        parser.add_argument("--context-length", type=int, dest="context")
        parser.add_argument("--max-running-requests", type=int, dest="slots")
        parser.add_argument("--config", type=Path)
    parser.add_argument("--served-model-name")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--open", action="store_true")
    found = parser.parse_args(arguments)
    file = getattr(found, "config", None)
    found.key = yaml.safe_load(file.read_text())["api-key"] if file else os.environ["VLLM_API_KEY"]
    return found


def make_parameters(found: argparse.Namespace) -> object:
    """Return what llama.cpp is told."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = found.model
    parameters.model_alias = {found.served_model_name}
    parameters.hostnames = [found.host]
    parameters.port = found.port
    parameters.api_keys = [] if found.open else [found.key]
    parameters.n_parallel = found.slots
    parameters.n_ctx = found.context * found.slots
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.n_threads_http = 16
    return parameters


if __name__ == "__main__":
    main()
