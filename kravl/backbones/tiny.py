"""kravl-tiny: a small CLIP (Radford et al., ICML 2021, https://arxiv.org/abs/2103.00020) that ships with the package.

A 64-pixel image tower and a text tower with byte pairs of its own, pretrained on pictograms by
experiments/pretrain_tiny.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip

NAME, TAG = "kravl-tiny", "kravl"
FOLDER = Path(__file__).resolve().parent / "kravl_tiny"
CONFIG, MERGES, WEIGHTS = FOLDER / "kravl-tiny.json", FOLDER / "merges.txt.gz", FOLDER / "weights.safetensors"


def register() -> None:
    """Make open_clip know ``kravl-tiny``, its tokenizer and its weights ``kravl``, in this process.

    Afterwards ``open_clip.create_model("kravl-tiny", pretrained="kravl")`` and
    ``open_clip.get_tokenizer("kravl-tiny")`` work as for any other model. A second call changes nothing.
    """
    if NAME in open_clip.list_models():
        return
    config = json.loads(CONFIG.read_text())
    # absolute: open_clip opens the byte pairs later, in whatever working directory that is
    config["text_cfg"]["tokenizer_kwargs"] = {"bpe_path": str(MERGES)}
    with TemporaryDirectory() as folder:
        (Path(folder) / CONFIG.name).write_text(json.dumps(config))
        open_clip.add_model_config(folder)  # reads the file now, and ignores a folder that is gone later
    # open_clip has no public function to add tags; `file` is its key for local weights
    open_clip.pretrained._PRETRAINED[NAME] = {TAG: {"file": str(WEIGHTS), "quick_gelu": False}}
