"""The benchmarks' own checks: they run, and what they compare computes the same."""

import importlib
import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.long

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a benchmark as the command line does, and gives back its record."""

    def quick(name: str, *options: str) -> dict:
        monkeypatch.syspath_prepend(BENCHMARKS)
        # the product that sets the floor: 34 GFLOP beside each run, which are seconds without instructions for bfloat16
        monkeypatch.setitem(importlib.import_module("measure").PRODUCT, "cpu", (256, 512, 256))
        told = [*(options or ("--quick",)), "--json", str(tmp_path / "record.json")]
        monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / name), *told])
        threads = torch.get_num_threads()
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
        torch.set_num_threads(threads)
        printed = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert printed == json.loads((tmp_path / "record.json").read_text())
        return printed

    return quick


def test_a_layer_keeps_nothing_where_the_published_one_keeps_its_update(run):
    rows = run("layer.py")["rows"]

    saved = {row["layer"]: row["saved MiB"] for row in rows if (row["shape"], row["tokens"]) == ("50x37", 300)}
    assert saved["KRAdapter, kravl"] == saved["LoRA r16, kravl"] == saved["RandLoRA r10, kravl"] == 0
    assert saved["KRAdapter, published layer"] > 0


def test_ideas_compute_what_kravl_does(run):
    rows = [row for row in run("ideas.py")["rows"] if row["idea"]]
    assert len(rows) == 2 * 6
    assert max(row["differs"] for row in rows) < 1e-6  # single precision, sums in another order

    rows = [row for row in run("ideas.py", "--quick", "--dtype", "bfloat16")["rows"] if row["idea"]]
    rounded_first = {row["idea"] for row in rows if row["differs"] > 1e-6}
    assert rounded_first == {"frozen weight held in bf16", "the same, and the update written in bf16"}
    assert max(row["differs"] for row in rows) < 2**-6  # two roundings


def test_a_convolution_keeps_nothing_where_plain_autograd_keeps_the_update(run):
    rows = run("conv.py")["rows"]

    saved = {row["layer"]: row["saved MiB"] for row in rows if row["shape"] == "12x20x1@3"}
    assert saved["KRAdapter, kravl"] == saved["LoRA r16, kravl"] == 0
    assert saved["KRAdapter, plain autograd"] > 0


@pytest.mark.skipif(not importlib.util.find_spec("transformers"), reason="pip install 'kravl[bench]'")
def test_kradapter_in_peft_keeps_less_than_any_other_method(run):
    rows = {(row["model"], row["method"]): row for row in run("peft_step.py")["rows"]}

    for model in ("GPT-2", "Llama"):
        assert rows[model, "KRAdapter"]["trainable"] >= rows[model, "LoRA"]["trainable"] * 0.9
        others = [
            row["saved MiB"]
            for (name, method), row in rows.items()
            if name == model and method not in ("frozen", "KRAdapter")
        ]
        assert rows[model, "KRAdapter"]["saved MiB"] < min(others)


def test_attention_computes_what_torchs_does(run):
    record = run("attention.py")

    assert {row["attention"] for row in record["rows"]} >= {"frozen, torch", "frozen, kravl"}
    assert record["machine"]["threads"] == 1


@pytest.mark.skipif(not importlib.util.find_spec("peft"), reason="pip install 'kravl[bench]'")
def test_a_step_of_every_loop_is_compared_and_equal(run):
    every = ["plain", "kravl", "peft", "peft-77", "kravl-shared", "kravl-stored"]
    rows = run("step.py", "--quick", "--loops", *every)["rows"]

    loops = {}
    for row in rows:
        loops.setdefault(row["method"], {})[row["loop"]] = row
    assert [list(found) for found in loops.values()] == [
        ["plain", "kravl", "kravl-stored"],
        [loop for loop in every if loop != "kravl-shared"],
        every,
        ["plain", "kravl", "kravl-stored"],
    ]
    for found in loops.values():
        ours, others = found["kravl"], [row for loop, row in found.items() if not loop.startswith("kravl")]
        assert ours["GFLOP"] < min(row["GFLOP"] for row in others)
        assert ours["saved MiB"] <= min(row["saved MiB"] for row in others)
        assert found["kravl-stored"]["weights MiB"] < 0.6 * ours["weights MiB"]
        assert found["kravl-stored"]["saved MiB"] == ours["saved MiB"]
    dropped = loops["LoRA, dropout 0.25"]
    assert dropped["kravl-shared"]["GFLOP"] < dropped["kravl"]["GFLOP"]


def test_all_benchmarks_are_measured_once_and_their_length_is_told(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/optimizer.json").write_text('{"seconds": 119}')
    command = [sys.executable, str(BENCHMARKS / "suite.py"), "--quick", "--only", "optimizer", "job"]
    command += ["--folder", str(tmp_path), "--results", str(tmp_path / "results")]

    first, again = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))

    assert "1 to measure: 2 min\n" in first
    assert "left out without --data-root, which they read Caltech-101 from: job" in first
    assert "0 to measure" in again
    assert json.loads((tmp_path / "quick/optimizer.json").read_text())["title"] == "A step of AdamW"


def test_growth_is_measured_along_every_axis(run):
    rows = run("scale.py")["rows"]

    assert {row["axis"].split(":")[0] for row in rows} == {"width", "classes", "batch", "shots"}
    assert sum(row["exponent"] is not None for row in rows) == 5


def test_a_job_is_taken_apart_into_its_phases(run):
    rows = run("job.py")["rows"]

    assert {row["phase"] for row in rows} >= {"assemble", "images", "features", "train", "evaluate", "all"}
    assert sum(row["share %"] for row in rows if row["phase"] != "all") == pytest.approx(100)


def test_images_are_read_with_the_bits_of_pils_transforms(run):
    record = run("data.py")

    assert record["pixels"]["evaluation_max"] == 0
    assert {row["task"] for row in record["rows"]} == {"train", "evaluate", "one pass", "two passes"}


def test_the_forms_of_adamw_agree(run):
    rows = run("optimizer.py")["rows"]

    assert [row["AdamW"] for row in rows] == ["loop", "foreach", "fused"] * 3
    assert rows[0]["numbers"] < rows[-1]["numbers"]


@pytest.mark.skipif(not importlib.util.find_spec("sklearn"), reason="pip install 'kravl[quickstart]'")
def test_every_head_is_timed_and_most_beside_a_plain_loop(run):
    rows = run("heads.py")["rows"]

    heads = [row["head"] for row in rows if row["what"] == "one fit"]
    assert heads == [row["head"] for row in rows if row["what"] == "grid of 15"][:-1]
    assert {row["head"] for row in rows if row["what"] == "one fit" and row["x plain"] is None} == {
        "ncm",
        "tip_adapter",
    }


def test_a_share_of_the_floor_is_taken_within_rounds(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    measure = runpy.run_path(str(BENCHMARKS / "measure.py"))
    floor = measure["Floor"]("cpu")
    m, k, n = measure["PRODUCT"]["cpu"]
    times = {floor.NAME: [1.0, 2.0, 4.0], "run": [2.0, 2.0, 16.0]}

    assert floor.share(times, "run", m * k * n) == 25.0  # half of the product's operations; 25, 50 and 12.5 %
    assert floor.share(times, "run", m * k * n, least=1.5) == 75.0  # 75, 75 and 12.5 %


def test_everything_of_a_gpu_goes_its_way_to_a_table_on_a_cpu_too(run):
    record = run("gpu.py", "--device", "cpu", "--model", "tiny")

    parts = record["parts"]
    steps = {(row["classes"], row["method"], row["loop"]): row for row in parts["Training steps of both towers"]}
    assert {row["layer"] for row in parts["Layers, forward and backward"]} >= {"full fine-tuning", "KRAdapter, kravl"}
    assert len(steps) == 5 + 3
    assert all(row["/ full"] > 0 and row["MFU %"] > 0 for row in steps.values())
    # its matrices, of which an adapter has fewer numbers; both towers do the same products
    full, adapted = (steps[3, method, "kravl"] for method in ("full fine-tuning of the matrices", "KRAdapter"))
    assert adapted["trained"] < full["trained"]
    assert adapted["GFLOP"] == pytest.approx(full["GFLOP"], rel=0.05)
    assert {"train", "all"} <= {row["phase"] for row in parts["A job: an epoch of 16,000 images in 1,000 classes"]}
    assert {row["met"] for row in record["rows"]} == {"not measured"}  # goals are of real sizes
    assert record["left_out"] == {"did_not_fit": "nothing"}
    section = runpy.run_path(str(BENCHMARKS / "report.py"))["section"](record)
    assert all(f"### {title}\n" in section for title in parts)


def test_spectra_are_timed_fast_and_exact(run):
    assert {row["record"] for row in run("spectra.py")["rows"]} >= {"statistics", "fast, later", "exact"}


def test_the_readme_has_every_record_that_is_kept(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    section = runpy.run_path(str(BENCHMARKS / "report.py"))["section"]
    records = [json.loads(path.read_text()) for path in sorted((BENCHMARKS / "results").glob("*.json"))]

    text = (BENCHMARKS / "README.md").read_text()

    assert records
    assert text.endswith("\n".join(section(record) for record in records))


def test_a_step_and_a_layer_are_taken_apart(run):
    rows = run("parts.py")["rows"]

    for dtype in ("float32", "bfloat16"):
        parts = [row for row in rows if (row["what"], row["dtype"]) == ("step, KRAdapter", dtype)]
        assert parts[0]["part"] == "all"
        assert sum(row["share %"] for row in parts[1:]) == pytest.approx(100)
        named = {row["part"]: row for row in parts}
        assert named["matrix products"]["floor %"] > 0
        assert {"adding the update to the weight", "copies and casts", "Python and autograd between them"} <= set(named)


def test_the_start_of_a_command_is_told_apart_from_its_libraries(run):
    seconds = {row["what"]: row["CPU seconds"] for row in run("start.py")["rows"]}

    assert 0 < seconds["kravl --help"] < seconds["import torch"]  # which it does not import
    assert seconds["modules of torch"] > seconds["modules of all others"]
