"""The demo's results as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def report(results: Mapping[str, Any]) -> str:
    """The tables that `sparselogits demo` prints, from the dictionary that `run` returns."""
    return "\n".join([*_size_table(results), "", *_student_table(results), "", *_files(results)])


def _size_table(results: Mapping[str, Any]) -> list[str]:
    caches, angles = results["caches"], results["angles"]
    vocab_size = results["teacher"]["vocab_size"]
    multinomial, systematic = caches["multinomial"], caches["systematic"]
    rows = [
        ("full logits, float16", vocab_size, results["full_logits_bytes_per_position"], None),
        ("Top-12, renormalised, 24 bits an id", 12, 36.0, "top_12"),
        (
            f"RS-KD N={multinomial['rounds']}, the paper's layout (24 bits an id)",
            multinomial["ids"],
            multinomial["paper_bytes"],
            "multinomial",
        ),
        (
            f"sparselogits, multinomial N={multinomial['rounds']}",
            multinomial["ids"],
            multinomial["records_bytes"],
            "multinomial",
        ),
        (
            f"sparselogits, systematic N={systematic['rounds']}",
            systematic["ids"],
            systematic["records_bytes"],
            "systematic",
        ),
    ]
    lines = [
        f"{'what is kept of the teacher':<48}{'ids':>10}{'B/position':>12}{'angle':>9}{'norm':>7}"
    ]
    for name, ids, size, key in rows:
        angle, norm = (0.0, 1.0) if key is None else _angle(angles[key])
        lines.append(f"{name:<48}{ids:>10,.1f}{size:>12,.1f}{angle:>8.1f}°{norm:>7.2f}")
    lines.append(
        "angle and norm: the student's backbone gradient against full distillation, on "
        f"{results['angle_positions']:,} fresh positions"
    )
    return lines


def _student_table(results: Mapping[str, Any]) -> list[str]:
    lines = [f"{'student, ' + str(results['steps']) + ' steps':<48}{'held-out loss':>16}{'KL':>9}"]
    names = {"rs_kd": "sparse KD from the cache (systematic)", "cross_entropy": "cross-entropy"}
    for key, name in names.items():
        curve = results["curves"][key]
        loss, kl = curve["held_out_loss"][-1], curve["held_out_kl"][-1]
        lines.append(f"{name:<48}{loss:>16.3f}{kl:>9.3f}")
    teacher_loss = results["teacher"]["held_out_loss"]
    lines.append(f"{'the teacher itself':<48}{teacher_loss:>16.3f}{0:>9.3f}")
    lines.append("held-out loss: nats a token; KL(teacher ‖ student): nats a position")
    return lines


def _files(results: Mapping[str, Any]) -> list[str]:
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in results["seconds"].items())
    return [
        *(f"cache    {cache['path']}" for cache in results["caches"].values()),
        f"picture  {results['picture']}",
        f"time     {seconds}",
    ]


def _angle(entry: Mapping[str, float]) -> tuple[float, float]:
    return entry["degrees"], entry["norm_ratio"]
