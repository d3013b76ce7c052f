"""Groups of settings: reading them, laying them over each other, and saying what is wrong.

:func:`validate` turns what pydantic finds into one sentence that names the key, what came, and the
nearest right key.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cvmh.errors import ConfigError

# Keys of earlier versions, and where their meaning is now.
MOVED = {
    "train.cross_entropy": "train.loss.cross_entropy",
    "train.dice": "train.loss.dice",
}


class Settings(BaseModel):
    """A frozen group of settings; a key that it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"config file {path} does not exist") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        # A ValueError comes from text that is not UTF-8 and from dates that do not exist.
        line = " ".join(str(error).split())
        raise ConfigError(f"config file {path} cannot be read as YAML ({line})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"config file {path} must hold 'key: value' lines, got a {type(content).__name__}"
        )
    return content


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested mappings over each other; a later one wins, key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
                merged[key] = merge(merged[key], value)
            else:
                merged[key] = merge(value) if isinstance(value, Mapping) else value
    return merged


def parse_assignment(text: str) -> dict[str, Any]:
    """Turn ``"train.epochs=3"`` into ``{"train": {"epochs": 3}}``; the value is read as YAML.

    Raises:
        ConfigError: there is no ``=``, a part of the key is empty, or the value is not YAML.
    """
    key, separator, value = text.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(
            f"a setting must be written key=value, for example train.epochs=3, got '{text}'"
        )
    try:
        nested: Any = yaml.safe_load(value)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"the value of setting '{key}' is not valid YAML, got '{value}'"
        ) from error
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


Model = TypeVar("Model", bound=BaseModel)


class Layer(NamedTuple):
    """Settings as they were written, and where, for messages."""

    source: str
    content: Mapping[str, Any]


def validate(model: type[Model], content: Mapping[str, Any], *, source: str) -> Model:
    """Build a settings model of what was written in one place, as :func:`validate_layers` does."""
    return validate_layers(model, [Layer(source, content)])


def validate_layers(model: type[Model], layers: Sequence[Layer]) -> Model:
    """Build a settings model, with one clear sentence for the first thing that is wrong.

    Args:
        model: the pydantic class to build.
        layers: keys and values as a user wrote them, a later layer over an earlier one. The message
            names the source of the last one that says what is wrong, or of all that say something
            of a group that is wrong as a whole; the first one's if none does.

    Raises:
        ConfigError: a key is unknown (the nearest right one is named) or a value is wrong.
    """
    try:
        return model.model_validate(merge(*(layer.content for layer in layers)))
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        key = ".".join(path)
        source = _source_of(layers, path, is_group=isinstance(first["input"], Mapping))
        if first["type"] == "extra_forbidden":
            hint = f"; it is now '{MOVED[key]}'" if key in MOVED else _nearest(model, path)
            raise ConfigError(f"{source}: unknown key '{key}'{hint}") from error
        group = _group_at(model, path)
        # What does not go together in a group is said by its keys, not by all that it holds.
        is_whole = first["type"] == "value_error" and group is not None
        came = "" if is_whole or first["type"] == "missing" else f", got {first['input']!r}"
        said = first["msg"].lower().removeprefix("value error, ")
        if first["type"] == "model_type" and group is not None:
            said = f"must be keys with values; its keys are {', '.join(group.model_fields)}"
        where = f"{source}: '{key}'" if path else source
        raise ConfigError(f"{where}: {said}{came}") from error


def _source_of(layers: Sequence[Layer], path: list[str], *, is_group: bool) -> str:
    """Return where the value of a key was written last, or all places that a group is from."""
    sources = [source for source, content in layers if _reaches(content, path)]
    return ", ".join(sources if is_group else sources[-1:]) or layers[0].source


def _reaches(content: Any, path: list[str]) -> bool:
    """Return whether settings say what a key is, or that one above it is no group."""
    for part in path:
        if not isinstance(content, Mapping):
            break
        if part not in content:
            return False
        content = content[part]
    return bool(path) and content != {}


def _group_at(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    """Return the group of settings that a key names, None if it names none."""
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        # A group that may be None is a union.
        groups = [kind for kind in (annotation, *get_args(annotation)) if _is_group(kind)]
        if not groups:
            return None
        model = groups[0]
    return model


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _nearest(model: type[BaseModel], path: list[str]) -> str:
    group = _group_at(model, path[:-1])
    if group is None:
        return ""
    known = list(group.model_fields)
    close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{'.'.join([*path[:-1], close[0]])}'?"
    return f"; known keys here are {', '.join(known)}"
