"""The command line ``sglang-fl``: what is installed, what serves each op and why, and what is wrong.

It never imports SGLang, and torch only where a command has to ask for devices.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from sglang_fl.cli import config, doctor, explain, new_backend, ops, plugins, trace
from sglang_fl.cli.output import show_error
from sglang_fl.errors import SglangFlError


class _Commands(TyperGroup):
    """The commands; an error of ours ends any of them with one message and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SglangFlError as error:
            show_error(error)
            raise typer.Exit(1) from error


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _about() -> None:
    """Serve any SGLang model on any AI chip: what is installed, what serves each op and why, and what is wrong."""


for _command in (
    plugins.plugins,
    ops.ops,
    explain.explain,
    config.config,
    doctor.doctor,
    trace.trace,
    new_backend.new_backend,
):
    app.command()(_command)
