"""The trainer's Dockerfile: what its last stage holds, and that versions are the project's."""

from __future__ import annotations

from pathlib import Path

DOCKERFILE = Path(__file__).resolve().parents[3] / "trainer_image" / "Dockerfile"


def stages() -> list[list[str]]:
    """The instructions of each stage, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")]
    found: list[list[str]] = []
    for instruction in "\n".join(lines).replace("\\\n", " ").splitlines():
        if instruction.startswith("FROM "):
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def test_last_stage_has_no_compiler_and_runs_unprivileged() -> None:
    last = stages()[-1]
    assert not any(word in line for line in last for word in ("g++", "gcc", "python3-dev", "-devel", "pip install"))
    assert "USER 65532:65532" in last
    assert last[-1] == 'ENTRYPOINT ["rft-launch"]'


def test_last_stage_imports_the_program_and_the_compiled_optimizer_or_is_never_finished() -> None:
    last = stages()[-1]
    checks = [line for line in last if line.startswith('RUN ["python"')]
    assert len(checks) == 1
    assert "rft_trainer.launch.main" in checks[0]
    assert "deepspeed.ops.adam.cpu_adam_op" in checks[0]
    assert last.index("USER 65532:65532") < last.index(checks[0])
    assert sum(line.startswith("HEALTHCHECK ") for line in last) == 1


def test_versions_are_those_of_the_constraints() -> None:
    first = "\n".join(stages()[0])
    assert "--constraint constraints.txt" in first
    assert "['optional-dependencies']['trainer']" in first
    assert "\"$(grep '^deepspeed==' constraints.txt)\"" in first
