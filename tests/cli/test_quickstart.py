"""The first run, small: its table, its page, its mistakes, and that it can be given again."""

import contextlib
import csv
import io
import re
from pathlib import Path

import pytest

from kravl.cli import quickstart
from kravl.runtime.files import shipped
from kravl.study.grid import plan_runs
from kravl.study.schema import read_study

pytestmark = pytest.mark.long

SMALL = (
    "shots=2",
    "optim.epochs=1",
    "optim.warmup_steps=0",
    "loading.min_batches=1",
    "data.source.size=32",
    "evaluation=in_domain",
    "++evaluation.sets.silhouette={_target_: kravl.data.sources.openmoji.source.Pictograms, style: silhouette, "
    "size: 32}",
    "trainer.accelerator=cpu",
)


def first_run(out: Path) -> int:
    return quickstart.main(["--out", str(out), "--seeds", "1", "--set", *SMALL])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first") / "out"
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(said):
        assert first_run(out) == 0
    picture, plan = said.getvalue().index("pictures of the test sets"), said.getvalue().index("5 runs: 0 done")
    assert picture < plan  # before anything that takes long
    assert printed.getvalue().splitlines().count(str(out / "report.md")) == 2  # a table stands while others train
    return out


def test_every_method_has_its_numbers(done: Path) -> None:
    rows = list(csv.DictReader((done / "report.csv").read_text().splitlines()))
    found = {(row["method"], row["quantity"]) for row in rows}

    for method in ("zero-shot", "zs_lp", "taskres", "lora", "kra", "full"):
        assert {(method, "test/accuracy"), (method, "silhouette/accuracy"), (method, "ood_mean")} <= found
    assert {row["method"] for row in rows if row["quantity"] == "effective_rank"} == {"lora", "kra", "full"}


def test_the_page_shows_table_figures_and_pictures(done: Path) -> None:
    page = (done / "index.html").read_text()

    names = re.findall(r'<th scope="row"[^>]*>([^<]+)</th>', page)
    assert "<p>quickstart: five ways to adapt kravl-tiny" in page
    assert names == ["zero-shot", "ZS-LP", "TaskRes", "LoRA", "KRAdapter", "full fine-tuning"]
    shown = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="kravl_tiny, openmoji, in_domain: ([^"]+)">', page)
    assert [caption.split()[0] for caption in shown] == ["effective", "singular", "test"]
    assert "https://openmoji.org, CC-BY-SA-4.0" in shown[2]
    drawn = re.findall(r"\((kravl_tiny-openmoji-in_domain.*)\)", (done / "report.md").read_text())
    assert len(drawn) == 4
    assert all((done / name).is_file() for name in drawn)


def test_the_same_command_again_writes_the_same_report(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = [(done / f"report.{kind}").read_bytes() for kind in ("md", "csv", "json")]

    assert first_run(done) == 0

    assert [(done / f"report.{kind}").read_bytes() for kind in ("md", "csv", "json")] == before
    printed = capsys.readouterr().out
    assert "OOD mean" in printed
    assert "silhouette" in printed
    assert "kravl train data=folder" in printed
    assert "CC BY-SA 4.0" in printed


def test_points_between_the_weights_are_evaluated_where_they_cost_little_for_every_seed() -> None:
    runs = plan_runs(read_study(shipped("experiments/studies") / "quickstart.yaml"))

    curves = {(run.cell.method, run.seed): run.config().alphas for run in runs}
    assert all(curves[method, seed] == 3 for method in ("zs_lp", "taskres") for seed in (1, 2, 3))
    assert all(curves[method, seed] == 1 for method in ("lora", "kra", "full") for seed in (1, 2, 3))
    [first] = {str(run.place) for run in runs if (run.seed, run.cell.method) == (1, "kra")}
    assert first == "quickstart_kra/seed1-c18185c4"  # finished runs are skipped


def test_what_a_run_prints_is_kept_in_the_log_and_out_of_the_table(done: Path) -> None:
    logs = list(done.glob("*/*/log.txt"))
    assert len(logs) == 5
    assert all("macro-F1" in log.read_text() for log in logs)


def test_a_mistyped_setting_is_one_line_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quickstart.main(["--out", str(tmp_path / "out"), "--set", "shotz=2"]) == 2
    error = capsys.readouterr().err
    assert "shotz" in error
    assert "shots" in error.split("shotz", 1)[1]
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_with_one_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quickstart.main(["--out", str(tmp_path), "--seeds", "1", "--jobs", "1", "--set", *SMALL, "shots=400"]) == 1

    assert re.search(r"^failed: lora .*, 400-shot, seed 1: .*shots=400", capsys.readouterr().err, re.MULTILINE)


def test_no_runs_at_once_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quickstart.main(["--out", str(tmp_path / "out"), "--jobs", "0"]) == 2
    assert "--jobs is 0; it must be at least 1" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")

    assert quickstart.main(["--out", str(tmp_path / "file"), "--set", *SMALL]) == 2
    message = "cannot be written: Not a directory; pass runs=/a/folder"
    assert re.search(rf"error: the run folder {tmp_path}/file/quickstart_\S+ {message}\n\Z", capsys.readouterr().err)
