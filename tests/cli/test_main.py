"""The command ``kravl``: what it says without loading torch, and the frame that every verb ends in."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kravl.cli.main import VERBS, framed, main
from kravl.runtime.errors import InputError
from kravl.runtime.signals import Interrupted

EACH = """
import contextlib, io, json, sys
from kravl.cli.main import main
ends = []
for arguments in json.load(sys.stdin):
    said, shown = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
    heavy = {"torch", "open_clip", "timm", "wandb", "pytorch_lightning"} & sys.modules.keys()
    ends.append((status or 0, said.getvalue(), shown.getvalue(), sorted(heavy)))
json.dump(ends, sys.stdout)
"""
FINISHED = Path(__file__).parents[1] / "fixtures/written_by_2e3b7d2/finished/quickstart_kra/seed1-c0d36105"
QUICK = {
    "a typo": (["train", "experiment=clip_vitb16_kra_16shot", "shotz=3"], 2, "did you mean 'shots'?"),
    "a typo after an option": (["train", "data=openmoji", "-m", "seed=1,2", "shotz=3"], 2, "did you mean 'shots'?"),
    "a missing folder": (["train", "experiment=clip_vitb16_kra_16shot", "data_root=/nowhere"], 2, "/nowhere/imagenet"),
    "no runs": (["report", "/nowhere"], 2, "error: no folder /nowhere; kravl report takes a folder"),
    "no folder of runs": (["report", ""], 2, "error: no folder is given: the name is empty"),
    "a study by its name": (["study", "few_shot_11"], 2, "did you mean '"),
    "no run": (["evaluate", "run=/nowhere/seed1"], 2, "no run '/nowhere/seed1'"),
    "no folder to evaluate on": (
        ["evaluate", f"run={FINISHED}", "evaluation=folder", "evaluation.root=/nowhere/a"],
        2,
        "root=/nowhere/a: no folder /nowhere/a (/nowhere does not exist)",
    ),
    "no run to predict with": (["predict", "/nowhere/seed1", "a.png"], 2, "no run '/nowhere/seed1'"),
    "no run to show": (["demo", "/nowhere/seed1"], 2, "no run '/nowhere/seed1'"),
    "no run to export": (["export", "/nowhere/seed1", "--to", "onnx"], 2, "no run '/nowhere/seed1'"),
    "no run to start from": (
        ["train", "experiment=clip_vitb16_kra_16shot", "init=/nowhere/seed1"],
        2,
        "no run '/nowhere",
    ),
    "no run of several": (["spectra", "run=[/nowhere/a]"], 2, "no run '/nowhere/a'"),
    "a setting without its value": (["train", "overwrite"], 2, "overwrite=true"),
    "no such verb": (["rapport"], 2, "unknown verb 'rapport': did you mean 'report'?"),
    "a model": (["models", "ViT-B-16"], 0, ""),
    "no such model": (["models", "vit-b16"], 2, "no model 'vit-b16' among"),
    "lists": (["ls", "methods", "kra"], 0, ""),
    "no such kind": (["ls", "model"], 2, "unknown kind 'model': did you mean 'models'?"),
    "no study": (["study", "/nowhere.yaml"], 2, "no study '/nowhere.yaml'"),
    **{f"{verb} --help": ([verb, "--help"], 0, "") for verb in VERBS},
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str, list[str]]]:
    """Status, stderr, stdout and heavy modules of each of ``QUICK``, one after the other in one process."""
    folder = tmp_path_factory.mktemp("quick")
    arguments = json.dumps([arguments for arguments, _, _ in QUICK.values()])
    command = [sys.executable, "-c", EACH]
    done = subprocess.run(command, cwd=folder, input=arguments, capture_output=True, text=True, check=True)
    assert not list(folder.iterdir())  # a mistake leaves no folder
    return dict(zip(QUICK, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", QUICK)
def test_help_and_mistakes_are_answered_without_torch(
    name: str, ends: dict[str, tuple[int, str, str, list[str]]]
) -> None:
    _, expected, message = QUICK[name]

    status, stderr, stdout, heavy = ends[name]

    assert (status, heavy) == (expected, [])
    assert message in stderr
    assert bool(stdout) == (status == 0)


def failing(error: BaseException) -> int:
    @framed
    def command(arguments: list[str]) -> int:
        raise error

    return command([])


ENDS = {
    "a mistake": (InputError("no run 'x\x1b[31m'"), 2, "error: no run 'x\\x1b[31m'\n"),
    "a full disk": (
        OSError(errno.ENOSPC, "No space left on device", "out"),
        2,
        "error: out cannot be written: No space",
    ),
    "a missing file": (
        FileNotFoundError(errno.ENOENT, "No such file or directory", "out"),
        2,
        "error: out: No such file",
    ),
    "a signal": (Interrupted("SIGTERM"), 75, "stopped on request (SIGTERM); run the same command again to resume\n"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "interrupted; run the same command again to resume\n"),
}


@pytest.mark.parametrize(("error", "status", "said"), ENDS.values(), ids=ENDS)
def test_a_verb_ends_in_one_line_and_a_status(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error) == status

    line = capsys.readouterr().err
    assert line.startswith(said)
    assert line.count("\n") == 1
    assert "\x1b" not in line


def test_what_is_no_mistake_of_the_user_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


def test_a_reader_that_has_gone_is_no_error() -> None:
    code = "import sys; from kravl.cli.main import main; sys.exit(main())"
    listing = subprocess.Popen(
        [sys.executable, "-c", code, "data", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert listing.stdout
    listing.stdout.close()

    _, said = listing.communicate()

    assert said == b""


def test_the_verbs_and_their_meanings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    usage = capsys.readouterr().out
    assert main(["--help"]) == 0

    listing = capsys.readouterr().out
    assert [line.split()[0] for line in listing.splitlines()[2 : 2 + len(VERBS)]] == list(VERBS)
    assert usage == listing
