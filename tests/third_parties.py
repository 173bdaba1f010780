"""Distributions of third parties, for tests of what is installed: real entry points, found as any other's."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from sglang_fl.hookspecs import PROJECT


def third_party(
    tmp_path: Path,
    name: str,
    source: str,
    version: str = "1.0",
    *,
    entry_points: Mapping[str, str] | None = None,
) -> Path:
    """Makes an installed distribution ``name`` with one module of ``source``, and returns the folder that holds it.

    Its entry point in the group ``sglang_fl`` has the distribution's name with ``_`` for ``-``, and so has the
    module. Put the folder on a subprocess's ``PYTHONPATH``; several distributions may share one ``tmp_path``::

        folder = third_party(tmp_path, "acme-chip", '''
            from sglang_fl import hookimpl

            @hookimpl
            def sglang_fl_register_platforms():
                return [...]
        ''')
        subprocess.run([...], env={**os.environ, "PYTHONPATH": str(folder)})

    Args:
        tmp_path: where to make it; the distribution lies in its folder ``site``.
        name: the distribution's name.
        source: the module's source; its common indentation is taken away.
        version: the distribution's version.
        entry_points: entry point name -> ``"module"``, in place of the one named above.
    """
    site, module = tmp_path / "site", name.replace("-", "_")
    info = site / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    (site / f"{module}.py").write_text(textwrap.dedent(source))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{key} = {value}" for key, value in (entry_points or {module: module}).items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{PROJECT}]", *lines, ""]))
    return site
