"""llama.cpp's own server from the package xllamacpp, with the options of `llama-server` that matter for speed.

`python llama_cpp.py MODEL.gguf --port 8080 --threads 2 --parallel 4`; where llama-server is installed, use that.
"""

import argparse
import signal

import xllamacpp

TYPES = ("f32", "f16", "q8_0")


def _kind(name: str) -> xllamacpp.ggml_type:
    return getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}")


def main() -> None:
    """Serve until somebody ends it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?")
    parser.add_argument("--model", dest="model_option", help="the same, as llama-server spells it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--threads-batch", type=int, default=0, help="of prompts; 0 for as many as --threads")
    parser.add_argument("--parallel", type=int, default=1, help="requests at a time")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--ubatch-size", type=int, default=512)
    parser.add_argument("--ctx-size", type=int, default=4096, help="tokens of all places together")
    parser.add_argument("--cache-ram", type=int, default=8192, help="MiB for prompts seen before; 0 for none")
    parser.add_argument("--no-cache-prompt", action="store_true", help="begin each prompt anew")
    parser.add_argument("--cache-type", choices=TYPES, default="f16", help="of both of the next")
    parser.add_argument("--cache-type-k", choices=TYPES)
    parser.add_argument("--cache-type-v", choices=TYPES)
    given = parser.parse_args()
    if not (model := given.model or given.model_option):
        parser.error("which model?")

    options = xllamacpp.CommonParams()
    options.model.path = model
    options.hostnames, options.port = [given.host], given.port
    options.cpuparams.n_threads = given.threads
    options.cpuparams_batch.n_threads = given.threads_batch or given.threads
    options.n_parallel, options.n_batch, options.n_ubatch = given.parallel, given.batch_size, given.ubatch_size
    options.n_ctx = given.ctx_size
    options.cache_ram_mib, options.cache_prompt = given.cache_ram, not given.no_cache_prompt
    options.cache_type_k = _kind(given.cache_type_k or given.cache_type)
    options.cache_type_v = _kind(given.cache_type_v or given.cache_type)
    options.warmup = False
    server = xllamacpp.Server(options)
    print(f"listening at {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
