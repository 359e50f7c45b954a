"""Features are computed once; a file that is not whole, not of its key or not there is never used."""

import hashlib
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from planted import KINDS, plant
from safetensors.torch import save_file

from kravl.data.corruptions.source import Corrupted
from kravl.data.images import FileOpener
from kravl.data.loading.feature_cache import GB, FeatureStore, _checksum, images_identity
from kravl.data.source import Samples
from kravl.data.sources.folder import ImageFolder
from kravl.data.sources.openmoji.source import PictogramOpener

FORK = multiprocessing.get_context("fork")
KEY = {"weights": "a", "images": "b", "transform": "c", "views": 1}


def features(count: int = 40, width: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


class Computed:
    """Features that count how often they were computed."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values, self.times = values, 0

    def __call__(self) -> torch.Tensor:
        self.times += 1
        return self.values


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(str(tmp_path), 1.0)


def only_file(store: FeatureStore) -> Path:
    (file,) = store.folder.glob("*.safetensors")
    return file


def test_features_are_computed_once_and_mapped_with_their_bits(store, tmp_path):
    compute = Computed(features())
    assert torch.equal(store.get(KEY, (40, 8), compute), compute.values)

    kept = FeatureStore(str(tmp_path), 1.0).get(KEY, (40, 8), compute)

    assert compute.times == 1
    assert torch.equal(kept, compute.values)
    assert kept.data_ptr() % 64 == 0  # a product's last bits go by it
    assert "features" in only_file(store).read_bytes()[:400].decode("latin-1")
    halves = Computed(features().bfloat16())
    store.get({**KEY, "precision": "bf16"}, (40, 8), halves)
    assert torch.equal(store.get({**KEY, "precision": "bf16"}, (40, 8), halves), halves.values)
    assert halves.times == 1


@pytest.mark.parametrize("what", KEY)
def test_features_of_another_key_are_never_used(store, what):
    store.get(KEY, (40, 8), Computed(features()))
    other = Computed(features(seed=1))

    assert torch.equal(store.get({**KEY, what: "other"}, (40, 8), other), other.values)
    first, second = sorted(store.folder.glob("*.safetensors"))
    first.write_bytes(second.read_bytes())  # a whole file in another's place
    found = [store.get(key, (40, 8), Computed(torch.zeros(40, 8))) for key in (KEY, {**KEY, what: "other"})]

    assert sum(bool((each == 0).all()) for each in found) == 1


@pytest.mark.parametrize("damage", ["bit", "cut", "longer", "empty", "text", "rows", "name"])
def test_a_damaged_file_is_told_and_its_features_are_computed_again(store, caplog, damage):
    compute = Computed(features())
    store.get(KEY, (40, 8), compute)
    file = only_file(store)
    content = bytearray(file.read_bytes())
    match damage:
        case "bit":
            content[-77] ^= 4
        case "cut":
            del content[-3:]
        case "longer":
            content += b"\0\0"
        case "empty":
            content.clear()
        case "text":
            content[:] = b"<html>" * 9
        case "rows":
            content[-64:-32], content[-32:] = content[-32:], content[-64:-32]
        case "name":
            content[:] = content.replace(b"kravl", b"krawl")
    file.write_bytes(content)

    again = store.get(KEY, (40, 8), compute)

    assert compute.times == 2
    assert torch.equal(again, compute.values)
    assert f"{file} is damaged (" in caplog.text and "computed again" in caplog.text
    assert torch.equal(store.get(KEY, (40, 8), compute), compute.values)
    assert compute.times == 2


@pytest.mark.parametrize(
    "forged",
    [
        lambda kept: torch.full_like(kept, math.nan),
        lambda kept: kept.to(torch.int32),
        lambda kept: torch.complex(kept, kept),
        lambda kept: kept.to(torch.float8_e4m3fn),
        lambda kept: kept[:, :-1].contiguous(),
        lambda kept: kept[:, :, None].contiguous(),
        lambda kept: kept[:, 0].contiguous(),
    ],
)
def test_what_cannot_be_features_of_these_images_is_computed_again_whatever_its_checksum_says(store, forged, caplog):
    compute = Computed(features())
    store.get(KEY, (40, 8), compute)
    tensor = forged(features())
    record = {"key": json.dumps(KEY, sort_keys=True), "checksum": _checksum(tensor)}
    save_file({"features": tensor}, only_file(store), {"kravl": json.dumps(record)})

    assert torch.equal(store.get(KEY, (40, 8), compute), compute.values)
    assert compute.times == 2
    assert "is damaged" in caplog.text


def test_a_description_nested_without_end_is_damage(store, caplog):
    compute = Computed(features())
    store.get(KEY, (40, 8), compute)
    save_file({"features": features()}, only_file(store), {"kravl": "[" * 100_000})

    assert torch.equal(store.get(KEY, (40, 8), compute), compute.values)
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["{stem}.lock", ".{stem}.safetensors.7", "{stem}.safetensors"])
def test_what_lies_at_a_name_of_the_cache_costs_time_alone(store, tmp_path, name, kind):
    (theirs := tmp_path / "theirs").write_text("kept")
    store.folder.mkdir()
    path = store.folder / name.format(stem=file_of(store, KEY).stem)
    plant(kind, path, theirs)
    compute = Computed(features())

    assert torch.equal(store.get(KEY, (40, 8), compute), compute.values)
    assert theirs.read_text() == "kept"


def test_a_part_of_the_images_is_not_kept(store):
    part = Computed(features(30))

    assert len(store.get(KEY, (40, 8), part)) == 30
    assert len(store.get(KEY, (40, 8), part)) == 30
    assert part.times == 2


def test_the_longest_unused_leave_where_room_is_short_and_what_never_fits_is_told(tmp_path, caplog):
    size = features().numel() * 4
    store = FeatureStore(str(tmp_path), 3.4 * size / GB)
    keys = [{**KEY, "weights": str(i)} for i in range(3)]
    for i, key in enumerate(keys[:2]):
        store.get(key, (40, 8), Computed(features(seed=i)))
    os.utime(file_of(store, keys[1]), ns=(1, 1))
    again = Computed(features())
    store.get(keys[0], (40, 8), again)  # used, so that the other one is the older

    store.get(keys[2], (40, 8), Computed(features(seed=2)))
    left = {key["weights"] for key in keys if file_of(store, key).exists()}
    large = Computed(features(400))

    assert again.times == 0
    assert left == {"0", "2"}
    assert torch.equal(FeatureStore(str(tmp_path), 2 * size / GB).get({"a": 1}, (400, 8), large), large.values)
    assert "the features of 400 images are 0.0 GB and are not kept: feature_cache_gb is" in caplog.text
    assert FeatureStore(str(tmp_path), 0).folder is FeatureStore(None, 4).folder is None


def file_of(store: FeatureStore, key: dict) -> Path:
    """The file of ``key``, whether it is there or not."""
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    return store.folder / f"{name}.safetensors"


def test_a_folder_that_cannot_be_written_costs_time_and_a_line(tmp_path, caplog):
    (tmp_path / "features").write_text("in the way")
    compute = Computed(features())

    assert torch.equal(FeatureStore(str(tmp_path), 1.0).get(KEY, (40, 8), compute), compute.values)
    assert "nothing is kept in" in caplog.text


def hold(root: str, begun: object) -> None:
    def slow() -> torch.Tensor:
        begun.set()  # type: ignore[attr-defined]
        time.sleep(0.3)
        return features()

    FeatureStore(root, 1.0).get(KEY, (40, 8), slow)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_of_two_processes_one_computes_and_the_other_waits(store, tmp_path):
    begun = FORK.Event()
    process = FORK.Process(target=hold, args=(str(tmp_path), begun))
    process.start()
    assert begun.wait(timeout=300)
    compute = Computed(features())

    assert torch.equal(store.get(KEY, (40, 8), compute), compute.values)

    process.join()
    assert compute.times == 0


@pytest.fixture
def photos(make_tree: Callable[..., Path]) -> ImageFolder:
    return ImageFolder(str(make_tree("photos", {"cat": 2, "dog": 2}) / "photos"), test=".")


def test_images_are_told_apart_by_their_contents_and_by_what_is_made_of_them(photos, tmp_path):
    samples = photos.split("train")
    assert isinstance(samples.opener, FileOpener)
    known = {
        images_identity(samples),
        images_identity(samples.subset([1, 0, 2, 3])),
        images_identity(samples.subset([0])),
    }
    assert len(known) == 3
    made = {
        images_identity(Corrupted(photos, kind, level).split("test")) for kind in ("snow", "fog") for level in (1, 2)
    }
    drawn = {
        images_identity(Samples(("1F600",), (0,), PictogramOpener(("1F600",), style, 32)))
        for style in ("color", "silhouette")
    }
    assert len(made) == 4 and len(drawn) == 2
    file = samples.file(0)
    status = file.stat()
    os.utime(file, ns=(status.st_mtime_ns + 10**9,) * 2)
    assert images_identity(samples) in known  # a copy of the images has other times

    Image.new("RGB", (10, 12), "red").save(file)

    assert images_identity(samples) not in known
