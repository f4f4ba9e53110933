"""Trains a vision-language model with TRL's GRPO and token rewards of fisao.

Without arguments of its own it needs only images with ground truth, such as those of the built-in
synthetic dataset::

    fisao scenes export data/train --split train --count 64
    fisao scenes export data/test --split test --count 100
    fisao scenes export data/calibration --split calibration --count 300
    fisao calibrate --images data/calibration/images \\
        --annotations data/calibration/instances.json --output calibration.json
    python grpo.py --model MODEL --calibration calibration.json --vocabulary world \\
        --images data/train/images --eval-images data/test/images \\
        --eval-annotations data/test/instances.json --output run

``--advantages token`` gives every token its own advantage (``TokenRewardGRPOTrainer``),
``--advantages completion`` every completion one (``GRPOTrainer``).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from datasets import Dataset
from datasets import Image as ImageColumn
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import GRPOConfig, GRPOTrainer

import fisao
import fisao.trl

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="GRPO with token rewards of fisao",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="vision-language model, folder or name")
    parser.add_argument("--verifier", help="CLIP, SigLIP or BLIP-2 model, folder or name")
    parser.add_argument("--calibration", required=True, help="file of `fisao calibrate`")
    parser.add_argument("--vocabulary", help="object names: coco, everyday, world, or a file")
    parser.add_argument("--images", required=True, type=Path, help="folder of training images")
    parser.add_argument("--eval-images", required=True, type=Path, help="folder of held-out images")
    parser.add_argument("--eval-annotations", required=True, help="their objects")
    parser.add_argument("--eval-every", type=int, default=10, help="steps between two measurements")
    parser.add_argument(
        "--rules", default="strict", choices=["strict", "reference"], help="of CHAIR"
    )
    parser.add_argument("--prompt", default="Describe the image.")
    parser.add_argument("--advantages", default="token", choices=["token", "completion"])
    parser.add_argument("--steps", type=int, default=20, help="optimiser steps")
    parser.add_argument("--batch", type=int, default=64, help="completions in a step")
    parser.add_argument("--micro-batch", type=int, default=64, help="completions at once")
    parser.add_argument("--group", type=int, default=8, help="completions of an image")
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--beta", type=float, default=0.0, help="weight of the KL penalty")
    parser.add_argument(
        "--gamma", type=float, default=0.95, help="reach of credit, --advantages token"
    )
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True, help="folder for the run")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    processor = AutoProcessor.from_pretrained(args.model)
    model = AutoModelForImageTextToText.from_pretrained(args.model, dtype=torch.float32)
    files = image_files(args.images)
    question = [{"role": "user", "content": args.prompt}]
    rows = {"prompt": [question] * len(files), "image": [str(path) for path in files]}
    config = GRPOConfig(
        output_dir=args.output,
        max_steps=args.steps,
        per_device_train_batch_size=args.micro_batch,
        gradient_accumulation_steps=args.batch // args.micro_batch,
        num_generations=args.group,
        max_completion_length=args.max_new_tokens,
        learning_rate=args.learning_rate,
        lr_scheduler_type="constant",
        beta=args.beta,
        temperature=1.0,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=args.seed,
    )
    with fisao.Verifier(
        args.verifier, calibration=args.calibration, vocabulary=args.vocabulary
    ) as verifier:
        common = {
            "model": model,
            "args": config,
            "train_dataset": Dataset.from_dict(rows).cast_column("image", ImageColumn()),
            "processing_class": processor,
            "peft_config": LoraConfig(
                r=args.lora_rank,
                lora_alpha=2 * args.lora_rank,
                # The language model alone: the vision encoder is the verifier's, too.
                target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
                task_type="CAUSAL_LM",
            ),
        }
        if args.advantages == "token":
            trainer = fisao.trl.TokenRewardGRPOTrainer(
                verifier=verifier, gamma=args.gamma, **common
            )
        else:
            trainer = GRPOTrainer(reward_funcs=[fisao.trl.reward_func(verifier)], **common)
        chair = fisao.trl.ChairCallback(
            trainer,
            {path.name: path for path in image_files(args.eval_images)},
            args.eval_annotations,
            every=args.eval_every,
            rules=args.rules,
            vocabulary=args.vocabulary,
            prompt=args.prompt,
            max_new_tokens=args.max_new_tokens,
            batch_size=25,
        )
        trainer.add_callback(chair)
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
    trainer.save_model(args.output)
    history = [
        {
            "step": step,
            "chair_i": result.chair_i,
            "chair_s": result.chair_s,
            "recall": result.recall,
            "length": result.length,
            "intervals": result.intervals,
            "protocol": result.protocol,
        }
        for step, result in chair.history
    ]
    report = {"seconds": seconds, "chair": history, "log": trainer.state.log_history}
    Path(args.output, "chair.json").write_text(json.dumps(report, indent=1))
    print(f"{seconds:.0f} s")
    for row in history:
        print(
            f"step {row['step']:3}  CHAIR_I {row['chair_i']:.3f}  CHAIR_S {row['chair_s']:.3f}  "
            f"recall {row['recall']:.3f}  length {row['length']:.1f}"
        )


def image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)


if __name__ == "__main__":
    main()
