"""``medapp``: the window, or a command when one is given, or a worker of the window."""

from __future__ import annotations

import sys


def main() -> int:
    """Start what the command line asks for; returns the exit status."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--worker"]:
        from medapp.jobs.worker import serve

        return serve(arguments[1], arguments[2])  # type: ignore[arg-type]
    from medapp.cli.main import main as run_command

    return run_command(arguments)


if __name__ == "__main__":
    sys.exit(main())
