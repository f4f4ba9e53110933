"""CHAIR during training. Import it from ``fisao.trl``."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from accelerate.utils import gather_object
from transformers import TrainerCallback

from ._evaluation import ChairResult, Rows, chair
from ._verifier import PathOrName, Vocabulary


class ChairCallback(TrainerCallback):
    """Captions held-out images every ``every`` steps, greedily, and logs CHAIR.

    ::

        trainer.add_callback(ChairCallback(trainer, images, ground_truth, every=50))

    * ``trainer``: a ``GRPOTrainer``, or another trainer of a vision-language model.
    * ``images``: ``{image_id: image}``, PIL images or paths.
    * ``ground_truth``, ``rules``, ``vocabulary``: of ``fisao.chair``.
    * ``prompt``, ``max_new_tokens``, ``batch_size``: of captioning.
    * ``at_start``: measure before the first step, too.

    ``history`` holds the results, by step. The log has ``chair_i``, ``chair_s``, ``chair_recall``
    and ``chair_length``. Each process captions its part of the images.
    """

    def __init__(
        self,
        trainer: Any,
        images: Mapping[Any, Any],
        ground_truth: Rows,
        *,
        every: int = 50,
        rules: str = "reference",
        vocabulary: Optional[Vocabulary] = None,
        prompt: str = "Describe the image.",
        max_new_tokens: int = 128,
        batch_size: int = 8,
        at_start: bool = True,
        binary: Optional[PathOrName] = None,
    ) -> None:
        self.trainer = trainer
        self.images = list(images.items())
        self.ground_truth = ground_truth
        self.every = every
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.at_start = at_start
        self.history: List[Tuple[int, ChairResult]] = []
        self.rules = rules
        self.vocabulary = vocabulary
        self.binary = binary

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measures before the first step."""
        if self.at_start and state.global_step == 0:
            self._measure(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measures every ``every`` steps."""
        if state.global_step % self.every == 0:
            self._measure(state)
            control.should_log = True

    def _measure(self, state: Any) -> None:
        accelerator = self.trainer.accelerator
        mine = self.images[accelerator.process_index :: accelerator.num_processes]
        captions = gather_object(self.captions(mine))
        if not accelerator.is_main_process:
            return
        result = self.measure(captions)
        self.history.append((state.global_step, result))
        numbers = {
            "chair_i": result.chair_i,
            "chair_s": result.chair_s,
            "chair_recall": result.recall,
            "chair_length": result.length,
        }
        known = {name: value for name, value in numbers.items() if value is not None}
        metrics = getattr(self.trainer, "_metrics", None)
        if state.global_step > 0 and isinstance(metrics, dict) and "train" in metrics:
            # TRL's trainers log these with their own numbers of the step.
            for name, value in known.items():
                metrics["train"][name].append(value)
        else:
            self.trainer.log(known)

    def measure(self, captions: Sequence[Tuple[Any, str]]) -> ChairResult:
        """CHAIR of pairs of image id and caption."""
        protocol = {
            "prompt": self.prompt,
            "decoding": "greedy",
            "max_new_tokens": self.max_new_tokens,
        }
        return chair(
            captions,
            self.ground_truth,
            self.rules,
            vocabulary=self.vocabulary,
            protocol=protocol,
            binary=self.binary,
        )

    def captions(self, images: Sequence[Tuple[Any, Any]]) -> List[Tuple[Any, str]]:
        """Greedy captions of images by the model as it is now."""
        import torch
        from trl.models.utils import unwrap_model_for_generation

        written: List[Tuple[Any, str]] = []
        in_training = self.trainer.model.training
        with (
            unwrap_model_for_generation(
                self.trainer.model_wrapped, self.trainer.accelerator
            ) as model,
            torch.no_grad(),
        ):
            model.eval()
            try:
                for first in range(0, len(images), self.batch_size):
                    written += self._batch(model, images[first : first + self.batch_size])
            finally:
                model.train(in_training)
        return written

    def _batch(self, model: Any, images: Sequence[Tuple[Any, Any]]) -> List[Tuple[Any, str]]:
        processor = self.trainer.processing_class
        content = [{"type": "image"}, {"type": "text", "text": self.prompt}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        inputs: Dict[str, Any] = processor(
            images=[[_pil(image)] for _, image in images],
            text=[text] * len(images),
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(model.device)
        ids = model.generate(
            **inputs, do_sample=False, max_new_tokens=self.max_new_tokens, use_cache=True
        )
        completions = ids[:, inputs["input_ids"].shape[1] :]
        texts = processor.batch_decode(completions, skip_special_tokens=True)
        return [(name, text) for (name, _), text in zip(images, texts)]


def _pil(image: Any) -> Any:
    from PIL import Image, ImageOps

    if isinstance(image, (str, os.PathLike)):
        with Image.open(image) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    return image
