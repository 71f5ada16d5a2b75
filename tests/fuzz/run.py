"""Fuzzes every target for a given time and keeps what found new code.

    run.py --seconds N [--json FILE] [TARGET ...]

Builds the targets with clang (libFuzzer, ASan, UBSan) in build/fuzz, starts each from its corpus
and its regressions, and replaces the corpus by the fewest inputs that reach all that was reached.
Ends with a table. An input that crashes a target stays in build/fuzz/crashes, and the status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from fuzz_targets import CXX_TARGETS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "fuzz"
CRASHES = BUILD / "crashes"
TARGETS = (*CXX_TARGETS, "fuzz_manifest")
MAX_LENGTH = 1 << 13
LIMITS = [
    f"-max_len={MAX_LENGTH}",
    "-timeout=10",
    "-rss_limit_mb=2048",
    "-malloc_limit_mb=512",
    "-print_final_stats=1",
]


@dataclass(frozen=True)
class Outcome:
    """What the fuzzing of one target came to; `edges` are libFuzzer's `cov`."""

    target: str
    seconds: int
    executions: int
    edges: int
    corpus_files: int
    corpus_bytes: int
    crashes: int


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzzes every target; ends with a table.")
    parser.add_argument("--seconds", type=int, required=True, help="of fuzzing, a target")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table here too")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown or options.seconds < 1:
        parser.error(f"unknown targets {sorted(unknown)}" if unknown else "--seconds is below 1")
    targets = options.targets or TARGETS
    build([target for target in targets if target in CXX_TARGETS])
    outcomes = [fuzz(target, options.seconds) for target in targets]
    print_table(outcomes)
    if options.json is not None:
        rows = [asdict(outcome) for outcome in outcomes]
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 1 if any(outcome.crashes for outcome in outcomes) else 0


def build(targets: list[str]) -> None:
    CRASHES.mkdir(parents=True, exist_ok=True)
    if not targets:
        return
    if not (BUILD / "build.ninja").exists():
        command = ["cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", "-DCMAKE_CXX_COMPILER=clang++"]
        subprocess.run([*command, "-DSPARSELOGITS_BUILD_FUZZERS=ON"], check=True)
    subprocess.run(["cmake", "--build", BUILD, "--target", *targets], check=True)


def program(target: str) -> str:
    # One word, because libFuzzer starts itself again to merge: hence the manifest's "#!".
    return str(
        BUILD / "tests" / "fuzz" / target if target in CXX_TARGETS else HERE / f"{target}.py"
    )


def environment() -> dict[str, str]:
    """This one, in which `python3` is the interpreter that runs this."""
    paths = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
    return os.environ | {"PATH": os.pathsep.join(paths)}


def fuzz(target: str, seconds: int) -> Outcome:
    corpus, regressions = HERE / "corpus" / target, HERE / "regressions" / target
    work = BUILD / "work" / target
    corpus.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    seeds = [str(path) for path in (corpus, regressions) if path.is_dir()]
    done = subprocess.run(
        [
            program(target),
            *LIMITS,
            f"-max_total_time={seconds}",
            f"-artifact_prefix={CRASHES}/{target}-",
            str(work),
            *seeds,
        ],
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment(),
        preexec_fn=lambda: os.nice(10),
    )
    (BUILD / f"{target}.log").write_text(done.stderr, encoding="utf-8")
    print(done.stderr[-2000:] if done.returncode else f"{target}: done", file=sys.stderr)
    keep_fewest(target, work, corpus)
    kept = [path for path in corpus.iterdir() if path.is_file()]
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    edges = re.findall(r"\bcov: (\d+)", done.stderr)
    return Outcome(
        target=target,
        seconds=seconds,
        executions=int(executed[1]) if executed else 0,
        edges=int(edges[-1]) if edges else 0,
        corpus_files=len(kept),
        corpus_bytes=sum(path.stat().st_size for path in kept),
        crashes=len(list(CRASHES.glob(f"{target}-*"))),
    )


def keep_fewest(target: str, work: Path, corpus: Path) -> None:
    """The fewest inputs that reach every edge that the corpus and the work together reach."""
    fewest = BUILD / "fewest" / target
    shutil.rmtree(fewest, ignore_errors=True)
    fewest.mkdir(parents=True)
    merge = [program(target), "-set_cover_merge=1", f"-max_len={MAX_LENGTH}", str(fewest)]
    merge += [str(corpus), str(work)]
    done = subprocess.run(merge, capture_output=True, text=True, env=environment())
    if done.returncode:
        raise SystemExit(f"{target}: merging failed: {done.stderr[-2000:]}")
    shutil.rmtree(corpus)
    shutil.copytree(fewest, corpus)


def print_table(outcomes: list[Outcome]) -> None:
    names = [field.name.replace("_", " ") for field in fields(Outcome)]
    print(f"| {' | '.join(names)} |")
    print(f"|---|{'---:|' * (len(names) - 1)}")
    for target, *numbers in map(astuple, outcomes):
        print(f"| {target} | {' | '.join(f'{number:,}' for number in numbers)} |")


if __name__ == "__main__":
    sys.exit(main())
