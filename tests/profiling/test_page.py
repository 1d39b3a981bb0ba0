"""The page, in a real browser where there is one. The GPU trace behind it is written by hand; nothing was recorded."""

import math
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotuner.analyze import patterns
from autotuner.analyze.flame import parse_raw
from autotuner.analyze.nsight import Counters, NsysTables, Total
from autotuner.analyze.profile import CpuUse, Profile, Thread
from autotuner.analyze.trace import parse, summarise
from autotuner.report.profile import profile_json, profile_summary
from autotuner.report.profile_figures import origin
from autotuner.report.profile_page import page
from autotuner.report.terminal import render

sys.path.insert(0, str(Path(__file__).parents[1] / "analyze"))
sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from browser import Checker, browse, needs_browser
from chrome_trace import Trace

NASTY = "<script>document.title='broken'</script>&\"'"
STACKS = """\
process 1:"py";thread (1): MainThread;Model.forward (model.py:3);linear (torch/nn/functional.py:4);mm (torch/x.py:9) 50
process 1:"python";thread (1): MainThread;Model.forward (model.py:3);poll (multiprocessing/connection.py:5) 30
process 1:"python";process 2:"python";thread (2): MainThread;Data.__getitem__ (<b>data</b>.py:6) 20
"""


def gpu_trace():
    trace = Trace().steps((0, 4000), (4000, 8000), (8000, 12000))
    for step in (0, 4000, 8000):
        trace.add("user_annotation", "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__", step, step + 500)
        trace.copy("Memcpy HtoD (Pageable -> Device)", step + 520, step + 540, step + 700, size=2**20)
        for i in range(120):
            at = step + 700 + 20 * i
            trace.op("aten::add", at - 4, at + 8)
            trace.kernel("void at::native::vectorized_elementwise_kernel<4>(int)", at, at + 5, at + 8)
        trace.kernel("ampere_bf16_s16816gemm_128x128", step + 3100, step + 3110, step + 3600)
        trace.kernel(f"ncclDevKernel_AllReduce{NASTY}", step + 3120, step + 3300, step + 3800, stream=20)
        trace.call("cudaStreamSynchronize", step + 3150, step + 3810)
        trace.call("cudaStreamSynchronize", step + 700, step + 705)
    return summarise(parse(trace.json()))


@pytest.fixture(scope="module")
def found():
    seen = gpu_trace()
    cpu = CpuUse((Thread("python", True, 0.9), Thread("pt_autograd_0", False, 0.2)), 1.4, 8)
    counters = (
        Counters("void at::native::vectorized_elementwise_kernel<4>(int)", 3, 3e-6, 0.1, 0.8, 0.4, 30.0, 4.0, 0.1, 1.0),
    )
    return Profile(
        name="by-hand", config={"batch_size": 8, "mode": NASTY}, baseline={"batch_size": 1, "mode": NASTY},
        device="cuda", machine="a machine that was made up", started_at=datetime(2026, 1, 2, tzinfo=UTC), step_s=3.6e-3,
        step_precision_ratio=0.01, throughputs={"throughput_tokens_per_s": 12345.0}, contended="", profiled_step_s=4e-3,
        trace=seen, cpu=cpu, stacks=parse_raw(STACKS), samples_per_s=100.0,
        nsys=NsysTables((Total("gemm", 3, 1e-3, 3e-4),), (Total("cudaLaunchKernel", 9, 1e-4, 1e-5),)), ncu=counters,
        patterns=patterns.find(seen, cpu, (), counters), notes=("a note",), commands={"nsys": "nsys profile …"},
        folder="out", files={"page": "out/profile.html", "trace": "out/trace.json.gz", "speedscope": "out/s.json"},
    )  # fmt: skip


def test_the_page_is_well_formed_and_asks_nothing_of_the_network(found):
    text = page(found)
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    assert checker.far == []
    assert "@import" not in text
    assert "url(" not in text


def test_other_peoples_words_stay_words(found):
    text = page(found)
    assert NASTY not in text
    assert "<b>data</b>" not in text
    assert "&lt;script&gt;document.title" in text


def test_every_part_is_on_the_page(found):
    text = page(found)
    for words in ("Many tiny kernels", "Copies from memory that is not pinned", "Scattered or strided global loads",
                  "The steps wait for data", "GPU stream 20", "host wait", "ncu: hardware counters", "nsys: kernels",
                  "Model.forward", "worker 1", "12,345", "a note"):  # fmt: skip
        assert words in text, words


def test_a_profile_of_a_cpu_has_no_empty_section(found):
    seen = summarise(parse(Trace().steps((0, 100)).op("aten::mm", 0, 60).json()))
    bare = replace(
        found, trace=seen, device="cpu", stacks=(), nsys=None, ncu=(), patterns=(), notes=("no flame graph",)
    )
    text = page(bare)
    assert "GPU stream" not in text
    assert "NVIDIA Nsight" not in text
    assert "None left evidence here" in text
    assert "no flame graph" in text


def test_the_terminal_shows_it_in_80_columns(found):
    text = render(profile_summary(found))
    assert max(map(len, text.splitlines())) <= 80
    for words in (
        "main thread",
        "GPU",
        "host wait",
        "ncu: kernel",
        "vectorized_elementwise_kernel",
        "launch queue",
        "nvprof?",
    ):
        assert words in text, words


def test_json_holds_numbers_and_no_pictures(found):
    from autotuner.report.json_lines import plain

    body = plain(profile_json(found))
    assert body["trace"]["device"]["queue_max"] >= 1
    assert "lanes" not in body["trace"]
    assert "stacks" not in body
    assert math.isclose(body["slowdown_ratio"], 4 / 3.6)


@pytest.mark.parametrize(
    ("frame", "whose"),
    [
        ("forward (model.py:3)", "own"),
        ("linear (torch/nn/functional.py:4)", "torch"),
        ("generate (transformers/generation/utils.py:1)", "library"),
        ("poll (multiprocessing/connection.py:5)", "standard"),
        ("MainThread", "standard"),
    ],
)
def test_frames_are_coloured_by_whose_code_they_are(frame, whose):
    assert origin(frame) == whose


CLICK = """<script>
const frames = [...document.querySelectorAll(".flame b")];
const seen = () => frames.filter((frame) => !frame.hidden).length;
const result = {before: seen(), wide: document.documentElement.scrollWidth - document.documentElement.clientWidth};
frames.find((frame) => frame.textContent.startsWith("poll")).click();
result.zoomed = seen();
result.past = document.querySelectorAll(".flame b.past").length;
result.poll = frames.find((frame) => frame.textContent.startsWith("poll")).style.width;
document.querySelector(".flame-bar button").click();
result.after = seen();
const titles = [...document.querySelectorAll("section h2, .numbers dd")];
result.clipped = titles.filter((e) => e.scrollWidth > e.clientWidth).length;
document.body.dataset.result = JSON.stringify(result);
</script>"""


@needs_browser
@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_draws_it_without_complaint_and_a_click_enlarges_a_frame(found, tmp_path, width):
    html = page(found).replace("</body>", f"{CLICK}</body>")
    dom, complaints = browse(tmp_path, f"--window-size={width},1000", "--dump-dom", html=html)
    assert complaints == []
    assert "<title>broken" not in dom
    result = dict(re.findall(r"&quot;(\w+)&quot;:(?:&quot;)?([\d.%]+)", dom))
    assert result["before"] == result["after"] == "10"
    assert (result["zoomed"], result["past"], result["poll"]) == ("5", "4", "100%")
    assert result["wide"] == "0", "nothing is wider than the window"
    assert result["clipped"] == "0"


@needs_browser
def test_light_and_dark_are_different_pictures(found, tmp_path):
    shots = {}
    for scheme, number in (("dark", 0), ("light", 1)):
        shot = tmp_path / f"{scheme}.png"
        browse(tmp_path, f"--blink-settings=preferredColorScheme={number}", f"--screenshot={shot}", html=page(found))
        shots[scheme] = shot.read_bytes()
    assert all(len(shot) > 20_000 for shot in shots.values())
    assert shots["dark"] != shots["light"]
