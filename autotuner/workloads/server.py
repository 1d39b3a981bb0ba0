"""A server: started with a configuration filled in, put under load by a client in another process, and stopped.

Any program that answers HTTP will do: an OpenAI-compatible language model, or an endpoint of one's own that takes JSON.
"""

import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from autotuner.errors import InvalidConfigError, UnsupportedError, UsageError
from autotuner.load.dialect import Dialect
from autotuner.load.plan import Api
from autotuner.load.process import LoadClient
from autotuner.load.prompts import read_requests
from autotuner.load.traffic import Level, Traffic
from autotuner.plugins import OpenWorkload, Preload, Trait, Workload
from autotuner.types import Binding, Config, Tier
from autotuner.workloads.labels import Quality
from autotuner.workloads.programs import Program, check_program, code_of, environment, write_files
from autotuner.workloads.serving import OpenServer, Reload, Service, await_answer
from autotuner.workloads.templates import Arguments, fill, fill_arguments, misfit, names_in

CAPACITY, COMPUTE = Binding.CAPACITY, Binding.COMPUTE
HOST, MEMORY = Binding.HOST_LAUNCH, Binding.MEMORY_BANDWIDTH

_PATHS: Mapping[str, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "json": "/"}
OURS = ("port", "folder", "python")  # names that we give

_BATCHING = Trait(memory=True, acts_on=(HOST, MEMORY, CAPACITY), text="requests or tokens of one step")
_CACHE = Trait(acts_on=(CAPACITY, MEMORY), text="how the KV cache is cut and how large it is")
_FORMAT = Trait(tier=Tier.PRECISION, acts_on=(MEMORY, COMPUTE, CAPACITY), text="number format")
_CORES = Trait(acts_on=(COMPUTE, MEMORY, HOST), text="threads of the CPU")
_PARALLEL = Trait(tier=Tier.PRECISION, acts_on=(CAPACITY, COMPUTE, MEMORY), text="GPUs that share the model")
_KERNEL = Trait(acts_on=(MEMORY, COMPUTE, HOST), text="which kernel computes it")


class Server(Workload):
    """Starts a server, loads it, and stops it with all that it started."""

    kind: Literal["server"] = "server"
    argv: Arguments = Field(
        min_length=1, description="Program and arguments; {parameter}, {port}, {python} and {folder} are filled in."
    )
    env: Mapping[str, str] = Field(default_factory=dict, description="Set in its environment; filled in as well.")
    inherit: tuple[str, ...] = Field((), description="Names in our environment, or patterns, that it may see besides.")
    files: Mapping[str, str] = Field(default_factory=dict, description="Files to write into {folder}; filled in.")
    cwd: Path | None = Field(None, description="Where it runs; ours when left out.")
    port: int | None = Field(None, ge=1, le=65535, description="Left out: a free one each time.")
    url: str = Field("http://127.0.0.1:{port}", description="Where it answers.")
    api: Api = Field("chat", description="chat and completions as OpenAI defined them, or json for any endpoint.")
    path: str | None = Field(None, description="Of the endpoint; known for chat and completions.")
    model: str = Field("", description="What the server calls its model, where it must be named.")
    stream: bool = Field(True, description="Ask for answers in parts.")
    headers: Mapping[str, str] = Field(default_factory=dict)
    request: Mapping[str, Any] = Field(default_factory=dict, description="Further fields of every request; filled in.")
    reload: Reload | None = Field(None, description="By which request it takes parameters while it runs.")
    ready_s: float = Field(300.0, gt=0, description="Until the first complete answer.")
    stop_s: float = Field(3.0, gt=0, le=4, description="From SIGTERM to SIGKILL.")
    timeout_s: float = Field(60.0, gt=0, description="Of a request; then it has failed.")
    max_error_ratio: float = Field(0.01, ge=0, le=1, description="Of the requests; beyond it the trial has failed.")
    load: Traffic = Field(default_factory=Traffic, description="The traffic of one episode.")
    slo: Level | None = Field(None, description="The service level that a good request keeps.")
    find_rate: bool = Field(False, description="Look for the highest rate that keeps the service level.")
    quality: Quality = Field(default_factory=Quality, description="What it must still answer.")
    price_per_hour: float | None = Field(None, gt=0, description="Of the machine: for cost_per_million_tokens.")
    device: Literal["auto", "cpu", "cuda"] = "auto"

    any_parameter: ClassVar[bool] = True
    countable: ClassVar[bool] = False
    # What usual names mean; a study file says otherwise where they do not.
    traits: ClassVar[Mapping[str, Trait]] = {
        **dict.fromkeys(("max_num_seqs", "max_running_requests", "max_concurrent_requests", "parallel"), _BATCHING),
        **dict.fromkeys(("max_batch_tokens", "max_num_batched_tokens", "chunked_prefill_size"), _BATCHING),
        **dict.fromkeys(("batch", "ubatch", "batch_size", "max_batch_size", "continuous_batching"), _BATCHING),
        **dict.fromkeys(("block_size", "page_size", "num_blocks", "gpu_memory_utilization"), _CACHE),
        **dict.fromkeys(("mem_fraction_static", "prefix_caching", "kv_unified"), _CACHE),
        **dict.fromkeys(("dtype", "quantization"), _FORMAT),
        **dict.fromkeys(("kv_cache_dtype", "cache_type", "cache_type_k", "cache_type_v"), _FORMAT),
        **dict.fromkeys(("threads", "threads_batch", "threads_http", "omp_num_threads"), _CORES),
        **dict.fromkeys(("attention", "attention_backend", "flash_attention", "enforce_eager", "compile"), _KERNEL),
        **dict.fromkeys(("tensor_parallel_size", "tp"), _PARALLEL),
    }

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.find_rate and self.slo is None:
            raise ValueError("find_rate needs a service level to keep: slo: {latency_s: 200 ms}")
        if self.find_rate and self.load.arrivals == "trace":
            raise ValueError("find_rate chooses the rate itself; a trace has its own")
        if self.api == "json" and self.slo and (self.slo.ttft_s is not None or self.slo.tpot_s is not None):
            raise ValueError("slo: answers of api: json come whole, so bound latency_s")
        if self.port is None and "{port}" not in self.url:
            raise ValueError("write {port} into the url, or say which port: it is")
        if self.port is None and "port" not in names_in([*self.argv, self.env, self.files]):
            raise ValueError("nothing tells the server its port: write {port} into argv, env or files, or give port:")
        return self

    def lacks(self, metric: str) -> str:
        """Of what is only known with a service level, a search for the rate, a price."""
        if metric in ("goodput_requests_per_s", "slo_attainment_ratio") and self.slo is None:
            return "workload.slo: {latency_s: 200 ms}"
        if self.api == "json" and metric.startswith(("ttft_", "tpot_")):
            return "workload.api: chat or completions, whose answers come in parts"
        if metric == "slo_rate_per_s" and not self.find_rate:
            return "workload.find_rate: true"
        return "workload.price_per_hour:" if metric == "cost_per_million_tokens" and not self.price_per_hour else ""

    def preload(self) -> Preload:
        """Nothing: the worker only starts programs."""
        return ()

    def trait(self, name: str) -> Trait:
        """As usual names go; live where only requests name it."""
        return replace(super().trait(name), live=name not in self._starting)

    def fixed(self, config: Config) -> frozenset[str]:
        """What the server is started with."""
        return self._starting & config.keys()

    @cached_property
    def _starting(self) -> frozenset[str]:
        return frozenset(names_in([*self.argv, self.env, self.files, self.url]))

    def identity(self) -> Mapping[str, str]:
        """The program."""
        return {"model": self.model or next(str(part) for part in self.argv)}

    def sources(self) -> Sequence[Path]:
        """The files that its command line names, else where it runs."""
        return code_of([self.argv], self.cwd)

    def check(self) -> None:
        """Whether files are there."""
        for name, path in (("load.prompts", self.load.prompts), ("quality.labels", self.quality.labels)):
            if path is not None and not path.is_file():
                raise UsageError(f"workload.{name}: there is no {path}", f"looked in {Path.cwd()}")
        if self.load.prompts is not None:
            read_requests(self.load.prompts)
        if self.cwd is not None and not self.cwd.is_dir():
            raise UsageError(f"workload.cwd: there is no folder {self.cwd}")
        check_program(self.argv, self.cwd)

    def refuses(self, config: Config) -> str:
        """A name in a text that is no parameter, or a parameter that no text names."""
        return misfit(self._names, config, OURS, "argv, env, files, request or reload")

    @cached_property
    def _names(self) -> frozenset[str]:
        reload = [self.reload.path, self.reload.json_body] if self.reload else []
        return self._starting.union(names_in([self.request, *reload]))

    @contextmanager
    def open(self, config: Config, device: str) -> Iterator[OpenWorkload]:
        """Start the server and wait for an answer."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="autotune-server-")))
            client = stack.enter_context(LoadClient())  # gets ready while the server does
            port = self.port or _free_port()
            values = {**config, "port": port, "folder": str(folder), "python": sys.executable}
            url = fill(self.url, values)
            _refuse_taken(url)
            write_files(folder, {name: fill(text, values) for name, text in self.files.items()})
            env = environment(self.inherit, {name: fill(text, values) for name, text in self.env.items()})
            argv = fill_arguments(self.argv, values)
            program = stack.enter_context(Program(argv, env, self.cwd, self.stop_s))
            endpoint = url.rstrip("/") + (self.path or _PATHS[self.api])
            dialect = Dialect(
                endpoint, self.api, self.model, self.stream, headers=self.headers, timeout_s=self.timeout_s
            )
            opened = OpenServer(self._service(), program, client, dialect, url)
            opened.dialect = await_answer(program, client, dialect, opened.first_request(config), self.ready_s)
            yield opened

    def _service(self) -> Service:
        level = self.slo.bounds() if self.slo else None
        return Service(
            self.load, level, self.find_rate, self.request, self.reload, self.quality, self.max_error_ratio,
            self.price_per_hour,
        )  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _refuse_taken(url: str) -> None:
    """Another server's answers must not be taken for ours.

    Raises:
        UnsupportedError: Somebody listens there already.
    """
    where = urlsplit(url)
    if where.hostname is None or where.scheme not in ("http", "https"):
        raise InvalidConfigError(f"{url} is no address of a server", "write http://127.0.0.1:{port}")
    port = where.port or (443 if where.scheme == "https" else 80)
    try:
        with socket.create_connection((where.hostname, port), timeout=1.0):
            pass
    except OSError:
        return
    raise UnsupportedError(f"port {port} is taken by another process", "leave port: out, and a free one is used")
