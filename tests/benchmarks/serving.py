"""`python -m tests.benchmarks.serving`: measure `stedfm serve` (`make bench-serving`).

`latency` measures a request next to the library call that it makes, writes the numbers next to the page, and renders
the page from all numbers that are there. `soak` sends requests to a server at a fixed rate, and looks at its memory.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from torch.utils.flop_counter import FlopCounterMode

from stedfm_hf import StedFmConfig, StedFmModel
from stedfm_hf.acquisition import Client, FinderInfo
from stedfm_hf.acquisition.serving.application import make_app
from stedfm_hf.acquisition.serving.engine import Wanted
from stedfm_hf.acquisition.serving.server import Server
from stedfm_hf.acquisition.serving.settings import ServeSettings
from stedfm_hf.images import StedImage
from tests.benchmarks.timing import instruction_sets, machine, matmul, table, take_turns

SIZE = 1024
STRIDES = (224, 112)
SMALL, SMALL_ROUNDS = "demo", 40
"""Case with a small encoder, which shows what a request adds more exactly than one that computes for seconds."""
MATMUL = "matmul"
"""Highest rate of plain matrix products in float32, in FLOP/s."""
SOAK = "soak"
"""Sentence on the memory and the finders of a server that answers for a long time."""
CASES = ("torch:float32", "torch:bfloat16", "onnx:float32", "onnx:int8", "openvino:float32", "openvino:bfloat16")
REQUIRED_S, REQUIRED_ADDED = 2.5, 0.05
PAGE = Path("docs/benchmarks/serving.md")


def field(size: int = SIZE, seed: int = 0) -> np.ndarray:
    """Noise with bright squares (size, size) uint16."""
    rng = np.random.default_rng(seed)
    pixels = rng.poisson(5, (size, size)).astype(np.uint16)
    for y, x in rng.integers(0, size - 12, (20, 2)):
        pixels[y : y + 12, x : x + 12] += 100
    return pixels


@contextmanager
def served(settings: ServeSettings) -> Iterator[tuple[str, Server]]:
    """Serve in a thread of this process; gives the address and the parts of the server."""
    app = make_app(settings)
    config = uvicorn.Config(app, host=settings.host, port=0, log_level="error", access_log=False)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://{settings.host}:{port}", app.state.server
    finally:
        running.should_exit = True
        thread.join()


def measure(
    work: Path, backend: str, stride: int, rounds: int, device: str, precision: str, model: str = "model"
) -> dict[str, Any]:
    """Time requests and library calls, which take turns, for a backend and a stride, in seconds."""
    settings = ServeSettings(
        model=work / model if model == "model" else model,
        state=work / f"{model}-{backend}-{precision}-{stride}",
        tile_overlap=STRIDES[0] - stride,
        backend=backend,
        device=device,
        precision=precision,
    )
    pixels = field()
    image = StedImage(pixels[None], None, ("0",), {}, "field.npy", "image")
    times: dict[str, list[float]] = {"request": [], "library": []}
    with served(settings) as (address, server), Client(address, timeout_s=600) as client:
        # One tile: the fit is not measured.
        finder = client.create_finder(field(224), clicks=[(100, 100)], rotations=False)
        (owner,) = (Path(settings.state) / "clients").iterdir()
        stored, wanted = server.store.load(owner.name, finder.id), Wanted(25)
        for number in range(-1, rounds):
            for name in times:
                began = time.perf_counter()
                if name == "request":
                    client.regions(pixels, finder)
                else:
                    server.engine.regions(stored, image, wanted)
                if number >= 0:
                    times[name].append(time.perf_counter() - began)
            print(f"{backend} {precision} {stride}: {number + 1}/{rounds}", file=sys.stderr, flush=True)
        about = {"device": server.engine.about()["device"], "precision": server.engine.about()["precision"]}
    return about | {"backend": backend, "stride": stride, "machine": machine(), "seconds": times} | versions()


def versions() -> dict[str, str]:
    """Versions of the libraries of the server and of the backends."""
    names = ("fastapi", "uvicorn", "httpx2", "onnxruntime", "openvino")
    return {"versions": ", ".join(f"{name} {metadata.version(name)}" for name in names)}


def latency(arguments: argparse.Namespace) -> None:
    """Measure the asked cases, and write the page."""
    numbers = arguments.output.with_suffix(".json")
    found: dict[str, Any] = json.loads(numbers.read_text(encoding="utf-8")) if numbers.is_file() else {}
    rate = max(take_turns({"matmul": matmul(torch.float32)}, 5).values["matmul"])
    found[MATMUL] = max(rate, found.get(MATMUL, 0.0))
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        torch.manual_seed(0)
        model = StedFmModel(StedFmConfig())
        model.save_pretrained(work / "model")
        for stride in arguments.strides:
            for case in arguments.cases:
                backend, precision = case.split(":")
                measured = measure(work, backend, stride, arguments.rounds, arguments.device, precision)
                found[f"{measured['device']} {case} {stride}"] = measured
                numbers.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        found[SMALL] = measure(work, "torch", STRIDES[0], SMALL_ROUNDS, "cpu", "float32", "demo")
        numbers.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    arguments.output.write_text(page(found, bound(model, found[MATMUL])), encoding="utf-8")
    print(arguments.output.read_text(encoding="utf-8"))


def bound(model: StedFmModel, rate: float) -> str:
    """Say how long the matrix products of a field take at least in float32, at a rate in FLOP/s."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, STRIDES[0], STRIDES[0]))
    tiles = math.ceil((SIZE - STRIDES[0]) / STRIDES[1] + 1) ** 2
    operations = counter.get_total_flops() * tiles
    return (
        f"At stride {STRIDES[1]}, a field has {tiles} tiles, whose matrix products need {operations / 1e9:.0f} GFLOP. "
        f"A plain\nproduct of large matrices in float32 reaches {rate / 1e9:.0f} GFLOP/s here: float32 cannot take "
        f"less than {operations / rate:.1f} s."
    )


def added_seconds(case: dict[str, Any]) -> float:
    """Median of the differences of a request and a library call."""
    request, library = (np.array(case["seconds"][name]) for name in ("request", "library"))
    return float(np.median(request - library))


def page(found: dict[str, Any], least: str) -> str:
    """The page of all cases."""
    small, fastest, rows = found[SMALL], dict.fromkeys(STRIDES, (float("inf"), "")), []
    cases = [found[name] for name in found if name not in (SMALL, MATMUL, SOAK)]
    for case in sorted(cases, key=lambda each: (each["device"], -each["stride"], each["backend"])):
        request, library = (np.array(case["seconds"][name]) for name in ("request", "library"))
        p50, p99 = np.quantile(request, [0.5, 0.99])
        name, added = f"{case['backend']}, {case['precision']}, {case['device']}", added_seconds(case)
        fastest[case["stride"]] = min(fastest[case["stride"]], (float(p50), name))
        seconds = [f"**{p50:.2f}**", f"{p99:.2f}", f"{np.median(library):.2f}"]
        differences = [f"{1000 * added:+.0f} ms", f"{100 * added / np.median(library):+.1f} %"]
        rows.append([name, str(case["stride"]), *seconds, *differences, str(len(request))])
    head = ["backend", "stride, px", "request p50, s", "p99, s", "library p50, s", "it adds", "relative", "rounds"]
    added = added_seconds(small)
    return PAGE_TEXT.format(
        machine=small["machine"],
        versions=small["versions"],
        flags=instruction_sets(),
        rows=table(head, rows),
        least=least,
        soak=found.get(SOAK, ""),
        fastest="{:.2f} s with {}".format(*fastest[STRIDES[1]]),
        added=f"{1000 * added:.0f} ms",
        rounds=len(small["seconds"]["request"]),
        relative=" and ".join(f"{100 * added / seconds:.1f}" for seconds, _ in fastest.values()),
    )


def soak(arguments: argparse.Namespace) -> None:
    """Send requests at a fixed rate, and print the memory of the server and its lost finders every half minute."""
    with tempfile.TemporaryDirectory() as place:
        words = ["serve", "--model", "demo", "--state", place, "--port", "0", "--device", "cpu"]
        command = [sys.executable, "-m", "stedfm_hf.cli", *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                _soak(arguments, process)
            finally:
                process.terminate()


def _soak(arguments: argparse.Namespace, process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    address = next(found[1] for line in process.stderr if (found := re.search(r"the server is at (\S+)", line)))
    client, pixels, known = Client(address), [field(256, seed) for seed in range(4)], dict[str, FinderInfo]()
    began, shown, memory, late, lost = time.monotonic(), 0.0, list[float](), 0, 0
    kept = client.create_finder(pixels[0], clicks=[(60, 60)], rotations=False)
    known[kept.id] = kept
    number = 0
    while (now := time.monotonic() - began) < 60 * arguments.minutes:
        image = pixels[number % len(pixels)]
        client.regions(image, kept) if number % 2 else client.score(image, kept)
        if number % 10 == 9:
            made = client.create_finder(image, clicks=[(60, 60), (120, 90)], rotations=False)
            known[made.id] = client.add_annotations(made, pixels[0], clicks=[(30, 30)])
            if len(known) > 8:
                old = next(each for each in known if each != kept.id)
                client.delete_finder(old)
                del known[old]
        number += 1
        if now >= shown:
            lost += len(set(known) - {each.id for each in client.finders()})
            memory.append(resident_mb(process.pid))
            print(f"{now / 60:5.1f} min: {number} rounds, {memory[-1]:.1f} MB, {lost} finders lost", flush=True)
            shown += 30
        wait = number / arguments.rate - (time.monotonic() - began)
        late += wait < 0
        time.sleep(max(0.0, wait))
    third = max(1, len(memory) // 3)
    middle, last = np.mean(memory[third : 2 * third] or memory), np.mean(memory[-third:])
    numbers = arguments.output.with_suffix(".json")
    found = json.loads(numbers.read_text(encoding="utf-8"))
    found[SOAK] = (
        f"In {arguments.minutes:g} minutes with requests for {arguments.rate:g} field per second ({number} in all, "
        f"{late} late),\nthe server had {memory[0]:.0f} MB at the start, "
        f"{middle:.1f} MB in the middle third and {last:.1f} MB in the last third of\nthe time, "
        f"and lost {lost} finders."
    )
    numbers.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(found[SOAK])


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB (Linux)."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(float(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS"))


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(required=True)
    first = parts.add_parser("latency")
    first.add_argument("--cases", nargs="*", default=list(CASES), choices=CASES, help="backend:precision")
    first.add_argument("--strides", nargs="+", type=int, default=list(STRIDES), choices=STRIDES)
    first.add_argument("--rounds", type=int, default=6, help="requests of each case")
    first.add_argument("--device", default="cpu")
    first.set_defaults(run=latency)
    second = parts.add_parser("soak")
    second.add_argument("--minutes", type=float, default=30.0)
    second.add_argument("--rate", type=float, default=1.0, help="rounds of requests per second")
    second.set_defaults(run=soak)
    for part in (first, second):
        part.add_argument("--output", type=Path, default=PAGE)
    arguments = parser.parse_args()
    arguments.run(arguments)


PAGE_TEXT = f"""# A server next to the microscope

How long `stedfm serve` takes for the regions of a field of {SIZE} x {SIZE} pixels, and what the request adds to the
library call. At stride {STRIDES[1]}, the fastest backend needs {{fastest}}.

Measured on {{machine}}, {{versions}}, with `make bench-serving`. Instruction sets: {{flags}}.

{{rows}}

With the small encoder `demo`, a request adds {{added}} (median of {{rounds}} rounds): in the table, the differences
are mostly those between two computations.

{{least}} CPUs with `avx512_bf16` or `amx_bf16` compute faster with bfloat16, see [Backends](backends.md).

| required | value | seen |
|---|---|---|
| request at stride {STRIDES[1]}, fastest backend on a CPU | at most {REQUIRED_S} s | {{fastest}} |
| what the request adds | at most {100 * REQUIRED_ADDED:.0f} % | {{relative}} % |

## How it was measured

vit-small with random weights and a finder of one template; a 16-bit field of {2 * SIZE**2 / 1e6:.1f} MB, sent as
`.npy` over the loopback address. Tiles of 224 pixels at a distance of 224 or 112 pixels (`--tile-overlap 0` and the
default). A request and the same call in Python take turns, on the same model in the same process. "It adds" is the
median of their differences. The last value above is what a request with `demo` adds, divided by the fastest request
of each distance. p99 of few rounds is close to the slowest one.

## A long run

{{soak}}

`python -m tests.benchmarks.serving soak --minutes 30` sends requests at a fixed rate to a server on the loopback
address, makes and deletes finders, and looks at the memory of the server and at its finders twice a minute.
"""


if __name__ == "__main__":
    main()
