#!/usr/bin/env bash
# Makes .venv from the pinned constraints; does nothing when it is up to date.
# Needs only Python 3.11+ (with venv). uv, bootstrapped into the cache, keeps wheels between checkouts.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null; then
  echo "error: $python is not on PATH. Install Python 3.11 or newer, or set PYTHON=/path/to/python3." >&2
  exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: $("$python" --version) is too old: Python 3.11 or newer is needed. Set PYTHON=/path/to/python3.11." >&2
  exit 1
fi

uv_version=0.13.9
cache=${RFT_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rft}
uv_home=$cache/uv-$uv_version
stamp=.venv/.rft-stamp
wanted=$(cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)

# Compiled once here: the local cluster's pods mount .venv and the packages read-only, and would compile torch, or a second's
# worth of our own modules, at every start.
# Where that cannot be done (a folder that root has made, a module that is being edited), what runs compiles for itself.
compile_packages() {
  .venv/bin/python -m compileall -q operator/rft_operator trainer_image/rft_trainer localcluster/rft_local ||
    echo "setup: these modules are not compiled ahead" >&2
}

version_of() { "$1" -c 'import sys; print(*sys.version_info[:2])'; }
is_wanted_python() { [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of .venv/bin/python)" ]; }
is_up_to_date() { [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && is_wanted_python; }

if ! is_up_to_date && command -v flock >/dev/null; then
  exec 9<.  # another setup of this checkout may be at it: it would be built into while it is cleared
  flock 9
fi
if is_up_to_date; then
  compile_packages
  exit 0
fi
if [ ! -x "$uv_home/bin/uv" ]; then
  echo "setup: installing uv $uv_version into $uv_home"
  mkdir -p "$cache"
  "$python" -m venv "$uv_home" || {
    echo "error: '$python -m venv' failed. On Debian or Ubuntu: apt-get install python3-venv." >&2
    exit 1
  }
  "$uv_home/bin/pip" install --quiet "uv==$uv_version"
fi
export UV_SYSTEM_CERTS=1 UV_HTTP_TIMEOUT=300 UV_CACHE_DIR="${UV_CACHE_DIR:-$cache/uv-cache}"
echo "setup: making .venv (the first time downloads about 4 GB: torch and its libraries)"
"$uv_home/bin/uv" venv --quiet --clear --python "$python" .venv
"$uv_home/bin/uv" pip install --quiet --compile-bytecode --python .venv/bin/python --constraints constraints.txt \
  --editable '.[operator,trainer,local,cli,docs,dev]'
compile_packages
echo "$wanted" >"$stamp"
echo "setup: done, $(.venv/bin/python --version) in .venv"
