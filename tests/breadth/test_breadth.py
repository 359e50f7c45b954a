"""Every model: the table that ships agrees with the libraries, and a model of each family with plain autograd."""

import copy
import json
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import open_clip
import pytest
import torch
from breadth import parity, survey
from breadth.command import Kept
from breadth.families import build, smallest

from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.backbones import catalog
from kravl.backbones.structure.presets import select
from kravl.backbones.structure.roles import roles
from kravl.backbones.timm_heads import head_inputs

MODELS = catalog.read_table(catalog.folder() / catalog.MODELS)
FAMILIES = catalog.read_table(catalog.folder() / catalog.FAMILIES)
MEMBERS = smallest(MODELS.rows)
SECONDS = 7  # of computing for each library, as `make breadth` took for the families that are measured here as well
SAMPLE = MODELS.rows[5::140]
stale = catalog.other_versions(MODELS.head)
same_releases = pytest.mark.skipif(bool(stale), reason=f"the table was {stale}")


def cheapest() -> list[str]:
    """The families of each library that are measured within `SECONDS`, the quickest first."""
    rows = sorted((row for row in FAMILIES.rows if not row["failed"]), key=lambda row: row["seconds"])
    families: list[str] = []
    for library in catalog.LIBRARIES:
        of_it = [row for row in rows if MEMBERS[row["family"]]["library"] == library]
        spent = accumulate(row["seconds"] for row in of_it)
        families += [row["family"] for row, seconds in zip(of_it, spent, strict=True) if seconds < SECONDS]
    return families


def needs_transformers(row: survey.Row) -> bool:
    return row["extra"] == "text" and find_spec("transformers") is None


@pytest.mark.long
@pytest.mark.parametrize("family", cheapest())
def test_a_model_of_each_family_is_adapted_as_the_library_and_autograd_have_it(family: str, tmp_path: Path) -> None:
    if needs_transformers(MEMBERS[family]):
        pytest.skip("transformers is not installed: pip install 'kravl[text]'")

    result = parity.compared(MEMBERS[family], tmp_path)

    assert result["failed"] == ""
    assert {preset: parity.within(found) for preset, found in result["presets"].items() if parity.within(found)} == {}


def test_what_is_measured_tells_a_wrong_merge_and_an_adapter_that_nothing_trains(tmp_path, monkeypatch) -> None:
    row = next(row for row in MODELS.rows if row["name"] == "test_vit")
    monkeypatch.setattr(KRAdapter, "adapted", lambda self, weight, alpha: weight)
    monkeypatch.setattr(parity, "METHODS", {"all": KRAdapter})

    (result,) = parity.compared(row, tmp_path)["presets"].values()

    assert [fault.split()[0] for fault in parity.within(result)] == ["merged"]
    assert parity.within({**result, "merged": 0.0, "unchanged": 2}) == ["2 adapters are left by a step"]
    assert parity.within({**result, "merged": 0.0, "loaded": 1e-9}) == ["loaded 1.0e-09"]


def test_the_adapters_that_a_step_leaves_are_those_whose_weight_the_library_does_not_depend_on(tmp_path) -> None:
    classifier = build(MEMBERS["timm csatv2"], tmp_path)  # norms of one channel before q and k of 14 blocks
    library, images = parity._Library(copy.deepcopy(classifier)), parity._images(classifier)
    sites = [site for site in select(classifier.encoder(), "cliplora") if site.startswith(("stages.0", "stages.3.5"))]
    adapters = inject(classifier.encoder(), parity.METHODS["cliplora"], sites)

    left = parity._left_by_a_step(classifier, adapters, images)

    assert {site for site in adapters.adapters if site[:8] == "stages.0" and site[-1] in "qk"} == left
    assert parity._without_gradient(library, adapters, images) == left


@same_releases
def test_the_table_has_every_model_of_the_libraries() -> None:
    open_clip.add_model_config(Path(__file__).parents[1] / "fixtures/tiny-clip.json")  # one that they do not ship
    assert [(row["library"], row["name"]) for row in MODELS.rows] == survey.names()
    assert {row["family"] for row in FAMILIES.rows} == MEMBERS.keys()


def test_every_family_that_was_measured_is_as_the_library_and_autograd_have_it() -> None:
    assert [row["family"] for row in FAMILIES.rows if row["failed"]] == []
    results = {(row["family"], preset): result for row in FAMILIES.rows for preset, result in row["presets"].items()}
    assert {key: parity.within(result) for key, result in results.items() if parity.within(result)} == {}
    idle = {key: result["without_gradient"] for key, result in results.items() if result.get("without_gradient")}
    assert idle == {("timm csatv2", "cliplora"): 28}


@pytest.mark.long
@same_releases
@pytest.mark.parametrize("row", SAMPLE, ids=lambda row: row["name"])
def test_the_table_agrees_with_the_libraries_for_a_sample(row: survey.Row) -> None:
    if needs_transformers(row):
        pytest.skip("transformers is not installed: pip install 'kravl[text]'")
    assert survey.is_current(row)


@same_releases
@pytest.mark.parametrize("name", ["kravl-tiny", "PE-Core-T-16-384", "test_convnext", "test_vit", "test_nfnet"])
def test_a_row_made_anew_is_that_of_the_table(name: str) -> None:
    (row,) = [row for row in MODELS.rows if row["name"] == name]
    assert json.loads(json.dumps(survey.surveyed(row["library"], name))) == row


def test_a_matrix_that_the_features_do_not_come_from_is_found() -> None:
    model = survey.skeleton("timm", "test_vit")
    features = head_inputs(model, torch.zeros(1, 3, 160, 160, device="meta"))

    assert survey.unreached(model, features, roles(model)) == ["head"]


def test_what_classifies_is_no_part_of_attention_although_it_ends_an_attention_pool() -> None:
    kinds = {role.name: role.kind for role in roles(survey.skeleton("timm", "resnet50_clip"))}
    assert [kinds[f"head.{part}"] for part in ("q", "k", "v", "proj")] == ["q", "k", "v", "head"]


def test_no_gradient_is_missing_from_a_matrix_of_the_table() -> None:
    assert [row["name"] for row in MODELS.rows if row["unreached"]] == []


def test_rows_are_kept_one_by_one_and_made_once(tmp_path: Path) -> None:
    path, made = tmp_path / "rows.jsonl", []

    def make(name: str) -> survey.Row:
        if name == "c" and made == ["a", "b"]:
            raise KeyboardInterrupt
        made.append(name)
        return {"name": name}

    wanted = [("a",), ("b",), ("c",), ("d",)]
    with pytest.raises(KeyboardInterrupt):
        Kept(path, ["name"], again=False).complete("rows", wanted, make)
    made.append("interrupted")
    again = Kept(path, ["name"], again=False)
    again.complete("rows", wanted, make)

    assert made == ["a", "b", "interrupted", "c", "d"]
    assert [row["name"] for row in Kept(path, ["name"], again=False).of(wanted)] == ["a", "b", "c", "d"]


def test_rows_of_other_releases_and_rows_that_are_no_longer_right_are_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    now = {"versions": catalog.installed_versions(), "commit": "former", "took": 1.0}
    rows = [{"name": "a", **now}, {"name": "b", **now, "versions": {"torch": "1.0"}}, {"name": "c", **now}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    kept = Kept(path, ["name"], again=False)
    kept.drop("rows", lambda row: row["name"] != "c")

    assert [row["name"] for row in kept.of([("a",), ("b",), ("c",)])] == ["a"]
