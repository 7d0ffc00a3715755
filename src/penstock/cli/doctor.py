"""`penstock doctor`"""

import typer

from penstock.cli.checks import Check, Level, run_checks
from penstock.cli.output import FAILED, Json, exit_codes, print_json
from penstock.cli.process import DataDir, given
from penstock.settings import load_settings

COLOURS = {Level.OK: typer.colors.GREEN, Level.WARN: typer.colors.YELLOW, Level.FAIL: typer.colors.RED}


def doctor(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Check this machine, the settings, the weights and the stores, and say what to do.

    Exit status 1 when something fails that keeps the server from working.
    """
    with exit_codes(as_json=as_json):
        checks = []
        for check in run_checks(load_settings(given({"data_dir": data_dir}))):
            checks.append(check)
            if not as_json:
                _print(check)
        if as_json:
            print_json({"ok": _sound(checks), "checks": checks})
    if not _sound(checks):
        raise typer.Exit(FAILED)


def _print(check: Check) -> None:
    typer.echo(f"{typer.style(f'{check.level:4}', fg=COLOURS[check.level])}  {check.name:14}  {check.found}")
    if check.advice:
        typer.echo(f"{'':22}{check.advice}")


def _sound(checks: list[Check]) -> bool:
    return all(check.level is not Level.FAIL for check in checks)
