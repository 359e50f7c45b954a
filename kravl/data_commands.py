"""The commands of ``python -m kravl.data``: list, download, verify, split and show data sets."""

import argparse
import json
from pathlib import Path

from kravl.config.schema import Config
from kravl.data import catalog
from kravl.named_source import compose_run, data_sets, images_by_split, open_source, split_file_source
from kravl.runtime.errors import unknown

EXIT_FOUND = 1


def list_sets(options: argparse.Namespace) -> int:
    """Print a table of every set with a card."""
    from kravl.data.inspect.listing import rows, show_table

    show_table(rows(_data_root(options), data_sets()))
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
            print(f"{options.name} is in {cfg.data.source['root']}")
            return 0
    print(f"{options.name} is in {acquire(options.name, _data_root(options), options.keep_archives, print)}")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Hold a set against its card; 1 where something is wrong."""
    from kravl.data.download.acquire import on_disk
    from kravl.data.inspect.verify import Report, inspect

    cfg = compose_run(options.name, options.data_root, options.set)
    card = catalog.card(options.name)
    source = open_source(cfg, options.name)
    folder = on_disk(options.name, Path(cfg.data_root))
    report = Report(options.name, str(folder) if folder else None, expected_classes=card.get("classes"))
    inspect(report, images_by_split(cfg, options.name, source), source.class_ids, card.get("images", {}))
    print(json.dumps(report.record(), indent=1) if options.json else report.text())
    return EXIT_FOUND if report.problems else 0


def split(options: argparse.Namespace) -> int:
    """Print the images that a few-shot run would draw, and the sha256 that it would record."""
    chosen = {"shots": options.shots, "split_seed": options.seed, "split_protocol": options.protocol}
    overrides = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    cfg = compose_run(options.name, options.data_root, [*overrides, *options.set])
    print(json.dumps(_drawn(cfg, options), indent=1, ensure_ascii=False))
    return 0


def _drawn(cfg: Config, options: argparse.Namespace) -> dict[str, object]:
    from kravl.data.datamodule import FewShotDataModule, Loading
    from kravl.run.build import make_plan

    source = split_file_source(options.split_file) if options.split_file else open_source(cfg, options.name)
    data = FewShotDataModule(source, make_plan(cfg), Loading())
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
    from kravl.data.inspect.contact_sheet import SEVERITIES, class_rows, corruption_rows, draw

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
    draw(f"{options.name}, {what}", rows, columns, options.tile).save(options.out, "PNG")
    print(options.out)
    return 0
