"""What a process that is forked for each run has loaded before: everything, so that a start costs next to nothing."""

from pathlib import Path

import open_clip

import kravl.run.train  # noqa: F401
from kravl.config.compose import register_configs

open_clip.add_model_config(Path(__file__).parents[1] / "fixtures/tiny-clip.json")
register_configs()
