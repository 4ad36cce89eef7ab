"""direction: differences of class means, as vectors for edits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qwen_audio as qa
from labelled_recordings import write_manifest, write_tones
from qwen_audio.probing.labels import read_labels


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    return write_manifest(folder / "labels.csv", write_tones(folder, 9))


def test_the_difference_of_class_means(checkpoint: Path, labels: Path) -> None:
    model = qa.load(checkpoint, dtype="float32")
    v = qa.direction(labels, model, tap="lm.1", target="pitch", positive="low", negative="high")
    sources = read_labels(labels).sources
    rows = np.asarray(model.encode([source.path for source in sources], tap="lm.1"))
    np.testing.assert_allclose(v.vector, rows[::3].mean(0) - rows[2::3].mean(0), atol=1e-5)
    assert (v.tap, v.counts, v.spec.tap) == ("lm.1", (3, 3), "lm.1")
    control = v.random(1)
    assert control.is_control
    assert control.norm == pytest.approx(v.norm, rel=1e-5)
    assert abs(control.vector @ v.vector) < 0.5 * v.norm**2
    np.testing.assert_array_equal(control.vector, v.random(1).vector)
    base = np.asarray(model.encode(sources[0].path, tap="lm.1"))
    with model.edit("lm.1", qa.edits.add(v, 4.0)):
        steered = np.asarray(model.encode(sources[0].path, tap="lm.1"))
    np.testing.assert_allclose(steered - base, 4 * v.vector, atol=1e-4)
    others = qa.direction(labels, model, tap="lm.1", target="pitch", positive="low")
    assert (others.negative, others.counts) == ("", (3, 6))


def test_labels_that_name_no_two_classes(labels: Path) -> None:
    with pytest.raises(qa.OptionError, match="takes one column of classes: name it"):
        qa.direction(labels, tap="lm.1")
    with pytest.raises(qa.OptionError, match="has 3 classes: name one"):
        qa.direction(labels, tap="lm.1", target="pitch")
    with pytest.raises(qa.OptionError, match="has no class 'none': use low, middle, high"):
        qa.direction(labels, tap="lm.1", target="pitch", positive="none")
    with pytest.raises(qa.OptionError, match="name two classes"):
        qa.direction(labels, tap="lm.1", target="pitch", positive="low", negative="low")
    with pytest.raises(qa.OptionError, match="target='level'"):
        qa.direction(labels, tap="lm.1", target="level")
