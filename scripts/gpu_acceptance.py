"""Measure the GPU path once, and print one Markdown table; a measurement that fails is a row.

    python scripts/gpu_acceptance.py --out docs/gpu.md                    # whenever a GPU is there
    python scripts/gpu_acceptance.py --device cpu --series 200 --steps 4  # what a CPU can show

The rows: replay of CUDA graphs against eager steps; the transfers around a step; carried states
against re-reading in float32, TF32 and against a CPU, and sequences in bfloat16; a swap while the
serving model steps; training of each architecture in float32 and bfloat16; a training that runs out
of memory. Every measurement of a GPU runs in a process of its own, so that an error of the device
spoils no other.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.config import ModelConfig, TrainConfig
from model.durations import HOUR_MS
from model.history import History
from model.inference.cuda_capture import capture_graph, to_device, to_host
from model.inference.cuda_graph_stepper import FixedShapeStepper
from model.inference.forecaster import NetworkForecaster
from model.inputs.seasons.calendar import N_CALENDAR
from model.networks.quantile_network import QuantileNetwork
from model.training.memory import with_fewer_lanes
from model.training.train import Trained, TrainProgress, train
from stream.bench.inference import closed_bucket
from stream.bench.report import Row, cpu_name

ARCHITECTURES = ("lstm", "gru", "transformer")
Options = argparse.Namespace


def forecaster(options: Options, *, device: str | None = None, capture: Any = None,
               architecture: str = "lstm") -> NetworkForecaster:  # fmt: skip
    """A network with seeded random weights, stepped at a fixed shape."""
    torch.manual_seed(0)
    config = ModelConfig(horizon=24, bucket_ms=HOUR_MS, architecture=architecture)
    return NetworkForecaster(
        QuantileNetwork(config), "acceptance", device or options.device,
        stepper=lambda *parts: FixedShapeStepper(*parts, capture=capture),
    )  # fmt: skip


def captures(options: Options) -> Any:
    """Capture of a GPU; on a CPU a replay repeats the step."""
    if options.device == "cuda":
        return capture_graph
    return lambda step, carried: step


def eager(step: Callable[[], None], _carried: Any) -> Callable[[], None]:
    """No capture: every step launches its kernels again."""
    return step


def synchronize(options: Options) -> None:
    """Wait for the device."""
    if options.device == "cuda":
        torch.cuda.synchronize()


def timed_ms(options: Options, work: Callable[[], object]) -> float:
    """Median milliseconds of `--steps` runs, after three to warm up."""
    seconds = []
    for _ in range(options.steps + 3):
        synchronize(options)
        began = time.perf_counter()
        work()
        synchronize(options)
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds[3:])


def run_steps(model: NetworkForecaster, options: Options, steps: int) -> np.ndarray:
    """Forecast [S, H, Q] after some buckets, stepped one by one."""
    states = model.new_states(options.series)
    for step in range(steps):
        made = model.step(states, closed_bucket(options.series, seed=step), step * HOUR_MS)
    return made.units_SHQ


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference, in multiples of the largest number."""
    return float(np.abs(one - other).max() / max(1e-9, np.abs(other).max()))


def next_step(model: NetworkForecaster, options: Options) -> Callable[[], object]:
    """Return a call that steps new states of a model over one more bucket."""
    states, hours = model.new_states(options.series), count()
    bucket = closed_bucket(options.series)
    return lambda: model.step(states, bucket, next(hours) * HOUR_MS)


def replay(options: Options) -> Iterator[Row]:
    """A step replayed from its graph, and the same step launched kernel by kernel."""
    results, units = {}, {}
    for name, capture in (("replay", captures(options)), ("eager", eager)):
        results[name] = timed_ms(options, next_step(forecaster(options, capture=capture), options))
        units[name] = run_steps(forecaster(options, capture=capture), options, 4)
    yield Row(
        "step, replayed", results["replay"], "ms",
        {"eager_ms": round(results["eager"], 3), "of_eager": results["replay"] / results["eager"],
         "difference": difference(units["replay"], units["eager"])},
    )  # fmt: skip


def transfers(options: Options) -> Iterator[Row]:
    """The copies around a step; the rest of a step is computation."""
    bucket = closed_bucket(options.series)
    target = torch.zeros(bucket.shape, device=options.device)
    block = torch.zeros(options.series, 24, 9, device=options.device)
    inwards = timed_ms(options, lambda: to_device(bucket, target))
    outwards = timed_ms(options, lambda: to_host([block, block]))
    pageable = timed_ms(options, lambda: (block.to("cpu", copy=True), block.to("cpu", copy=True)))
    half = timed_ms(options, lambda: to_host([block.half(), block.half()]))
    yield Row("transfer in", inwards, "ms", {"bytes": bucket.nbytes})
    yield Row(
        "transfer out", outwards, "ms",
        {"bytes": 2 * block.nbytes, "pageable_ms": pageable, "float16_ms": half},
    )  # fmt: skip


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Matrix products in float32 (`highest`) or TF32 (`high`)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def carried(options: Options) -> Iterator[Row]:
    """Stepped bucket by bucket, re-read in one warm-up, and on a CPU in float32."""
    few = Options(**vars(options) | {"series": min(options.series, 500)})
    buckets = max(options.steps, 4)
    history = np.stack([closed_bucket(few.series, seed=step) for step in range(buckets)])
    for architecture in ARCHITECTURES:
        exact = run_steps(
            forecaster(few, device="cpu", capture=eager, architecture=architecture), few, buckets
        )
        for name, precision in (("float32", "highest"), ("TF32", "high")):
            with products(precision):
                model = forecaster(few, capture=captures(few), architecture=architecture)
                stepped = run_steps(model, few, buckets)
                states = model.new_states(few.series)
                model.warm_up(states, history[:-1], 0)
                again = model.step(states, history[-1], (buckets - 1) * HOUR_MS).units_SHQ
            yield Row(
                f"carried against re-read, {architecture}, {name}", difference(stepped, again), "",
                {"against_cpu": difference(stepped, exact)},
            )  # fmt: skip
        yield Row(f"encoding in bfloat16, {architecture}", rounding(few, architecture), "")


def rounding(options: Options, architecture: str) -> float:
    """Difference of a sequence's encodings in bfloat16 from those in float32."""
    network = forecaster(options, capture=eager, architecture=architecture).network
    device = torch.device(options.device)
    width = network.encoder.input_weights.shape[1] - N_CALENDAR
    inputs = torch.randn(options.series, 48, width, device=device)
    calendar = torch.rand(options.series, 48, N_CALENDAR, device=device)
    made = []
    for mixed in (False, True):
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            state = network.new_state(options.series, device)
            encoded, _ = network(inputs, calendar, state)
        made.append(encoded.float().cpu().numpy())
    return difference(made[1], made[0])


def swap(options: Options) -> Iterator[Row]:
    """Steps of the serving model while another warms up and is captured in its own stream."""
    serving, place = forecaster(options, capture=captures(options)), iter(range(10**9))
    states, bucket = serving.new_states(options.series), closed_bucket(options.series)

    def step() -> np.ndarray:
        return serving.step(states, bucket, next(place) * HOUR_MS).units_SHQ

    alone = timed_ms(options, step)
    failures: list[str] = []

    def warm_up_next() -> None:
        try:
            stream = torch.cuda.Stream() if options.device == "cuda" else None
            with torch.cuda.stream(stream):
                run_steps(forecaster(options, capture=captures(options)), options, 3)
        except Exception as error:  # the thread's error is a result  # noqa: BLE001
            failures.append(str(error))

    seconds, finite = [], True
    threads = [threading.Thread(target=warm_up_next) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or not seconds:
        began = time.perf_counter()
        finite = bool(np.isfinite(step()).all()) and finite
        seconds.append(1e3 * (time.perf_counter() - began))
    for thread in threads:
        thread.join()
    if failures or not finite:
        raise RuntimeError(f"two captures failed: {failures or 'forecasts are not finite'}")
    yield Row(
        "step during two captures, median", statistics.median(seconds), "ms",
        {"alone_ms": alone, "most_ms": max(seconds), "steps": len(seconds)},
    )  # fmt: skip


def training_config(options: Options, **changes: Any) -> TrainConfig:
    """A training of `--updates` updates without a validation."""
    model = ModelConfig(horizon=24, bucket_ms=HOUR_MS, architecture=changes.pop("architecture"))
    return TrainConfig(
        model=model, updates=options.updates, validate_every=10**9, finish_share=0.0, chunk=48,
        lanes=options.lanes, origins=16, device=options.device, **changes,
    )  # fmt: skip


def history(options: Options) -> History:
    """Four weeks of hours."""
    values = np.stack([closed_bucket(min(options.series, 400), seed=t) for t in range(28 * 24)])
    return History(values, 0, HOUR_MS, [str(slot) for slot in range(values.shape[1])])


def trainings(options: Options) -> Iterator[Row]:
    """Speed and loss of each architecture, in float32 and in bfloat16."""
    past = history(options)
    for architecture in ARCHITECTURES:
        losses = {}
        for precision in ("float32", "bfloat16"):
            config = training_config(options, architecture=architecture, precision=precision)
            marks: list[tuple[float, float]] = []

            def note(at: TrainProgress, marks: list[tuple[float, float]] = marks) -> None:
                marks.append((time.perf_counter(), at.loss))

            train(past, config, note)
            losses[precision] = marks[-1][1]
            if not np.isfinite(losses[precision]):
                raise RuntimeError(f"the loss of {architecture} in {precision} is not finite")
            seconds = (marks[-2][0] - marks[0][0]) / max(1, len(marks) - 2)
            yield Row(
                f"training, {architecture}, {precision}",
                options.lanes * config.chunk / max(seconds, 1e-9), "series-steps/s",
                {"loss": losses[precision], "of_float32": losses[precision] / losses["float32"]},
            )  # fmt: skip


def out_of_memory(options: Options) -> Iterator[Row]:
    """A training that does not fit: on a GPU by a limit of its memory, on a CPU by an error."""
    config = training_config(options, architecture="lstm")
    past = history(options)
    if options.device == "cuda":
        torch.cuda.set_per_process_memory_fraction(
            options.memory_mib * 2**20 / torch.cuda.get_device_properties(0).total_memory
        )
        config = replace(config, lanes=4_096, updates=2)
        trained = train(past, config)
    else:

        def attempt(smaller: TrainConfig, _run_file: object) -> Trained:
            if smaller.lanes == config.lanes:
                raise torch.OutOfMemoryError("injected")
            return train(past, replace(smaller, updates=2))

        trained = with_fewer_lanes(attempt, config)
    if trained.config.lanes >= config.lanes:
        raise RuntimeError(f"{config.lanes} lanes fitted; lower --memory-mib")
    yield Row("lanes after running out of memory", trained.config.lanes, f"of {config.lanes}")


MEASUREMENTS: dict[str, Callable[[Options], Iterator[Row]]] = {
    "replay": replay, "transfers": transfers, "carried": carried, "swap": swap,
    "trainings": trainings, "out-of-memory": out_of_memory,
}  # fmt: skip


def measured(name: str, options: Options) -> list[list[str]]:
    """The rows of one measurement; one that says why it failed, after those before the failure."""
    rows: list[list[str]] = []
    try:
        for row in MEASUREMENTS[name](options):
            facts = ", ".join(f"{key} {_text(value)}" for key, value in row.facts.items())
            rows.append([row.name, f"{_text(row.value)} {row.unit}".strip(), facts])
    except Exception as error:  # any failure is a result of the measurement  # noqa: BLE001
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        rows.append([name, "failed", text.replace("|", "/")])
    return rows


def in_own_process(name: str, arguments: list[str]) -> list[list[str]]:
    """The rows of one measurement, made by another process."""
    command = [sys.executable, __file__, *arguments, "--only", name, "--rows"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        rows: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        rows = [[name, "failed", last.replace("|", "/")]]
    return rows


def _text(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def device_name(options: Options) -> str:
    """The device, and the version of torch."""
    name = torch.cuda.get_device_name() if options.device == "cuda" else cpu_name()
    return f"{name}, torch {torch.__version__}"


def parse(arguments: list[str] | None) -> Options:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--series", type=int, default=100_000, help="series of a step")
    parser.add_argument("--steps", type=int, default=20, help="steps to time, buckets to carry")
    parser.add_argument("--updates", type=int, default=60, help="updates of each training")
    parser.add_argument("--lanes", type=int, default=64, help="series trained in parallel")
    parser.add_argument(
        "--memory-mib", type=int, default=1_024, help="GPU memory of the training without enough"
    )
    parser.add_argument("--only", choices=tuple(MEASUREMENTS), help="one measurement alone")
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    parser.add_argument("--rows", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if a measurement failed."""
    options = parse(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU that torch can use; --device cpu shows what a CPU can", file=sys.stderr)
        return 1
    if options.rows:
        with redirect_stdout(io.StringIO()):
            rows = measured(options.only, options)
        print(json.dumps(rows))
        return 0
    names = [options.only] if options.only else list(MEASUREMENTS)
    lines = [
        f"{device_name(options)}; {options.series:,} series, {options.lanes} lanes", "",
        "| measurement | value | details |", "|---|---|---|",
    ]  # fmt: skip
    failed = 0
    for name in names:
        print(f"{name} …", file=sys.stderr)
        if options.device == "cuda":
            rows = in_own_process(name, sys.argv[1:] if arguments is None else arguments)
        else:
            rows = measured(name, options)
        failed += sum(row[1] == "failed" for row in rows)
        lines += [f"| {' | '.join(row)} |" for row in rows]
    table = "\n".join(lines)
    print(table)
    if options.out is not None:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(table + "\n\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
