"""Where a pod's files are.

Invariant: paths that leave the pod (results, messages) are the pod's own, ``/rft/...``; only :meth:`Layout.real`
maps them below another root, so the same configuration runs in a pod and in a plain directory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rft_trainer import contract
from rft_trainer.contract import RunConfig
from rft_trainer.errors import BadInputError

POD_ROOT = PurePosixPath("/rft")
CARD_FILE = "run-card.json"


@dataclass(frozen=True)
class Layout:
    """The directories of a pod below ``root`` (``/rft`` in a pod)."""

    root: Path = Path(POD_ROOT)

    def real(self, pod_path: str) -> Path:
        """Map a path of the pod, such as ``/rft/data/x``, below this root; other paths stay as they are."""
        path = PurePosixPath(pod_path)
        if path.is_relative_to(POD_ROOT):
            return self.root / path.relative_to(POD_ROOT)
        return Path(path)

    @property
    def config_file(self) -> Path:
        """The run's configuration, ``run.json``."""
        return self.real(contract.CONFIG_DIRECTORY) / "run.json"

    @property
    def deepspeed_file(self) -> Path:
        """DeepSpeed's configuration as the operator wrote it."""
        return self.real(contract.CONFIG_DIRECTORY) / "deepspeed.json"

    @property
    def hostfile(self) -> Path:
        """The training gang, one ``host slots=N`` a line, in rank order."""
        return self.real(contract.CONFIG_DIRECTORY) / "hostfile"

    @property
    def run(self) -> Path:
        """The pod's own scratch directory."""
        return self.real(contract.RUN_DIRECTORY)

    @property
    def stop_file(self) -> Path:
        """Its existence asks every rank to drain."""
        return self.run / "stop"

    @property
    def result_file(self) -> Path:
        """What the stage's process says of itself."""
        return self.run / "result.json"

    @property
    def progress_file(self) -> Path:
        """Rank 0's newest progress."""
        return self.run / "progress.json"

    @property
    def heartbeats(self) -> Path:
        """One file a rank, touched in every micro step."""
        return self.run / "heartbeat"

    @property
    def stacks(self) -> Path:
        """What a rank was doing when it was asked: one file a rank, empty until then."""
        return self.run / "stacks"

    @property
    def dump_request(self) -> Path:
        """Its existence asks every rank for its flight record."""
        return self.run / "dump"

    @property
    def output(self) -> Path:
        """Two pipes a rank: what it prints."""
        return self.run / "output"

    @property
    def errors(self) -> Path:
        """One file a rank that failed."""
        return self.run / "errors"

    @property
    def termination_log(self) -> Path:
        """Where Kubernetes reads the termination message."""
        if self.root == Path(POD_ROOT):
            return Path(contract.TERMINATION_MESSAGE_PATH)
        return self.root / "termination-log"

    def claim(self, name: str, path: str) -> Path:
        """A file or directory of a mounted claim."""
        return self.real(contract.CLAIMS_DIRECTORY) / name / path.lstrip("/")

    def config_map(self, name: str, key: str) -> Path:
        """A key of a mounted ConfigMap; the key names no folder, so nothing outside can be meant."""
        return self.real(contract.CONFIG_MAPS_DIRECTORY) / name / PurePosixPath(key).name

    @property
    def baselines(self) -> Path:
        """What is known of the base model's answers from earlier runs."""
        return self.real(contract.BASELINES_DIRECTORY)

    def load_config(self) -> RunConfig:
        """Read ``run.json``; raises :class:`BadInputError` when it is absent or breaks the contract."""
        try:
            return RunConfig.model_validate_json(self.config_file.read_bytes())
        except OSError as error:
            raise BadInputError(
                f"{self.config_file}: cannot be read ({error.strerror}); mount the run's ConfigMap"
            ) from error
        except ValueError as error:
            raise BadInputError(f"{self.config_file}: {error}") from error


@dataclass(frozen=True)
class RunPaths:
    """The files of one run on the volume, below ``RunConfig.data_directory``."""

    data: Path
    pod_data: PurePosixPath

    @classmethod
    def of(cls, layout: Layout, config: RunConfig) -> RunPaths:
        """The run's directory on the volume."""
        return cls(data=layout.real(config.data_directory), pod_data=PurePosixPath(config.data_directory))

    @property
    def model(self) -> Path:
        """The base model, also the baseline of the evaluation."""
        return self.data / "model"

    @property
    def source(self) -> Path:
        """The training rows as they were fetched."""
        return self.data / "source"

    @property
    def dataset(self) -> Path:
        """The tokenised training rows."""
        return self.data / "dataset"

    @property
    def prepared(self) -> Path:
        """The marker that the Prepare stage is done, with its summary."""
        return self.data / "prepared.json"

    @property
    def checkpoints(self) -> Path:
        """Training states, one directory a step."""
        return self.data / "checkpoints"

    @property
    def export(self) -> Path:
        """The trained model in Hugging Face's format."""
        return self.data / "export"

    @property
    def run_card(self) -> Path:
        """All that the run depends on; also in every checkpoint and beside the export."""
        return self.data / CARD_FILE

    @property
    def steps(self) -> Path:
        """One line a step: loss, speed, padding."""
        return self.data / "steps.jsonl"

    @property
    def hangs(self) -> Path:
        """The stacks and flight records of attempts that hung."""
        return self.data / "hangs"

    @property
    def evaluation(self) -> Path:
        """Answers and scores."""
        return self.data / contract.EVALUATION_FOLDER

    def pod_path(self, path: Path) -> str:
        """The name that ``path`` has inside a pod."""
        return str(self.pod_data / path.relative_to(self.data))
