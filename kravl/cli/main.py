"""The command ``kravl``: its verbs, and the frame that each of them runs in."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module

from kravl.runtime.errors import InputError, printable, unknown
from kravl.runtime.signals import EXIT_RESUMABLE, Interrupted

EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130
EXIT_PIPE = 141  # as a shell reports a program whose reader has gone
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
VERBS = {
    "train": "adapt a CLIP or ViT to a few images per class, evaluate it in and out of distribution",
    "evaluate": "evaluate a finished run on other sets, without training",
    "predict": "classes of your images, by a finished run or by any CLIP with class names",
    "calibrate": "a temperature for a finished run's probabilities, fitted on its validation images",
    "demo": "a page on this machine: drop images, see what a run says before and after adaptation",
    "export": "a finished run for open_clip, timm, transformers, onnx, pt2 or peft, checked by that library alone",
    "push": "an export or a run on the Hub of Hugging Face, private by default",
    "data": "data sets: list, download, verify, split, show",
    "models": "what works with each model of open_clip and timm: matrices to adapt, weights, preprocessing",
    "ls": "models, methods, data sets, shifts, experiments and runs, as lists",
    "doctor": "what a run needs, checked before it begins, and what it will cost",
    "study": "a grid of runs as one command, resumable",
    "report": "tables, tests, figures and a page of finished runs",
    "spectra": "what finished runs added to their weights, by layer and step",
    "approximate": "which updates can an adapter express, and which does AdamW find?",
    "dashboard": "a Weights & Biases workspace that compares methods",
    "quickstart": "a first comparison of six methods on real pictures; nothing is downloaded",
}
HELP = """usage: kravl VERB ...

{verbs}

kravl VERB --help tells what a verb takes.

  kravl train experiment=clip_vitb16_kra_16shot data_root=/data
  kravl evaluate run=runs/clip_vitb16_kra_16shot/seed1 evaluation=imagenet_ood
  kravl predict runs/clip_vitb16_kra_16shot/seed1 photos/ --out predictions.csv
  kravl report runs

exit status: 0 done; 1 a run failed, or something was found to be wrong; 2 a mistake in the command or its files;
75 stopped on request, run the same command again to resume; 130 interrupted"""
Command = Callable[[Sequence[str]], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb that ``arguments`` (those of the process by default) begin with; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {verb:<12} {what}" for verb, what in VERBS.items())))
        return 0 if given else EXIT_INPUT
    if given[0] == "--version":
        from kravl import __version__

        print(f"kravl {__version__}")
        return 0
    verb, *rest = given
    if verb not in VERBS:
        return say(f"error: {unknown('verb', verb, VERBS)}", EXIT_INPUT)
    status: int = import_module(f"kravl.cli.{verb}").main(rest)
    return status


def framed(command: Command) -> Callable[[Sequence[str] | None], int]:
    """``command`` as every verb ends: a mistake of the user, a full disk or a stop is one line and an exit status."""

    @wraps(command)
    def run(arguments: Sequence[str] | None = None) -> int:
        from kravl.runtime.console import keep_terminal_plain  # with rich

        keep_terminal_plain()
        try:
            return command(list(sys.argv[1:] if arguments is None else arguments))
        except InputError as error:
            return say(f"error: {error}", EXIT_INPUT)
        except Interrupted as stop:
            return say(f"stopped on request ({stop}); run the same command again to resume", EXIT_RESUMABLE)
        except KeyboardInterrupt:
            return say("interrupted; run the same command again to resume", EXIT_INTERRUPTED)
        except BrokenPipeError:  # such as `kravl data list | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_PIPE
        except OSError as error:
            if error.errno not in (*NO_ROOM, *NO_PLACE):
                raise
            problem = " cannot be written" if error.errno in NO_ROOM else ""
            return say(f"error: {error.filename or 'a file'}{problem}: {error.strerror}", EXIT_INPUT)

    return run


def say(line: object, status: int) -> int:
    """Print ``line`` on stderr, its control characters spelt out, and return ``status``."""
    print(printable(line), file=sys.stderr)
    return status


def former(verb: str) -> None:
    """Run ``verb`` under the name that it had in 0.1: ``python -m kravl.VERB``; to be removed in the next release."""
    print(f"python -m kravl.{verb} is now `kravl {verb}`", file=sys.stderr)
    sys.exit(main([verb, *sys.argv[1:]]))
