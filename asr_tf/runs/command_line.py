"""What the commands share: help that shows a command's own flags, and errors on one line.

Contract: a command's flags live in a registry of its own, so that `--help` shows those and no other and several
commands can be imported in one process; whatever is wrong with the input ends in `command: error: ...` on
stderr and a non-zero status, without a traceback (`--debug` shows it).  Imports nothing heavy.
"""

from __future__ import annotations

import difflib
import importlib
import math
import os
import pathlib
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from asr_tf import fast
from asr_tf.fast import compile_cache
from asr_tf.runs import configuration

__all__ = ["check_folder", "define_debug", "error_line", "launch", "require"]

_HELP = ("--help", "-help", "-h", "--h", "-?", "--helpshort")
_FULL_HELP = ("--helpfull", "-helpfull")
_INTERRUPTED_STATUS = 130
_ERROR_STATUS = 1
_USAGE_STATUS = 2


def define_debug(own: flags.FlagValues) -> None:
    """Adds the flag `--debug` to a command's flags."""
    flags.DEFINE_boolean("debug", False, "Show the traceback of an error.", flag_values=own)


def require(own: flags.FlagValues, name: str, meaning: str) -> None:
    """Raises flags.Error where a flag has no value.

    Args:
        own: the command's flags, parsed.
        name: of the flag.
        meaning: what it is, for the message.
    """
    if own[name].value in (None, "", []):
        raise flags.IllegalFlagValueError(f"--{name} is needed: {meaning}.")


def check_folder(own: flags.FlagValues, name: str) -> None:
    """Raises flags.Error where a flag names a folder that can't be made, because something else has its name.

    Args:
        own: the command's flags, parsed.
        name: of the flag, which may have no value.
    """
    value = own[name].value
    path = pathlib.Path(value or ".").expanduser()
    for place in (path, *path.parents):
        if place.is_dir():
            return
        if os.path.lexists(place):
            raise flags.IllegalFlagValueError(
                f"--{name}: {str(path)!r} can't be a folder, because {str(place)!r} is no folder; give another one."
            )


def _check_finite(own: flags.FlagValues) -> None:
    """Raises flags.Error where a number isn't finite: a comparison with a bound doesn't find NaN."""
    for name in own:
        value = own[name].value
        if isinstance(value, float) and not math.isfinite(value):
            raise flags.IllegalFlagValueError(f"--{name} must be finite, got {value}")


def launch(
    command: str,
    doc: str,
    own: flags.FlagValues,
    main: Callable[[], None],
    check: Callable[[], None],
    positional: str | None = None,
    tuned: bool = True,
) -> None:
    """Parses the command line, runs `main`, exits the process.

    Args:
        command: name of the command, for messages.
        doc: what `--help` shows above the flags.
        own: the command's flags.
        main: does the work; reads the flags from `own`.
        check: raises flags.Error or ValueError for flags that can't be right, before anything heavy is imported.
        positional: the flag that an argument without a flag's name is for, if there may be one.
        tuned: whether freed memory is kept from the start (`fast.tune_process`); else `main` may ask for it.
    """
    if any(argument in _HELP + _FULL_HELP for argument in sys.argv[1:]):
        print(_help(doc, own))
        if any(argument in _FULL_HELP for argument in sys.argv[1:]):
            print(flags.FLAGS.get_help())
        sys.exit(0)

    quiet = True

    def parse(argv: list[str]) -> list[str]:
        try:
            for values in (own, flags.FLAGS):  # flags may come behind arguments
                values.set_gnu_getopt(True)
            rest = own(argv, known_only=True)
            _parse_rest(rest, own, positional)
            # absl turns its own default up to INFO after parsing; TFDS and TensorFlow talk a lot there.
            nonlocal quiet
            quiet = flags.FLAGS["verbosity"].using_default_value
            check()
            _check_finite(own)
        except (flags.Error, ValueError, OSError, RuntimeError) as error:
            print(f"{error_line(command, error)} (--help shows the flags)", file=sys.stderr)
            sys.exit(_USAGE_STATUS)
        return argv[:1]

    def guarded(_: Sequence[str]) -> None:
        try:
            with compile_cache.kept_programs():
                if tuned:
                    fast.tune_process()
                os.environ["KERAS_BACKEND"] = "tensorflow"  # of this process, whatever its user has set for others
                _import_tensorflow()
                if quiet:
                    logging.set_verbosity(logging.ERROR)
                main()
        except KeyboardInterrupt as interruption:
            print(f"\n{command}: interrupted {interruption}".rstrip() + ".", file=sys.stderr)
            sys.exit(_INTERRUPTED_STATUS)
        except Exception as error:  # the last edge of the program
            if own["debug"].value:
                traceback.print_exc()
            print(error_line(command, error), file=sys.stderr)
            sys.exit(_ERROR_STATUS)

    app.run(guarded, flags_parser=parse)


def _import_tensorflow() -> None:
    """Imports TensorFlow without what its C++ side reports about devices; the user's own log level wins.

    Some of those reports ignore the log level (tensorflow issue 100442), so the import itself writes to a file, which
    is shown where the import fails.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as silenced:
        os.dup2(silenced.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        except BaseException:
            silenced.seek(0)
            os.write(kept, silenced.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def error_line(command: str, error: BaseException) -> str:
    """`command: error: message`, one line; names the exception's type where it isn't one of bad input."""
    message = configuration.one_line(error)
    if not isinstance(error, (ValueError, TypeError, OSError, flags.Error)):
        message = f"{type(error).__name__}: {message} (--debug shows where)"
    return f"{command}: error: {message}"


def _help(doc: str, own: flags.FlagValues) -> str:
    """The command's description and its own flags, one paragraph a flag."""
    paragraphs = [doc.strip(), "Flags:"]
    for name in sorted(own):
        flag = own[name]
        shown = f"--[no]{name}" if flag.boolean else f"--{name}"
        default = "none" if flag.default in (None, []) else str(flag.default_as_str).strip("'")
        again = " May be given several times." if isinstance(flag, flags.MultiFlag) else ""
        body = f"{flag.help.partition(';' + chr(10))[0]}{again} (default: {default})"
        indented = textwrap.fill(body, 96, initial_indent="    ", subsequent_indent="    ")
        paragraphs.append(f"  {shown}\n{indented}")
    return "\n\n".join(paragraphs[:2]) + "\n" + "\n".join(paragraphs[2:])


def _parse_rest(rest: list[str], own: flags.FlagValues, positional: str | None) -> None:
    """Hands what the command doesn't know to absl's own flags (`--verbosity` and the like)."""
    try:
        arguments = flags.FLAGS(rest)[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, list(own), n=1)
        hint = f"; did you mean --{near[0]}?" if near else ""
        raise flags.IllegalFlagValueError(f"unknown flag --{error.flagname}{hint}") from None
    if arguments and positional and own[positional].using_default_value:
        own[positional].parse(arguments.pop(0))
    if arguments:
        raise flags.IllegalFlagValueError(f"unexpected argument {arguments[0]!r}")
