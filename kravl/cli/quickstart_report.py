"""What the first run shows: one table, figures of shift and spectrum, and a page that opens from disk."""

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from kravl.analysis.spectra import mean_decay
from kravl.data.inspect.contact_sheet import SheetRow
from kravl.data.inspect.contact_sheet import draw_sheet as draw_sheet
from kravl.report.comparability import comparability_warnings
from kravl.report.figures import draw_comparison, draw_decay
from kravl.report.groups import Group, group_runs
from kravl.report.page import Picture, write_page
from kravl.report.runs import read_runs
from kravl.report.tables import Table, group_caption, markdown_rows, table, write_csv
from kravl.run.restore import saved_config
from kravl.run.sources import evaluation_sources, training_source
from kravl.runtime.files import write_atomic
from kravl.tracking.run_folder import ZERO_SHOT, RunFolder
from kravl.training.spectrum_monitor import SPECTRA_FILE, read_trace

SHOWN = 10  # test pictures a style
TILE = 72  # pixels


def report_first_run(folders: Sequence[Path], out: Path, introduction: Sequence[str], following: Sequence[str]) -> None:
    """Write results.csv, table.md, the figures and index.html to ``out``, and print the table.

    Args:
        folders: finished runs of one setting; their methods are shown in this order, zero-shot first.
        following: commands to try next.
    """
    runs = [run for folder in folders for run in read_runs(folder)[0]]
    order = [ZERO_SHOT, *dict.fromkeys(run.record["method"] for run in runs)]
    groups = sorted(group_runs(runs), key=lambda group: order.index(group.method))
    rows = [[cell for i, cell in enumerate(row) if i not in (1, 2)] for row in table(groups)]  # one shots, one n
    write_csv(groups, out / "results.csv")
    write_atomic(out / "table.md", "\n".join(markdown_rows(rows)) + "\n")
    notes = [
        f"{group_caption(groups)}; n = {len(groups[-1].runs)}. Zero-shot needs no seed.",
        *comparability_warnings(groups),
    ]
    write_page(
        out / "index.html",
        "kravl: a first run",
        rows,
        _pictures(groups, out),
        {"introduction": introduction, "notes": notes, "next": following},
    )
    _show(rows, notes, out, following)


def _pictures(groups: Sequence[Group], out: Path) -> list[Picture]:
    comparison = draw_comparison(groups, out).removesuffix("png") + "svg"
    first = {group.method: RunFolder(group.runs[0].folder) for group in groups if group.method != ZERO_SHOT}
    recorded = {method: folder.path / SPECTRA_FILE for method, folder in first.items()}
    decay = {m: mean_decay(read_trace(path).singular_values) for m, path in recorded.items() if path.exists()}
    draw_decay(decay, out / "spectrum")
    _sheet(next(iter(first.values())), out / "pictures.png")
    return [
        Picture(out / comparison, "Accuracy in domain and, dashed, the mean of the shifts; right: one against the "
                "other, the lines are WiSE-FT's from the pretrained to the adapted weights (first seed)"),
        Picture(out / "spectrum.svg", "Singular values of the weight update, each matrix divided by its largest and "
                "meaned over matrices (first seed): what falls slowly uses more directions"),
        Picture(out / "pictures.png", "The same test pictures in every style that is evaluated"),
    ]  # fmt: skip


def _sheet(folder: RunFolder, path: Path) -> None:
    """One row a set, the same test pictures in each."""
    cfg = saved_config(folder, {})
    source = training_source(cfg)
    sets = {"test": source, **evaluation_sources(cfg.evaluation, source, cfg.plugins)}
    step = max(1, len(source.split("test")) // SHOWN)
    rows = []
    for name, source in sets.items():
        samples = source.split("test")
        rows.append(SheetRow(name.replace("_", " "), [samples.image(i) for i in range(0, step * SHOWN, step)]))
    draw_sheet("test pictures", rows, (), TILE).save(path)


def _show(rows: Table, notes: Sequence[str], out: Path, following: Sequence[str]) -> None:
    """The table turned on its side: it has more columns than a terminal."""
    console = Console()
    shown = RichTable(box=SIMPLE, pad_edge=False, collapse_padding=True)
    for i, method in enumerate(row[0] for row in rows):
        shown.add_column(Text("" if i == 0 else method), justify="left" if i == 0 else "right", no_wrap=i == 0)
    for cells in list(zip(*rows, strict=True))[1:]:
        shown.add_row(*map(Text, cells))
    console.print(shown)
    for line in notes:
        console.print(Text(line))
    console.print(Text(f"\nFigures and pictures: {out / 'index.html'}\nNext:"))
    for command in following:
        console.print(Text(f"  {command}"), soft_wrap=True)
