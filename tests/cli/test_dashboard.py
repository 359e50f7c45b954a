"""The dashboard draws what a real run logs, and its document reaches W&B's API through W&B's own client.

W&B itself is not asked: a server on this machine stands in for it, with the answers of its GraphQL interface.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import open_clip
import pytest
import wandb
from hydra import compose, initialize_config_dir
from tiny_run import CLIP, TINY
from wandb_records import isolate, logged, records
from wandb_server import WandbServer, serve

from kravl.cli.dashboard import main
from kravl.config.schema import CONFIGS
from kravl.report.runs import read_runs
from kravl.report.wandb_runs import read_wandb
from kravl.run.train import train
from kravl.tracking.methods import known_methods, look

pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed: pip install 'kravl[dashboard]'")
SERIF = "_target_: kravl.data.sources.folder.ImageFolder, name: serif, root: '${data_root}/glyphs/serif', test: ."


@pytest.fixture(scope="module")
def run(glyphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a real run, logged to W&B offline: in and out of domain, three points of WiSE-FT."""
    folder = tmp_path_factory.mktemp("logged")
    open_clip.add_model_config(Path(__file__).parents[1] / "fixtures/tiny-clip.json")
    places = (f"data_root={glyphs}", f"runs={folder}", f"++evaluation.sets.serif={{{SERIF}}}")
    with pytest.MonkeyPatch.context() as patch, initialize_config_dir(str(CONFIGS), version_base="1.3"):
        isolate(folder, patch)
        patch.setenv("WANDB_RUN_GROUP", "a study")
        train(compose("train", [*TINY, *CLIP, *places, "tracking=wandb", "alphas=3", "++trainer.log_every_n_steps=1"]))
        wandb.teardown()
        yield next(folder.glob("*/seed*"))


def names(run: Path) -> dict[str, set[str]]:
    """Names of what was logged: history, summary and config, the last with ``.value`` for a first level."""
    found: dict[str, set[str]] = {"history": set(), "summary": set(), "config": set()}
    for each in records(run):
        found["history"] |= {item.key or "/".join(item.nested_key) for item in each.history.item}
        found["summary"] |= {item.key or item.nested_key[0] for item in each.summary.update}
        found["config"] |= {item.key for item in each.run.config.update}
    return found


def document(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--out", str(tmp_path / "board.json")]) == 0
    return json.loads((tmp_path / "board.json").read_text())


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    sections = board["section"]["panelBankConfig"]["sections"]
    return [panel["config"] for section in sections for panel in section["panels"]]


def test_every_number_that_the_dashboard_draws_is_logged_by_a_run(run: Path, tmp_path: Path) -> None:
    known = names(run)

    board = document(tmp_path, "--sets", "serif")

    for panel in panels(board):
        for axis in ("xAxis", "yAxis"):
            kind, _, name = panel.get(axis, "").rpartition(":")
            if kind:
                assert name.removesuffix(".value") in known[kind], name
        if "xAxis" in panel and ":" not in panel["xAxis"]:
            assert panel["xAxis"] in known["history"]
            assert set(panel["metrics"]) <= known["history"]
        elif "metrics" in panel:
            assert set(panel["metrics"]) <= known["summary"]
        if "groupBy" in panel:
            assert panel["groupBy"].removesuffix(".value") in known["config"]
    tables = {name for name in ("classes/test", "samples/test") if name in json.dumps(panels(board))}
    assert tables <= known["summary"] | known["history"]
    assert len(tables) == 2
    for column in board["section"]["runSets"][0]["runFeed"]["columnVisible"]:
        kind, _, name = column.partition(":")
        assert kind == "run" or name.removesuffix(".value") in known[kind]


def test_lines_are_logged_with_their_own_axes(run: Path) -> None:
    rows = [{i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in r.history.item} for r in records(run)]
    [result] = [found.record for found in read_runs(run)[0]]

    curve = [row for row in rows if "wise_ft/alpha" in row]
    assert [row["wise_ft/alpha"] for row in curve] == [0, 0.5, 1]
    assert curve[0]["wise_ft/test/accuracy"] == result["zero_shot"]["test/accuracy"]
    assert curve[2]["wise_ft/ood_mean"] == result["metrics"]["ood_mean"]
    assert all(0 <= row["calibration/accuracy"] <= 1 for row in rows if "calibration/confidence" in row)
    axes = {r.metric.name: r.metric.step_metric for r in records(run) if r.HasField("metric")}
    assert axes["wise_ft/ood_mean"] == "wise_ft/alpha"


def test_a_study_is_the_group_of_its_runs_and_the_filter_of_its_dashboard(run: Path, tmp_path: Path) -> None:
    [group] = {record.run.run_group for record in records(run) if record.HasField("run")}

    board = document(tmp_path, "--study", group)

    runs = board["section"]["runSets"][0]
    assert group == "a study"
    assert {"section": "run", "name": "group"} in [each["key"] for each in runs["filters"]["filters"]]
    assert [each["value"] for each in runs["filters"]["filters"]] == ["finished", "a study"]
    assert [each["name"] for each in runs["grouping"]] == ["method.value", "cell.value"]


def test_methods_have_the_colours_of_a_report_in_any_workspace(tmp_path: Path) -> None:
    boards = [document(tmp_path, *arguments) for arguments in (["--study", "s"], [])]

    for board in boards:
        colours = board["section"]["customRunColors"]
        of = {json.loads(unquote(key.split(":")[2]))[0]["value"]: colour for key, colour in colours.items()}
        assert of["kra"] == look("kra").light
        assert set(of) == known_methods()


def test_a_report_from_wandb_is_that_of_the_run(run: Path, server: WandbServer) -> None:
    [local] = read_runs(run)[0]
    server.add("team/kravl", "one", logged(run))

    [again] = read_wandb("wandb:team/kravl")[0]

    assert again.record == local.record
    assert again.cost == local.cost


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with serve(tmp_path, monkeypatch) as made:
        yield made


def saved(server: WandbServer) -> dict[str, Any]:
    [mutation] = [asked for asked in server.asked if "upsertView" in asked["query"]]
    return mutation["variables"]


def test_the_workspace_is_sent_as_one_view_of_the_project(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--project", "adapters", "--entity", "lab", "--study", 'few "shot"', "--sets", "serif"]) == 0

    sent = saved(server)
    assert (sent["entityName"], sent["projectName"], sent["type"]) == ("lab", "adapters", "project-view")
    assert sent["displayName"] == 'kravl: few "shot"'
    content = json.loads(sent["spec"])
    assert 'few "shot"' in [each["value"] for each in content["section"]["runSets"][0]["filters"]["filters"]]
    kinds = [panel["chartTitle"] for panel in panels(content) if "chartTitle" in panel]
    assert kinds[:2] == ["Out of distribution against in distribution",
                         "WiSE-FT, from the pretrained to the adapted weights"]  # fmt: skip
    address = capsys.readouterr().out.strip()
    assert address.startswith("http://127.0.0.1:")
    assert "/lab/adapters?nw=" in address


def test_without_an_entity_it_is_the_keys_own(server: WandbServer) -> None:
    assert main(["--project", "p"]) == 0

    assert saved(server)["entityName"] == "team"


@pytest.mark.parametrize("fault", ["refused", "no entity"])
def test_a_refusal_is_one_line(server: WandbServer, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    server.refuses, server.entity = fault == "refused", None if fault == "no entity" else "team"

    code = main([])

    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert error.startswith("error: W&B")
    assert ("permission denied" if fault == "refused" else "pass --entity") in error


def test_without_a_key_or_a_network_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    isolate(tmp_path, monkeypatch)
    wandb.teardown()

    code = main(["--project", "p"])

    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: W&B cannot be reached: no API key for ")
    assert "--out FILE" in lines[0]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "none/board.json")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
