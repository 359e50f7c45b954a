"""The command ``kravl``: what it says without loading torch, and the frame that every verb ends in."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from kravl.cli.main import VERBS, framed, main
from kravl.runtime.errors import InputError
from kravl.runtime.signals import Interrupted

WITHOUT = """
import sys
from kravl.cli.main import main
try:
    status = main({arguments})
except SystemExit as end:
    status = end.code
print(status or 0, {{"torch", "open_clip", "timm", "wandb", "pytorch_lightning"}} & sys.modules.keys(), file=sys.stderr)
"""
QUICK = {
    "a typo": (["train", "experiment=clip_vitb16_kra_16shot", "shotz=3"], 2, "did you mean 'shots'?"),
    "a missing folder": (["train", "experiment=clip_vitb16_kra_16shot", "data_root=/nowhere"], 2, "/nowhere/imagenet"),
    "no runs": (["report", "/nowhere"], 2, "no finished run below /nowhere"),
    "no study": (["study", "/nowhere.yaml"], 2, "no study '/nowhere.yaml'"),
    **{f"{verb} --help": ([verb, "--help"], 0, "") for verb in VERBS},
}


@pytest.mark.parametrize(("arguments", "status", "said"), QUICK.values(), ids=QUICK)
def test_help_and_mistakes_are_answered_without_torch(
    arguments: list[str], status: int, said: str, tmp_path: Path
) -> None:
    code = WITHOUT.format(arguments=arguments)

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stderr.endswith(f"{status} set()\n")
    assert said in done.stderr
    assert bool(done.stdout) == (status == 0)
    assert not list(tmp_path.iterdir())  # a mistake leaves no folder


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
    assert main(["--help"]) == 0

    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2 : 2 + len(VERBS)]] == list(VERBS)
