"""A tenth of the rehearsal: ImageNet's 1,000 classes and 15,000 images of five sets, an adapter and a head."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from PIL import Image
from rehearsal import measures, model, pictures, sets

from kravl.config.compose import register_configs
from kravl.config.schema import CONFIGS
from kravl.run.train import train

pytestmark = pytest.mark.long

START = 1e9  # bytes of a process before it has data
TENTH = {"test": 5_000, "imagenet_v2": 1_000, "imagenet_sketch": 5_088, "imagenet_a": 750, "imagenet_r": 3_000}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rehearsal")
    sets.build(root / "data", share=10, log=lambda line: None)
    return root


def run(root: Path, experiment: str, *overrides: str) -> dict[str, Any]:
    settings = [f"experiment={experiment}", f"data_root={root / 'data'}", f"runs={root / 'runs'}", "shots=2"]
    settings += [f"cache_root={root / 'cache'}", *model.clip(root / "clip"), "optim.steps=2", "tracking=none"]
    settings += ["trainer.enable_progress_bar=false", "trainer.enable_model_summary=false"]
    register_configs([experiment])
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return train(compose("train", [f"+{o}" if o.startswith("trainer.en") else o for o in (*settings, *overrides)]))


def test_the_first_command_ends_at_imagenets_classes_within_its_memory(imagenet: Path) -> None:
    record = run(imagenet, "clip_vitb16_kra_16shot")
    run(imagenet, "clip_vitb16_linear_probe_16shot", "loading.augmentation=none", "evaluation=in_domain")

    assert {name: record["metrics"][f"{name}/count"] for name in TENTH} == TENTH
    rows = list(measures.measured(imagenet / "runs"))
    assert [(row.method, row.classes, row.images) for row in rows] == [
        ("kra", 1_000, sum(TENTH.values())),
        ("linear_probe", 1_000, TENTH["test"]),
    ]
    assert not list(measures.unfit(imagenet / "runs"))
    least = min(phase["peak_memory_bytes"] for row in rows for phase in row.phases.values())
    assert max(row.peak() for row in rows) - least < 2**30  # images x classes^2 would be 40 GB


def growing(seconds: Callable[[int, int], float], held: Callable[[int, int], float]) -> list[measures.Measured]:
    """Runs whose phase costs that much at so many classes and images per class."""
    return [
        measures.Measured(
            "growth",
            "imagenet",
            f"kra_{classes}x{images}",
            classes,
            classes * images,
            3,
            {
                "assemble": {"seconds": 1.0, "peak_memory_bytes": START},
                "evaluate": {
                    "seconds": seconds(classes, classes * images),
                    "peak_memory_bytes": START + held(classes, classes * images),
                },
            },
        )
        for classes, images in ((250, 48), (1000, 12), (1000, 48))
    ]


def test_growth_that_is_linear_passes_and_what_is_steeper_is_named() -> None:
    linear = growing(lambda classes, images: images / 1e3, lambda classes, images: classes * 1e6)
    table = growing(lambda classes, images: images / 1e3, lambda classes, images: images * classes**2 * 8)
    slow = growing(lambda classes, images: images**2 / 1e7, lambda classes, images: 0)

    assert not list(measures.too_steep(measures.growth(linear, START)))
    assert list(measures.too_steep(measures.growth(table, START))) == [
        "kra: the memory of evaluate grows with the classes to the power 2.00"
    ]
    assert list(measures.too_steep(measures.growth(slow, START))) == [
        "kra: the time of evaluate grows with the images to the power 2.00"
    ]
    assert list(measures.too_large(table))
    assert not list(measures.too_large(linear))


def test_no_picture_is_another_and_there_are_all_kinds() -> None:
    numbers = [*range(1, 300), pictures.LARGE_EVERY]

    contents = [pictures.jpeg(number) for number in numbers]

    assert len(set(contents)) == len(numbers)
    opened = [Image.open(io.BytesIO(content)) for content in contents]
    assert {image.mode for image in opened} == {"RGB", "L", "CMYK"}
    assert opened[-1].size == pictures.LARGE
    assert any(pictures.ORIENTATION in image.getexif() for image in opened)
