"""The folder of a run: one per config, owned by one process at a time, written atomically."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kravl.runtime.distributed import is_first_process
from kravl.runtime.errors import InputError
from kravl.runtime.files import write_atomic
from kravl.runtime.lock import Lock
from kravl.tracking.provenance import provenance
from kravl.tracking.run_folder import find_run, folder_of
from kravl.tracking.run_folder import open_run as open_path
from kravl.tracking.settings import cell_of, deciding_settings, recorded_settings

CONFIG = {"optim": {"lr": 1e-3}, "seed": 1, "runs": "here", "tracking": "none"}


def opened(runs, name, seed, config, overwrite):
    return open_path(folder_of(runs, name, seed, config), config, overwrite)


def open_run(*arguments):
    with opened(*arguments) as folder:
        (folder.path / "config.yaml").touch()
    return folder


def finish(folder):
    (folder.path / "config.yaml").write_text("seed: 1\n")
    folder.write("metrics", {"accuracy": 0.5})


def open_in_another_process(runs, config=CONFIG):
    code = (
        "from kravl.tracking.run_folder import folder_of, open_run\n"
        f"path = folder_of({str(runs)!r}, 'name', 1, {config!r})\n"
        "with open_run(path, {}, False) as folder: print(folder.path.name)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_folder_follows_from_what_decides_the_results(tmp_path):
    name = open_run(str(tmp_path / "a"), "name", 1, CONFIG, False).path.name
    other_place = open_run(str(tmp_path / "b"), "name", 1, CONFIG | {"runs": "there", "tracking": "wandb"}, False)
    other_rate = open_run(str(tmp_path / "a"), "name", 1, CONFIG | {"optim": {"lr": 1e-4}}, False)

    assert name.startswith("seed1-")
    assert other_place.path.name == name
    assert other_rate.path.name != name


def test_what_names_this_machine_is_not_part_of_a_runs_identity():
    assert recorded_settings(CONFIG | {"data_root": "/somewhere"}) == {"optim": {"lr": 1e-3}, "seed": 1}


HOW_IT_IS_COMPUTED = {
    "trainer": {"devices": [3], "deterministic": False, "accelerator": "gpu", "strategy": "ddp", "num_nodes": "1"},
    "loading": {"batch_size": 32, "eval_batch_size": 16, "num_workers": 4},
    "checkpointing": True,
    "checkpoint_every": 7,
}
PLAIN = {
    "trainer": {"devices": 1, "deterministic": "warn", "accelerator": "auto"},
    "loading": {"batch_size": 32, "eval_batch_size": 256, "num_workers": None},
    "checkpointing": False,
    "checkpoint_every": 100,
}


def test_a_setting_that_changes_no_number_makes_no_other_run(tmp_path):
    one, other = (folder_of(str(tmp_path), "name", 1, CONFIG | more) for more in (PLAIN, HOW_IT_IS_COMPUTED))
    assert one == other


def test_a_setting_added_since_makes_no_other_run_where_it_says_what_was_done_before(tmp_path):
    added = {
        "init": None,
        "train_statistics": False,
        "optim": {"lr": 1e-3, "label_smoothing": 0.0, "class_weights": None},
    }
    before = {"optim": {"lr": 1e-3}}

    assert deciding_settings(CONFIG | added) == deciding_settings(CONFIG | before)
    for changed in ({"train_statistics": True}, {"optim": {"lr": 1e-3, "class_weights": "balanced"}}):
        assert deciding_settings(CONFIG | added | changed) != deciding_settings(CONFIG | before)


@pytest.mark.parametrize(
    "trainer", [{"devices": 2}, {"devices": "0,1"}, {"devices": "2"}, {"devices": 1, "num_nodes": 2}], ids=str
)
def test_processes_that_share_a_step_multiply_its_batch_and_make_another_run(tmp_path, trainer):
    assert deciding_settings(CONFIG | {"trainer": trainer}) == deciding_settings(CONFIG | {"trainer": {"devices": 2}})
    assert folder_of(str(tmp_path), "name", 1, CONFIG | {"trainer": trainer}) != folder_of(
        str(tmp_path), "name", 1, CONFIG | PLAIN
    )


@pytest.mark.parametrize(("section", "key"), [("trainer", "precision"), ("trainer", "max_time"), ("loading", "x")])
def test_every_other_setting_makes_another_run(tmp_path, section, key):
    changed = CONFIG | PLAIN | {section: PLAIN[section] | {key: "other"}}
    assert folder_of(str(tmp_path), "name", 1, changed) != folder_of(str(tmp_path), "name", 1, CONFIG | PLAIN)


def test_a_run_that_an_earlier_release_named_by_another_hash_keeps_its_folder(tmp_path):
    earlier = tmp_path / "name/seed1-0ldha5h0"
    earlier.mkdir(parents=True)
    (earlier / "config.yaml").write_text(yaml.safe_dump(CONFIG | HOW_IT_IS_COMPUTED))
    damaged = tmp_path / "name/seed1-damaged0"
    damaged.mkdir()
    (damaged / "config.yaml").write_text("[")

    assert folder_of(str(tmp_path), "name", 1, CONFIG | PLAIN) == earlier
    assert folder_of(str(tmp_path), "name", 1, CONFIG | PLAIN | {"optim": {"lr": 1e-4}}) != earlier


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b"])
def test_a_name_that_leaves_the_runs_folder_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="is not a folder name"):
        open_run(str(tmp_path), name, 1, CONFIG, False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_has_one_owner_at_a_time_and_is_free_when_that_ends(tmp_path):
    first = open_in_another_process(tmp_path)
    assert first.returncode == 0, first.stderr

    with opened(str(tmp_path), "name", 1, CONFIG, False) as folder:
        assert first.stdout.strip() == folder.path.name
        second = open_in_another_process(tmp_path)

    assert second.returncode != 0
    assert "is in use by process" in second.stderr
    assert open_in_another_process(tmp_path).returncode == 0


def test_a_child_that_outlives_its_owner_holds_no_folder(tmp_path):
    code = (
        "import os, signal, sys, time; from pathlib import Path; from kravl.runtime.lock import Lock\n"
        "lock = Lock(Path(sys.argv[1]))\n"
        "child = os.fork()\n"
        "if child == 0: os.close(1); time.sleep(60)\n"
        "print(child, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    owner = subprocess.run([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True, check=False)
    child = int(owner.stdout) if owner.stdout else 0
    try:
        Lock(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_further_processes_of_a_run_share_its_folder_and_make_none(tmp_path):
    path = tmp_path / "run"
    with open_path(path, CONFIG, overwrite=True, first=False) as early:
        assert early.path == path
        assert not path.exists()  # the first may not be there yet
    with open_path(path, CONFIG, False), open_path(path, CONFIG, True, first=False) as second:
        assert second.path == path
    assert not path.exists()


SEVERAL = {"devices": 8, "num_nodes": 2}


@pytest.mark.parametrize(
    ("variables", "settings", "expected"),
    [
        ({}, {}, True),
        ({}, SEVERAL, True),
        ({"RANK": "3", "LOCAL_RANK": "0"}, SEVERAL, False),  # torchrun, on the second machine
        ({"RANK": "0", "LOCAL_RANK": "0"}, SEVERAL, True),
        ({"LOCAL_RANK": "1"}, SEVERAL, False),  # Lightning starts the same command again for a second device
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, SEVERAL, False),
        ({"NODE_RANK": "1"}, SEVERAL, False),
        ({"SLURM_PROCID": "0"}, SEVERAL, True),
        ({"SLURM_PROCID": "5"}, SEVERAL, False),
        ({"SLURM_PROCID": "5"}, {"devices": 1}, True),  # eight runs side by side in one job
    ],
)
def test_one_process_of_a_run_keeps_its_record(monkeypatch, variables, settings, expected):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, number in variables.items():
        monkeypatch.setenv(name, number)

    assert is_first_process(settings) == expected


def test_a_runs_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be written: Not a directory; pass runs="):
        open_run(str(tmp_path / "file"), "name", 1, CONFIG, False)


def test_overwrite_empties_the_folder(tmp_path):
    folder = open_run(str(tmp_path), "name", 1, CONFIG, False)
    finish(folder)
    folder.checkpoints.mkdir()
    assert open_run(str(tmp_path), "name", 1, CONFIG, False).finished

    with opened(str(tmp_path), "name", 1, CONFIG, True) as again:
        assert not again.finished
        assert sorted(p.name for p in again.path.iterdir()) == [".lock", ".owner"]


def test_a_run_that_never_began_leaves_no_folder(tmp_path):
    with opened(str(tmp_path), "name", 1, CONFIG, False) as folder:
        assert folder.path.is_dir()
    assert not list(tmp_path.iterdir())  # nor one of its name

    finish(open_run(str(tmp_path), "name", 2, CONFIG, False))
    with opened(str(tmp_path), "name", 1, CONFIG, False):
        pass
    assert [path.name.partition("-")[0] for path in (tmp_path / "name").iterdir()] == ["seed2"]


def test_a_finished_run_is_found_without_its_hash(tmp_path):
    folder = open_run(str(tmp_path), "name", 1, CONFIG, False)
    finish(folder)

    assert find_run(str(tmp_path / "name" / "seed1")).path == folder.path
    assert find_run(str(folder.path)).metrics() == {"accuracy": 0.5}


def test_the_nearest_runs_are_named_wherever_they_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("runs", "runs/study", "elsewhere"):
        finish(open_run(place, "first", 1, CONFIG, False))

    for asked, near in {"frist": "runs/first/", "elsewere/first/seed2": "elsewhere/first/"}.items():
        with pytest.raises(InputError, match=rf"no run '{asked}'; the nearest are .*{near}seed1-\w{{8}}") as refusal:
            find_run(asked)
    assert "[" not in str(refusal.value) and "(the hash at the end may be left out)" in str(refusal.value)


def test_a_missing_unfinished_or_ambiguous_run_is_refused(tmp_path):
    finish(open_run(str(tmp_path), "name", 1, CONFIG, False))
    with pytest.raises(InputError, match=r"no run .*; the nearest are .*name/seed1-"):
        find_run(str(tmp_path / "nam" / "seed1"))
    finish(open_run(str(tmp_path), "name", 1, CONFIG | {"shots": 4}, False))
    with pytest.raises(InputError, match="matches several runs"):
        find_run(str(tmp_path / "name" / "seed1"))
    for place in (tmp_path, tmp_path / "name"):
        with pytest.raises(InputError, match=r"holds 2 finished runs; name one: .*/name/seed1-.*, .*/name/seed1-"):
            find_run(str(place))
    unfinished = open_run(str(tmp_path), "late", 2, CONFIG, False)
    (unfinished.path / "config.yaml").write_text("seed: 2\n")
    with pytest.raises(InputError, match="is not finished"):
        find_run(str(unfinished.path))


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "metrics.json"
    write_atomic(path, json.dumps({"a": 1}))
    write_atomic(path, json.dumps({"a": 2}))

    assert json.loads(path.read_text()) == {"a": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_not_a_number_is_never_recorded(tmp_path):
    folder = open_run(str(tmp_path), "name", 1, CONFIG, False)
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write("metrics", {"accuracy": float("nan")})
    assert not folder.finished


def test_provenance_names_the_versions_that_decide_results():
    record = provenance()

    assert {"kravl", "torch", "open_clip_torch", "timm", "pytorch-lightning"} <= record["versions"].keys()
    assert record["git_commit"] is None or len(record["git_commit"].removesuffix("-dirty")) == 40


def test_runs_that_differ_in_seeds_alone_are_of_one_cell():
    cell = cell_of("kra", CONFIG | {"split_seed": "${seed}"})

    same = {"seed": 2, "split_seed": 7, "name": "mine", "alphas": 1, "tracking": ["wandb", "csv"], "runs": "there"}
    assert cell_of("kra", CONFIG | same) == cell
    assert cell.startswith("kra-")
    for other in ({"optim": {"lr": 1e-2}}, {"shots": 4}, {"evaluation": {"name": "others"}}):
        assert cell_of("kra", CONFIG | {"split_seed": "${seed}"} | other) != cell


def test_a_cell_of_a_record_is_that_of_its_run():
    assert cell_of("kra", recorded_settings(CONFIG)) == cell_of("kra", CONFIG)


def test_a_multiple_of_shots_that_a_number_of_steps_replaces_makes_no_other_cell():
    def cell(**optim):
        return cell_of("2sfs", {**CONFIG, "optim": optim})

    assert cell(steps=9, steps_per_shot=300) == cell(steps=9, steps_per_shot=None) != cell(steps=9)
    assert cell(steps=None, steps_per_shot=300) != cell(steps=None, steps_per_shot=None)


def test_a_record_that_says_it_is_shortened_in_another_way_is_taken_for_shortened(tmp_path):
    folder = open_run(str(tmp_path), "name", 1, CONFIG, False)
    for said, reasons in ((5, ["it says so"]), (["a"], ["a"]), (None, []), ([], [])):
        (folder.path / "metrics.json").write_text(json.dumps({"shortened": said}))
        assert folder.shortened == reasons


@pytest.mark.parametrize("path", ["a\0b", "\ud800", ["a"], 3])
def test_an_edited_place_of_an_input_is_told_and_no_error_of_python(tmp_path, path):
    folder = open_run(str(tmp_path), "name", 1, CONFIG, False)
    finish(folder)
    (folder.path / "inputs.json").write_text(json.dumps({"paths": {"data_root": [path, "0" * 16]}}))

    with pytest.raises(InputError, match=r"inputs\.json is not what kravl writes"):
        assert folder.done


def test_all_of_a_disk_is_no_run_and_is_not_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "rglob", lambda *given: pytest.fail("all of a disk was searched"))

    with pytest.raises(InputError, match="'/' is all of a disk, not the folder of a run"):
        find_run("/")
