"""What a CPU can test of the steps for a GPU: what a graph freezes, and what would spoil it."""

import logging
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.contract import FEATURE_NAMES
from model.durations import DAY_MS, HOUR_MS
from model.inference import cuda_capture, cuda_graph_stepper
from model.inference.cuda_capture import CaptureFailed, to_device
from model.inference.cuda_graph_stepper import FixedShapeStepper, _kind_of
from model.inference.forecaster import NetworkForecaster
from model.inference.network_states import NetworkStates
from model.inputs.seasons.calendar import N_CALENDAR
from model.inputs.seasons.season_layout import layout_of
from model.networks.quantile_levels import PublishedLevels
from tests.support.model_cases import ARCHITECTURES, START_MS, real_hours, untrained, with_static

#: Operations that wait for the device, or copy from the host.
FORBIDDEN = ("_local_scalar_dense", "nonzero", "unique", "lift_fresh", "is_nonzero", "item")


class _NoHost(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Collects the operations that a capture forbids."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        result = func(*args, **(kwargs or {}))
        tensors = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        tensors += [part for part in tree_leaves(result) if isinstance(part, Tensor)]
        from_host = any(part.device.type == "cpu" for part in tensors)
        if from_host or any(text in name for text in FORBIDDEN):
            self.found.append(name)
        return result


class _NoLists(TorchFunctionMode):
    """Refuses lists as indices, which torch copies to the device where no dispatch sees it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(part, list) for part in index), "a list as an index"
        return func(*args, **(kwargs or {}))


def _frozen(network: NetworkForecaster, seen: list[int]) -> NetworkForecaster:
    """The network with steps that are captured and replayed, as far as a CPU can.

    A replay repeats the captured step: of its own time it sees only what is in the buffers.
    """

    def capture(step: Callable[[], None], carried: Sequence[Tensor]) -> Callable[[], None]:
        seen.append(len(carried))
        return step

    def stepper(*arguments: Any) -> FixedShapeStepper:
        return FixedShapeStepper(*arguments, capture=capture)

    return NetworkForecaster(network.network, network.model_id, stepper=stepper)


@pytest.mark.slow
@pytest.mark.parametrize("bucket_ms", [HOUR_MS, DAY_MS])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_replayed_steps_forecast_as_blocks_do_over_holidays_and_a_new_year(
    architecture: str, bucket_ms: int
) -> None:
    """Few graphs serve all buckets: times, calendar and seasons are inputs."""
    network = untrained(architecture=architecture, bucket_ms=bucket_ms)
    captured: list[int] = []
    frozen = _frozen(network, captured)
    buckets = 200 if bucket_ms == HOUR_MS else 500
    values_TSF = np.tile(real_hours(days=3, series=5), (7, 1, 1))[:buckets]
    start_ms = 1_324_512_000_000  # 2011-12-22
    states, other = network.new_states(5), frozen.new_states(5)
    for t, values_SF in enumerate(values_TSF):
        expected = network.step(states, values_SF, start_ms + t * bucket_ms)
        made = frozen.step(other, values_SF, start_ms + t * bucket_ms)
        for one, two in (
            (made.units_SHQ, expected.units_SHQ),
            (made.cumulative_SHQ, expected.cumulative_SHQ),
        ):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4 * max(1.0, two.max()))

    assert 2 <= len(captured) <= 24


@pytest.mark.parametrize("forecasting", [False, True])
@pytest.mark.parametrize("day", [0, 85], ids=["a usual day", "Christmas Eve"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"architecture": "gru"},
        {"architecture": "transformer"},
        {"inputs_off": ("views", "carts")},
        {"plans": True, "targets": ("revenue", "visitors")},
        {"bucket_ms": DAY_MS},
    ],
    ids=str,
)
def test_a_step_copies_nothing_from_the_host_and_never_waits(
    changes: dict[str, Any], day: int, forecasting: bool
) -> None:
    """On the device `meta`, where every value is unknown, as to a program that runs ahead."""
    _assert_capturable(untrained(**changes), day=day, forecasting=forecasting)


def test_static_features_are_read_on_the_device() -> None:
    _assert_capturable(with_static(), day=0, forecasting=True)


def _assert_capturable(network: NetworkForecaster, *, day: int, forecasting: bool) -> None:
    device = torch.device("meta")
    config = network.config
    stepper = FixedShapeStepper(
        network.network.to(device),
        PublishedLevels.of(config.quantiles, (0.05, 0.5)),  # not the network's own
        device,
    )
    layout = layout_of(config.bucket_ms)
    start_ms = START_MS - START_MS % DAY_MS + (day + 1) * DAY_MS - config.bucket_ms
    phases = layout.buckets(torch.tensor([start_ms]), "GB").at(0)
    ahead = layout.horizon(start_ms + config.bucket_ms, config.horizon, "GB", distinct=False)
    kind = _kind_of(phases, ahead if forecasting else None)
    with torch.inference_mode():
        states = NetworkStates(network.network, 8, device)
        program = stepper._program(states, len(FEATURE_NAMES), N_CALENDAR)
        stepper._body(states, program, kind)  # constants are made in the warm-up
        with _NoLists(), _NoHost() as watch:
            stepper._body(states, program, kind)

    assert watch.found == []


def test_a_network_that_cannot_be_captured_still_serves(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without graphs; it says so once."""
    # import-linter, which a test of the architecture runs, disables all loggers
    monkeypatch.setattr(cuda_graph_stepper.log, "disabled", False)

    def capture(step: Callable[[], None], carried: Sequence[Tensor]) -> Callable[[], None]:
        raise CaptureFailed("operation not permitted when stream is capturing\nmore")

    network = untrained()
    eager = NetworkForecaster(
        network.network,
        "eager",
        stepper=lambda *arguments: FixedShapeStepper(*arguments, capture=capture),
    )
    states, expected_states = eager.new_states(4), network.new_states(4)
    with caplog.at_level(logging.WARNING):
        for t, values_SF in enumerate(real_hours(days=1, series=4)):
            made = eager.step(states, values_SF, START_MS + t * HOUR_MS)
            expected = network.step(expected_states, values_SF, START_MS + t * HOUR_MS)

    np.testing.assert_allclose(made.units_SHQ, expected.units_SHQ, rtol=1e-4, atol=1e-4)
    assert caplog.messages == [
        "steps run without CUDA graphs: operation not permitted when stream is capturing"
    ]


def test_captures_of_two_threads_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture begins with a synchronisation of the whole device, which would spoil another."""
    active, most = 0, 0

    class Capturing:
        """`torch.cuda.graph` as another thread sees it."""

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __enter__(self) -> None:
            nonlocal active, most
            active += 1
            most = max(most, active)

        def __exit__(self, *_: object) -> None:
            nonlocal active
            active -= 1

    class Stream:
        """A stream without a device."""

        def __init__(self, *_: Any) -> None:
            pass

        def wait_stream(self, _: "Stream") -> None:
            pass

        __enter__ = __exit__ = lambda self, *_: None

    class Graph:
        """A graph that is replayed by doing nothing."""

        def replay(self) -> None:
            pass

    monkeypatch.setattr(torch.cuda, "graph", Capturing)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)

    def step() -> None:
        torch.mm(torch.ones(300, 300), torch.ones(300, 300))  # gives the other thread its turn

    def capture() -> None:
        for _ in range(20):
            cuda_capture.capture_graph(step, (torch.zeros(1),))

    threads = [Thread(target=capture) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 1


def test_warm_up_steps_leave_the_states_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a failed capture is told apart from exhausted memory."""
    carried = torch.ones(3)
    calls = 0

    def step() -> None:
        nonlocal calls
        calls += 1
        carried.add_(1.0)
        if calls == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    class Nothing:
        """Any object of torch.cuda."""

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def wait_stream(self, _: object) -> None:
            pass

        __enter__ = __exit__ = lambda self, *_: None

    for name in ("graph", "CUDAGraph", "Stream", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Nothing)
    seen: list[Tensor] = []
    monkeypatch.setattr(Nothing, "wait_stream", lambda *_: seen.append(carried.clone()))

    with pytest.raises(torch.OutOfMemoryError):
        cuda_capture.capture_graph(step, (carried,))
    assert seen[-1].tolist() == [1.0, 1.0, 1.0]


def test_values_fill_the_first_rows() -> None:
    target = torch.zeros(4, 2)
    to_device(np.ones((3, 2), np.float32)[:, ::-1], target)

    assert target.sum(dim=1).tolist() == [2.0, 2.0, 2.0, 0.0]
