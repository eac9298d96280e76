"""Programs: found at a fitting version, or built once, completely, by one builder at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rft_local import tools
from rft_local.errors import ToolMissing
from rft_local.tools import FAMILIES, binary, cache_directory, ensure, version_of

GO_MOD = "module rft.dev/x\n\ngo 1.26\n\nrequire (\n\tgo.etcd.io/etcd/server/v3 v3.7.3\n)\n"
BUILDS = """#!/bin/sh
echo built >> "$BUILDS"
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\\necho etcd Version: 3.7.3\\n' > "$2/server"
chmod +x "$2/server"
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Machine:
    """A folder of tools with one family, an empty cache, and a PATH with what a test puts there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.path = folder / "path"
        self.path.mkdir()
        self.modules = folder / "tools"
        self.cache = folder / "cache"
        self.log = folder / "builds"
        (self.modules / "etcd").mkdir(parents=True)
        self.pin(GO_MOD)
        monkeypatch.setattr(tools, "TOOLS", self.modules)
        monkeypatch.setenv("RFT_CACHE_DIR", str(self.cache))
        monkeypatch.setenv("PATH", f"{self.path}:/usr/bin:/bin")
        monkeypatch.setenv("BUILDS", str(self.log))
        monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)

    def pin(self, go_mod: str, go_sum: str = "") -> None:
        (self.modules / "etcd" / "go.mod").write_text(go_mod)
        (self.modules / "etcd" / "go.sum").write_text(go_sum)

    def go(self, script: str = BUILDS) -> None:
        program(self.path / "go", script)

    def ensure(self) -> Path:
        return ensure("etcd", say=self.said.append)

    @property
    def builds(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def prints(words: str) -> str:
    return f"#!/bin/sh\necho '{words}'\n"


def test_every_familys_version_is_pinned_in_its_go_mod() -> None:
    for family in FAMILIES.values():
        assert version_of(family).startswith("v"), family


def test_family_without_its_module_is_an_error(machine: Machine) -> None:
    machine.pin("module x\n")
    with pytest.raises(ToolMissing, match=r"tools/etcd/go\.mod does not require go\.etcd\.io/etcd/server/v3"):
        machine.ensure()


def test_program_is_built_once_and_found_again(machine: Machine) -> None:
    machine.go()
    folder = machine.ensure()
    assert folder.parent == machine.cache / "tools"
    assert folder.name.startswith("etcd-v3.7.3-")
    assert os.access(folder / "etcd", os.X_OK)
    assert not (folder / "server").exists()
    assert "building etcd v3.7.3" in machine.said[0]
    machine.said.clear()
    assert machine.ensure() == folder
    assert binary("etcd") == folder / "etcd"
    assert machine.builds == 1
    assert not machine.said


def test_other_pins_are_built_into_another_folder(machine: Machine) -> None:
    machine.go()
    first = machine.ensure()
    machine.pin(GO_MOD, "a line more")
    second = machine.ensure()
    machine.pin(GO_MOD.replace("v3.7.3", "v3.8.0"))
    third = machine.ensure()
    assert len({first, second, third}) == 3
    assert third.name.startswith("etcd-v3.8.0-")
    assert machine.builds == 3


def test_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFT_CACHE_DIR", "/chosen")
    assert cache_directory() == Path("/chosen")
    monkeypatch.delenv("RFT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_directory() == Path("/xdg/rft")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_directory() == Path("/home/me/.cache/rft")


def test_failing_build_shows_the_compilers_last_words_and_leaves_nothing_half_done(machine: Machine) -> None:
    lines = "\n".join(f"echo line {number} >&2" for number in range(40))
    machine.go(f"#!/bin/sh\n{lines}\necho 'cannot find module' >&2\nexit 3\n")
    with pytest.raises(ToolMissing) as caught:
        machine.ensure()
    words = str(caught.value)
    assert "the build of etcd failed" in words
    assert "cannot find module" in words
    assert "line 39" in words
    assert "line 5\n" not in words
    assert [path for path in (machine.cache / "tools").iterdir() if path.is_dir()] == []
    machine.go()
    assert (machine.ensure() / "etcd").exists()


def test_build_that_makes_nothing_is_an_error(machine: Machine) -> None:
    machine.go("#!/bin/sh\nexit 0\n")
    with pytest.raises(ToolMissing, match="did not make etcd"):
        machine.ensure()


def test_missing_compiler_is_named_with_both_remedies(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(machine.path))
    with pytest.raises(ToolMissing, match=r"Install Go.*KUBEBUILDER_ASSETS.*v3\.7\.3"):
        machine.ensure()


def test_build_shows_that_it_goes_on(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "PULSE_SECONDS", 0.01)
    machine.go(BUILDS.replace("#!/bin/sh\n", "#!/bin/sh\nsleep 0.1\n"))
    machine.ensure()
    assert any(line.startswith("building etcd ... ") for line in machine.said)
    assert machine.said[-1].startswith("built etcd in ")


def test_second_builder_waits_for_the_first_and_builds_nothing(machine: Machine, tmp_path: Path) -> None:
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    machine.go(BUILDS + f"touch {started}\nwhile [ ! -e {go_on} ]; do sleep 0.01; done\n")
    code = (
        f"import pathlib; from rft_local import tools; tools.TOOLS = pathlib.Path({str(machine.modules)!r}); "
        "print(tools.ensure('etcd'))"
    )
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        deadline = threading.Event()
        while not started.exists():
            assert first.poll() is None
            deadline.wait(0.01)
        second = threading.Thread(target=machine.ensure)
        second.start()
        second.join(0.2)
        assert second.is_alive()
        go_on.touch()
        second.join(20)
        assert not second.is_alive()
        built, _ = first.communicate(timeout=20)
    finally:
        go_on.touch()
        first.kill()
        first.wait()
    assert Path(built.strip()) == machine.ensure()
    assert machine.builds == 1


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        ("etcd Version: 3.7.3", True),
        ("etcd Version: 3.7.0", True),
        ("v3.7.9", True),
        ("tool-3.7.9", True),
        ("etcd Version: 3.8.1", False),
        ("etcd Version: 3.70.1", False),
        ("etcd Version: 13.7.1", False),
        ("etcd Version: 3.5.21\nGo Version: go1.23.7", False),
        ("etcd Version: 3.5.21\nGo Version: go3.7.1", False),
        ("", False),
    ],
)
def test_assets_of_the_user_are_taken_at_the_minor_version_alone(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, fits: bool
) -> None:
    machine.go()
    assets = tmp_path / "assets"
    program(assets / "etcd", prints(words))
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    assert (machine.ensure() == assets) is fits
    assert machine.builds == (0 if fits else 1)


@pytest.mark.parametrize("broken", ["#!/bin/sh\nexit 1\n", "#!/no/such/shell\n", "\x7fELF of another machine"])
def test_assets_that_do_not_run_are_passed_over(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    machine.go()
    program(tmp_path / "assets" / "etcd", broken)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    assert machine.ensure().parent == machine.cache / "tools"


def test_programs_on_the_path_are_taken_when_they_fit(machine: Machine) -> None:
    program(machine.path / "etcd", prints("etcd Version: 3.7.3"))
    assert machine.ensure() == machine.path


def test_family_is_taken_whole_or_not_at_all(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["kubernetes"]
    shutil.copytree(Path(tools.__file__).parents[1] / "tools" / "kubernetes", machine.modules / "kubernetes")
    for name in family.binaries[:-1]:
        program(tmp_path / "assets" / name, prints(f"Kubernetes {version_of(family)}"))
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("PATH", str(machine.path))
    with pytest.raises(ToolMissing, match="kube-apiserver"):
        ensure("kubernetes", say=machine.said.append)
    program(tmp_path / "assets" / family.binaries[-1], prints(""))
    assert ensure("kubernetes", say=machine.said.append) == tmp_path / "assets"


HELM = """#!/bin/sh
case "$*" in
  "version --template {{.Version}}") echo VERSION;;
  *) echo "Error: unknown flag: $1" >&2; exit 1;;
esac
"""
"""Helm knows no --version."""


@pytest.mark.parametrize(
    ("version", "fits"), [("v4.3.0", True), ("v4.3.9", True), ("v3.19.4", False), ("v4.0.5", False)]
)
def test_helm_on_the_path_is_taken_at_the_minor_version_alone(machine: Machine, version: str, fits: bool) -> None:
    shutil.copytree(Path(tools.__file__).parents[1] / "tools" / "helm", machine.modules / "helm")
    assert version_of(FAMILIES["helm"]).startswith("v4.3."), "the versions of this test are those beside the pinned one"
    machine.go(BUILDS.replace("server", "helm"))
    program(machine.path / "helm", HELM.replace("VERSION", version))
    folder = ensure("helm", say=machine.said.append)
    assert (folder == machine.path) is fits
    assert machine.builds == (0 if fits else 1)


def test_unknown_program_is_named() -> None:
    with pytest.raises(ToolMissing, match="'docker'"):
        binary("docker")


def test_family_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ToolMissing, match=r"'etcdd' is no tool family; known are kubernetes, etcd, "):
        ensure("etcdd")
