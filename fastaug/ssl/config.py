"""Recipe configuration: a dataclass, presets as JSON files, flags through tyro; unknown keys are errors everywhere."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def parse(kind: type[T], configs: Path | None = None, argv: Sequence[str] | None = None) -> T:
    """A ``kind`` dataclass from its defaults, then ``--preset``, then other flags; exits on --help or a bad flag.

    Without ``configs`` there are no presets.
    """
    import tyro

    arguments = list(sys.argv[1:] if argv is None else argv)
    preset = _preset_flag(arguments) or getattr(kind, "preset", "") if configs else ""
    default = load_preset(kind, preset, configs) if configs and preset else kind()
    return tyro.cli(kind, default=default, args=arguments, description=sys.modules[kind.__module__].__doc__)


def load_preset(kind: type[T], preset: str, configs: Path) -> T:
    """``kind`` with the fields of ``configs``/preset.json, or of a JSON file given by its path.

    Raises:
        ValueError: no such preset (lists them), or a key that is no field, or a value of another type.
    """
    path = Path(preset) if preset.endswith(".json") else configs / f"{preset}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in configs.glob("*.json")))
        raise ValueError(f"--preset {preset}: no file {path}; presets are {known}")
    values = json.loads(path.read_text())
    types = get_type_hints(kind)
    for key, value in values.items():
        if key not in types:
            raise ValueError(f"{path}: unknown key {key!r}; known keys are {', '.join(types)}")
        if isinstance(types[key], type) and not isinstance(value, (int, float) if types[key] is float else types[key]):
            raise ValueError(f"{path}: {key} must be {types[key].__name__}, got {value!r}")
    return kind(**{**values, "preset": preset})


def _preset_flag(arguments: Sequence[str]) -> str | None:
    for index, argument in enumerate(arguments):
        if argument.startswith("--preset="):
            return argument.partition("=")[2]
        if argument == "--preset" and index + 1 < len(arguments):
            return arguments[index + 1]
    return None


def resolve(spec: str, home: str) -> Callable[..., Any]:
    """What ``spec`` names: a public callable of module ``home``, ``module:callable`` or ``file.py:callable``."""
    module_name, _, name = spec.rpartition(":")
    if module_name.endswith(".py"):
        module = _from_file(Path(module_name))
    else:
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))  # a script's own folder is on the path, the user's folder is not
        module = importlib.import_module(module_name or home)
    found = getattr(module, name, None)
    if name.startswith("_") or not callable(found):
        raise ValueError(
            f"{spec}: {module.__name__} has no callable {name!r}; give a name of {home} or module:callable"
        )
    return found  # type: ignore[no-any-return]


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"{path}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def call_with(function: Callable[..., Any], **offered: Any) -> tuple[Any, dict[str, Any]]:
    """Call ``function`` with those of ``offered`` that its signature names; returns (result, what was passed)."""
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    passed = {k: v for k, v in offered.items() if takes_all or k in parameters}
    return function(**passed), passed


def config_hash(config: Any, ignore: Sequence[str] = ()) -> str:
    """12 hex digits of a dataclass's fields except ``ignore``: equal hashes mean the same experiment."""
    return hash_of({k: v for k, v in dataclasses.asdict(config).items() if k not in ignore})


def hash_of(values: dict[str, Any]) -> str:
    """12 hex digits of JSON-able settings."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
