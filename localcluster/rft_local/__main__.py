"""``python -m rft_local``: the same as ``rft local``."""

from __future__ import annotations

from rft_local.cli import local

if __name__ == "__main__":
    local(prog_name="rft local")
