"""`kravl models`: every model of open_clip and timm by name, and what to type for it."""

import csv
import io
import json

import pytest
from hydra import compose, initialize_config_dir

from kravl.backbones import catalog
from kravl.cli.models import main
from kravl.config.schema import CONFIGS

TABLE = catalog.read_table(catalog.folder() / catalog.MODELS)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]):
    """What a command prints; it must end well."""

    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 0
        return capsys.readouterr().out

    return run


def names(text: str) -> list[str]:
    """Of a table, a line for each model."""
    return [line.split()[1] for line in text.splitlines() if line.split()[:1] in (["timm"], ["open_clip"])]


def test_a_pattern_is_a_part_of_a_name_or_a_glob_in_any_case(shown) -> None:
    assert names(shown("rn50-", "RN101-")) == ["RN50-quickgelu", "RN101-quickgelu"]
    assert set(names(shown("eva02_*_clip_*"))) == {
        row["name"] for row in TABLE.rows if row["name"].startswith("eva02_") and "_clip_" in row["name"]
    }
    assert names(shown("--library", "open_clip", "convnext_xx")) == ["convnext_xxlarge", "convnext_xxlarge_320"]


def test_without_a_pattern_every_model_is_listed_and_counted(shown) -> None:
    everything = shown()
    works = shown("--works")

    assert len(names(everything)) == len(TABLE.rows)
    failing = sum(not row["works"] for row in TABLE.rows)
    assert f"; {failing} of them do not work" in everything
    assert len(names(works)) == len(TABLE.rows) - failing
    assert "; all of them work" in works


def test_a_model_by_its_name_is_shown_in_detail(shown) -> None:
    text = shown("ViT-B-16")

    assert "image tower     86.2 M parameters, matrices: 12 qkv, 12 out, 24 mlp, 1 projection, 1 patch" in text
    assert "sites=both      36 image + 36 text" in text
    assert "224 bicubic shortest OpenAI: openai, laion400m_e31" in text
    assert "type            kravl train backbone=clip_vitb16 method=kra data=dtd  # weights: openai" in text
    assert "further names hold 'ViT-B-16': kravl models '*ViT-B-16*'" in text
    assert shown("clip_vitb16").startswith("ViT-B-16 (open_clip")  # a shipped backbone's name


def test_weights_are_asked_for_by_their_tag(shown) -> None:
    text = shown("vit_base_patch16_clip_224.laion2b")
    assert "backbone.build.name=vit_base_patch16_clip_224.laion2b " in text
    assert "pip install 'kravl[text]'" in shown("ViT-B-16-SigLIP-512")


def test_why_a_model_does_not_work_is_told(shown) -> None:
    assert "works           no: 'efficientvim_m1' cannot be a backbone: its logits are" in shown("efficientvim_m1")


def test_an_unknown_name_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vit-b16"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no model 'vit-b16' among ")
    assert "ViT-B-16" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["ViT-B-16", "RN101", "ViT-L-14-336", "vit_small_patch14_dinov2", "resnet50.a1_in1k"])
def test_what_is_typed_is_that_model(name: str, shown) -> None:
    line = next(line for line in shown(name).splitlines() if line.startswith("  type "))
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", line.partition("#")[0].split()[3:])

    assert config.backbone.build["name"].partition(".")[0] == name.partition(".")[0]
    assert config.backbone.build["pretrained"]


def test_csv_and_json_hold_every_model(shown) -> None:
    rows = list(csv.DictReader(io.StringIO(shown("--csv", "RN50"))))
    content = json.loads(shown("--json", "RN50"))

    assert [row["name"] for row in rows] == [model["name"] for model in content["models"]]
    row, model = rows[0], content["models"][0]
    assert row["both_image"] == str(model["presets"]["both"]["image"])
    assert row["weights"].split() == catalog.tags(model)
    assert content["versions"] == TABLE.head["versions"]


def test_other_releases_than_those_of_the_table_are_told_in_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(catalog, "installed_versions", lambda: {**TABLE.head["versions"], "timm": "9.9"})
    assert main(["ViT-B-16"]) == 0
    assert f"timm {TABLE.head['versions']['timm']} (installed: 9.9)" in capsys.readouterr().err
    monkeypatch.setattr(catalog, "installed_versions", lambda: {**TABLE.head["versions"], "transformers": None})
    assert main(["ViT-B-16"]) == 0
    assert capsys.readouterr().err == ""
