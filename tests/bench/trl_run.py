"""One rank of TRL's SFTTrainer with DeepSpeed on a prepared dataset; run by bench.training in an environment with TRL.

Writes the tokens of every micro batch, without padding, and when every step ended, by the clock and by processor use.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch._dynamo  # its import inside zero.Init fails, so it must come first


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True, help="run.json")
    parser.add_argument("--data", type=Path, required=True, help="the prepared run's directory")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sampling", required=True, choices=["random", "group_by_length"])
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    import deepspeed
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    torch.set_num_threads(1)
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTTrainer

    from rft_trainer.contract import RunConfig
    from rft_trainer.prepare.dataset import load

    config = RunConfig.model_validate_json(asked.config.read_bytes())
    prepared = load(asked.data / "dataset")
    rows = [prepared.row(index) for index in range(prepared.rows)]
    columns: dict[str, Any] = {
        "input_ids": [row.tokens.tolist() for row in rows],
        "completion_mask": [row.target.tolist() for row in rows],
    }
    if not config.training.packing:  # else what is as long as a row would be cut up with it
        columns["length"] = [len(row.tokens) for row in rows]
    data = Dataset.from_dict(columns)
    ended: list[float] = []
    used: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc] # the library is not annotated
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ended.append(time.perf_counter())
            used.append(time.process_time())

    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(asked.data / "model", dtype=torch.float32),
        args=settings(config, asked),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(asked.data / "model"),
        callbacks=[Clock()],
    )
    counts: list[int] = []
    collate = trainer.data_collator

    def counting(examples: list[dict[str, Any]]) -> Any:
        counts.append(sum(len(example["input_ids"]) for example in examples))
        return collate(examples)

    trainer.data_collator = counting
    trainer.train()
    rank = os.environ["RANK"]
    (asked.output / f"rank-{rank}.json").write_text(json.dumps({"tokens": counts, "ended": ended, "used": used}))


def settings(config: Any, asked: argparse.Namespace) -> Any:
    """The same recipe in TRL's words."""
    from trl import SFTConfig

    training = config.training
    accumulation = training.global_batch_size // (training.micro_batch_size * int(os.environ["WORLD_SIZE"]))
    return SFTConfig(
        output_dir=str(asked.output),
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup_ratio,
        weight_decay=training.weight_decay,
        adam_beta1=training.adam_betas[0],
        adam_beta2=training.adam_betas[1],
        max_grad_norm=training.max_gradient_norm,
        max_length=training.max_sequence_length if training.packing else None,
        completion_only_loss=True,
        packing=training.packing,
        gradient_checkpointing=False,
        bf16=False,
        train_sampling_strategy=asked.sampling,
        seed=training.seed,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        ddp_backend="gloo",
        disable_tqdm=True,
        remove_unused_columns=False,
        deepspeed={
            "train_micro_batch_size_per_gpu": training.micro_batch_size,
            "gradient_accumulation_steps": accumulation,
            "gradient_clipping": training.max_gradient_norm,
            "bf16": {"enabled": False},
            "zero_optimization": {"stage": training.zero_stage},
            "zero_allow_untested_optimizer": True,
        },
    )


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # the threads of gloo, still at work when the interpreter ends, abort the process now and then
