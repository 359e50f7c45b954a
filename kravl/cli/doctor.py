"""``kravl doctor [SETTING ...]``: is everything there that a run needs, and what will it cost?"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from kravl.cli.configured import as_methods
from kravl.cli.main import EXIT_FAILED, framed
from kravl.config.schema import Config
from kravl.runtime.console import plain
from kravl.runtime.errors import InputError

if TYPE_CHECKING:
    from kravl.run.doctor.checklist import Checklist, Finding

COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
EPILOG = """examples:
  kravl doctor                                             this machine
  kravl doctor experiment=clip_vitb16_kra_16shot data_root=/data
  kravl doctor data=folder data.root=/my/photos shots=8 --measure

A line for each check: ok, warning or error, and what to do. Nothing is trained, downloaded or written; --measure loads
the weights and trains a few steps, which it does not keep.

exit status: 0, or 1 where there is an error"""


@framed
def main(arguments: Sequence[str]) -> int:
    """Check; 1 where the run of these settings would fail."""
    options = _parser().parse_args(arguments)
    from kravl.run.doctor.checklist import Checklist

    checks = Checklist(_show)
    _check(checks, options.setting, options.measure)
    counts = {level: sum(f.level == level for f in checks.findings) for level in ("error", "warning")}
    print(", ".join(f"{count or 'no'} {level}{'' if count == 1 else 's'}" for level, count in counts.items()))
    return EXIT_FAILED if checks.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kravl doctor",
        description="Is everything there that a run needs, and what will it cost?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("setting", nargs="*", metavar="SETTING", help="as for kravl train; none: the machine alone")
    parser.add_argument("--measure", action="store_true", help="time a few steps and a few batches of the evaluation")
    return parser


def _show(finding: "Finding") -> None:
    line = plain(f"{finding.level:<8} {finding.what:<10} {finding.text}")
    line.stylize(COLOURS[finding.level], 0, len(finding.level))
    Console(soft_wrap=True, highlight=False, file=sys.stdout).print(line)


def _check(checks: "Checklist", settings: Sequence[str], measured: bool) -> None:
    from kravl.run.doctor.diagnose import check_machine, check_run

    if not settings:
        if measured:
            raise InputError("--measure times a run: give its settings, such as experiment=clip_vitb16_kra_16shot")
        check_machine(checks, {"precision": "auto"}, "wandb")
        return
    from kravl.config.compose import as_written, typed

    composed = checks.attempt("settings", lambda: _composed(settings))
    if composed is None:
        return
    cfg: Config = typed(composed)
    checks.add("ok", "settings", f"{cfg.name}, seed {cfg.seed}")
    check_run(checks, cfg, as_written(composed), measured)


def _composed(settings: Sequence[str]) -> object:
    """The config of the run. Raises InputError as `kravl train` with these settings."""
    from kravl.config.compose import compose_checked, composing, register_configs, typed
    from kravl.config.quoting import as_overrides

    given = as_methods(settings)
    register_configs(name for a in given if a.startswith("experiment=") for name in [a.partition("=")[2]])
    with composing():
        composed = compose_checked(as_overrides(given, "train"), "train")
        typed(composed)
    return composed
