"""``optbench new``: files to begin with."""

from __future__ import annotations

import keyword
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from optbench.cli.common import errors, tell
from optbench.errors import UserError

new_app = typer.Typer(
    help="Files to begin with: an optimizer of your own.",
    no_args_is_help=True,
    epilog="Example: optbench new optimizer my_opt.py",
)

BASELINES = ("adam", "sgd", "wame")
#: Settings that the suite tries of each optimizer: two minutes' worth, and TensorFlow compiles each for long.
SETTINGS = {"torch": 8, "jax": 8, "tensorflow": 4}
#: Names that would hide a standard module from every program that starts in the file's folder.
FRAMEWORKS = ("torch", "keras", "tensorflow", "jax", "optax", "numpy", "optbench")


@new_app.command(epilog="Example: optbench new optimizer my_opt.py --backend torch")
def optimizer(
    file: Annotated[Path, typer.Argument(help="Python file to write, as my_opt.py.", show_default=False)],
    backend: Annotated[
        Literal["torch", "tensorflow", "jax"], typer.Option(help="Framework it is written for.")
    ] = "torch",
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    groups: Annotated[
        bool, typer.Option("--groups", help="It moves hidden kernels alone, AdamW moves the rest.")
    ] = False,
) -> None:
    """Write an optimizer that works, to be changed, and a suite that compares it with tuned baselines.

    `my_opt.py` gets the class MyOpt, `my_opt.yaml` beside it the comparison with Adam, SGD and WAME.
    """
    with errors():
        name = class_name(file)
        texts = {
            file: _filled(f"optimizer_{backend}.py.txt", file, name, backend),
            file.with_suffix(".yaml"): _filled("optimizer.yaml.txt", file, name, backend, groups=groups),
        }
        if not file.parent.is_dir():
            raise UserError(f"{file}: there is no folder {file.parent}; make it first")
        there = [path for path in texts if path.exists()]
        if there and not force:
            raise UserError(
                f"{there[0]}: is there already; choose another name, or write over it with --force"
            )
        for path, text in texts.items():
            try:
                path.write_text(text, encoding="utf-8")
            except OSError as error:
                raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
            tell(f"Wrote {path}")
        suite = file.with_suffix(".yaml")
        tell(f"Check it:   optbench verify {file}:{name}")
        tell(f"Compare it: optbench run {suite}")
        tell(f"Report it:  optbench report {suite}")


def class_name(file: Path) -> str:
    """Name the class of a file: ``my_opt.py`` holds ``MyOpt``.

    Raises
    ------
    UserError
        If the file's name makes no Python name, or one that is taken.
    """
    words = [word for word in file.stem.split("_") if word]
    name = "".join(word[0].upper() + word[1:] for word in words)
    fits = file.stem.isidentifier() and file.stem.isascii() and not keyword.iskeyword(file.stem)
    if file.suffix != ".py" or not fits or not name.isidentifier() or keyword.iskeyword(name):
        raise UserError(
            f"{file}: found {file.name!r}; name a Python file by letters, digits and '_', as in my_opt.py"
        )
    if file.stem in BASELINES:
        raise UserError(f"{file}: {file.stem!r} is a baseline of the suite; choose another name")
    if file.stem in FRAMEWORKS or file.stem in sys.stdlib_module_names:
        raise UserError(f"{file}: would hide Python's module {file.stem!r}; choose another name")
    return name


def _filled(template: str, file: Path, name: str, backend: str, *, groups: bool = False) -> str:
    from importlib.resources import files
    from string import Template

    text = (files("optbench") / "templates" / template).read_text(encoding="utf-8")
    lr = "learning_rate" if backend == "tensorflow" else "lr"
    own = f'class: "{file.name}:{name}", {lr}: 0.001'
    entry = f"  {file.stem}: {{{own}}}"
    if groups:
        entry = (
            f"  {file.stem}:\n"
            "    groups:                       # roles: matrix, conv, embedding, head, norm, bias\n"
            f"      - {{match: [matrix, conv], {own}}}\n"
            "      - {match: rest, optimizer: adamw, lr: 0.001, weight_decay: 0}"
        )
    axis = f"matrix.{lr}" if groups else lr
    values = {"entry": entry, "axis": axis, "trials": SETTINGS[backend]}
    return Template(text).substitute(values, name=name, file=file.name, stem=file.stem, backend=backend)
