"""The operator's image holds all that the operator imports, and nothing it must not hold."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from support.helm import ROOT

DOCKERFILE = ROOT / "operator" / "Dockerfile"
IGNORE = ROOT / "operator" / "Dockerfile.dockerignore"
SITE = "import sys; sys.path.insert(0, {folder!r}); sys.modules['torch'] = None; "
"""An import of torch fails, as it does in the image."""


def instructions() -> list[str]:
    """Return the Dockerfile's instructions, continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [each.strip() for each in "\n".join(lines).replace("\\\n", " ").splitlines() if each.strip()]


def copies() -> list[tuple[list[str], str]]:
    """Return (sources, destination) of what is copied out of the checkout."""
    found = [each.split()[1:] for each in instructions() if each.startswith("COPY ") and "--from" not in each]
    return [(parts[:-1], parts[-1]) for parts in found]


def image_packages(folder: Path) -> Path:
    """Lay out the packages as the Dockerfile does, without what the .dockerignore keeps away."""
    rules = IGNORE.read_text(encoding="utf-8").splitlines()
    away = [ROOT / rule for rule in rules if not rule.startswith(("!", "*"))]
    for sources, destination in copies():
        for source in sources:
            assert f"!{source}" in rules, f"{source} is not in the build context"
            target = folder / destination
            if (ROOT / source).is_dir():
                shutil.copytree(
                    ROOT / source, target, ignore=lambda at, names: [n for n in names if Path(at, n) in away]
                )
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, target)
    return folder


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", SITE.format(folder=str(folder)) + code]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=folder)


def test_image_holds_every_module_that_the_operator_imports(tmp_path: Path) -> None:
    folder = image_packages(tmp_path)
    code = "import rft_operator.__main__, rft_operator.handlers, rft_trainer as trainer\n"
    code += "print(rft_operator.__file__, trainer.__file__)"
    done = run(folder, code)
    assert done.returncode == 0, done.stderr
    assert [Path(path).is_relative_to(folder) for path in done.stdout.split()] == [True, True]


def test_image_lacks_the_trainer_itself(tmp_path: Path) -> None:
    done = run(image_packages(tmp_path), "import rft_trainer.launch")
    assert "ModuleNotFoundError" in done.stderr


def test_last_stage_runs_unprivileged_and_installs_nothing() -> None:
    lines = instructions()
    starts = [index for index, line in enumerate(lines) if line.startswith("FROM ")]
    assert [lines[index].split()[1] for index in starts] == ["${BASE}", "${BASE}"]
    last = lines[starts[-1] :]
    assert "USER 65532:65532" in last
    assert last[-1] == 'ENTRYPOINT ["python", "-m", "rft_operator"]'
    assert [line for line in last if line.startswith("RUN ")] == [
        'RUN ["python", "-c", "import rft_operator.__main__, rft_operator.handlers"]'
    ]


def test_versions_come_from_the_constraints_and_only_from_wheels() -> None:
    install = next(line for line in instructions() if "pip install" in line)
    assert "--constraint constraints.txt" in install
    assert "--only-binary :all:" in install
    assert "['optional-dependencies']['operator']" in install
