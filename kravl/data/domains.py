"""One domain of a domain-shift set laid out as ``root/<domain>/<class>/<image>``, such as PACS."""

from kravl.data.folder import class_folders, folder_samples
from kravl.data.source import Samples, Source, existing_folder
from kravl.errors import InputError, unknown


class Domains(Source):
    """The images of one domain.

    Args:
        holdout: every ``holdout``-th image of each class, by sorted file name, is test and the rest is train; None
            makes the whole domain test, as for a domain that is not trained on.

    Raises:
        InputError: no such domain (the nearest is named), or a holdout below 2.
    """

    def __init__(
        self, name: str, root: str, domain: str, holdout: int | None = None, templates: str = "single"
    ) -> None:
        folder = existing_folder(name, root)
        domains = class_folders(name, folder)
        if domain not in domains:
            raise unknown(f"domain of {name}", domain, domains)
        if holdout is not None and holdout < 2:
            raise InputError(f"{name}: holdout is {holdout}; every how many images one is test: at least 2, or null")
        self._folder = folder / domain
        self._holdout = holdout
        splits = ("test",) if holdout is None else ("train", "test")
        classes = class_folders(name, self._folder)
        super().__init__(name, classes, splits, (str(folder.resolve()), domain), templates=templates)

    def samples(self, split: str) -> Samples:
        """The domain's images sorted by class, then by file name."""
        everything = folder_samples(self._folder, {c: i for i, c in enumerate(self.class_ids)})
        if self._holdout is None:
            return everything
        place = _places(everything.labels)
        held_out = [place[i] % self._holdout == self._holdout - 1 for i in range(len(everything))]
        return everything.subset([i for i, out in enumerate(held_out) if out == (split == "test")])


def _places(labels: tuple[int, ...]) -> list[int]:
    """The place of each image within its class, from 0; ``labels`` are sorted by class."""
    first: dict[int, int] = {}
    for i, label in enumerate(labels):
        first.setdefault(label, i)
    return [i - first[label] for i, label in enumerate(labels)]
