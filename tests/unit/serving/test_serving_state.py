"""The transitions between models, without a store or a network."""

from dataclasses import dataclass
from typing import cast

import pytest

from model.inference.forecaster import Forecaster
from stream.serving.serving_state import Phase, ServingState


@dataclass
class Named:
    """The one property of a forecaster that the state reads."""

    model_id: str


def forecaster(model_id: str) -> Forecaster:
    return cast(Forecaster, Named(model_id))


@pytest.fixture
def state() -> ServingState:
    """The state of a worker that has just started."""
    return ServingState(forecaster("fallback"))


def swap(state: ServingState, model_id: str) -> None:
    """Swap in a model that has completed a step."""
    state.stage(state.new_candidate(forecaster(model_id), 7))
    assert state.swap_in()
    state.step_completed()


def test_a_champion_is_on_trial_until_its_first_step(state: ServingState) -> None:
    """Whatever serves before, a swap asks for forecasts of every partition once."""
    assert (state.phase, state.swap_in(), state.take_changed()) == (Phase.FALLBACK, False, False)

    state.stage(state.new_candidate(forecaster("a"), 7))
    assert state.swap_in()
    assert (state.phase, state.active.model_id) == (Phase.ON_TRIAL, "a")
    assert (state.take_changed(), state.take_changed()) == (True, False)

    state.step_completed()
    assert state.phase is Phase.PROVEN


def test_a_failure_on_trial_reverts_to_the_model_before(state: ServingState) -> None:
    """The model before has proven itself; it serves again and is not kept as its own rollback."""
    swap(state, "a")
    state.stage(state.new_candidate(forecaster("b"), 8))
    state.swap_in()

    assert state.revert("b failed")
    assert (state.phase, state.active.model_id) == (Phase.PROVEN, "a")
    assert (state.problem, state.previous) == ("b failed", None)


@pytest.mark.parametrize("champions", [["a"], ["a", "b"]])
def test_a_failure_of_a_proven_model_does_not_revert(
    state: ServingState, champions: list[str]
) -> None:
    """What it met may meet the model before as well: the fallback serves."""
    for model_id in champions:
        swap(state, model_id)

    assert not state.revert("failed")
    state.fall_back("failed")
    assert (state.phase, state.active.model_id) == (Phase.FALLBACK, "fallback")
    assert state.problem == "failed"


def test_the_first_champion_has_nothing_to_revert_to(state: ServingState) -> None:
    """The fallback is no model to roll back to."""
    state.stage(state.new_candidate(forecaster("a"), 7))
    state.swap_in()

    assert not state.revert("a failed")


def test_a_swap_clears_the_problem_and_keeps_the_model_before(state: ServingState) -> None:
    """A rollback then finds it, with its states."""
    swap(state, "a")
    before = state.active
    state.fall_back("too slow")
    swap(state, "b")
    assert (state.problem, state.previous) == ("", None)

    swap(state, "c")
    assert state.previous is not None
    assert state.previous.model_id == "b"
    assert state.new_candidate(forecaster("b"), 7).model is not before


def test_a_withdrawn_candidate_is_not_swapped_in(state: ServingState) -> None:
    """The registry has named another champion meanwhile."""
    state.stage(state.new_candidate(forecaster("a"), 7))
    state.stage(None)

    assert not state.swap_in()
