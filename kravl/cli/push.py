"""``kravl push``: an export, or a run, on the Hub of Hugging Face."""

import argparse
from collections.abc import Sequence

from kravl.cli.main import EXIT_FAILED, framed, say
from kravl.runtime.errors import printable

DESCRIPTION = """Send an export of `kravl export`, or a finished run, to the Hub of Hugging Face, with its card, in one
commit. Only files that kravl wrote are sent: others that lie beside them are named and left out. Of a run these are
its adapter, records and settings, which `kravl predict` and `kravl.FewShotModel.load` read from a download.

A new repository is private unless --public. The login is the Hub's own (`hf auth login`, or HF_TOKEN)."""
EXAMPLES = """examples:
  kravl push runs/clip_vitb16_kra_16shot/seed1/export_open_clip user/name --dry-run
  kravl push runs/clip_vitb16_kra_16shot/seed1/export_open_clip user/name
  kravl push runs/clip_vitb16_kra_16shot/seed1 user/name --public

exit status: 0 done; 1 the Hub does not answer, or refuses; 2 a mistake in the command or its files, or a repository
that has files already; 130 interrupted"""


@framed
def main(arguments: Sequence[str]) -> int:
    """Push; what is not there is told before the Hub is asked."""
    options = _parser().parse_args(arguments)
    from kravl.export.push import PushError, check_repository, parcel, push, require_place

    check_repository(options.repository)
    try:
        if not options.dry_run:
            require_place(options.repository, options.force)
        files = parcel(options.what, options.plugins)
    except PushError as error:
        return say(f"error: {error}", EXIT_FAILED)
    for name, size in files.sizes():
        print(printable(f"{size:>12,} bytes  {name}").replace("\n", "\\n"))
    if files.left_out:
        print(printable(f"left out: {files.described_rest()}"))
    if options.dry_run:
        visibility = "public (--public)" if options.public else "private (--public makes it public)"
        print(f"nothing was sent to {options.repository}: --dry-run; a new repository would be {visibility}")
        return 0
    try:
        print(push(files, options.repository, public=options.public, force=options.force))
    except PushError as error:
        return say(f"error: {error}", EXIT_FAILED)
    return 0


def _parser() -> argparse.ArgumentParser:
    usage = "kravl push EXPORT_OR_RUN USER/NAME [options]"
    parser = argparse.ArgumentParser("kravl push", usage, DESCRIPTION, EXAMPLES)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("what", metavar="EXPORT_OR_RUN", help="a folder that `kravl export` wrote, or that of a finished run")
    add("repository", metavar="USER/NAME", help="on the Hub")
    add("--public", action="store_true", help="a new repository that everybody sees (default: private)")
    add("--force", action="store_true", help="commit to a repository that has files already")
    add("--dry-run", action="store_true", help="list the files, ask no Hub")
    add("--plugins", nargs="+", default=[], help="packages besides kravl that the run's classes may come from")
    return parser
