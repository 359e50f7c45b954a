"""The report's command: files, terminal, and one line where there is nothing to do."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import pytest
from run_records import accuracies, write_run

from kravl.cli.report import main
from kravl.config.compose import as_written
from kravl.report.runs import FinishedRun
from kravl.study.grid import plan_runs
from kravl.study.schema import read_study
from kravl.tracking.settings import recorded_settings

# W&B takes a second to import, and a report of folders needs none of it
KRAVL = (
    sys.executable, "-c", "import sys; from kravl.cli.main import main; sys.exit(main() or 'wandb' in sys.modules)",
)  # fmt: skip


def test_the_command_writes_tables_and_figures_and_prints_the_table(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "made/report"
    for method in ("kra", "lora"):
        for seed, accuracy in enumerate((0.5, 0.6, 0.7), start=1):
            metrics = {"seed": seed, "metrics": accuracies(accuracy, 0.25), "zero_shot": accuracies(0.3, 0.25)}
            write_run(runs / f"{method}/seed{seed}", seconds=10, method=method, **metrics)

    command = [*KRAVL, "report", str(runs), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "KRAdapter 16 3 60.0 ± 10.0 25.0 ± 0.0 25.0 ± 0.0 35.2 ± 1.8 43,008 20.0 ± 0.0 10" in lines
    assert "zero-shot 0 1 30.0 25.0 25.0 27.3 0" in lines
    assert lines[-1] == str(out / "report.md")
    stem = "clip_vitb16-dtd-in_domain"
    assert sorted(file.name for file in out.iterdir()) == [
        f"{stem}.png",
        f"{stem}.svg",
        "index.html",
        "report.csv",
        "report.json",
        "report.md",
        "report.tex",
    ]
    text = (out / "report.md").read_text()
    assert "| LoRA | 16 | 3 | 60.0 ± 10.0 | 25.0 ± 0.0 |" in text
    assert f"({stem}.png)" in text
    assert "Read before comparing" not in text


def test_what_is_wrong_with_the_runs_is_said_on_the_terminal_and_in_the_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=2, split_sha256="bb" * 32)
    half = write_run(tmp_path / "c", seed=3)
    half.write_text(half.read_text()[:100])

    assert main([str(tmp_path)]) == 0

    text = (tmp_path / "report/report.md").read_text()
    for note in (f"skipped {half}: ", "runs were trained on different images"):
        assert any(note in message for message in caplog.messages)
        assert note in text
    assert "| KRAdapter | 16 | 2 |" in text


def test_figures_that_cannot_be_drawn_are_a_line_of_the_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a").parent
    (folder / "spectra.safetensors").write_bytes(b"damaged")
    (folder / "config.yaml").write_text("data: [")

    assert main([str(tmp_path)]) == 0

    page = (tmp_path / "report/index.html").read_text()
    assert "a spectrum is left out: " in page
    assert "clip_vitb16, dtd, in_domain: pictures are left out, as the data set cannot be read" in page
    assert "<img" not in page


def test_every_set_is_printed_where_it_fits_as_it_is_or_turned_on_its_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for sets, shown in ((14, True), (50, False)):
        metrics = {f"set_{i}/accuracy": 0.5 for i in range(sets)}
        runs = tmp_path / str(sets)
        for method in ("kra", "lora", "dora"):
            write_run(runs / method, method=method, metrics={**accuracies(0.5, 0.25), **metrics})
        assert main([str(runs), "--no-figures"]) == 0

        head = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(" method"))
        assert (head == ["method", "DoRA", "KRAdapter", "LoRA"]) is shown


def test_a_second_report_over_the_first_is_the_same(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    main([str(tmp_path)])
    first = {file.name: file.read_bytes() for file in (tmp_path / "report").iterdir()}

    main([str(tmp_path)])

    assert {file.name: file.read_bytes() for file in (tmp_path / "report").iterdir()} == first


@pytest.mark.parametrize("make", ["folder", "half a run"])
def test_no_finished_run_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: str
) -> None:
    runs = tmp_path / "runs"
    if make == "folder":
        runs.mkdir()
    elif make == "half a run":
        write_run(runs / "a").write_text(json.dumps({"schema": 1}))

    code = main([str(runs)])

    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith(f"error: no finished run below {runs}: ")
    assert error.count("\n") == 1
    assert ("no metrics.json" if make != "half a run" else str(runs / "a/metrics.json")) in error
    assert not (runs / "report").exists()


def test_a_place_that_cannot_be_written_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs/a")
    (tmp_path / "file").write_text("")

    code = main([str(tmp_path / "runs"), "--out", str(tmp_path / "file/report")])

    assert code == 2
    assert capsys.readouterr().err.startswith(f"error: the report cannot be written to {tmp_path / 'file/report'}: ")


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of a file as Unix does")
def test_a_disk_that_fills_leaves_the_report_that_was_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import resource

    write_run(tmp_path / "runs/a")
    assert main([str(tmp_path / "runs")]) == 0
    report = tmp_path / "runs/report"
    before = {file: file.read_bytes() for file in report.iterdir()}
    write_run(tmp_path / "runs/b", seed=2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = len(before[report / "index.html"]) // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        code = main([str(tmp_path / "runs")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert code == 2
    assert capsys.readouterr().err.startswith(f"error: the report cannot be written to {report}: File too large (")
    assert (report / "index.html").read_bytes() == before[report / "index.html"]
    assert {file.name for file in report.iterdir()} == {file.name for file in before}  # no half file beside it


NASTY = """a/b_'c'"d"<script>alert(1)</script>&amp;$x^2${y}%#~|\\input{z}`e`[f](g)"""


def test_names_with_special_characters_break_no_file(tmp_path: Path) -> None:
    for method, dataset in itertools.product((NASTY, "lora"), (NASTY, NASTY.replace("/", "_"))):
        for seed in (1, 2):
            folder = tmp_path / f"runs/{len(method)}-{dataset[:2].replace('/', '-')}-{seed}"
            write_run(folder, method=method, dataset=dataset, backbone=NASTY, seed=seed, metrics=accuracies(0.5, 0.25))

    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0

    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert len([name for name in names if name.endswith(".png")]) == 2
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.-") for name in map(str.lower, names))
    text = (tmp_path / "out/report.md").read_text()
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert "<script" not in text
    assert all(line.replace("\\|", "").count("|") >= 6 for line in tables)
    assert r"\input" not in (tmp_path / "out/report.tex").read_text()
    assert NASTY in {group["method"] for group in json.loads((tmp_path / "out/report.json").read_text())["groups"]}
    assert "<script>alert(1)</script>" not in (tmp_path / "out/index.html").read_text()


def test_two_thousand_runs_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets, shots, seeds = [f"set{i}" for i in range(10)], (1, 2, 4, 8), range(1, 11)
    for method, dataset, k, seed in itertools.product(
        ("kra", "lora", "full", "linear_probe", "vera"), sets, shots, seeds
    ):
        metrics = accuracies(0.5 + 0.01 * seed + (0.001 * seed if method == "kra" else 0), 0.25)
        write_run(tmp_path / f"runs/{method}/{dataset}/{k}/{seed}", method=method, dataset=dataset, shots=k, seed=seed,
                  split_seed=seed, metrics=metrics)  # fmt: skip
    reads: list[int] = []
    monkeypatch.setattr(FinishedRun, "values", cached_property(counted(FinishedRun.values.func, reads)))
    FinishedRun.values.__set_name__(FinishedRun, "values")

    assert main([str(tmp_path / "runs"), "--no-figures", "--out", str(tmp_path / "out")]) == 0

    report = json.loads((tmp_path / "out/report.json").read_text())
    assert sum(len(group["seeds"]) for group in report["groups"]) == 2000
    [kra] = [c for c in report["comparisons"] if (c["method"], c["metric"], c["amount"]) ==
             ("kra", "test/accuracy", "all shots")]  # fmt: skip
    assert (kra["won"], kra["lost"]) == (400, 0)
    assert report["notes"] == []
    assert len(reads) == 2000  # the numbers of a run are gathered once, however many tables ask for them


def counted(
    function: Callable[[FinishedRun], dict[str, float]], reads: list[int]
) -> Callable[[FinishedRun], dict[str, float]]:
    def values(run: FinishedRun) -> dict[str, float]:
        reads.append(1)
        return function(run)

    return values


def test_a_condition_takes_runs_and_a_mistake_in_it_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, commit in ((1, "a" * 40), (2, "b" * 40)):
        write_run(tmp_path / f"runs/{seed}", seed=seed, git_commit=commit)
    command = [str(tmp_path / "runs"), "--no-figures"]

    assert main([*command, "--where", "git_commit=aaaaaaa", "config.optim.lr=0.001"]) == 0
    [group] = json.loads((tmp_path / "runs/report/report.json").read_text())["groups"]
    assert group["seeds"] == [1]

    for condition, expected in {
        "git_comit=a": "unknown key of --where 'git_comit': did you mean 'git_commit'?",
        "shots=4": "unknown value of shots '4': did you mean '16'?",
        "shots": "--where shots is not KEY=VALUE",
    }.items():
        capsys.readouterr()
        assert main([*command, "--where", condition]) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1


def test_a_study_shows_its_own_runs_and_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = {"name": "s", "question": "which?", "backbones": ["vit_s14"], "datasets": ["dtd", "eurosat"],
             "methods": ["kra", "lora", "vera"], "shots": [4], "seeds": [1, 2], "baseline": "kra"}  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps(study))
    for run in plan_runs(read_study(tmp_path / "s.yaml"), [f"runs={tmp_path}/runs"]):
        if run.cell.method != "vera" and run.cell.dataset == "dtd":
            config = recorded_settings(as_written(run.config()))
            write_run(tmp_path / f"moved/{run.cell.method}{run.seed}", name=run.config().name, method=run.cell.method,
                      backbone="vit_s14", shots=4, seed=run.seed, config=config)  # fmt: skip
    write_run(tmp_path / "moved/other", method="full")

    assert main([str(tmp_path / "moved"), "--no-figures", "--study", str(tmp_path / "s.yaml")]) == 0

    text = (tmp_path / "moved/report/report.md").read_text()
    assert text.startswith("# s: which?")
    assert "- 8 of the 12 runs of s are not finished" in text
    assert "| KRAdapter | **50.0 ± 0.0** | – | – |" in text
    assert "| VeRA | – | – | – |" in text
    assert "full" not in text
    assert "## Against KRAdapter" in text


def test_no_record_of_a_study_stops_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = {"name": "s", "backbones": ["vit_s14"], "datasets": ["dtd"], "methods": ["kra", "lora"], "shots": [4],
             "seeds": [1, 2], "baseline": "lora"}  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps(study))
    start = {"run": "clip_kra_1shot/seed1", "adapter": "sha256 0123456789abcdef"}
    for run in plan_runs(read_study(tmp_path / "s.yaml"), [f"runs={tmp_path}/runs"]):
        config = recorded_settings(as_written(run.config()))
        method = "edited" if (run.cell.method, run.seed) == ("kra", 2) else run.cell.method
        write_run(tmp_path / f"runs/{run.cell.method}{run.seed}", name=run.config().name, method=method,
                  backbone="vit_s14", shots=4, seed=run.seed, config=config, init=start)  # fmt: skip

    assert main([str(tmp_path / "runs"), "--no-figures", "--study", str(tmp_path / "s.yaml")]) == 0

    text = (tmp_path / "runs/report/report.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|") and "50.0" in line]
    assert rows[:3] == ["KRAdapter", "LoRA", "edited"]  # a study's cells go by their own names
    assert "## Against LoRA" in text


def test_a_baseline_that_is_not_there_is_a_note_or_a_mistake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in ("kra", "full"):
        write_run(tmp_path / f"runs/{method}", method=method)

    assert main([str(tmp_path / "runs"), "--no-figures"]) == 0
    assert any("no run has the baseline 'lora'; pass --baseline METHOD" in message for message in caplog.messages)
    assert main([str(tmp_path / "runs"), "--no-figures", "--baseline", "krra"]) == 2
    assert "unknown baseline 'krra': did you mean 'kra'" in capsys.readouterr().err


def test_the_kind_of_deviation_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, accuracy in ((1, 0.5), (2, 0.6)):
        write_run(tmp_path / f"runs/{seed}", seed=seed, metrics=accuracies(accuracy))

    assert main([str(tmp_path / "runs"), "--no-figures", "--std", "population"]) == 0

    shown = capsys.readouterr().out
    assert "55.0 ± 5.0" in shown
    assert "population standard deviation (ddof = 0)" in shown
    assert "population standard deviation (ddof = 0)" in (tmp_path / "runs/report/index.html").read_text()
