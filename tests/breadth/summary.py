"""The rows of breadth as counts and tables, and what in them is not as it should be."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from breadth.parity import within
from breadth.survey import Row

HEAD = ("family", "models", "work", "measured on", "preset", "matrices", "start", "gradients", "merged", "seconds")


def wholly(row: Row, preset: str = "both") -> bool:
    """Whether the preset adapts each tower of the model."""
    counts = row["presets"].get(preset) or {}
    return row["works"] and all(counts.get(tower) for tower in row["parameters"])


def counts(rows: Sequence[Row]) -> str:
    """How many models work, are adapted in each tower, and need an extra, by library."""
    lines = []
    for library in dict.fromkeys(row["library"] for row in rows):
        own = [row for row in rows if row["library"] == library]
        lines.append(
            f"{library}: {len(own):,} models, {sum(row['works'] for row in own):,} work, "
            f"{sum(map(wholly, own)):,} have matrices in each tower under sites=both, "
            f"{sum(bool(row['unreached']) for row in own)} have some that no gradient reaches, "
            f"{sum(row['extra'] == 'text' for row in own)} need kravl[text]"
        )
    return "\n".join(lines)


def wrong(rows: Sequence[Row], measured: Sequence[Row]) -> Iterator[str]:
    """A line for each family that is not as the library has it, and each model with matrices that nothing reaches."""
    for row in measured:
        if row["failed"]:
            yield f"{row['family']} ({row['model']}): {row['failed']}"
        for preset, result in row["presets"].items():
            if faults := within(result):
                yield f"{row['family']} ({row['model']}, {preset}): {', '.join(faults)}"
    for row in rows:
        if row["unreached"]:
            names = row["unreached"]
            yield f"{row['name']}: no gradient reaches {len(names)} matrices, such as {names[0]}"


def table(head: Mapping[str, Any], rows: Sequence[Row], measured: Sequence[Row]) -> str:
    """Counts, what does not work and why, and the numbers of each family."""
    versions = ", ".join(f"{package} {version}" for package, version in head["versions"].items())
    made = f"`make breadth` with {versions}, Python {head['python']}, at {', '.join(head['commits'])}."
    seconds = f"Models: {head['seconds']:,} s of one core; families: {sum(row['seconds'] for row in measured):,.0f} s."
    reasons = Counter((row["library"], row["why"]) for row in rows if not row["works"])
    failing = [[library, str(count), why] for (library, why), count in reasons.most_common()]
    faults = "".join(f"- {line}\n" for line in wrong(rows, measured)) or "Nothing.\n"
    return "\n".join(
        [
            f"{made} {seconds}\n",
            counts(rows).replace("\n", "\n\n") + "\n",
            "## What does not work\n",
            _markdown(("library", "models", "why"), failing),
            "## What is not as it should be\n",
            faults,
            "## Families\n",
            _markdown(HEAD, _lines(rows, measured)),
        ]
    )


def _lines(rows: Sequence[Row], measured: Sequence[Row]) -> Iterator[list[str]]:
    for row in measured:
        own = [each for each in rows if each["family"] == row["family"]]
        first = [row["family"], str(len(own)), str(sum(each["works"] for each in own)), row["model"]]
        for preset, result in row["presets"].items():
            numbers = [f"{result[what]:.0e}" for what in ("start", "gradients", "merged")]
            yield [*first, preset, str(result["sites"]), *numbers, f"{row['seconds']:.1f}"]


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
