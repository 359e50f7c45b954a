"""What may be built from a config, and what is refused."""

import sys
from pathlib import Path

import pytest

from kravl.adapters.base import Adapter
from kravl.adapters.kra import KRAdapter
from kravl.config.instantiate import build, resolve
from kravl.data.source import Source
from kravl.runtime.errors import InputError


def test_a_node_builds_its_class_with_its_settings():
    adapter = build({"_target_": "kravl.adapters.kra.KRAdapter", "_partial_": True, "scale": 0.5}, Adapter)(6, 4)

    assert type(adapter) is KRAdapter
    assert adapter.scale == 0.5


def test_what_only_the_run_knows_is_given_where_the_class_takes_it():
    node = {"_target_": "kravl.adapters.kra.KRAdapter"}

    assert build(node, Adapter, scale=3.0)(6, 4).scale == 3.0
    assert build(node, Adapter, source="nothing it knows")(6, 4).scale == 2.0


@pytest.mark.parametrize(
    "target",
    ["os.system", "torch.load", "builtins.eval", "pathlib.Path", "kravlx.adapters.kra.KRAdapter", "KRAdapter", ""],
)
def test_a_class_of_another_package_is_refused(target):
    with pytest.raises(InputError, match="is outside"):
        resolve({"_target_": target}, Adapter)


@pytest.mark.parametrize(
    "target",
    ["kravl.tracking.run_folder.shutil.rmtree", "kravl.tracking.run_folder.os.system", "kravl.run.fit.sys.exit"],
)
def test_a_foreign_object_is_not_reached_through_a_module_of_ours(target):
    with pytest.raises(InputError, match="No module named"):
        resolve({"_target_": target}, Adapter)


def test_an_alias_of_a_foreign_class_is_refused():
    # kravl.tracking.run_folder imports pathlib.Path, whose write_text would do what a config says
    with pytest.raises(InputError, match=r"unknown object in kravl\.tracking\.run_folder 'Path'"):
        resolve({"_target_": "kravl.tracking.run_folder.Path"}, object)


def test_a_class_of_another_contract_is_refused_and_the_nearest_named():
    with pytest.raises(InputError, match=r"unknown Source in kravl\.adapters\.kra 'KRAdapter'"):
        resolve({"_target_": "kravl.adapters.kra.KRAdapter"}, Source)
    with pytest.raises(InputError, match="did you mean 'KRAdapter'"):
        resolve({"_target_": "kravl.adapters.kra.KRAdaptor"}, Adapter)


def test_the_contract_itself_cannot_be_built():
    with pytest.raises(InputError, match="unknown Adapter"):
        resolve({"_target_": "kravl.adapters.base.Adapter"}, Adapter)


def test_a_misspelt_setting_names_the_nearest():
    with pytest.raises(InputError, match="unknown setting of KRAdapter 'scael': did you mean 'scale'"):
        build({"_target_": "kravl.adapters.kra.KRAdapter", "scael": 1.0}, Adapter)


def test_another_package_is_built_only_when_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "lab_adapters.py").write_text(
        "from pathlib import Path\n"
        "Path(__file__).with_name('executed').touch()\n"
        "from kravl.adapters.full import Full\n"
        "class Mine(Full): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "lab_adapters.Mine"}

    with pytest.raises(InputError, match=r"plugins=\[...\]"):
        resolve(node, Adapter)
    assert not (tmp_path / "executed").exists()

    assert resolve(node, Adapter, ["lab_adapters"]).__name__ == "Mine"
    sys.modules.pop("lab_adapters")
