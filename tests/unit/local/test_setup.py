"""hack/setup.sh, with a uv that only writes down what it is asked for: started anew, twice at once, in odd folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("operator/rft_operator", "trainer_image/rft_trainer", "localcluster/rft_local")
UV = """#!/bin/bash
echo "$1 begins" >>"$LOG"
sleep 0.2
case "$1" in
  venv) rm -rf .venv; mkdir -p .venv/bin; ln -s 'PYTHON' .venv/bin/python;;
  pip) [ ! -e "$FAIL" ] || exit 1; [ -x .venv/bin/python ] || exit 1;;
esac
echo "$1 ends" >>"$LOG"
"""
WHOLE = ["venv begins", "venv ends", "pip begins", "pip ends"]


class Checkout:
    """A clone in a folder with a space."""

    def __init__(self, folder: Path) -> None:
        self.root, self.log, self.fail = folder / "a clone", folder / "log", folder / "fail"
        version = (ROOT / "hack" / "setup.sh").read_text().partition("uv_version=")[2].split()[0]
        uv = folder / "a cache" / f"uv-{version}" / "bin" / "uv"
        uv.parent.mkdir(parents=True)
        uv.write_text(UV.replace("PYTHON", sys.executable))
        uv.chmod(0o755)
        for name in PACKAGES:
            (self.root / name).mkdir(parents=True)
        for name in ("hack/setup.sh", "pyproject.toml", "constraints.txt"):
            (self.root / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self.environment = {
            **os.environ,
            "PYTHON": sys.executable,
            "RFT_CACHE_DIR": str(folder / "a cache"),
            "LOG": str(self.log),
            "FAIL": str(self.fail),
        }

    def start(self) -> subprocess.Popen[str]:
        argv = ["bash", str(self.root / "hack" / "setup.sh")]
        return subprocess.Popen(argv, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def setup(self) -> tuple[int, str]:
        with self.start() as process:
            _, words = process.communicate(timeout=60)
        return process.returncode, words

    @property
    def done(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_environment_is_made_once(checkout: Checkout) -> None:
    assert checkout.setup() == (0, "")
    assert checkout.setup() == (0, "")
    assert checkout.done == WHOLE


def test_setup_that_broke_off_is_begun_anew(checkout: Checkout) -> None:
    checkout.fail.touch()
    assert checkout.setup()[0] != 0
    checkout.fail.unlink()
    checkout.log.unlink()
    assert checkout.setup() == (0, "")
    assert checkout.done == WHOLE


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed")
def test_second_of_two_setups_waits_for_the_first_and_has_nothing_to_do(checkout: Checkout) -> None:
    both = [checkout.start(), checkout.start()]
    assert [process.communicate(timeout=60)[1] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]
    assert checkout.done == WHOLE


def test_module_that_cannot_be_compiled_ahead_stops_nothing(checkout: Checkout) -> None:
    (checkout.root / PACKAGES[0] / "edited.py").write_text("def half(:\n")
    code, words = checkout.setup()
    assert code == 0
    assert "these modules are not compiled ahead" in words


def test_environment_is_made_anew_when_another_python_is_asked_for(checkout: Checkout, tmp_path: Path) -> None:
    assert checkout.setup() == (0, "")
    other = tmp_path / "python3.99"
    other.write_text("""#!/bin/sh\ncase "$2" in *print*) echo 3 99;; esac\n""")
    other.chmod(0o755)
    checkout.environment["PYTHON"] = str(other)
    assert checkout.setup() == (0, "")
    assert checkout.done == WHOLE * 2
    del checkout.environment["PYTHON"]
    assert checkout.setup() == (0, "")
    assert checkout.done == WHOLE * 2
