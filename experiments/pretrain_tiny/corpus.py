"""Openly licensed pictograms with their names: downloads the icon sets of sets.yaml and renders them once.

    python experiments/pretrain_tiny/corpus.py CORPUS_FOLDER

Writes pictures.npy (uint8, N x 72 x 72 x 4, straight alpha) and pictures.json (set, name, concept, keywords).
OpenMoji is not among the sets: the few-shot task is drawn by designers that the model has never seen.
"""

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import resvg_py
import yaml
from PIL import Image
from rich.progress import track

HERE = Path(__file__).parent
SIZE = 72
DRAWN_BY = 2  # a concept counts when at least so many sets draw it: user-interface jargon of one set teaches nothing
STYLE = {  # how a set says that it draws the same thing again
    *("fill", "filled", "outline", "outlined", "line", "linear", "bold", "duotone", "duo", "thin", "light", "regular"),
    *("solid", "sharp", "rounded", "round", "twotone", "broken", "remix", "flat", "negative", "variant", "alt"),
    "color",
}
SKIN = re.compile(r"skin-tone|-(medium|light|dark)-skin|-(medium-)?(light|dark)$|1f3f[b-f]")


def packed(package: str, version: str, folder: Path) -> Path:
    """The archive of an npm package, from the registry that npm is set up for."""
    archive = folder / f"{package.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not archive.exists():
        subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder, check=True)
    return archive


def checked(package: str, about: dict, folder: Path) -> Path:
    """The archive of an npm package, if it is the one whose digest sets.yaml names."""
    archive = packed(package, about["version"], folder)
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if about["integrity"] != f"sha512-{digest}":
        raise SystemExit(f"{archive} has sha512-{digest}, not {about['integrity']}: delete it and try again")
    return archive


def fetch(name: str, about: dict, folder: Path) -> dict[str, dict]:
    """The JSON files of one icon set."""
    with tarfile.open(checked(f"@iconify-json/{name}", about, folder)) as tar:
        files = {m.name.split("/")[-1]: tar.extractfile(m) for m in tar.getmembers() if m.name.endswith(".json")}
        return {key: json.load(file) for key, file in files.items() if file}


def spoken(name: str) -> str:
    """``drink-coffee-24-filled`` -> ``drink coffee``."""
    words = [w for w in re.split(r"[-_ ]+", name.lower()) if w not in STYLE]
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    return " ".join(words)


def names(files: dict[str, dict], cldr: dict[str, dict]) -> dict[str, tuple[str, list[str]]]:
    """Icon name -> (concept, keywords); Unicode's own name and keywords where the icon is an emoji."""
    found = {}
    of_icon = {icon: code for code, icon in files.get("chars.json", {}).items()}
    for icon in files["icons.json"]["icons"]:
        if SKIN.search(icon):
            continue
        emoji = "".join(chr(int(c, 16)) for c in of_icon[icon].split("-")) if icon in of_icon else ""
        known = cldr.get(emoji) or cldr.get(emoji.replace("\ufe0f", "")) or {}
        concept = known.get("tts", [spoken(icon)])[0].lower()
        found[icon] = (concept, [k for k in known.get("default", []) if k != concept])
    return found


def draw(icon: dict, measures: dict) -> np.ndarray:
    """One icon as (72, 72, 4) uint8, fitted into the square."""
    left, top, width, height = ({**measures, **icon}[k] for k in ("left", "top", "width", "height"))
    side = max(width, height)
    box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}" '
    svg += f'width="{SIZE}" height="{SIZE}" color="#000000">{icon["body"]}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


def annotations(about: dict, folder: Path) -> dict[str, dict]:
    """Unicode CLDR's English names and keywords of emoji."""
    with tarfile.open(checked(about["package"], about, folder)) as tar:
        file = tar.extractfile("package/annotations/en/annotations.json")
        assert file
        return json.load(file)["annotations"]["annotations"]


def icons(facts: dict, folder: Path) -> Iterator[tuple[dict, tuple[dict, dict]]]:
    """What is known of each icon, and its drawing with its set's measures."""
    cldr = annotations(facts["annotations"], folder)
    for name, about in track(facts["sets"].items(), "sets"):
        files = fetch(name, about, folder)
        drawn = files["icons.json"]
        width = drawn.get("width", 16)
        measures = {"left": 0, "top": 0, "width": width, "height": drawn.get("height", width)}
        for icon, (concept, keywords) in names(files, cldr).items():
            if not any(re.search(pattern, icon) for pattern in about.get("skip", [])):
                record = {"set": name, "name": icon, "concept": concept, "keywords": keywords, "mono": about["mono"]}
                yield record, (drawn["icons"][icon], measures)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = list(icons(yaml.safe_load((HERE / "sets.yaml").read_text()), folder))
    drawn_by = defaultdict(set)
    for record, _ in found:
        drawn_by[record["concept"]].add(record["set"])
    kept = [pair for pair in found if len(drawn_by[pair[0]["concept"]]) >= DRAWN_BY]
    pictures = np.stack([draw(*drawing) for _, drawing in track(kept, "pictures")])
    np.save(folder / "pictures.npy", pictures)
    (folder / "pictures.json").write_text(json.dumps([record for record, _ in kept]))
    print(f"{len(kept)} pictures of {len({record['concept'] for record, _ in kept})} concepts")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
