"""Lanes walk through all of the training part, and read ahead what they would read one by one."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.config import TARGETS, ModelConfig
from model.durations import DAY_MS
from model.inputs.anchors import Anchors, anchors_of
from model.inputs.plans import N_PLANS, Plans
from model.inputs.seasons.season_layout import layout_of
from model.networks.quantile_network import QuantileNetwork
from model.training.chunk import Chunk
from model.training.dataset import TrainingSeries, pick_series
from model.training.lanes import LaneGroups, encode, loss_at
from model.training.ranks import Ranks
from tests.support.model_cases import START_MS, carried_through, history_of, small_training

DAYS, SERIES, EVERY, HORIZON = 110, 6, 16, 5
#: Not a multiple of a chunk.
END = 90
CPU = torch.device("cpu")


def _picked(*, end: int = END, **changes: Any) -> TrainingSeries:
    """Daily demand of a few series with plans, of which `end` days are for training."""
    rng = np.random.default_rng(3)
    values_TSF = np.zeros((DAYS, SERIES, 11), np.float32)
    weekday_T = np.where(np.arange(DAYS) % 7 < 5, 1.0, 0.3)
    values_TSF[..., 0] = rng.poisson(weekday_T[:, None] * rng.uniform(3, 30, SERIES))
    values_TSF[..., 2] = 2 * values_TSF[..., 0]
    values_TSF[..., 8] = rng.poisson(9, (DAYS, SERIES))
    plans_TSP = rng.random((DAYS + HORIZON, SERIES, N_PLANS)).astype(np.float32)
    history = history_of(values_TSF, bucket_ms=DAY_MS, plans=Plans.from_dense(plans_TSP))
    model = ModelConfig(
        horizon=HORIZON, bucket_ms=DAY_MS, hidden=8, layers=1, rank=4, dropout=0.0, **changes
    )
    return pick_series(history, model, end=end, every=EVERY, limit=SERIES, power=0.5)


def _lanes(picked: TrainingSeries, *, seed: int = 1, **changes: Any) -> LaneGroups:
    config = small_training(model=picked.config, lanes=4, groups=2, chunk=EVERY, **changes)
    torch.manual_seed(0)
    network = QuantileNetwork(picked.config)
    lanes = LaneGroups(picked, network, config, np.random.default_rng(seed), Ranks())
    lanes.begin()
    return lanes


def _assert_same(one: Chunk, other: Chunk) -> None:
    """Equal but for the rounding of kernels that take their elements in other blocks."""
    for field in dataclasses.fields(Chunk):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "targets":
            for mine, its in zip(a, b, strict=True):
                for part in dataclasses.fields(mine):
                    torch.testing.assert_close(getattr(mine, part.name), getattr(its, part.name))
        elif a is None:
            assert b is None
        else:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=field.name)


def test_every_bucket_of_the_training_part_is_learned_and_none_after_it() -> None:
    """Origins up to the last bucket but one, and demand up to the last."""
    lanes = _lanes(_picked())
    origins: set[int] = set()
    demand: set[int] = set()
    for _ in range(60):
        chunk = lanes.next_chunk()
        for group, first in enumerate(chunk.first_G.tolist()):
            known_X = chunk.known_NX[2 * group].bool().numpy()
            ahead = first + 1 + np.flatnonzero(known_X)
            demand |= set(ahead.tolist())
            origins |= {first + at for at in range(EVERY) if known_X[at]}

    assert origins == set(range(END - 1))
    assert demand == set(range(1, END))


def test_a_chunk_past_the_end_is_masked() -> None:
    """It has no loss and no gradient where nothing is known, and is finite."""
    picked = _picked(plans=True, targets=TARGETS)
    network = QuantileNetwork(picked.config)
    lanes_GB = torch.arange(4)[None]
    first = DAYS - 6
    chunk = picked.chunk(
        lanes_GB, picked.grid_GSK[-1, :4].clone(), np.array([first]), length=EVERY, end=DAYS
    )

    def loss(*positions: int) -> Tensor:
        encoded_NLD, _ = encode(network, chunk, network.new_state(4, CPU), CPU)
        return loss_at(
            network=network, picked=picked, chunk=chunk, encoded_NLD=encoded_NLD,
            positions_P=np.array(positions), quantiles_Q=torch.tensor(picked.config.quantiles),
            cumulative_weight=0.5, target_weight=0.1,
        )  # fmt: skip

    assert chunk.known_NX.sum(dim=1).tolist() == [5.0] * 4  # the buckets after the first
    assert all(torch.isfinite(part).all() for part in (chunk.inputs_NLI, chunk.weight_NL))
    inside = loss(0, 3)
    outside = loss(5, 6, 15)
    assert inside.item() > 0
    assert outside.item() == 0
    gradients = torch.autograd.grad(outside, list(network.parameters()), allow_unused=True)
    assert all(part is None or not part.any() for part in gradients)
    assert loss(0, 3, 6, 15).item() == pytest.approx(inside.item(), rel=1e-5)


@pytest.mark.parametrize("inputs", [{}, {"plans": True, "static": 4, "targets": TARGETS}])
def test_reading_ahead_gives_the_chunks_of_reading_one_by_one(inputs: dict[str, Any]) -> None:
    """Statistics of all updates' groups are carried together, those of one update apart."""
    lanes = _lanes(_picked(**inputs), reset_share=0.0)
    picked, size = lanes.picked, 2 * lanes.own
    chunks = [lanes.next_chunk()]
    turns = lanes.all_groups // 2
    for read in range(2):
        first_G, lanes_GB = lanes.first_G.copy(), lanes.lanes_GB.clone()
        before_NK = lanes.tensors()["statistics"].clone()
        chunks += [lanes.next_chunk() for _ in range(turns)]
        for turn in range(turns):
            groups = slice(2 * turn, 2 * turn + 2)
            stats_NK = before_NK[turn * size : (turn + 1) * size]
            alone = picked.chunk(lanes_GB[groups], stats_NK, first_G[groups], length=EVERY, end=END)
            _assert_same(chunks[read * turns + turn], alone)
        drawn_again = torch.from_numpy(lanes.first_G != first_G + EVERY).repeat_interleave(
            lanes.own
        )
        carried_on = lanes.tensors()["statistics"][~drawn_again]
        torch.testing.assert_close(carried_on, before_NK[~drawn_again])


@pytest.mark.parametrize("updates", [1, 3, 4, 6])
@pytest.mark.parametrize("finishing", [False, True])
def test_a_walk_that_resumes_goes_on_as_before(updates: int, finishing: bool) -> None:
    """In the midst of what was read ahead; the finish reads the validation part as well."""
    walking, resumed = _lanes(_picked()), _lanes(_picked(), seed=9)
    walking.next_chunk()
    if finishing:
        walking.picked.end = DAYS
    for _ in range(updates):
        newest = walking.next_chunk()
        walking.state = tuple(part + 1.0 for part in walking.state)

    resumed.resume({name: part.clone() for name, part in walking.tensors().items()})
    resumed.rng.bit_generator.state = walking.rng.bit_generator.state
    resumed.picked.end = walking.picked.end

    for mine, its in zip(resumed.state, walking.state, strict=True):
        assert torch.equal(mine, its)
    before = resumed.tensors()
    for name, part in walking.tensors().items():
        assert torch.equal(part, before[name]), name
    assert newest.first_G.size == 2
    for _ in range(6):
        _assert_same(walking.next_chunk(), resumed.next_chunk())
        for mine, its in zip(resumed.state, walking.state, strict=True):
            assert torch.equal(mine, its)


def test_states_of_updates_are_kept_apart() -> None:
    """An update changes the state of its own lanes only, and finds it again a round later."""
    lanes = _lanes(_picked(end=DAYS), reset_share=0.0)
    turns = lanes.all_groups // 2
    for turn in range(turns):
        lanes.next_chunk()
        lanes.state = tuple(torch.full_like(part, 1.0 + turn) for part in lanes.state)
    first_G = lanes.first_G.copy()
    for turn in range(turns):
        chunk = lanes.next_chunk()
        for group in range(2):
            went_on = chunk.first_G[group] == first_G[2 * turn + group] + EVERY
            rows = slice(group * lanes.own, (group + 1) * lanes.own)
            if went_on:
                marks = {mark for part in lanes.state for mark in part[rows].flatten().tolist()}
                assert marks == {1.0 + turn}


def test_the_loss_expects_what_serving_expects() -> None:
    """Each origin of each lane has the factors of its own time and statistics."""
    picked = _picked()
    network = QuantileNetwork(picked.config)
    lanes_GB = torch.tensor([[0, 3], [5, 1]])
    first_G, positions_P = np.array([32, 48]), np.array([2, 9])
    stats_NK = torch.cat(
        [picked.grid_GSK[f // EVERY, g] for f, g in zip((32, 48), lanes_GB, strict=True)]
    )
    chunk = picked.chunk(lanes_GB, stats_NK, first_G, length=EVERY, end=END)
    seen: list[Anchors] = []
    network.heads.register_forward_pre_hook(lambda _, given: seen.append(given[3]))
    encoded_NLD, _ = encode(network, chunk, network.new_state(4, CPU), CPU)
    loss_at(
        network=network, picked=picked, chunk=chunk, encoded_NLD=encoded_NLD,
        positions_P=positions_P, quantiles_Q=torch.tensor(picked.config.quantiles),
        cumulative_weight=0.5,
    )  # fmt: skip

    layout = layout_of(DAY_MS)
    units_TS = picked.values_TSF[:, :, 0].numpy()
    for group in range(2):
        for number, position in enumerate(positions_P.tolist()):
            buckets = int(first_G[group]) + position + 1
            stats_SK = carried_through(units_TS[:buckets], picked.config)[lanes_GB[group]]
            origin_ms = START_MS + buckets * DAY_MS
            expected = anchors_of(stats_SK, layout.horizon(origin_ms, HORIZON, "GB"), picked.config)
            at = 2 * group + number
            for mine, its in zip(seen[0].logs, expected.logs, strict=True):
                torch.testing.assert_close(mine[at], its.expand_as(mine[at]), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(seen[0].error[at], expected.error, rtol=1e-4, atol=1e-5)


def test_a_share_of_lanes_starts_without_a_past() -> None:
    """The others have the statistics of their own past."""
    lanes = _lanes(_picked(), cold_share=0.3)
    picked = lanes.picked
    cold = 0
    for _ in range(40):
        lanes.begin()
        later = np.repeat(lanes.first_G > 0, lanes.own)
        cold += int((~lanes.stats_NK.any(dim=1)).numpy()[later].sum())
        lanes_N = lanes.lanes_GB.flatten()
        for row in np.flatnonzero(later):
            if lanes.stats_NK[row].any():
                at = int(lanes.first_G[row // lanes.own]) // EVERY
                assert torch.equal(lanes.stats_NK[row], picked.grid_GSK[at, lanes_N[row]])
    assert 0.2 < cold / (40 * 16 * 5 / 6) < 0.4
