"""The command line over data sets: ``python -m kravl.data list|download|verify|split|show``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kravl import data_commands
from kravl.cli.main import EXIT_INPUT, NO_ROOM
from kravl.runtime.errors import InputError

EXIT_STOPPED = 130
Command = Callable[[argparse.Namespace], int]
EXAMPLES = """examples:
  python -m kravl.data list
  python -m kravl.data download caltech101
  python -m kravl.data verify caltech101
  python -m kravl.data verify folder --set data.root=/my/images data.train=train data.test=test
  python -m kravl.data split caltech101 --shots 16 --seed 1
  python -m kravl.data show caltech101 --corruption all

exit status: 0 done, 1 verify found something, 2 a mistake in the command or its files, 130 stopped (the same command
goes on)"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is a line on stderr."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(f"error: {error.filename or 'a file'} cannot be written: {error.strerror}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return EXIT_STOPPED
    return EXIT_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kravl.data",
        description="Data sets: what there is, what is on disk and whether it is sound.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "list", data_commands.list_sets, "every set that has a card: size, licence, whether it is on disk")

    one = _add(commands, "download", data_commands.download, "fetch a set, going on where an earlier attempt stopped")
    one.add_argument("--keep-archives", action="store_true", help="leave each archive beside what was unpacked from it")

    one = _add(commands, "verify", data_commands.verify, "counts against the card, bad and doubled images, leakage")
    one.add_argument("--json", action="store_true", help="the report as JSON")

    one = _add(
        commands, "split", data_commands.split, "the images that a few-shot run draws, as JSON with their sha256"
    )
    one.add_argument(
        "--split-file", type=Path, help="a file like CoOp's split_zhou_*.json; its images need not be there"
    )
    one.add_argument("--shots", help="images a class, or null for all (default: as train.py)")
    one.add_argument("--seed", type=int, help="split_seed of the run (default: as train.py)")
    one.add_argument("--protocol", help="split_protocol of the run (default: as train.py)")

    one = _add(
        commands, "show", data_commands.show, "a contact sheet: classes and samples, or corruptions and severities"
    )
    one.add_argument("--out", type=Path, default=Path("sheet.png"), help="the PNG to write (default: %(default)s)")
    one.add_argument("--split", help="train, val or test (default: the first that the set has)")
    one.add_argument("--corruption", help="all, or one by its name, of test images")
    one.add_argument("--classes", type=_positive, default=12, help="rows (default: %(default)s)")
    one.add_argument("--samples", type=_positive, default=8, help="images of a class (default: %(default)s)")
    one.add_argument("--tile", type=_positive, default=112, help="pixels of an image's side (default: %(default)s)")
    return parser


def _add(commands: Any, name: str, command: Command, what: str) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = commands.add_parser(name, help=what, description=f"{name}: {what}.")
    one.set_defaults(command=command, set=[])
    one.add_argument("--data-root", help="the folder of all data sets (default: data, as for train.py)")
    if name != "list":
        one.add_argument("name", metavar="NAME", help="a set as the list names it, or `folder` for your own images")
    if name not in ("list", "download"):
        settings = "further settings as for train.py, such as data.source.root=/my/images"
        one.add_argument("--set", nargs="+", action="extend", metavar="KEY=VALUE", help=settings)
    return one


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
