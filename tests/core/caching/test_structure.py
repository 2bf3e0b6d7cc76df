"""Structured values in tensors and JSON: the same value comes back, and a file cannot name what is to be imported."""

from __future__ import annotations

import json
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch

from modalign.caching.structure import apart, together


@dataclass
class Answer(OrderedDict[str, object]):
    """A mapping that is a dataclass, as transformers' outputs are."""

    states: object = None
    rest: object = None

    def __post_init__(self) -> None:
        self.update({name: value for name in ("states", "rest") if (value := getattr(self, name)) is not None})


def back(value: object) -> object:
    tensors, rest = apart(value, "x")
    return together(json.loads(json.dumps(rest)), tensors)


def test_lists_tuples_and_mappings_come_back_as_they_were() -> None:
    one = torch.arange(3)
    value = [one, (one, None, [True, 2, 0.5, "word"]), {"a": {"b": one}}]
    assert back(value) == value
    assert isinstance(back((one,)), tuple)
    assert back(one) is one


def test_a_mapping_with_fields_comes_back_as_its_class() -> None:
    found = back(Answer(states=(torch.ones(2), torch.zeros(2)), rest={"n": 3}))
    assert isinstance(found, Answer)
    assert isinstance(found.states, tuple)
    assert found["rest"] == {"n": 3}


def test_tensors_have_names_that_say_where_they_lie() -> None:
    tensors, _ = apart(Answer(states=(torch.ones(2), [torch.zeros(2)])), "x")
    assert list(tensors) == ["x.states.0", "x.states.1.0"]


def test_what_is_left_out_has_its_shape_and_no_numbers() -> None:
    tensors, rest = apart([torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(1)], "x", {"x.0"})
    assert list(tensors) == ["x.1"]
    found = together(rest, tensors)
    assert isinstance(found, list)
    assert (found[0].shape, found[0].dtype) == ((2, 3), torch.bfloat16)
    with pytest.raises((RuntimeError, NotImplementedError)):
        float((found[0] * found[1]).sum())


@pytest.mark.parametrize("value", [object(), {1: 2}, namedtuple("Pair", "a b")(1, 2), {torch.ones(1)}])
def test_what_has_no_form_is_refused_by_name(value: object) -> None:
    with pytest.raises(TypeError, match=r"x\.0 is of "):
        apart([value], "x")


@pytest.mark.parametrize("named", ["this:antigravity", "os:system", "collections:OrderedDict", "builtins:dict"])
def test_a_file_names_no_class_but_loaded_mappings_with_fields(named: str) -> None:
    with pytest.raises(TypeError, match="no class"):
        together({"class": named, "fields": {}}, {})


@pytest.mark.parametrize("rest", [{}, {"tensor": 3}, {"list": 3}, {"what": []}])
def test_what_is_no_structure_is_refused(rest: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="no structure"):
        together(rest, {})
