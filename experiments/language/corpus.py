"""Texts with labels from Debian's package lists: descriptions and synopses of packages by section, as texts.csv.

    python experiments/language/corpus.py        # rebuilds texts.csv from the lists of this machine

A machine whose apt keeps no translations has synopses alone; its lists with them go to a folder of their own:

    mkdir -p lists/partial
    apt-get update -o Acquire::Languages=en -o Dir::State::lists=$PWD/lists -o Dir::Cache=$PWD
    python experiments/language/corpus.py --apt Dir::State::lists=$PWD/lists Dir::Cache=$PWD
"""

import argparse
import csv
import hashlib
import re
import subprocess
from pathlib import Path

TRAINED = ("games", "science", "editors", "net", "sound", "graphics", "mail", "math", "web", "video")
UNSEEN = ("database", "electronics", "hamradio", "fonts", "text", "admin", "java", "python", "localization", "httpd")
PER_SECTION = {**dict.fromkeys(TRAINED, 100), **dict.fromkeys(UNSEEN, 20)}
LONGEST = 300  # characters of a description: about 64 tokens
SHORTEST = 120
FILE = Path(__file__).parent / "texts.csv"
COLUMNS = ("section", "package", "source", "synopsis", "description")


def packages(options: list[str]) -> list[dict[str, str]]:
    """The packages of all sections, one for each source package, in an order that their names' hashes give."""
    apt = ["apt-cache", *(part for option in options for part in ("-o", option)), "-o", "Acquire::Languages=en"]
    listed = subprocess.run([*apt, "dumpavail"], capture_output=True, text=True, check=True).stdout
    names = [fields["Package"] for fields in map(_fields, listed.split("\n\n")) if fields.get("Section") in PER_SECTION]
    found: dict[str, dict[str, str]] = {}
    for begin in range(0, len(names), 500):
        shown = subprocess.run([*apt, "show", *names[begin : begin + 500]], capture_output=True, text=True, check=True)
        for fields in map(_fields, shown.stdout.split("\n\n")):
            if "Description-en" in fields:
                source = fields.get("Source", fields["Package"]).split()[0]
                found.setdefault(source, fields | {"Source": source})
    return sorted(found.values(), key=lambda fields: hashlib.sha256(fields["Package"].encode()).hexdigest())


def _fields(block: str) -> dict[str, str]:
    """The fields of one package; lines of a field are joined, a description keeps its first line apart."""
    pairs = re.findall(r"^([\w-]+): ?(.*(?:\n .*)*)", block, re.MULTILINE)
    return dict(pairs)


def texts(options: list[str]) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    seen: set[str] = set()
    for fields in packages(options):
        section = fields["Section"]
        synopsis, _, rest = fields["Description-en"].partition("\n")
        description = re.sub(r"\s+", " ", rest.replace("\n .\n", "\n")).strip()[:LONGEST]
        enough = sum(row["section"] == section for row in rows) >= PER_SECTION.get(section, 0)
        if enough or len(description) < SHORTEST or description in seen:
            continue
        seen.add(description)
        values = (section, fields["Package"], fields["Source"], synopsis, description)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return sorted(rows, key=lambda row: (list(PER_SECTION).index(row["section"]), row["package"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apt", nargs="*", default=[], metavar="KEY=VALUE", help="options of apt-cache")
    rows = texts(parser.parse_args().apt)
    missing = {s: n for s, n in PER_SECTION.items() if sum(row["section"] == s for row in rows) < n}
    if missing:
        raise SystemExit(f"error: too few descriptions, wanted {missing}; apt may keep no translations (--help)")
    with FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
