"""Data folders with the published layouts, class names where a library or kravl has them, and counts; small pictures.

Sources of the counts: the cards of ``datasets``; where a card has none, the constants here say where from.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import open_clip
from PIL import Image
from rehearsal.pictures import write

from kravl.data import catalog
from kravl.data.corruptions.source import CORRUPTIONS
from kravl.data.sources.imagenet import wordnet_classes

Names = Iterator[str]
IMAGENET_TRAIN = 20  # images of a class; the real set has 732 to 1,300, of which a run draws 16
OBJECTNET_CLASSES, OBJECTNET_IMAGES = 313, 50_000
# photographs, and the objects annotated in them: the development kit's own statistics
VOC_PHOTOS = {"train": 2_501, "val": 2_510, "test": 4_952}
VOC_OBJECTS = {"train": 6_301, "val": 6_307, "test": 12_032}
GTSRB_IMAGES = {"Training": 26_640, "Final_Test/Images": 12_630}  # torchvision's
# DomainBed (https://github.com/facebookresearch/DomainBed); of Terra Incognita and VLCS an even share of the card's sum
DOMAINS = {
    "PACS": {"photo": 1_670, "art_painting": 2_048, "cartoon": 2_344, "sketch": 3_929},
    "office_home": {"Art": 2_427, "Clipart": 4_365, "Product": 4_439, "Real World": 4_357},
    "VLCS": {"Caltech101": 1_415, "LabelMe": 2_656, "SUN09": 3_282, "VOC2007": 3_376},
    "terra_incognita": dict.fromkeys(("location_100", "location_38", "location_43", "location_46"), 6_197),
    "domain_net": {
        "clipart": 48_129,
        "infograph": 51_605,
        "painting": 72_266,
        "quickdraw": 172_500,
        "real": 172_947,
        "sketch": 69_128,
    },
}
DOMAIN_CLASSES = {"PACS": 7, "office_home": 65, "VLCS": 5, "terra_incognita": 10, "domain_net": 345}
# what torchvision reads only where its checksum is right: the same counts in class folders
FOLDERS = {
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
    "svhn": {"train": 73_257, "test": 26_032},
    "stl10": {"train": 5_000, "test": 8_000},
    "oxford_flowers_official": {"train": 1_020, "val": 1_020, "test": 6_149},
}
FOLDER_CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10, "stl10": 10, "oxford_flowers_official": 102}
COOP = {  # folder, images of it, classes, split file
    "caltech101": ("caltech101", "101_ObjectCategories", 100, "split_zhou_Caltech101.json"),
    "oxford_pets": ("oxford_pets", "images", 37, "split_zhou_OxfordPets.json"),
    "stanford_cars": ("stanford_cars", ".", 196, "split_zhou_StanfordCars.json"),
    "oxford_flowers": ("oxford_flowers", "jpg", 102, "split_zhou_OxfordFlowers.json"),
    "food101": ("food101", "images", 101, "split_zhou_Food101.json"),
    "sun397": ("sun397", "SUN397", 397, "split_zhou_SUN397.json"),
    "dtd": ("dtd", "images", 47, "split_zhou_DescribableTextures.json"),
    "eurosat": ("eurosat", "2750", 10, "split_zhou_EuroSAT.json"),
    "ucf101": ("ucf101", "UCF-101-midframes", 101, "split_zhou_UCF101.json"),
}


def build(root: Path, log: Callable[[str], None] = print, share: int = 1) -> None:
    """Write every set below ``root`` that is not there yet; ``share`` n takes every n-th image of ImageNet's sets."""
    start = 1
    for name, (make, weight) in builders(share).items():
        done = root / f".{name}"
        if not done.exists():
            count = write(root, make(root), start)
            done.write_text(f"{count}\n")
            log(f"{name}: {count:,} pictures")
        start += weight


def builders(share: int = 1) -> Mapping[str, tuple[Callable[[Path], Names], int]]:
    """Set -> what writes its lists and names its pictures, and how many numbers of pictures it may use."""
    found: dict[str, Callable[[Path], Names]] = {
        "imagenet": lambda root: _imagenet(share),
        "imagenet_shifts": lambda root: _imagenet_shifts(share),
    }
    if share == 1:
        found["objectnet"] = _objectnet
        found |= {name: (lambda root, name=name: _coop(root, name)) for name in COOP}
        found |= {"fgvc_aircraft": _aircraft, "voc2007": _voc, "cub200": _cub, "mnist": _mnist, "gtsrb": _gtsrb}
        found |= {"resisc45": _resisc, "country211": _country211, "caltech256": _caltech256, "frost": _frost}
        found |= {name: (lambda root, name=name: _folder(name)) for name in FOLDERS}
        found |= {name: (lambda root, name=name: _domains(name)) for name in DOMAINS}
        found["cifar_c"] = _cifar_c
    return {name: (make, 1_000_000) for name, make in found.items()}


def names(count: int) -> list[str]:
    """``count`` class names, those of ImageNet: other sets' own are no part of a library."""
    return list(dict.fromkeys(name.replace("/", " or ") for name in open_clip.IMAGENET_CLASSNAMES))[:count]


def _even(classes: list[str], count: int, pattern: str) -> Names:
    """``count`` pictures over ``classes``, a class after the other; ``pattern`` has the class and a number."""
    share, more = divmod(count, len(classes))
    for i, name in enumerate(classes):
        yield from (pattern.format(name, number) for number in range(share + (i < more)))


def _imagenet(share: int) -> Names:
    ids, _ = wordnet_classes("imagenet")
    yield from _even(ids, IMAGENET_TRAIN * 1000 // min(share, 10), "imagenet/train/{0}/{0}_{1}.JPEG")
    yield from _even(ids, 50_000 // share, "imagenet/val/{0}/ILSVRC2012_val_{1:08d}.JPEG")


def _imagenet_shifts(share: int) -> Names:
    ids, _ = wordnet_classes("imagenet")
    yield from _even([str(label) for label in range(1000)], 10_000 // share, "imagenetv2/{0}/{1}.jpeg")
    yield from _even(ids, 50_889 // share, "imagenet-sketch/{0}/sketch_{1}.JPEG")
    yield from _even(wordnet_classes("imagenet_a")[0], 7_500 // share, "imagenet-adversarial/{0}/{1}.jpg")
    yield from _even(wordnet_classes("imagenet_r")[0], 30_000 // share, "imagenet-rendition/{0}/art_{1}.jpg")


def _objectnet(root: Path) -> Names:
    mappings = root / "objectnet/mappings"
    mappings.mkdir(parents=True, exist_ok=True)
    english = [f"{name}, {rank}" for rank, name in enumerate(open_clip.IMAGENET_CLASSNAMES)]
    folders = [f"thing_{i:03d}" for i in range(OBJECTNET_CLASSES)]
    labels = {folder: folder.replace("_", " ").title() for folder in folders}
    known = {labels[folder]: "; ".join(english[3 * i : 3 * i + 1 + i % 3]) for i, folder in enumerate(folders[:113])}
    contents = {
        "folder_to_objectnet_label.json": labels,
        "objectnet_to_imagenet_1k.json": known,
        "pytorch_to_imagenet_2012_id.json": {str(rank): rank for rank in range(1000)},
    }
    for file, content in contents.items():
        (mappings / file).write_text(json.dumps(content))
    (mappings / "imagenet_to_label_2012_v2").write_text("\n".join(english) + "\n")
    return _even(folders, OBJECTNET_IMAGES, "objectnet/images/{0}/{1}.png")


def _coop(root: Path, name: str) -> Names:
    folder, images, num_classes, file = COOP[name]
    split: dict[str, list[tuple[str, int, str]]] = {}
    classes = names(num_classes)
    label_of = {c: i for i, c in enumerate(classes)}
    for part, count in catalog.card(name)["images"].items():
        paths = list(_even(classes, count, "{0}/" + part + "_{1:05d}.jpg"))
        if name == "stanford_cars":
            paths = [f"cars_{'test' if part == 'test' else 'train'}/{path}" for path in paths]
        split[part] = [(path, label_of[(c := path.split("/")[-2])], c) for path in paths]
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / file).write_text(json.dumps(split))
    if name in LISTS:
        _lists(root / folder, name, [path for rows in split.values() for path, _, _ in rows])
    yield from (f"{folder}/{images}/{path}" for rows in split.values() for path, _, _ in rows)
    if name == "caltech101":  # two folders that CoOp leaves out
        yield from _even(["Faces_easy", "BACKGROUND_Google"], 900, f"{folder}/{images}/{{0}}/image_{{1:04d}}.jpg")


# the official lists of two of CoOp's sets: file -> how many lines, and whether a line keeps its suffix
LISTS = {
    "food101": ({"meta/train.txt": 75_750, "meta/test.txt": 25_250}, False),
    "dtd": ({"labels/train1.txt": 1_880, "labels/val1.txt": 1_880, "labels/test1.txt": 1_880}, True),
}


def _lists(folder: Path, name: str, paths: list[str]) -> None:
    files, suffix = LISTS[name]
    spread = [path for place in range(10) for path in paths[place::10]]  # every list has images of every class
    for file, count in files.items():
        lines, spread = spread[:count], spread[count:]
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("".join(f"{path if suffix else path.removesuffix('.jpg')}\n" for path in lines))


def _aircraft(root: Path) -> Names:
    folder, classes = root / "fgvc_aircraft", names(100)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "variants.txt").write_text("".join(f"{c}\n" for c in classes))
    first = 0
    for part, count in catalog.card("fgvc_aircraft")["images"].items():
        rows = [(first + i, classes[i % len(classes)]) for i in range(count)]
        (folder / f"images_variant_{part}.txt").write_text("".join(f"{number:07d} {c}\n" for number, c in rows))
        first += count
    return (f"fgvc_aircraft/images/{number:07d}.jpg" for number in range(first))


def _voc(root: Path) -> Names:
    folder = root / "voc2007"
    for part in ("Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    classes = [f"thing{i:02d}" for i in range(20)]
    for c in classes:
        (folder / f"ImageSets/Main/{c}_test.txt").write_text("")
    number, thing = 0, 0
    for part, count in VOC_PHOTOS.items():
        photos = [f"{number + i:06d}" for i in range(count)]
        (folder / f"ImageSets/Main/{part}.txt").write_text("".join(f"{photo}\n" for photo in photos))
        share, more = divmod(VOC_OBJECTS[part], count)
        for i, photo in enumerate(photos):
            boxes = ""
            for _ in range(share + (i < more)):
                box = "<xmin>2</xmin><ymin>2</ymin><xmax>15</xmax><ymax>14</ymax>"
                boxes += f"<object><name>{classes[thing % 20]}</name><bndbox>{box}</bndbox></object>"
                thing += 1
            (folder / f"Annotations/{photo}.xml").write_text(f"<annotation>{boxes}</annotation>")
        number += count
    return (f"voc2007/JPEGImages/{i:06d}.jpg" for i in range(number))


def _cub(root: Path) -> Names:
    folder, counts = root / "cub200", catalog.card("cub200")["images"]
    classes = [f"{i:03d}.{name.replace(' ', '_')}" for i, name in enumerate(names(200), 1)]
    total = counts["train"] + counts["test"]
    paths = [f"{classes[i % 200]}/bird_{i:05d}.jpg" for i in range(total)]
    columns = {
        "images.txt": paths,
        "image_class_labels.txt": [1 + i % 200 for i in range(total)],
        "train_test_split.txt": [int(i < counts["train"]) for i in range(total)],
        "classes.txt": classes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, values in columns.items():
        (folder / file).write_text("".join(f"{i} {value}\n" for i, value in enumerate(values, 1)))
    return (f"cub200/images/{path}" for path in paths)


def _mnist(root: Path) -> Names:
    folder = root / "mnist/MNIST/raw"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        pixels, labels = rng.integers(256, size=(count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        # the headers of the published files: type and number of axes, then the length of each, big-endian
        heads = {"images-idx3": (0x0803, count, 28, 28), "labels-idx1": (0x0801, count)}
        for (kind, head), content in zip(heads.items(), (pixels, labels), strict=True):
            (folder / f"{part}-{kind}-ubyte").write_bytes(np.array(head, dtype=">i4").tobytes() + content.tobytes())
    return iter(())


def _gtsrb(root: Path) -> Names:
    classes = [f"{i:05d}" for i in range(43)]
    (root / "gtsrb").mkdir(parents=True, exist_ok=True)
    count = GTSRB_IMAGES["Final_Test/Images"]
    rows = "".join(f"{i:05d}.ppm;{i % 43}\n" for i in range(count))
    (root / "gtsrb/GT-final_test.csv").write_text(f"Filename;ClassId\n{rows}")
    yield from _even(classes, GTSRB_IMAGES["Training"], "gtsrb/GTSRB/Training/{0}/{1:05d}.ppm")
    yield from (f"gtsrb/GTSRB/Final_Test/Images/{i:05d}.ppm" for i in range(count))


def _resisc(root: Path) -> Names:
    classes = [f"place{i:02d}" for i in range(45)]
    files = [f"{c}_{i:03d}.jpg" for i in range(1, 701) for c in classes]
    (root / "resisc45").mkdir(parents=True, exist_ok=True)
    for part, lines in (("train", files[:18_900]), ("val", files[18_900:25_200]), ("test", files[25_200:])):
        (root / f"resisc45/resisc45-{part}.txt").write_text("".join(f"{line}\n" for line in lines))
    return (f"resisc45/NWPU-RESISC45/{file.rpartition('_')[0]}/{file}" for file in files)


def _country211(root: Path) -> Names:
    codes = [f"{chr(65 + i // 26)}{chr(65 + i % 26)}" for i in range(211)]
    counts = catalog.card("country211")["images"]
    for part, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        yield from _even(codes, counts[part], f"country211/{folder}/{{0}}/{{1}}.jpg")


def _caltech256(root: Path) -> Names:
    classes = [f"{i:03d}.{name.replace(' ', '-')}" for i, name in enumerate(names(257), 1)]
    count = sum(catalog.card("caltech256")["images"].values())
    return _even(classes, count, "caltech256/256_ObjectCategories/{0}/{1:04d}.jpg")


def _frost(root: Path) -> Names:
    """Photographs as large as the published ones, which a corruption cuts its piece from."""
    (root / "frost").mkdir(parents=True, exist_ok=True)
    for i, suffix in enumerate(("png", "png", "png", "jpg", "jpg"), 1):
        pixels = np.random.default_rng(i).integers(256, size=(60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((1024, 768)).save(root / f"frost/frost{i}.{suffix}")
    return iter(())


def _folder(name: str) -> Names:
    known = catalog.class_names(name) or names(FOLDER_CLASSES[name])
    classes = [c.replace("/", " or ") for c in known]
    for part, count in FOLDERS[name].items():
        yield from _even(classes, count, f"folders/{name}/{part}/{{0}}/{{1:06d}}.jpg")


def _domains(name: str) -> Names:
    classes = [c.replace(" ", "_") for c in names(DOMAIN_CLASSES[name])]
    for domain, count in DOMAINS[name].items():
        yield from _even(classes, count, f"{name}/{domain}/{{0}}/{{1:06d}}.jpg")


def _cifar_c(root: Path) -> Names:
    """One array of 50,000 images under the names of all corruptions: 154 MB on the disk in place of 4.6 GB."""
    rng = np.random.default_rng(0)
    folders = [root / name for name in ("cifar10_c", "cifar100_c", "cifar10_1")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    array = folders[0] / f"{CORRUPTIONS[0]}.npy"
    np.save(array, rng.integers(256, size=(50_000, 32, 32, 3), dtype=np.uint8))
    for folder, classes in zip(folders[:2], (10, 100), strict=True):
        np.save(folder / "labels.npy", np.arange(50_000, dtype=np.uint8) % classes)
        for corruption in CORRUPTIONS:
            if not (file := folder / f"{corruption}.npy").exists():
                os.link(array, file)
    np.save(folders[2] / "cifar10.1_v6_data.npy", rng.integers(256, size=(2_000, 32, 32, 3), dtype=np.uint8))
    np.save(folders[2] / "cifar10.1_v6_labels.npy", np.arange(2_000, dtype=np.uint8) % 10)
    return iter(())
