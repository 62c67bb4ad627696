"""`neuc cache`: what neuc keeps in the user's cache folder."""

from __future__ import annotations

import click

from neuc.compiler import cache
from neuc.compiler.cli import arguments, console
from neuc.compiler.report_text import human_bytes
from neuc.errors import Exit
from neuc.runtime.cache import cache_dir


@click.command("cache")
@click.option("--clear", is_flag=True, help="Remove everything.")
@arguments.json_option
def cache_command(clear: bool, as_json: bool) -> int:
    """Show or clear what neuc keeps in the user's cache folder.

    NEUC_CACHE_DIR moves it; NEUC_CACHE_SIZE is how many bytes of artifacts it keeps.
    """
    usage, limit = cache.usage(), cache.size_limit()
    if clear:
        cache.clear()
    if as_json:
        console.product_json({"folder": str(cache_dir()), "cleared": clear, "artifacts_limit": limit, "kinds": usage})
        return Exit.OK
    console.product(f"{cache_dir()}" + (" (cleared)" if clear else ""))
    rows = [(kind, found["files"], human_bytes(found["bytes"])) for kind, found in usage.items()]
    if rows:
        console.product(arguments.table(("what", "files", "size"), rows, right=(1, 2)))
    console.product(f"at most {human_bytes(limit)} of artifacts are kept, those used last")
    return Exit.OK
