"""`check_assumptions`: is the installed vLLM the one that the plugin was written against?"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import metadata as packages
from pathlib import Path
from typing import Any

from sparselogits.errors import MismatchError
from sparselogits.integrations.vllm import relied_on
from sparselogits.integrations.vllm.relied_on import ReliedFields, ReliedFunction
from sparselogits.integrations.vllm.source import (
    FunctionFacts,
    class_fields,
    function_facts,
    live_function_facts,
)


def check_assumptions() -> None:
    """Checks everything that the plugin and the client assume about the installed vLLM.

    Reads source files; of vLLM it imports nothing but the package itself, so it is safe in every
    process of an engine.

    Raises:
        MismatchError: An assumption fails; the message begins with its name.
    """
    check_version()
    check_sources(package_folder().parent)


def check_version() -> None:
    """Checks that the installed release is the pinned one.

    Raises:
        MismatchError: It is not, or there is none.
    """
    try:
        version = packages.version("vllm")
    except packages.PackageNotFoundError:
        raise _failed("version", "vLLM is not installed") from None
    if version != relied_on.VLLM_VERSION:
        raise _failed("version", f"vLLM {version} is installed")


def check_sources(root: Path) -> None:
    """Checks functions and fields in the source files below a folder that holds `vllm/`.

    Raises:
        MismatchError: One of them is missing or different.
    """
    for function in (*relied_on.PATCHED, *relied_on.NEEDED):
        source = _read(root, function.module, function.name)
        _check_function(function, function_facts(source, function.name))
    for fields in relied_on.FIELDS:
        _check_fields(fields, class_fields(_read(root, fields.module, fields.name), fields.name))


def check_unpatched(worker_class: Any) -> None:
    """Checks that the methods to be wrapped are those of the source, not another plugin's.

    Raises:
        MismatchError: One of them was replaced.
    """
    for function in relied_on.PATCHED:
        method: Callable[..., Any] | None = getattr(
            worker_class, function.name.rpartition(".")[2], None
        )
        try:
            facts = None if method is None else live_function_facts(method)
        except (OSError, TypeError, SyntaxError) as error:
            raise _failed(function.name, f"it has no readable source ({error})") from error
        _check_function(function, facts)


def package_folder() -> Path:
    """The folder of the installed vLLM.

    Raises:
        MismatchError: There is none.
    """
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        raise _failed("version", "vLLM is not installed")
    return Path(spec.origin).parent


def _read(root: Path, module: str, name: str) -> str:
    place = root.joinpath(*module.split("."))
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise _failed(name, f"cannot read {path}: {error}") from error


def _check_function(expected: ReliedFunction, found: FunctionFacts | None) -> None:
    if found is None:
        raise _failed(expected.name, f"{expected.module} has no such function")
    parameters = " ".join(found.parameters)
    if parameters != expected.parameters:
        raise _failed(
            expected.name,
            f"its parameters are ({parameters}), expected ({expected.parameters})",
        )
    if found.fingerprint != expected.fingerprint:
        raise _failed(
            expected.name,
            f"its source has the fingerprint {found.fingerprint}, expected {expected.fingerprint}; "
            f"the plugin needs that it {expected.reason}",
        )


def _check_fields(expected: ReliedFields, found: frozenset[str] | None) -> None:
    if found is None:
        raise _failed(expected.name, f"{expected.module} has no such class")
    for field in expected.fields:
        if field not in found:
            raise _failed(f"{expected.name}.{field}", f"{expected.module} does not define it")


def _failed(name: str, what: str) -> MismatchError:
    return MismatchError(
        f"vLLM assumption {name!r} does not hold: {what}. This plugin was written against vLLM "
        f"{relied_on.VLLM_VERSION} and reads its private parts; it works with no other release"
    )
