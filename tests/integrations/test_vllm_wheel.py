"""Opt-in: the real source of the pinned release has all that the plugin relies on.

Unzip the wheel (`pip download --no-deps vllm==VERSION`, then `unzip`) and set
SPARSELOGITS_VLLM_WHEEL to the folder. Nothing of it is imported or run.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparselogits.integrations.vllm import VLLM_VERSION
from sparselogits.integrations.vllm.assumptions import check_sources

FOLDER = os.environ.get("SPARSELOGITS_VLLM_WHEEL")

pytestmark = pytest.mark.skipif(
    not FOLDER, reason="opt-in: SPARSELOGITS_VLLM_WHEEL names no folder with an unzipped wheel"
)


def test_the_folder_holds_the_pinned_release() -> None:
    assert (Path(FOLDER or "") / f"vllm-{VLLM_VERSION}.dist-info" / "METADATA").is_file()


def test_every_assumption_holds_for_the_real_source() -> None:
    check_sources(Path(FOLDER or ""))
