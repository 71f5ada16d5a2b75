"""The examples of docs/dataset.md run, one after another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_cache import write_cache

PAGE = Path(__file__).parents[2] / "docs" / "dataset.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
    "ignore:.set_vital. is deprecated:UserWarning",  # torchdata 0.11's
)
def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cache(tmp_path / "cache", [20 + i % 30 for i in range(60)], metadata={"domain": "code"})
    write_cache(tmp_path / "other", [30] * 20, metadata={"domain": "web"})
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(block, names)
    assert len(BLOCKS) == 8
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if line.startswith("torch.Size([8, ")]) == 2 * 7 + 2
    assert [len(names["chosen"].caches), len(names["named"])] == [1, 2]  # type: ignore[attr-defined,arg-type]
