"""``kravl models [PATTERN ...]``: what kravl can do with each model of open_clip and timm, read from a table."""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kravl.backbones import catalog
from kravl.backbones.catalog import Row
from kravl.cli.main import framed, say
from kravl.config.schema import CONFIGS
from kravl.runtime.console import output, text_table
from kravl.runtime.yaml_files import read_yaml

FILE_WIDTH = 400  # columns, where the output is no terminal: a model is one line for grep
TITLES = ("library", "model", "image", "text", "both", "cliplora", "all", "images", "weights", "needs", "works")
COMPARED = ("start", "gradients", "merged")
EXTRAS = {"text": "pip install 'kravl[text]'"}
REST = "method=kra data=dtd"  # of a command that begins with a backbone
WEIGHTS = "/path/to/weights.safetensors"
GENERIC = {"open_clip": "clip_vitb16", "timm": "vit_b16"}  # a shipped backbone of the library, for other models of it
FUSED = ("AdaptedLinear", "AdaptedAttention", "AdaptedConv1d", "AdaptedConv2d", "AdaptedConv3d")
SPEED = {
    "first_token": "the last image block for the pooled token alone",
    "prompt_tree": "prompts that share a beginning computed once",
    "short_attention": "attention without PyTorch's fused kernel in bfloat16 on a CPU",
}
EPILOG = """examples:
  kravl models siglip                     names that hold it, in either library
  kravl models 'vit_*_patch14_*' --works  a pattern, and only what works
  kravl models ViT-B-16                   one model: its matrices, weights, and what to type
  kravl models --csv > models.csv

image, text: parameters of each tower.  both, cliplora, all: weight matrices that sites=... adapts, image + text.
The table comes with kravl (experiments/breadth); nothing is loaded or downloaded."""


@framed
def main(arguments: Sequence[str]) -> int:
    """Print the models that match, or one of them in detail; 0, or 2 where nothing matches."""
    options = _parser().parse_args(arguments)
    table = catalog.read_table(catalog.folder() / catalog.MODELS)
    rows = [row for row in table.rows if options.library in (None, row["library"])]
    rows = [row for row in rows if row["works"] or not options.works]
    patterns = [_model_of(pattern, rows) for pattern in options.pattern]
    found = catalog.matching(rows, patterns)
    if stale := catalog.other_versions(table.head):
        say(stale, 0)
    if options.json:
        print(json.dumps({**table.head, "models": found}, ensure_ascii=False, indent=1))
    elif options.csv:
        _write_csv(found)
    elif one := _one(found, patterns):
        for row in one:
            _show_model(row, patterns[0])
        if further := len(found) - len(one):
            print(f"{further} further names hold {patterns[0]!r}: kravl models '*{patterns[0]}*'")
    else:
        output(FILE_WIDTH).print(text_table([TITLES, *map(_line, found)], left={*TITLES} - {"image", "text"}))
        print(_summary(found))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kravl models",
        description="The models of open_clip and timm: what works, what can be adapted, what their weights expect.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pattern", nargs="*", metavar="PATTERN", help="part of a name, or a pattern with * and ?")
    parser.add_argument("--library", choices=catalog.LIBRARIES, help="the models of one library")
    parser.add_argument("--works", action="store_true", help="leave out what does not work")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything that is known, as JSON")
    form.add_argument("--csv", action="store_true", help="a line for each model")
    return parser


def _model_of(pattern: str, rows: Sequence[Row]) -> str:
    """The model's name where ``pattern`` is that of a shipped backbone and no model's."""
    shipped = {path.stem: path for path in (CONFIGS / "backbone").glob("*.yaml")}
    if pattern not in shipped or catalog.exact(rows, pattern):
        return pattern
    return str(read_yaml(shipped[pattern])["build"]["name"])


def _one(found: Sequence[Row], patterns: Sequence[str]) -> list[Row]:
    """The models to show in detail: the only one, or those of this very name."""
    if len(patterns) != 1:
        return []
    return [found[0]] if len(found) == 1 else catalog.exact(found, patterns[0])


def _line(row: Row) -> tuple[str, ...]:
    counts = (_matrices(row, preset) for preset in ("both", "cliplora", "all"))
    towers = (_millions(row["parameters"].get(tower)) for tower in ("image", "text"))
    works = "yes" if row["works"] else f"no: {row['why']}"
    weights = str(len(catalog.tags(row)))
    return (row["library"], row["name"], *towers, *counts, _images(row), weights, _needs(row), works)


def _millions(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f} M"


def _matrices(row: Row, preset: str) -> str:
    """Matrices that a preset adapts, image + text; ``-`` where there are none."""
    counts: Mapping[str, int] = row["presets"].get(preset) or {}
    return " + ".join(str(counts.get(tower, 0)) for tower in row["parameters"]) if counts else "-"


def _images(row: Row) -> str:
    prepared = {catalog.preparation(group) for group in row["preprocess"]}
    return prepared.pop() if len(prepared) == 1 else f"{len(prepared)} ways, by the weights" if prepared else ""


def _needs(row: Row) -> str:
    return f"kravl[{row['extra']}]" if row["extra"] else ""


def _summary(rows: Sequence[Row]) -> str:
    libraries = Counter(row["library"] for row in rows)
    failing = sum(not row["works"] for row in rows)
    counts = " and ".join(f"{count:,} of {library}" for library, count in libraries.items())
    return f"{counts}; {f'{failing} of them do not work' if failing else 'all of them work'}" if rows else "no models"


def _write_csv(rows: Sequence[Row]) -> None:
    flat = [_flat(row) for row in rows]
    writer = csv.DictWriter(sys.stdout, list(dict.fromkeys(key for row in flat for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)


def _flat(row: Row) -> dict[str, Any]:
    plain = {key: row[key] for key in ("library", "name", "family", "works", "why", "extra")}
    plain |= {f"{tower}_parameters": row["parameters"].get(tower) for tower in ("image", "text")}
    presets = {f"{preset}_{tower}": n for preset, counts in row["presets"].items() for tower, n in counts.items()}
    images = "; ".join(dict.fromkeys(map(catalog.preparation, row["preprocess"])))
    lists = {"fast": row["fast"], "checkpointing": row["checkpointing"], "weights": catalog.tags(row)}
    return plain | presets | {"images": images} | {key: " ".join(values) for key, values in lists.items()}


def _show_model(row: Row, pattern: str) -> None:
    print(f"{row['name']} ({row['library']}, {row['family']})")
    facts = [] if row["works"] else [("works", f"no: {row['why']}")]
    facts += [(f"{tower} tower", _tower(row, tower)) for tower in row["parameters"]]
    facts += [(f"sites={preset}", _preset(row, preset)) for preset in _presets(row)]
    facts += [("images", f"{prepared}{_of_tags(tags)}") for prepared, tags in _by_preparation(row).items()]
    facts += [("needs", EXTRAS[row["extra"]])] if row["extra"] else []
    facts += [("faster", SPEED.get(path, path)) for path in row["fast"]]
    if row["works"]:
        facts += [("products", _products(row["forward"]))]
        facts += [("checkpointing", " and ".join(row["checkpointing"]) or "no")]
        facts += [("checked", checked)] if (checked := _checked(row["family"])) else []
        facts += [("type", command) for command in _commands(row, pattern)]
    previous = ""
    for name, value in facts:
        print(f"  {'' if name == previous else name:<15} {value}")
        previous = name
    print()


def _tower(row: Row, tower: str) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in row["sites"].get(tower, {}).items())
    size = f"{row['context_length']} tokens, " if tower == "text" and row.get("context_length") else ""
    return f"{_millions(row['parameters'][tower])} parameters, {size}matrices: {kinds or 'none'}"


def _presets(row: Row) -> list[str]:
    """Those that differ: of a model with one tower ``vision`` is ``both``."""
    return [preset for preset in row["presets"] if "text" in row["parameters"] or preset not in ("vision", "text")]


def _preset(row: Row, preset: str) -> str:
    counts = row["presets"][preset]
    return " + ".join(f"{count} {tower}" for tower, count in counts.items()) if counts else "none: no such matrices"


def _products(forward: Mapping[str, int]) -> str:
    """In how many modules the adapted weight is rebuilt within the product, and in how many it is read as a whole."""
    fused = sum(count for name, count in forward.items() if name in FUSED)
    others = [f"{count} {name.removeprefix('Adapted')}" for name, count in forward.items() if name not in FUSED]
    read = f"; in {', '.join(others)} the adapted weight is kept for the backward pass" if others else ""
    return f"{fused} modules rebuild the adapted weight in the backward pass{read}"


def _by_preparation(row: Row) -> dict[str, list[str]]:
    """What weights expect of an image -> their tags."""
    found: dict[str, list[str]] = {}
    for group in row["preprocess"]:
        found.setdefault(catalog.preparation(group), []).extend(group["tags"])
    return found


def _of_tags(tags: Sequence[str]) -> str:
    names = ", ".join(tag or "its only weights" for tag in tags)
    return f": {names}" if names else " (no published weights)"


def _checked(family: str) -> str:
    """What was measured on one model of the family."""
    rows = catalog.read_table(catalog.folder() / catalog.FAMILIES).rows
    done = next((row for row in rows if row["family"] == family), None)
    if done is None:
        return ""
    if done["failed"]:
        return f"on {done['model']}: {done['failed']}"
    worst = {what: max(result[what] for result in done["presets"].values()) for what in COMPARED}
    differences = ", ".join(f"{what} {value:.0e}" for what, value in worst.items())
    return f"on {done['model']}, largest relative differences from the library: {differences}"


def _commands(row: Row, pattern: str) -> list[str]:
    """What to type for the model: shipped backbones that are it, or another of its library with its name."""
    asked = pattern.partition(".")[2]
    shipped = {}
    for path in sorted((CONFIGS / "backbone").glob("*.yaml")):
        if row["name"] not in path.read_text():  # parsing all of them takes as long as everything else
            continue
        build = read_yaml(path).get("build", {})
        name, _, tag = str(build.get("name", "")).partition(".")
        if (_library(build), name) == (row["library"], row["name"]) and asked in ("", tag):
            shipped[f"backbone={path.stem}"] = tag or str(build.get("pretrained"))
    if not shipped:
        return [f"kravl train {_generic(row, asked)} {REST}"]
    return [f"kravl train {backbone} {REST}  # weights: {weights}" for backbone, weights in shipped.items()]


def _library(build: Mapping[str, Any]) -> str:
    return "timm" if str(build.get("_target_", "")).endswith("VitClassifier") else "open_clip"


def _generic(row: Row, asked: str) -> str:
    """The settings of a model that no backbone ships for; its weights are those ``asked`` for, or the first."""
    known = catalog.tags(row)
    tag = asked if asked in known else next(iter(known), "")
    weights = WEIGHTS if not known else "true" if row["library"] == "timm" else tag
    name = f"{row['name']}.{tag}" if tag and row["library"] == "timm" else row["name"]
    size = " backbone.build.image_size=null" if row["library"] == "timm" else ""  # the weights' own
    return f"backbone={GENERIC[row['library']]} backbone.build.name={name}{size} backbone.build.pretrained={weights}"
