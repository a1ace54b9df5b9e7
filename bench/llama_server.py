"""llama.cpp's own server, from the PyPI wheel xllamacpp, as the peer of bench/peers.sh.

    llama_server.py MODEL.gguf --threads 2 --parallel 16 --context 16384

Prints its address on a line of its own once it listens, and serves until its standard input closes."""
import argparse
import sys

import xllamacpp

arguments = argparse.ArgumentParser()
arguments.add_argument("model")
arguments.add_argument("--threads", type=int, default=2)
arguments.add_argument("--parallel", type=int, default=16)
arguments.add_argument("--context", type=int, default=16384, help="of all slots together")
options = arguments.parse_args()

params = xllamacpp.CommonParams()
params.model.path = options.model
params.cpuparams.n_threads = options.threads
params.cpuparams_batch.n_threads = options.threads
params.n_parallel = options.parallel
params.n_ctx = options.context
params.cache_ram_mib = 0  # every prompt of the bench is new: a prompt cache would only be copied to
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
