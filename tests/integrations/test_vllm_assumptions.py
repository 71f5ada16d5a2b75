"""The plugin refuses every vLLM but the one that it was read against, and says why."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from vllm_tree import forget_vllm, module_file, set_version

from sparselogits.errors import MismatchError
from sparselogits.integrations.vllm import check_assumptions, plugin, relied_on
from sparselogits.integrations.vllm.relied_on import ReliedFields, ReliedFunction

FUNCTIONS = (*relied_on.PATCHED, *relied_on.NEEDED)
FIELDS = [(fields, field) for fields in relied_on.FIELDS for field in fields.fields]


def edit(root: Path, module: str, change: Callable[[str], str]) -> None:
    path = module_file(root, module)
    before = path.read_text()
    after = change(before)
    assert after != before
    path.write_text(after)


def test_the_release_that_was_read_is_accepted(vllm_tree: Path) -> None:
    check_assumptions()


def test_another_release_is_refused_by_name(vllm_tree: Path) -> None:
    set_version(vllm_tree, "0.33.1")
    with pytest.raises(MismatchError, match=r"'version' does not hold: vLLM 0\.33\.1 is installed"):
        check_assumptions()


def test_no_vllm_at_all_is_refused_by_name() -> None:
    with pytest.raises(MismatchError, match="'version' does not hold: vLLM is not installed"):
        check_assumptions()


def named(function: ReliedFunction) -> str:
    return function.name


def in_class(text: str, function: ReliedFunction, old: str, new: str) -> str:
    """Replaces the first `old` at or after the function's definition in its class."""
    owner, _, method = function.name.rpartition(".")
    start = text.index(f"def {method}(", text.index(f"class {owner}"))
    at = text.index(old, start)
    return text[:at] + new + text[at + len(old) :]


@pytest.mark.parametrize("function", FUNCTIONS, ids=named)
def test_a_missing_function_is_refused_by_name(vllm_tree: Path, function: ReliedFunction) -> None:
    method = function.name.rpartition(".")[2]
    edit(
        vllm_tree,
        function.module,
        lambda text: in_class(text, function, f"def {method}(", f"def {method}_as_it_was("),
    )
    with pytest.raises(MismatchError, match=f"'{function.name}' .* has no such function"):
        check_assumptions()


@pytest.mark.parametrize("function", FUNCTIONS, ids=named)
def test_another_signature_is_refused_by_name(vllm_tree: Path, function: ReliedFunction) -> None:
    edit(
        vllm_tree,
        function.module,
        lambda text: in_class(text, function, "self", "self, another"),
    )
    with pytest.raises(MismatchError, match=rf"'{function.name}' .* are \(self another"):
        check_assumptions()


@pytest.mark.parametrize("function", FUNCTIONS, ids=named)
def test_another_body_is_refused_by_name(vllm_tree: Path, function: ReliedFunction) -> None:
    edit(
        vllm_tree,
        function.module,
        lambda text: in_class(text, function, "\n", "  # a line that was not read\n"),
    )
    with pytest.raises(MismatchError, match=f"'{function.name}' .* has the fingerprint"):
        check_assumptions()


@pytest.mark.parametrize("fields, field", FIELDS, ids=lambda part: getattr(part, "name", part))
def test_a_missing_field_is_refused_by_name(
    vllm_tree: Path, fields: ReliedFields, field: str
) -> None:
    if any(function.name == f"{fields.name}.{field}" for function in FUNCTIONS):
        return  # refused as a function, above
    edit(
        vllm_tree,
        fields.module,
        lambda text: text.replace(f"    {field}: ", f"    not_{field}: ").replace(
            f"def {field}(", f"def not_{field}("
        ),
    )
    with pytest.raises(MismatchError, match=f"'{fields.name}.{field}' does not hold"):
        check_assumptions()


def test_a_missing_file_is_refused_by_name(vllm_tree: Path) -> None:
    module_file(vllm_tree, "vllm.v1.serial_utils").unlink()
    with pytest.raises(MismatchError, match=r"'MsgpackEncoder\._encode_tensor' .* cannot read"):
        check_assumptions()


def test_a_method_that_another_plugin_replaced_is_refused(
    vllm_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_vllm()
    worker = importlib.import_module("vllm.v1.worker.gpu.sample.prompt_logprob")
    monkeypatch.setattr(worker.PromptLogprobsWorker, "remove_request", lambda self, req_id: None)
    monkeypatch.setenv(plugin.ENABLE_VARIABLE, "1")
    with pytest.raises(MismatchError, match=r"'PromptLogprobsWorker\.remove_request' does not"):
        plugin.register()
    forget_vllm()


def test_without_being_switched_on_the_plugin_changes_nothing(
    vllm_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_version(vllm_tree, "0.1.0")  # an installed sparselogits must not refuse this engine
    monkeypatch.delenv(plugin.ENABLE_VARIABLE, raising=False)
    forget_vllm()
    worker = importlib.import_module("vllm.v1.worker.gpu.sample.prompt_logprob")
    before = dict(vars(worker.PromptLogprobsWorker))
    plugin.register()
    assert dict(vars(worker.PromptLogprobsWorker)) == before
    forget_vllm()


def test_registering_twice_wraps_once(toy_vllm: object) -> None:
    worker = importlib.import_module("vllm.v1.worker.gpu.sample.prompt_logprob")
    before = dict(vars(worker.PromptLogprobsWorker))
    plugin.register()
    assert dict(vars(worker.PromptLogprobsWorker)) == before


def test_enabling_reaches_processes_that_the_engine_starts(
    vllm_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plugin.ENABLE_VARIABLE, "0")  # so that the test takes it back
    forget_vllm()
    plugin.enable()
    worker = importlib.import_module("vllm.v1.worker.gpu.sample.prompt_logprob")
    assert hasattr(worker.PromptLogprobsWorker.add_request, "__wrapped__")
    assert plugin.os.environ[plugin.ENABLE_VARIABLE] == "1"
    forget_vllm()


def test_loading_the_plugin_imports_neither_torch_nor_vllm() -> None:
    """It happens in each process of every engine of an environment with sparselogits."""
    script = (
        "import sys; from sparselogits.integrations.vllm import register; register(); "
        "print([name for name in ('torch', 'vllm', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
