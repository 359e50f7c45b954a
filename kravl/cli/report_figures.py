"""A report's figures: accuracies and, where runs have them, spectra of their updates and pictures of every test set."""

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path

from kravl.config.schema import Config
from kravl.data.catalog import card
from kravl.data.source import Samples, Source
from kravl.report.groups import Group, Setting
from kravl.report.page import Picture
from kravl.report.runs import FinishedRun
from kravl.report.tables import by_setting
from kravl.runtime.errors import InputError
from kravl.tracking.run_folder import ZERO_SHOT, RunFolder

SPECTRA = "spectra.safetensors"  # kravl.training.spectrum_monitor's
MOST_SETTINGS, MOST_SETS = 12, 15  # that have pictures; of corruptions there are 75
SHOWN = 10  # pictures of a set
TILE = 72  # pixels
DECAY = "singular values of the update, each matrix divided by its largest: what falls slowly uses more directions"


def draw_figures(groups: Sequence[Group], out: Path) -> tuple[dict[Setting, list[Picture]], list[str]]:
    """Draw into ``out``; the figures of each setting, accuracies first, and a line for each that cannot be drawn.

    Spectra and pictures are those of the first seed at the most images per class.
    """
    from kravl.report.figures.accuracies import draw_comparison  # matplotlib takes a second to import
    from kravl.report.figures.drawing import draw_decay
    from kravl.report.figures.ranks import draw_rank

    figures: dict[Setting, list[Picture]] = {}
    problems: list[str] = []
    for setting, found in by_setting(groups):
        members, title = list(found), ", ".join(setting)
        path = out / draw_comparison(members, out)
        drawn = figures[setting] = [Picture(path, title)]
        if ranks := draw_rank(members, out):
            drawn.append(Picture(out / ranks[0], f"{title}: {ranks[1]}"))
        trained = [group for group in members if group.method != ZERO_SHOT]
        most = max(inf if group.shots is None else group.shots for group in trained)
        runs = {group.method: group.runs[0] for group in trained if group.shots in (most, None)}
        if decays := _decays(runs, problems):
            drawn.append(Picture(path.with_name(f"{path.stem}-spectrum.png"), f"{title}: {DECAY}"))
            draw_decay(decays, drawn[-1].path, {method: method for method in decays})
        if len(figures) <= MOST_SETTINGS:
            drawn += _sheet(next(iter(runs.values())), path.with_name(f"{path.stem}-pictures.png"), title, problems)
    return figures, problems


def _decays(runs: Mapping[str, FinishedRun], problems: list[str]) -> dict[str, list[float]]:
    """Of the runs that recorded their spectra."""
    decays = {}
    for method, run in runs.items():
        if not (run.folder / SPECTRA).is_file():
            continue
        from kravl.analysis.spectra import mean_decay  # loads torch
        from kravl.training.spectrum_monitor import read_trace

        try:
            decays[method] = mean_decay(read_trace(run.folder / SPECTRA).singular_values)
        except InputError as error:
            problems.append(f"a spectrum is left out: {error}")
    return {method: decay for method, decay in decays.items() if decay}


def _sheet(run: FinishedRun, path: Path, title: str, problems: list[str]) -> list[Picture]:
    """Test pictures, a row a set; none where the run was evaluated on one set, or its images cannot be read."""
    if not (run.folder / "config.yaml").is_file():
        return []
    from kravl.run.finished.saved import saved_config

    try:
        cfg = saved_config(RunFolder(run.folder), {"plugins": []})  # a package that a file names is never loaded
        if cfg.evaluation.name != run.record["evaluation"] or not draw_pictures(cfg, path, title):
            return []
    except (InputError, OSError) as error:
        problems.append(f"{title}: pictures are left out, as the data set cannot be read: {error}")
        return []
    facts = card(Path(cfg.data.name).name)  # a config may come from anywhere: no path in it is followed
    credit = [str(facts[key]) for key in ("title", "homepage", "licence") if key in facts]
    return [Picture(path, ", ".join([f"{title}: test pictures", *credit]))]


def draw_pictures(cfg: Config, path: Path, title: str) -> bool:
    """Draw the test pictures of a run into ``path``, a row a set; False where it has one set alone.

    Raises:
        InputError: a set that cannot be read.
        OSError: ``path`` cannot be written.
    """
    if not cfg.evaluation.sets:
        return False
    from kravl.data.inspect.contact_sheet import draw_sheet, set_rows, spread
    from kravl.run.sources import evaluation_sources, training_source

    source = training_source(cfg)
    others = evaluation_sources(cfg.evaluation, source, [])
    sets = {"test": _tested(cfg, source)} | {name: other.split("test") for name, other in others.items()}
    rows = set_rows({name: sets[name] for name in spread(list(sets), MOST_SETS)}, SHOWN)
    draw_sheet(f"{title}: test pictures, {len(rows)} of {len(sets)} sets", rows, (), TILE).save(path)
    return True


def _tested(cfg: Config, source: Source) -> Samples:
    if not cfg.evaluation.held_out:
        return source.split("test")
    from kravl.run.build import tested_images  # loads torch

    return tested_images(cfg)
