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
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

# Fields that make no sense below one, or empty, in any recipe.
_POSITIVE = ("sample_rate", "crop_samples", "n_fft", "hop_length", "n_mels", "width", "projection_dim", "temperature",
             "margin", "batch_size", "accumulate", "steps", "log_every", "neighbours", "probe_steps")  # fmt: skip
_NOT_EMPTY = ("seeds", "table_seeds")


def parse(kind: type[T], configs: Path | None = None, argv: Sequence[str] | None = None) -> T:
    """A ``kind`` dataclass from its defaults, then ``--preset``, then other flags; exits on --help or a bad flag.

    Without ``configs`` there are no presets.

    Raises:
        ValueError: a preset that cannot be used, a number of steps, samples or the like that is not above 0.
    """
    import tyro

    arguments = list(sys.argv[1:] if argv is None else argv)
    preset = _preset_flag(arguments) or getattr(kind, "preset", "") if configs else ""
    default = load_preset(kind, preset, configs) if configs and preset else kind()
    config = tyro.cli(kind, default=default, args=arguments, description=sys.modules[kind.__module__].__doc__)
    _check(config)
    return config


def _check(config: Any) -> None:
    for name in _POSITIVE:
        value = getattr(config, name, 1)
        if not value > 0:
            raise ValueError(f"--{name.replace('_', '-')} must be above 0, got {value}")
    for name in _NOT_EMPTY:
        if not getattr(config, name, (0,)):
            raise ValueError(f"--{name.replace('_', '-')} needs at least one number")


def load_preset(kind: type[T], preset: str, configs: Path) -> T:
    """``kind`` with the fields of ``configs``/preset.json, or of a JSON file given by its path.

    Raises:
        ValueError: no such preset (lists them), no JSON object, a key that is no field, or a value of another type.
    """
    path = Path(preset) if preset.endswith(".json") else configs / f"{preset}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in configs.glob("*.json")))
        raise ValueError(f"--preset {preset}: no file {path}; presets are {known}")
    values = read_json(path)
    types = get_type_hints(kind)
    for key, value in values.items():
        if key not in types:
            raise ValueError(f"{path}: unknown key {key!r}; known keys are {', '.join(types)}")
        choices = get_args(types[key]) if get_origin(types[key]) is Literal else (value,)
        if value not in choices:
            raise ValueError(f"{path}: {key} must be one of {', '.join(map(str, choices))}, got {value!r}")
        if isinstance(types[key], type) and not isinstance(value, (int, float) if types[key] is float else types[key]):
            raise ValueError(f"{path}: {key} must be {types[key].__name__}, got {value!r}")
        if get_origin(types[key]) is tuple:  # which JSON has not
            values[key] = _tuple(value, get_args(types[key])[0], f"{path}: {key}")
    return kind(**{**values, "preset": preset})


def _tuple(value: Any, kind: type, what: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or not all(isinstance(each, kind) for each in value):
        raise ValueError(f"{what} must be a list of {kind.__name__}, got {value!r}")
    return tuple(value)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: something else is in it; names the file.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected an object {{...}}, got a {type(values).__name__}")
    return values


def _preset_flag(arguments: Sequence[str]) -> str | None:
    for index, argument in enumerate(arguments):
        if argument.startswith("--preset="):
            return argument.partition("=")[2]
        if argument == "--preset" and index + 1 < len(arguments):
            return arguments[index + 1]
    return None


def resolve(spec: str, home: str) -> Callable[..., Any]:
    """What ``spec`` names: a public callable of module ``home``, ``module:callable`` or ``file.py:callable``.

    Raises:
        ValueError: there is no such callable, or its module or file cannot be imported.
    """
    module_name, _, name = spec.rpartition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a script's own folder is on the path, the user's folder is not
    try:
        own = module_name.endswith(".py")
        module = _from_file(Path(module_name)) if own else importlib.import_module(module_name or home)
    except (ImportError, SyntaxError) as error:
        raise ValueError(f"{spec}: cannot be imported: {error}") from error
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


def defaults_of(kind: type) -> dict[str, Any]:
    """Of the fields of a dataclass that have one."""
    found = {field.name: field.default for field in dataclasses.fields(kind)}
    return {name: value for name, value in found.items() if value is not dataclasses.MISSING}


def hash_of(values: Any) -> str:
    """12 hex digits of JSON-able settings."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
