"""How much memory the pod has that runs programs.

Invariant: it has room for all that the programs tested at once may take, so that a program which takes too much reaches
its own limit and never the pod's. The figures are the trainer's, which runs so many at once as there is room for.
"""

from __future__ import annotations

from rft_operator.api.evaluation import BenchmarkSpec, Scorer
from rft_operator.api.spec import Evaluation
from rft_operator.domain.quantities import quantity_floor
from rft_operator.errors import InvalidResource
from rft_trainer.presets import BENCHMARKS
from rft_trainer.sandbox.limits import MEBIBYTE, PROGRAM_MIB, memory_mib_for, programs_in


def program_memory_mib(evaluation: Evaluation) -> int:
    """Return the mebibytes that the spec gives, or that its processors and benchmarks come to."""
    execution = evaluation.code_execution
    given = quantity_floor(execution.memory)
    if given is not None:
        return given // MEBIBYTE
    largest = max(map(_program_mib, evaluation.benchmarks))
    return memory_mib_for(max(1, quantity_floor(execution.cpu) or 1), program_mib=largest)


def check_program_memory(evaluation: Evaluation) -> None:
    """Raise InvalidResource where a benchmark's programs may take more than the pod has room for."""
    memory_mib = program_memory_mib(evaluation)
    for each in evaluation.benchmarks:
        program_mib = _program_mib(each)
        if _has_programs(each) and programs_in(memory_mib, program_mib=program_mib) == 0:
            least = memory_mib_for(1, program_mib=program_mib)
            raise InvalidResource(
                "InvalidSpec",
                f"evaluation.codeExecution.memory is {evaluation.code_execution.memory}, and a program of {each.name} "
                f"may take {program_mib} MiB: give at least {least}Mi, or leave it out.",
            )


def _program_mib(benchmark: BenchmarkSpec) -> int:
    """Return what one of its programs may take; of own rows it is known once they are read (Prepare)."""
    known = BENCHMARKS.get(benchmark.name)
    return known.program_mib if known is not None else PROGRAM_MIB


def _has_programs(benchmark: BenchmarkSpec) -> bool:
    known = BENCHMARKS.get(benchmark.name)
    scorer = benchmark.scorer or (known.scorer if known is not None else None)
    return scorer == Scorer.CODE
