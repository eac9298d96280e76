"""Where the programs come from: found at a fitting version, or built once from pinned Go modules and cached.

Invariant: a cached folder is complete (it appears by one rename) and belongs to exactly one go.mod and go.sum; two
builders at once wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rft_local.errors import ToolMissing
from rft_local.host import OTHERWISE

TOOLS = Path(__file__).resolve().parent.parent / "tools"
PULSE_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Programs that are built from one go.mod."""

    name: str
    binaries: tuple[str, ...]
    module: str
    """The module whose version is the family's."""
    built_as: tuple[tuple[str, str], ...] = ()
    """(package's last part, wanted name) where they differ."""
    version_packages: tuple[str, ...] = ()
    """Go packages whose version variables the linker sets; without that a program calls itself a development build."""
    version_arguments: tuple[str, ...] = ("--version",)
    """How the first program is asked for its version."""


FAMILIES = {
    family.name: family
    for family in (
        Family(
            name="kubernetes",
            binaries=(
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
                "kubectl",
            ),
            module="k8s.io/kubernetes",
            version_packages=("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"),
        ),
        Family(name="etcd", binaries=("etcd",), module="go.etcd.io/etcd/server/v3", built_as=(("server", "etcd"),)),
        Family(name="coredns", binaries=("coredns",), module="github.com/coredns/coredns"),
        Family(
            name="helm",
            binaries=("helm",),
            module="helm.sh/helm/v4",
            version_arguments=("version", "--template", "{{.Version}}"),
        ),
        Family(
            name="kubeconform",
            binaries=("kubeconform",),
            module="github.com/yannh/kubeconform",
            version_arguments=("-v",),
        ),
        Family(
            name="helm-unittest",
            binaries=("helm-unittest",),
            module="github.com/helm-unittest/helm-unittest",
            version_arguments=("--version",),
        ),
        Family(
            name="kube-score",
            binaries=("kube-score",),
            module="github.com/zegl/kube-score",
            version_arguments=("version",),
        ),
    )
}


def cache_directory() -> Path:
    """Return the user's cache of this project: RFT_CACHE_DIR, else below XDG_CACHE_HOME or ~/.cache.

    It is absolute: programs are built and started in other folders.
    """
    chosen = os.environ.get("RFT_CACHE_DIR")
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).absolute() if base else Path.home() / ".cache") / "rft"


def require_checkout(family_name: str = "kubernetes") -> None:
    """Raise ToolMissing where the Go modules of the programs are not beside this package: they are not installed."""
    if not (TOOLS / family_name / "go.mod").is_file():
        msg = (
            f"the local cluster needs a checkout of the repository: the Go modules of its programs are part of it, and "
            f"not of the installed package ({TOOLS / family_name} is missing). Clone the repository, run `make setup` "
            f"in it, and use its .venv/bin/rft. {OTHERWISE}"
        )
        raise ToolMissing(msg)


def version_of(family: Family) -> str:
    """Return the pinned version, for example ``v1.36.3``."""
    text = (TOOLS / family.name / "go.mod").read_text(encoding="utf-8")
    match = re.search(rf"^\s*(?:require )?{re.escape(family.module)} (v\S+)", text, re.MULTILINE)
    if match is None:
        msg = f"localcluster/tools/{family.name}/go.mod does not require {family.module}"
        raise ToolMissing(msg)
    return match.group(1)


def binary(name: str, *, say: Callable[[str], None] | None = None) -> Path:
    """Return the path of a program, building its family if need be; raises ToolMissing."""
    for family in FAMILIES.values():
        if name in family.binaries:
            return ensure(family.name, say=say) / name
    msg = f"no tool family builds {name!r}"
    raise ToolMissing(msg)


def ensure(family_name: str, *, say: Callable[[str], None] | None = None) -> Path:
    """Return a folder with the family's programs; build it if need be; raises ToolMissing."""
    family = FAMILIES.get(family_name)
    if family is None:
        msg = f"{family_name!r} is no tool family; known are {', '.join(FAMILIES)}"
        raise ToolMissing(msg)
    require_checkout(family_name)
    for found in _installed(family):
        if _fits(family, found):
            return found
    folder = cache_directory() / "tools" / _cache_name(family)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            _build(family, folder, say or _to_stderr)
    return folder


def _cache_name(family: Family) -> str:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((TOOLS / family.name / name).read_bytes())
    digest.update(_linker_flags(family).encode())
    return f"{family.name}-{version_of(family)}-{digest.hexdigest()[:12]}"


def _linker_flags(family: Family) -> str:
    """Return the flags: no symbol tables, and the version where the sources do not carry it."""
    version = version_of(family)
    major, minor = version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    stamps = [f"-X {package}.{name}={value}" for package in family.version_packages for name, value in values.items()]
    return " ".join(["-s", "-w", *stamps])


def _installed(family: Family) -> Iterator[Path]:
    """Yield the folders where the user may have put a family's programs."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        yield Path(assets)
    on_path = shutil.which(family.binaries[0])
    if on_path is not None:
        yield Path(on_path).absolute().parent


def _fits(family: Family, folder: Path) -> bool:
    """Return whether a folder holds all programs of a family at its minor version."""
    if not all(os.access(folder / name, os.X_OK) for name in family.binaries):
        return False
    try:
        argv = [str(folder / family.binaries[0]), *family.version_arguments]
        shown = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    minor = version_of(family).removeprefix("v").rsplit(".", 1)[0]
    # A whole version: "3.7" must not be found in the "go1.23.7" that a program was built with.
    return re.search(rf"(?<![\w.])v?{re.escape(minor)}\.", shown.stdout) is not None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(family: Family, folder: Path, say: Callable[[str], None]) -> None:
    go = shutil.which("go")
    if go is None:
        names = ", ".join(family.binaries)
        msg = (
            f"{names} must be built, and Go is not on PATH. Install Go 1.26 or newer, or set KUBEBUILDER_ASSETS to a "
            f"folder with these programs at version {version_of(family)}."
        )
        raise ToolMissing(msg)
    say(f"building {family.name} {version_of(family)} (once; kept in {folder.parent})")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{family.name}-") as temporary:
        out = Path(temporary) / "bin"
        out.mkdir()
        argv = [go, "build", "-trimpath", "-ldflags", _linker_flags(family), "-o", f"{out}/", "tool"]
        _run_with_pulse(argv, family=family, say=say, log=folder.with_name(f"{folder.name}.log"))
        for built, wanted in family.built_as:
            if (out / built).is_file():
                (out / built).rename(out / wanted)
        missing = [name for name in family.binaries if not (out / name).is_file()]
        if missing:
            msg = f"the build of {family.name} did not make {', '.join(missing)}"
            raise ToolMissing(msg)
        out.rename(folder)
    say(f"built {family.name} in {time.monotonic() - began:.0f} s")


def _run_with_pulse(argv: list[str], *, family: Family, say: Callable[[str], None], log: Path) -> None:
    began = time.monotonic()
    environment = {**os.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0", "GOTOOLCHAIN": "auto"}
    with (
        log.open("w") as out,
        subprocess.Popen(argv, cwd=TOOLS / family.name, stdout=out, stderr=out, env=environment) as process,
    ):
        while True:
            try:
                code = process.wait(timeout=PULSE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                say(f"building {family.name} ... {time.monotonic() - began:.0f} s")
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        msg = f"the build of {family.name} failed (log: {log}):\n{tail}"
        raise ToolMissing(msg)


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
