"""Runs the command line inside the process of the tests."""

from focalnet.cli import main


def run(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    try:
        main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err
