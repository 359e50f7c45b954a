"""Hydra's reader of config files, with each file checked as data before Hydra takes anything from it.

Which file a name stands for, and what its header and its defaults list mean, is decided by Hydra alone: every file that
it opens passes here, however it was named. Whether what came out sets Hydra itself up is seen when it is composed
(`kravl.config.untrusted.check_hydra`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

from kravl.config.untrusted import check_interpolations
from kravl.runtime.errors import InputError, first_line
from kravl.runtime.yaml_files import read_yaml

MOST_DEFAULTS = 50  # entries of one file; the longest shipped list has 9


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's source of this name, which it replaces; files are plain data of bounded size."""

    def load_config(self, config_path: str) -> ConfigResult:
        """What Hydra reads from a file.

        Raises:
            InputError: the file lies outside of the folder of configs, is not plain data of bounded size, has a
                forbidden interpolation, or names what Hydra does not take.
        """
        path = Path(self.path, self._normalize_file_name(config_path))
        if ".." in path.parts:
            raise InputError(f"{config_path} leads out of {self.path}; name a file of configs directly")
        tree = read_yaml(path)
        check_interpolations(tree, str(path))
        _check_defaults(path, tree.get("defaults", []))
        try:
            return super().load_config(config_path)
        except (ValueError, AssertionError) as error:  # of a header that is none
            raise InputError(f"{path} is not a config: {first_line(error)}") from error


def _check_defaults(path: Path, listed: Any) -> None:
    """Raise InputError for a defaults list of another shape than Hydra's, or whose entries lead elsewhere."""
    if not isinstance(listed, list):
        raise InputError(f"{path}: defaults must be a list")
    if len(listed) > MOST_DEFAULTS:
        raise InputError(f"{path}: defaults has {len(listed)} entries; at most {MOST_DEFAULTS} are read")
    for entry in listed:
        pairs = list(entry.items()) if isinstance(entry, Mapping) else [("_self_", entry)]
        if len(pairs) != 1:
            raise InputError(f"{path}: an entry of defaults names one file, as GROUP: FILE; not {str(entry)[:80]}")
        group, chosen = pairs[0]
        names = [group, *(chosen if isinstance(chosen, list) else [chosen])]
        if group == "_self_" and chosen is None:
            raise InputError(f"{path}: an entry of defaults is empty")
        for name in names:
            if not isinstance(name, str | None) or (name is not None and (".." in name or "${" in name)):
                raise InputError(f"{path}: defaults name {str(name)[:80]!r}; name a file of configs directly")


def hold_files() -> None:
    """From now on Hydra reads files by `FileConfigSource`, here and in the processes that it starts."""
    Plugins.instance()  # registers Hydra's own
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource
