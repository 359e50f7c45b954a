"""What a card says of its files is read, and a mistake in it is named."""

import pytest

from kravl.data import catalog
from kravl.data.download.fetch import remote_files
from kravl.runtime.errors import InputError


@pytest.mark.parametrize("name", sorted(path.parent.name for path in catalog.folder().glob("*/card.yaml")))
def test_the_files_of_every_card_can_be_asked_for(name: str) -> None:
    files = remote_files(catalog.card(name))

    assert all(url.startswith(("https://", "http://")) for file in files for url in file.urls)
    assert len({(file.to, file.name) for file in files}) == len(files)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "../a", "urls": ["u"]}, "'../a' leaves the folder"),
        ({"name": "a/b", "urls": ["u"]}, "a name is not a path"),
        ({"name": "a", "urls": ["u"], "to": "/tmp"}, "'/tmp' leaves the folder"),
        ({"name": "a", "urls": []}, "no urls"),
        ({"name": "a"}, "has no urls"),
        ({"name": "a", "urls": ["u"], "sha265": "x"}, "did you mean 'sha256'"),
        ({"name": "a", "urls": ["u"], "md5": "xyz"}, "md5 'xyz' is not 32 hex digits"),
    ],
)
def test_a_malformed_entry_of_a_card_is_named(entry: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        remote_files({"files": [entry]})
