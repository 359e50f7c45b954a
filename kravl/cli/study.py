"""``kravl study``: run a grid; plan first, finished runs skipped, failed ones listed."""

import argparse
import shlex
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kravl.cli.main import EXIT_FAILED, framed
from kravl.config.bounds import shown
from kravl.config.compose import typed
from kravl.runtime.console import duration, plain
from kravl.runtime.errors import InputError, printable
from kravl.runtime.signals import EXIT_RESUMABLE, handling, stop_requested
from kravl.study.checks import check_cells
from kravl.study.grid import StudyRun, commands, plan_runs
from kravl.study.pool import WorkerPool, begin_loading
from kravl.study.progress import Durations, failure, show_plan, state
from kravl.study.scheduler import run_all
from kravl.study.schema import read_study
from kravl.tracking.kinds import kinds_of

DESCRIPTION = (
    "Run every method, data set, number of shots and seed that a study names. Run the same command again to resume: "
    "finished runs are skipped, interrupted ones resume where they stopped, and it may be given twice at once."
)
MOST_JOBS = 1024  # processes, each with torch and a model


@framed
def main(arguments: Sequence[str]) -> int:
    """0 when all runs are finished, 1 where some failed, 2 for a mistake in the study, 75 when asked to stop."""
    options = _parser().parse_args(arguments)
    if options.jobs is not None and not 1 <= options.jobs <= MOST_JOBS:
        raise InputError(f"--jobs is {shown(options.jobs)}; it must be at least 1 and at most {MOST_JOBS}")
    if options.pictures and options.report is None:
        raise InputError("--pictures draws into the report's folder; add --report")
    if options.print_commands:
        print("\n".join(commands(read_study(options.study, options.set), options.set)))
        return 0
    return _run(options, Console(stderr=True, highlight=False))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kravl study", description=DESCRIPTION)
    parser.add_argument("study", type=Path, help="a YAML file such as experiments/studies/tiny.yaml")
    parser.add_argument("--jobs", type=int, help="runs at once (default: one a GPU; without one, one a core to four)")
    parser.add_argument("--retry-failed", action="store_true", help="run what failed again, too")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--plan", "--dry-run", action="store_true", help="show what is done and what is not, and end")
    way.add_argument("--print-commands", action="store_true", help="the grid as plain train.py -m commands, and end")
    way.add_argument(
        "--report",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="write kravl report's tables, figures and page as runs finish: after the first, with each seed that is "
        "complete, and at the end (default: where kravl report writes them)",
    )
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="with --report: draw test pictures of every set before the first run begins, and say where",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="of every run, as kravl train's; a sweep's last",
    )
    return parser


def _run(options: argparse.Namespace, console: Console) -> int:
    study = read_study(options.study, options.set)
    with console.status("reading the grid"):
        runs = plan_runs(study, options.set)
    states, shown = [state(run) for run in runs], _Report(options, runs)
    if not options.plan and set(states) != {"done"}:
        begin_loading()
        shown.begin(console)
    with console.status("checking the grid"):
        check_cells(runs)
    show_plan(console, study, runs, states)
    if not options.plan:
        for run in runs:
            kinds_of(run.base.tracking)
    unwanted = ("done",) if options.retry_failed else ("done", "failed")
    wanted = [run for run, found in zip(runs, states, strict=True) if found not in unwanted]
    durations = Durations(run for run, found in zip(runs, states, strict=True) if found == "done")
    jobs = WorkerPool(options.jobs).size
    console.print(_rest(durations, wanted, jobs))
    stopped, killed = (False, 0) if options.plan else _train(console, durations, wanted, jobs, shown)
    failed = [run for run in runs if state(run) == "failed"]
    for run in failed:
        console.print(plain(f"failed: {failure(run)}"), soft_wrap=True)
    if failed:
        console.print(f"{len(failed)} failed; --retry-failed runs them again")
    if options.plan:
        return 0
    if stopped:
        console.print("stopped on request; run the same command again to resume")
        return EXIT_RESUMABLE
    if killed:
        console.print(f"{killed} killed; run the same command again to resume")
    status = shown.write_last() if options.report is not None and len(failed) < len(runs) else 0
    console.print(plain(f"tables: {shlex.join(['kravl', 'report', *shown.arguments])}"), soft_wrap=True)
    return EXIT_FAILED if failed or killed else status


class _Report:
    """The report of a study, written while its runs train: after the first run and with each seed that is complete.

    It is written in a thread, so that no run waits for it or ends with it.
    """

    def __init__(self, options: argparse.Namespace, runs: Sequence[StudyRun]) -> None:
        folder = ["--out", options.report] if options.report else []
        changes = ["--set", *options.set] if options.set else []
        self.arguments = [runs[0].base.runs, "--study", str(options.study), *folder, *changes]
        self._wanted, self._due = options.report is not None, False
        self._thread: threading.Thread | None = None
        self._drawn, self._runs = options.pictures, runs
        self._folder = Path(options.report or Path(runs[0].base.runs, "report"))

    def begin(self, console: Console) -> None:
        """Say where the page will be; draw what the report shows of the test images, where that is asked for.

        Of images that cannot be read the runs tell.
        """
        if not self._wanted:
            return
        if self._drawn:
            self._draw(console)
        console.print(plain(f"page, from the first finished run on: {self._folder / 'index.html'}"), soft_wrap=True)

    def _draw(self, console: Console) -> None:
        from kravl.cli.report_figures import MOST_SETTINGS, draw_pictures
        from kravl.report.groups import Setting

        bases = [run.base for run in self._runs]
        settings = {Setting(cfg.backbone.name, cfg.data.name, cfg.evaluation.name): cfg for cfg in bases}
        for setting, cfg in list(settings.items())[:MOST_SETTINGS]:
            path = self._folder / f"{setting.file_name}-pictures.png"
            with suppress(InputError, OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                if draw_pictures(typed(cfg), path, ", ".join(setting)):
                    console.print(plain(f"pictures of the test sets: {path}"), soft_wrap=True)

    def follow(self, run: StudyRun, status: str, rest: Iterable[StudyRun]) -> None:
        """Take note of a run that has ended or ``rest``, those that have not."""
        if status == "done" and (self._thread is None or all(other.seed != run.seed for other in rest)):
            self._due = True
        if self._wanted and self._due and status == "started" and not (self._thread and self._thread.is_alive()):
            self._due = False
            self._thread = threading.Thread(target=self._write, daemon=True)
            self._thread.start()

    def write_last(self) -> int:
        """Of all runs, once an earlier one has been written."""
        if self._thread:
            self._thread.join()
        return self._write()

    def _write(self) -> int:
        from kravl.cli import report  # with what a report is made of

        return report.main(self.arguments)


def _rest(durations: Durations, wanted: Sequence[StudyRun], jobs: int) -> str:
    if not wanted:
        return "nothing to run"
    seconds = durations.expected(wanted)
    guess = "no run is finished to judge the time by" if seconds is None else f"about {duration(seconds / jobs)}"
    return f"{len(wanted)} to run, {jobs} at once: {guess}"


def _train(
    console: Console, durations: Durations, wanted: Sequence[StudyRun], jobs: int, report: _Report
) -> tuple[bool, int]:
    """Whether it was asked to stop, and how many runs were killed."""
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    rest, killed = dict(enumerate(wanted)), 0
    with handling(), Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(wanted))
        for position, status, reason in run_all([(run.folder, run.config) for run in wanted], jobs, stop_requested):
            run = wanted[position]
            if status == "done":
                durations.add(run)
            killed += status == "killed"
            if status in ("failed", "killed", "stopped", "elsewhere") or (status == "done" and not console.is_terminal):
                progress.console.print(plain(f"{status}: {run.title}{f': {reason}' if reason else ''}"), soft_wrap=True)
            if status in ("done", "failed", "killed", "stopped"):
                del rest[position]
            left = durations.expected(list(rest.values()))
            eta = "" if left is None else f"{duration(left / jobs)} left, "
            progress.update(
                task, completed=len(wanted) - len(rest), description=printable(f"{eta}{status}: {run.title}")
            )
            report.follow(run, status, rest.values())
        return stop_requested(), killed
