"""Finding the command, and what happens around it: errors to text and exit codes, crashes to reports.

Commands live in their own files and are imported when they are named; no command's logic lives here.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

import click

from neuc import __version__
from neuc.compiler import interruption
from neuc.compiler.cli import console
from neuc.errors import Error, Exit

# Command -> (module in this package, one-line help). The help stands here so that `neuc --help` imports no command.
COMMANDS: dict[str, tuple[str, str]] = {
    "bench": ("bench_command", "Measure a model's speed, alone or against onnxruntime."),
    "cache": ("cache_command", "Show or clear what neuc keeps in the user's cache folder."),
    "check": ("check_command", "List every operator of a model that a target cannot run."),
    "compile": ("compile_command", "Compile a model for a target."),
    "convert": ("convert_command", "Write a model in another form: other weights, int8, spikes, NIR."),
    "device": ("device_command", "Memory devices: list models, fit one, export what crossbar tiles hold."),
    "doctor": ("doctor_command", "Say what this machine can do and whether neuc works on it."),
    "explain": ("explain_command", "Explain an error code."),
    "generate": ("generate_command", "Generate tokens with a language model."),
    "inspect": ("inspect_command", "Show what is inside a model, an artifact or an IR file."),
    "npu": (
        "npu_command",
        "NPU arrays: what a model puts there; predictions beside measurements.",
    ),
    "opt": ("opt_command", "Run passes on IR text."),
    "passes": ("list_commands", "List passes and their options."),
    "run": ("run_command", "Run a model or an artifact."),
    "targets": ("list_commands", "List targets and their options."),
    "verify": ("verify_command", "Check an artifact's hashes, or its results against onnxruntime."),
}


_QUIET = "Errors only on stderr."
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OUT_OF_REACH = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EIO)
"""What already looking whether a path is there can end with."""


class Commands(click.Group):
    """A command group that imports a command's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"neuc.compiler.cli.{COMMANDS[cmd_name][0]}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        _accept_quiet(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise Error(
                "NEUC-E001",
                f"unknown command {args[0]!r}",
                hint=_nearest_command(args[0]),
                exit_code=Exit.USAGE,
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


def _accept_quiet(command: click.Command) -> None:
    """Let ``-q`` also stand behind a command (and the commands of a group), where many look for it."""
    if isinstance(command, click.Group):
        for part in command.commands.values():
            _accept_quiet(part)
    elif all("-q" not in option.opts for option in command.params):
        command.params.append(
            click.Option(["-q", "--quiet"], is_flag=True, help=_QUIET, callback=_be_quiet, expose_value=False)
        )


def _be_quiet(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        console.quiet(True)
        console.set_up_logging(True)


def _nearest_command(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else "`neuc --help` lists the commands"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="neuc")
@click.option("-q", "--quiet", is_flag=True, help=_QUIET)
def neuc(quiet: bool) -> None:
    """Compile neural networks to machines that avoid multiply-heavy, fetch-everything computing."""
    console.quiet(quiet)
    console.set_up_logging(quiet)


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code and lets no exception out."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    with interruption.watched():
        status = _run(arguments)
    # Not when the command came to an end otherwise: what it says then is true all the same.
    return _interrupted() if status == Exit.OK and interruption.was_interrupted() else status


def _run(arguments: list[str]) -> int:
    try:
        result = neuc.main(args=arguments, prog_name="neuc", standalone_mode=False)
        console.flush()
        return int(result) if isinstance(result, int) else Exit.OK
    except Error as error:
        return _interrupted() if _was_interrupted(error) else _fail(error, arguments)
    except click.UsageError as error:
        return _fail(_usage_error(error, arguments), arguments)
    except click.ClickException as error:
        return _fail(Error("NEUC-E002", error.format_message(), exit_code=Exit.USAGE), arguments)
    except (KeyboardInterrupt, click.Abort):
        return _interrupted()
    except (BrokenPipeError, SystemExit):
        # The reader of our stdout has gone and wants no more (click makes a SystemExit of it, and of nothing else).
        console.drop_stdout()
        return Exit.OK
    except MemoryError:
        return _fail(Error("NEUC-E409", "out of memory", hint="a smaller model or batch needs less"), arguments)
    except Exception as error:
        if _was_interrupted(error):
            return _interrupted()
        if isinstance(error, OSError) and error.errno in _FULL:  # among others click's help, written to a full disk
            console.drop_stdout()
            where = error.filename or "output"
            return _fail(Error("NEUC-E005", f"cannot write {where}: {error.strerror}", hint="make room"), arguments)
        if isinstance(error, OSError) and error.errno in _OUT_OF_REACH and error.filename:
            what = f"cannot reach {os.fsdecode(error.filename)}: {error.strerror}"
            return _fail(Error("NEUC-E004", what, hint="check the path and its permissions"), arguments)
        from neuc.compiler.cli.crash import save_report

        console.say(f"error: a bug in neuc: {type(error).__name__}: {error}".splitlines()[0])
        console.say(f"report: {save_report(error, arguments)}")
        console.say("hint: please send the report; it holds the traceback, versions and a reproducer")
        return Exit.BUG


def _interrupted() -> int:
    console.say("interrupted")
    return Exit.INTERRUPTED


def leave(status: int) -> NoReturn:
    """End this process, without taking it apart object by object, which takes longer than some commands.

    Ctrl-C within an extension module's start-up leaves a mark by which Python, whatever it is told to return, kills
    itself with SIGINT in the end; this way it does not.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _was_interrupted(error: BaseException) -> bool:
    """Whether `error` came of Ctrl-C: extension modules that are just being imported make an ImportError of it."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if isinstance(cause, KeyboardInterrupt):
            return True
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return False


def _fail(error: Error, arguments: Sequence[str]) -> int:
    if "--json" in arguments:
        console.product_json({"error": error.to_json()})
    console.show_error(error)
    return error.exit_code


def _command_path(arguments: Sequence[str]) -> str:
    """The command a line asks for, ``neuc npu show``; of an option without its value click does not say."""
    command: click.Command = neuc
    path = ["neuc"]
    for word in arguments:
        found = command.get_command(click.Context(command), word) if isinstance(command, click.Group) else None
        if found is not None:
            command = found
            path.append(word)
    return " ".join(path)


def _usage_error(error: click.UsageError, arguments: Sequence[str]) -> Error:
    command = error.ctx.command_path if error.ctx is not None else _command_path(arguments)
    message = error.format_message()
    hint = f"`{command} --help` lists arguments and options"
    if isinstance(error, click.NoSuchOption):
        message = f"unknown option {error.option_name!r}"
        if error.possibilities:
            hint = f"did you mean {' or '.join(sorted(error.possibilities))}?"
    return Error("NEUC-E002", message, hint=hint, exit_code=Exit.USAGE)
