"""The `sparselogits` command: one verb a module, one exit code a kind of failure.

Exit codes: 0 ok, 1 bad data, 2 usage, 3 input/output, 70 a fault of the program itself, 130
interrupted.
"""

from __future__ import annotations

import argparse
import io
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from sparselogits.cli import (
    capture,
    demo,
    dump,
    inspect,
    merge,
    plot,
    recover,
    repack,
    stats,
    tokenize,
    train_model,
    verify,
)
from sparselogits.cli.failures import INTERRUPTED, OK, USAGE, exit_code, report_failure
from sparselogits.cli.output import discard_stdout, print_json, print_report
from sparselogits.errors import InvalidArgumentError

_VERBS = (
    tokenize,
    capture,
    inspect,
    dump,
    stats,
    verify,
    recover,
    merge,
    repack,
    train_model,
    plot,
    demo,
)


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print and exit, so that `--json` covers usage errors too."""

    def error(self, message: str) -> NoReturn:
        raise InvalidArgumentError(f"{message} (try `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The arguments after the program's name; default: those of the process.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    debug = "--debug" in arguments
    if isinstance(sys.stdout, io.TextIOWrapper):  # decoded text may not fit a plain terminal
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        args = _parser().parse_args(arguments)
        report = args.run(args)
        if as_json:
            print_json(report)
        else:
            args.show(report)
        sys.stdout.flush()
        return int(args.status(report))
    except SystemExit as done:  # --help and --version
        return OK if done.code is None else USAGE if isinstance(done.code, str) else done.code
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        discard_stdout()
        return OK
    except KeyboardInterrupt:
        print("sparselogits: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        report_failure(error, as_json=as_json)
        return exit_code(error)


def _parser() -> argparse.ArgumentParser:
    shared = _Parser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(
        prog="sparselogits",
        description="Compact, unbiased, crash-safe caches of teacher logits.",
        epilog="exit codes: 0 ok, 1 bad data, 2 usage, 3 input/output",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, dest="verb")
    for verb in _VERBS:
        text = (verb.__doc__ or "").split("\n")[0]
        name = verb.__name__.rsplit(".", 1)[-1].replace("_", "-")
        added = verbs.add_parser(
            name, parents=[shared], help=text, description=text, allow_abbrev=False
        )
        verb.add_arguments(added)
        added.set_defaults(
            run=verb.run,
            show=getattr(verb, "show", print_report),
            status=getattr(verb, "status", lambda _report: OK),
        )
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sparselogits")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
