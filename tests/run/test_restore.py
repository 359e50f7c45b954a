"""A finished run is loaded from its folder alone, and one of an earlier release where its data is."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from kravl.adapters.injection.serialization import read_adapters
from kravl.run.finished.restore import load_run, restore
from kravl.run.finished.saved import saved_config
from kravl.runtime.errors import InputError
from kravl.tracking.run_folder import find_run


def logits(classifier, adapters, images: torch.Tensor) -> torch.Tensor:
    adapters.merge()
    with torch.no_grad():
        classifier.eval().prepare()
        return classifier(images)


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "model/seed1"))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_a_run_is_loaded_without_its_data_to_the_same_logits(run, images, tmp_path):
    folder = find_run(str(run))
    with_data = restore(saved_config(folder, {}), folder)
    expected = logits(with_data.classifier, with_data.adapters, images)
    state = torch.random.get_rng_state()

    loaded = load_run(run, data_root=str(tmp_path / "nowhere"))

    assert torch.equal(logits(loaded.classifier, loaded.adapters, images), expected)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert loaded.class_names == with_data.source.class_names == ("A", "B", "C", "D")
    assert loaded.record.weights_sha256 == folder.inputs["weights"]
    assert loaded.record.backbone["pretrained"] == "kravl"
    about = read_adapters(folder.adapter)[0]["about"]
    assert about == json.loads((run / "model.json").read_text())


def test_a_run_of_an_earlier_release_needs_its_data_and_says_so(run, images, tmp_path):
    expected = load_run(run)
    (run / "model.json").unlink()

    with pytest.raises(InputError, match=r"before runs kept their classes .*its data set is not here.*data_root="):
        load_run(run, data_root=str(tmp_path / "nowhere"))
    earlier = load_run(run)

    assert (earlier.class_names, earlier.record.prompts) == (expected.class_names, expected.record.prompts)
    assert torch.equal(*(logits(each.classifier, each.adapters, images) for each in (earlier, expected)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_ids": ["B", "A", "C", "D"]}, "does not fit this model: its facts differ in 1"),
        ({"class_ids": ["A"]}, "has 4 class names and 1 ids"),
        ({"class_names": ["A", "B", "C", "\x1b[2J"]}, "holds a control character"),
        ({"prompts": ["a photo of {0.__class__}"]}, r"the class name is written \{\}"),
        ({"prompts": [["a"], ["b"], ["c"]]}, "neither templates nor a list of sentences for each of 4 classes"),
        ({"weights_sha256": "0" * 64}, "was trained on other weights than its backbone has here: sha256 000000000000"),
        ({"sites": 3}, "sites is '3', not a list of texts"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(run, changes, message):
    path = run / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    with pytest.raises(InputError, match=message):
        load_run(run)


def test_half_a_run_is_refused(run, tmp_path):
    (run / "metrics.json").unlink()

    with pytest.raises(InputError, match="is not finished; run its training command again"):
        load_run(run)
    with pytest.raises(InputError, match="no run"):
        load_run(tmp_path / "nothing")
