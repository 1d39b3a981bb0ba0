"""`autotune load`."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from autotuner.cli.exits import interrupted_is_one_line
from autotuner.cli.options import Json
from autotuner.errors import UsageError


class ApiName(StrEnum):
    """How a server is asked."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    JSON = "json"


def load(
    url: Annotated[str, typer.Argument(help="Of a server that runs: http://127.0.0.1:8000, or of its endpoint.")],
    api: Annotated[ApiName, typer.Option(help="OpenAI's chat or completions, or any JSON endpoint.")] = ApiName.CHAT,
    rate: Annotated[float | None, typer.Option(help="Poisson arrivals, so many requests a second.")] = None,
    constant: Annotated[bool, typer.Option("--constant", help="All gaps alike instead.")] = False,
    concurrency: Annotated[int, typer.Option(help="Without --rate: clients that each wait for their answer.")] = 8,
    requests: Annotated[int, typer.Option(help="How many.")] = 100,
    prompts: Annotated[Path | None, typer.Option(help="JSON lines with prompts, or whole bodies.")] = None,
    trace: Annotated[Path | None, typer.Option(help="JSON lines with prompts and times, to be replayed.")] = None,
    prompt_words: Annotated[int, typer.Option(help="Of made prompts.")] = 64,
    shared_words: Annotated[int, typer.Option(help="Of them, the same at the beginning of all prompts.")] = 0,
    output_tokens: Annotated[int, typer.Option(help="Of each answer.")] = 32,
    max_in_flight: Annotated[int | None, typer.Option(help="Who waits for a place waits on the clock.")] = None,
    slo: Annotated[
        list[str] | None, typer.Option(help="A good request: latency_s=200ms, ttft_s=, tpot_s=, share=0.95.")
    ] = None,
    find_rate: Annotated[bool, typer.Option("--find-rate", help="The highest rate that keeps the level.")] = False,
    model: Annotated[str, typer.Option(help="Name of the model, where the server wants one.")] = "",
    whole: Annotated[bool, typer.Option("--no-stream", help="Ask for whole answers.")] = False,
    header: Annotated[list[str] | None, typer.Option(help="Of every request: 'Authorization: Bearer …'.")] = None,
    timeout_s: Annotated[float, typer.Option(help="Of a request.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Of prompts and arrivals.")] = 0,
    as_json: Json = False,
) -> None:
    """Put a server under load and say how it bears it.

    Latency counts from when a request was due. Ends with 0; with 1 when the numbers cannot be believed or requests
    failed; with 2 for your mistake, 3 when nobody answers, 130 when interrupted.
    """
    arrivals = "trace" if trace else "closed" if rate is None else "constant" if constant else "poisson"
    asked = {"arrivals": arrivals, "rate_per_s": rate, "concurrency": concurrency, "requests": requests, "seed": seed,
             "prompts": trace or prompts, "prompt_words": prompt_words, "shared_words": shared_words,
             "output_tokens": output_tokens, "max_in_flight": max_in_flight}  # fmt: skip
    target = {"url": url, "api": api.value, "model": model, "stream": not whole, "timeout_s": timeout_s,
              "headers": _headers(header or [])}  # fmt: skip
    _load(target, asked, _bounds(slo or []), find_rate=find_rate, as_json=as_json)


def _load(
    target: Mapping[str, Any], asked: Mapping[str, Any], slo: Mapping[str, str], *, find_rate: bool, as_json: bool
) -> NoReturn:
    from autotuner.load.session import Target, load_server
    from autotuner.load.traffic import Level, Traffic, checked
    from autotuner.report.json_lines import dump
    from autotuner.report.load import load_json, load_view
    from autotuner.report.terminal import show

    level = checked(Level, slo).bounds() if slo else None
    with interrupted_is_one_line("nothing was kept", as_json):
        found = load_server(Target(**target), checked(Traffic, asked), level, find_rate=find_rate)
    if as_json:
        print(dump(load_json(found), indent=2))
    else:
        show(load_view(found))
    bad = found.doubts or found.saturated or found.failures or found.highest_rate_per_s == 0
    raise typer.Exit(1 if bad else 0)


def _headers(texts: Sequence[str]) -> dict[str, str]:
    """`["Authorization: Bearer x"]` as a mapping.

    Raises:
        UsageError: One has no colon.
    """
    for text in texts:
        if ":" not in text:
            raise UsageError(f"--header {text}: no colon in it", "write --header 'Authorization: Bearer …'")
    return {name.strip(): value.strip() for name, _, value in (text.partition(":") for text in texts)}


def _bounds(texts: Sequence[str]) -> dict[str, str]:
    """`["ttft_s=100ms"]` as a mapping.

    Raises:
        UsageError: One is no pair.
    """
    pairs = [text.partition("=") for text in texts]
    if wrong := next((text for text, (_, sign, _) in zip(texts, pairs, strict=True) if not sign), None):
        raise UsageError(f"--slo {wrong} says no bound", "write --slo latency_s=200ms")
    return {name.strip(): value.strip() for name, _, value in pairs}
