"""The report's command: files, terminal, and one line where there is nothing to do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from run_records import accuracies, write_run

from kravl.report import main


def test_the_command_writes_tables_and_figures_and_prints_the_table(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "made/report"
    for method in ("kra", "lora"):
        for seed, accuracy in enumerate((0.5, 0.6, 0.7), start=1):
            metrics = {"seed": seed, "metrics": accuracies(accuracy, 0.25), "zero_shot": accuracies(0.3, 0.25)}
            write_run(runs / f"{method}/seed{seed}", seconds=10, method=method, **metrics)

    command = [sys.executable, "-m", "kravl.report", str(runs), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "kra 16 3 60.0 ± 10.0 25.0 ± 0.0 35.2 ± 1.8 43,008 20.0 ± 0.0 10 ± 0" in lines
    assert "zero-shot 0 1 30.0 25.0 27.3 0" in lines
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
    assert "| lora | 16 | 3 | 60.0 ± 10.0 | 25.0 ± 0.0 |" in text
    assert f"({stem}.png)" in text
    assert "Mind before comparing" not in text


def test_what_is_wrong_with_the_runs_is_said_on_the_terminal_and_in_the_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=2, split_sha256="bb" * 32)
    half = write_run(tmp_path / "c", seed=3)
    half.write_text(half.read_text()[:100])

    assert main([str(tmp_path)]) == 0

    text = (tmp_path / "report/report.md").read_text()
    for said in (f"skipped {half}: ", "runs were trained on different images"):
        assert any(said in message for message in caplog.messages)
        assert said in text
    assert "| kra | 16 | 2 |" in text


def test_a_second_report_over_the_first_is_the_same(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    main([str(tmp_path)])
    first = {file.name: file.read_bytes() for file in (tmp_path / "report").iterdir()}

    main([str(tmp_path)])

    assert {file.name: file.read_bytes() for file in (tmp_path / "report").iterdir()} == first


@pytest.mark.parametrize("make", ["nothing", "folder", "half a run"])
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
    assert error.startswith(f"no finished run below {runs}: ")
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
    assert capsys.readouterr().err.startswith(f"the report cannot be written to {tmp_path / 'file/report'}: ")
