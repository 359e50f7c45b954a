"""``kravl data``: list, download, verify, split and show data sets."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kravl.cli.main import framed
from kravl.cli.named_set import compose_run, data_sets, images_by_split, open_source, split_file_source
from kravl.config.schema import Config
from kravl.data import catalog
from kravl.runtime.errors import printable, unknown

EXIT_FOUND = 1
Command = Callable[[argparse.Namespace], int]
EXAMPLES = """examples:
  kravl data list
  kravl data download caltech101
  kravl data verify caltech101
  kravl data verify folder --set data.root=/my/images data.train=train data.test=test
  kravl data split caltech101 --shots 16 --seed 1
  kravl data show caltech101 --corruption all

exit status: 0 done, 1 verify found something, 2 a mistake in the command or its files, 130 interrupted (run
the same command again to resume)"""


def list_sets(options: argparse.Namespace) -> int:
    """Print a table of every set with a card."""
    from kravl.data.inspect.listing import list_sets, show_table

    show_table(list_sets(_data_root(options), data_sets()))
    return 0


def _data_root(options: argparse.Namespace) -> Path:
    return Path(options.data_root or Config.data_root)


def download(options: argparse.Namespace) -> int:
    """Fetch a set by its card, or through torchvision."""
    from kravl.data.download.acquire import acquire

    cards = [path.parent.name for path in catalog.folder().glob("*/card.yaml")]
    if options.name not in cards:
        raise unknown("data set", options.name, cards)
    card = catalog.card(options.name)
    if not {"files", "manual"} & set(card) and options.name in data_sets():
        cfg = compose_run(options.name, options.data_root)
        if "download" in cfg.data.source:  # torchvision knows where its sets are, and their checksums
            cfg.data.source["download"] = True
            open_source(cfg, options.name)
            print(printable(f"{options.name} is in {cfg.data.source['root']}"))
            return 0
    place = acquire(options.name, _data_root(options), options.keep_archives, lambda line: print(printable(line)))
    print(printable(f"{options.name} is in {place}"))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Hold a set against its card; 1 where something is wrong."""
    from kravl.data.download.acquire import on_disk
    from kravl.data.inspect.verify import Verification, inspect

    cfg = compose_run(options.name, options.data_root, options.set)
    card = catalog.card(options.name)
    source = open_source(cfg, options.name)
    folder = on_disk(options.name, Path(cfg.data_root))
    report = Verification(options.name, str(folder) if folder else None, expected_classes=card.get("classes"))
    splits = images_by_split(cfg, options.name, source)
    inspect(report, splits, source.class_ids, card.get("images", {}))
    if cfg.cache_root is not None and any(Path(cfg.cache_root).expanduser().glob("*.safetensors")):
        from kravl.data.loading.pixel_cache import damaged_files  # loads torch

        report.cached = list(damaged_files(Path(cfg.cache_root), splits.values()))
    print(json.dumps(report.record(), indent=1) if options.json else printable(report.text()))
    return EXIT_FOUND if report.problems else 0


def split(options: argparse.Namespace) -> int:
    """Print the images that a few-shot run would draw, and the sha256 that it would record."""
    chosen = {"shots": options.shots, "split_seed": options.seed, "split_protocol": options.protocol}
    overrides = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    cfg = compose_run(options.name, options.data_root, [*overrides, *options.set])
    text = json.dumps(_drawn(cfg, options), indent=1, ensure_ascii=False)
    print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))
    return 0


def _drawn(cfg: Config, options: argparse.Namespace) -> dict[str, object]:
    from kravl.data.datamodule import FewShotDataModule, LoadingSettings
    from kravl.run.build import make_split

    source = split_file_source(options.split_file) if options.split_file else open_source(cfg, options.name)
    data = FewShotDataModule(source, make_split(cfg), LoadingSettings(max_megapixels=cfg.loading.max_megapixels))
    images = {
        name: [[path, label, source.class_names[label]] for path, label in zip(s.names, s.labels, strict=True)]
        for name, s in (("train", data.train_samples), ("val", data.val_samples))
    }
    facts = {
        "shots": cfg.shots,
        "fraction": cfg.fraction,
        "split_protocol": cfg.split_protocol,
        "split_seed": cfg.split_seed,
    }
    return {"data": options.name, **facts, "split_sha256": data.split_sha256, **images}


def show(options: argparse.Namespace) -> int:
    """Write a contact sheet."""
    from kravl.data.inspect.contact_sheet import SEVERITIES, class_rows, corruption_rows, draw_sheet

    cfg = compose_run(options.name, options.data_root, options.set)
    source = open_source(cfg, options.name)
    split = options.split or source.splits[0]
    if options.corruption:
        rows = corruption_rows(source, options.corruption, options.classes)
        named = "a test image under each corruption" if options.corruption == "all" else f"under {options.corruption}"
        what, columns = f"{named}, by severity", ["clean", *map(str, SEVERITIES)]
    else:
        rows = class_rows(source.split(split), source.class_names, options.classes, options.samples)
        what, columns = f"{split}: {len(rows)} of {len(source.class_names)} classes", []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(f"{options.name}, {what}", rows, columns, options.tile).save(options.out, "PNG")
    print(printable(options.out))
    return 0


@framed
def main(arguments: Sequence[str]) -> int:
    """Run one command over data sets; 1 where `verify` finds something."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kravl data",
        description="Data sets: what there is, what is on disk and whether it is sound.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "list", list_sets, "every set that has a card: size, licence, whether it is on disk")

    one = _add(commands, "download", download, "fetch a set, resuming where an earlier attempt stopped")
    one.add_argument("--keep-archives", action="store_true", help="leave each archive beside what was unpacked from it")

    one = _add(commands, "verify", verify, "counts against the card, bad and doubled images, leakage")
    one.add_argument("--json", action="store_true", help="the report as JSON")

    one = _add(commands, "split", split, "the images that a few-shot run draws, as JSON with their sha256")
    one.add_argument(
        "--split-file", type=Path, help="a file like CoOp's split_zhou_*.json; its images need not be there"
    )
    one.add_argument("--shots", help="images per class, or null for all (default: as kravl train)")
    one.add_argument("--seed", type=int, help="split_seed of the run (default: as kravl train)")
    one.add_argument("--protocol", help="split_protocol of the run (default: as kravl train)")

    one = _add(commands, "show", show, "a contact sheet: classes and samples, or corruptions and severities")
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
    one.add_argument("--data-root", help="the folder of all data sets (default: data, as for kravl train)")
    if name != "list":
        one.add_argument("name", metavar="NAME", help="a set as the list names it, or `folder` for your own images")
    if name not in ("list", "download"):
        settings = "further settings as for kravl train, such as data.root=/my/images"
        one.add_argument("--set", nargs="+", action="extend", metavar="KEY=VALUE", help=settings)
    return one


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)
