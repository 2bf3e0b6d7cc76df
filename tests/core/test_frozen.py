"""What core's frozen values hold by default crosses to a spawned process and is deeply copied."""

import copy
import pickle
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch

from modalign.assembler import Sample, assemble
from modalign.batch import Batch, Medium
from modalign.comparison import Comparison
from modalign.connectors.mlp import MLPConnector
from modalign.frozen import empty
from modalign.testing import toy_batch, toy_model, toy_pairs


def test_a_comparison_comes_back_as_it_was() -> None:
    pair = toy_pairs(1)[0]
    again = pickle.loads(pickle.dumps(pair))
    assert isinstance(again, Comparison)
    assert again == pair
    assert again.prompt[0].parts[0].digest == pair.prompt[0].parts[0].digest
    assert again.facts == again.chosen.scores == {}


def test_a_batch_comes_back_as_it_was() -> None:
    medium = Medium(modality="blob", tensors={"x": torch.arange(3)}, cost=1)
    batch = replace(toy_batch(toy_pairs(2)), media={"0": medium})
    again = pickle.loads(pickle.dumps(batch))
    assert isinstance(again, Batch)
    assert again.tokens.equal(batch.tokens)
    assert again.ids == batch.ids
    assert again.media["0"].tensors["x"].tolist() == [0, 1, 2]
    assert again.media["0"].extra == {}


def test_a_sample_that_was_encoded_comes_back_and_makes_the_same_batch() -> None:
    preparer, pair = toy_model().assembly.preparer, toy_pairs(1)[0]
    sample = Sample(comparison=pair, encoded=preparer.encode(pair), own=2)
    again = pickle.loads(pickle.dumps(sample))
    one, other = (assemble([each], share=False, pad=preparer.pad) for each in (sample, again))
    assert one.tokens.equal(other.tokens)
    assert one.segments == other.segments


def test_a_frozen_mapping_stays_frozen_and_equal() -> None:
    given = MappingProxyType({"a": [1]})
    for again in (pickle.loads(pickle.dumps(given)), copy.deepcopy(given)):
        assert again == given
        assert type(again) is MappingProxyType
        assert again["a"] is not given["a"]
    with pytest.raises(TypeError, match="does not support item assignment"):
        empty()["a"] = 1  # type: ignore[index]


def test_a_connector_can_be_deeply_copied_with_its_settings() -> None:
    connector = MLPConnector.make(4, 8, depth=3)
    again = copy.deepcopy(connector)
    assert again.settings == connector.settings == {"depth": 3, "seed": 0}
