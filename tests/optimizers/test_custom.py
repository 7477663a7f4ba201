import json
import pickle
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from optbench.optimizers import Custom, custom
from optbench.optimizers.custom import CustomError

SOURCE = "class Mine:\n    def __init__(self, **given):\n        self.given = given\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path


def config(folder, **given):
    return custom.from_mapping({"class": "mine.py:Mine", **given}, base_dir=folder)


def test_a_class_in_a_file_is_loaded_and_called(folder):
    made = config(folder, lr=0.1, betas=[0.9, 0.99], nesterov=True)
    arguments = custom.arguments(made)
    assert custom.load(made)(**arguments).given == {"lr": 0.1, "betas": (0.9, 0.99), "nesterov": True}
    assert made.lr == 0.1


def test_the_identity_is_name_arguments_and_code_not_the_place(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "mine.py").write_text(SOURCE)
    first, second = config(folder, a=1, lr=0.1), config(other, lr=0.1, a=1)
    assert first == second
    assert hash(first) == hash(second)
    assert asdict(first) == asdict(second)
    assert str(folder) not in json.dumps(asdict(first))
    (other / "mine.py").write_text(SOURCE + "\n# changed\n")
    assert config(other, a=1, lr=0.1) != first


def test_it_travels_to_another_process_and_through_json(folder, monkeypatch):
    made = config(folder, betas=[0.9, 0.99])
    assert custom.load(pickle.loads(pickle.dumps(made))).__name__ == "Mine"
    read = TypeAdapter(Custom).validate_json(json.dumps(asdict(made)), strict=True)
    assert read == made
    monkeypatch.chdir(folder)
    assert custom.load(read).__name__ == "Mine"


def test_a_place_given_from_here_is_found_from_elsewhere(folder, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(folder.parent)
    made = config(Path(folder.name))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert custom.load(pickle.loads(pickle.dumps(made))).__name__ == "Mine"


def test_code_that_has_changed_since_is_not_loaded(folder):
    made = config(folder)
    (folder / "mine.py").write_text(SOURCE + "\n# changed\n")
    with pytest.raises(CustomError, match="declared with sha256"):
        custom.load(made)


def test_a_package_is_named_by_its_version():
    made = custom.from_mapping({"class": "pydantic.main:BaseModel"}, base_dir=None)
    import pydantic

    assert made.code == f"pydantic=={pydantic.VERSION}"
    assert custom.load(made) is pydantic.BaseModel


def test_no_user_code_runs_before_it_is_loaded(folder):
    (folder / "mine.py").write_text("raise RuntimeError('ran')\n" + SOURCE)
    made = config(folder)
    with pytest.raises(CustomError, match="ran"):
        custom.load(made)
    assert not [
        name for name in sys.modules if name.startswith("optbench_custom_mine") and made.code[-12:] in name
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"class": "gone.py:Mine"}, "no such file"),
        ({"class": "mine.py:Yours"}, "it has Mine"),
        ({"class": "mine.py"}, "package.module:name"),
        ({"class": 3}, "package.module:Class"),
        ({"class": "no_such_module_here:Mine"}, "install the package"),
        ({"class": "broken.py:Mine"}, "not Python"),
        ({"class": "mine.py:Mine", "lr": float("nan")}, "argument lr"),
        ({"class": "mine.py:Mine", "betas": {"a": 1}}, "argument betas"),
        ({"optimizer": "nobody-offers-this"}, "my_opt.py:MyOpt"),
    ],
)
def test_errors_name_the_place_and_what_to_do(folder, given, message):
    (folder / "broken.py").write_text("class Mine(:\n")
    with pytest.raises(CustomError, match=message):
        custom.from_mapping(given, base_dir=folder)


def test_installed_packages_offer_optimizers_by_name(folder, monkeypatch):
    package = folder / "site"
    (package / "lion_demo-1.5.dist-info").mkdir(parents=True)
    (package / "lion_demo.py").write_text(SOURCE)
    info = package / "lion_demo-1.5.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lion-demo\nVersion: 1.5\n")
    (info / "RECORD").write_text("lion_demo.py,,\n")
    (info / "top_level.txt").write_text("lion_demo\n")
    (info / "entry_points.txt").write_text("[optbench.optimizers]\nlion = lion_demo:Mine\n")
    monkeypatch.syspath_prepend(str(package))
    made = custom.from_mapping({"optimizer": "lion", "lr": 0.1}, base_dir=folder)
    assert (made.reference, made.code) == ("lion_demo:Mine", "lion-demo==1.5")
    assert custom.load(made).__name__ == "Mine"
