"""llama.cpp's own server from the package xllamacpp, with the options of `llama-server` that matter for speed.

`python llama_cpp.py MODEL.gguf --port 8080 --threads 2 --parallel 4`; where llama-server is installed, use that.
"""

import argparse
import signal

import xllamacpp


def main() -> None:
    """Serve until somebody ends it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--threads-batch", type=int, default=0, help="of prompts; 0 for as many as --threads")
    parser.add_argument("--parallel", type=int, default=1, help="requests at a time")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--ubatch-size", type=int, default=512)
    parser.add_argument("--ctx-size", type=int, default=4096, help="tokens of all places together")
    parser.add_argument("--cache-ram", type=int, default=8192, help="MiB for prompts seen before; 0 for none")
    parser.add_argument("--no-cache-prompt", action="store_true", help="begin each prompt anew")
    parser.add_argument("--cache-type", choices=("f32", "f16", "q8_0"), default="f16")
    given = parser.parse_args()

    options = xllamacpp.CommonParams()
    options.model.path = given.model
    options.hostnames, options.port = ["127.0.0.1"], given.port
    options.cpuparams.n_threads = given.threads
    options.cpuparams_batch.n_threads = given.threads_batch or given.threads
    options.n_parallel, options.n_batch, options.n_ubatch = given.parallel, given.batch_size, given.ubatch_size
    options.n_ctx = given.ctx_size
    options.cache_ram_mib, options.cache_prompt = given.cache_ram, not given.no_cache_prompt
    kind = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{given.cache_type.upper()}")
    options.cache_type_k = options.cache_type_v = kind
    options.warmup = False
    server = xllamacpp.Server(options)
    print(f"listening at {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
