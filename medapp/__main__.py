"""``medapp``: the window, or a command when one is given, or a worker of the window."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from pathlib import Path


def main() -> int:
    """Start what the command line asks for; returns the exit status."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait starve window and workers
    arguments = sys.argv[1:]
    if arguments[:1] == ["--worker"]:
        from medapp.jobs.worker import serve

        return serve(arguments[1], arguments[2])  # type: ignore[arg-type]
    from medapp.cli import main as cli  # light: loads a command only when it is chosen

    if arguments[:1] and arguments[0] in cli.COMMANDS:
        return cli.main(arguments)
    try:
        chosen = _parser(cli.COMMANDS).parse_args(arguments)
    except SystemExit as stop:
        return cli.EXIT_DONE if stop.code == 0 else cli.EXIT_USAGE
    missing = next((path for path in chosen.paths if not Path(path).exists()), None)
    if missing is not None:
        return _say_missing(missing, cli.COMMANDS, cli.EXIT_USAGE)
    if sys.platform == "linux" and not any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    ):
        sys.stderr.write("There is no display to show the window on.\nWithout one: medapp demo --out DIR\n")
        return cli.EXIT_USAGE
    from medapp.ui.app import run_window

    return run_window(chosen.paths, chosen.project, chosen.sample, chosen.grab)


def _say_missing(name: str, commands: dict[str, str], status: int) -> int:
    """What was neither a command nor anything that could be opened."""
    alike = difflib.get_close_matches(name, commands, 1)
    hint = f"Did you mean: medapp {alike[0]}" if alike else "See what there is: medapp --help"
    sys.stderr.write(f"There is no file, folder or command '{name[:80]}'.\n{hint}\n")
    return status


def _parser(commands: dict[str, str]) -> argparse.ArgumentParser:
    from medapp import __version__

    parser = argparse.ArgumentParser(
        prog="medapp",
        description="Restore, segment, matte and curate medical images. Without a command the window opens.",
        epilog="commands (medapp COMMAND --help):\n"
        + "\n".join(f"  {name:10} {text}" for name, text in commands.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"medapp {__version__}")
    parser.add_argument("paths", nargs="*", help="images, folders or ZIP files to open")
    parser.add_argument("--project", type=Path, help="open or make this project (a folder NAME.medapp)")
    parser.add_argument("--sample", action="store_true", help="open the built-in sample")
    parser.add_argument(
        "--grab", type=Path, help="write a picture of the window to this PNG once it is settled, then end"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
