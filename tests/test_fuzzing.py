"""Fuzzing in small; see fuzzing.py."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
from fuzzing import NOT_CALLED, PUBLIC, one_call


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.randoms(use_true_random=False))
def test_calls_steered_by_hypothesis(rng):
    one_call(rng)


def test_random_calls():
    ended = [one_call(random.Random(number)) for number in range(4000)]
    assert ended.count("result") > 800  # many calls make sense
    assert {"TypeError", "ValueError"} <= set(ended)


def test_everything_public_is_called_or_named():
    missing = {
        name
        for name in fastnn.__all__
        if callable(getattr(fastnn, name)) and name not in PUBLIC and name not in NOT_CALLED
    }
    assert missing == set()
