"""A whole iteration in TRL: GRPO on the embedded model with a reward from its CLIP, as `fisao bench iteration-group` does it.

    target/release/fisao eval pope build --world train --image-count 256 --output /tmp/scenes
    pip install torch torchvision transformers peft trl datasets
    python benches/pytorch/trl_iteration.py --scenes /tmp/scenes [--iterations 4] [--threads 2] [--images 16] [--device cuda]

16 images, 4 responses each of at most 96 tokens, 2 epochs of 4 optimiser steps, an adapter of rank 16 on all linear layers of
the decoder, KL to the base model: the settings of that case. The reward finds the world's object names in a response
and scores each against the image with crates/fisao-demo-clip/clear, whose embeddings are made once per image and name. TRL gives a
response one number; token rewards it does not have. Prints one line of JSON; the first iteration warms up.
"""

import argparse
import json
import pathlib
import re
import resource
import time

import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, CLIPModel, LlavaForConditionalGeneration, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

ROOT = pathlib.Path(__file__).resolve().parents[2]
EPOCHS, STEPS = 2, 4


class Verifier:
    def __init__(self, names, device):
        folder = ROOT / "crates/fisao-demo-clip/clear"
        self.model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval().to(device)
        self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        texts = tokenizer([f"a photo of a {name}" for name in names], padding=True, return_tensors="pt").to(device)
        with torch.inference_mode():
            self.names = {name: row for name, row in zip(names, self.unit(self.model.get_text_features(**texts)))}
        self.embeddings = {}

    @staticmethod
    def unit(found):
        rows = getattr(found, "pooler_output", found)
        return rows / rows.norm(dim=-1, keepdim=True)

    def embedding(self, key, image):
        if key not in self.embeddings:
            pixels = self.processor(images=image.convert("RGB"), return_tensors="pt").to(self.model.device)
            with torch.inference_mode():
                self.embeddings[key] = self.unit(self.model.get_image_features(**pixels))[0]
        return self.embeddings[key]

    def reward(self, prompts, completions, key, **columns):
        found = []
        for index, completion in enumerate(completions):
            text = completion if isinstance(completion, str) else completion[-1]["content"]
            if isinstance(text, list):
                text = text[-1]["text"]
            embedding = self.embedding(key[index], self.images[key[index]])
            named = [name for name in self.names if f" {name}" in f" {text}"]
            found.append(sum(float(embedding @ self.names[name]) - 0.25 for name in named))
        return found


class Clock(TrainerCallback):
    def __init__(self):
        self.stamps = []

    def on_step_end(self, arguments, state, control, **_):
        self.stamps.append(time.perf_counter())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=pathlib.Path, required=True)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=96)
    arguments = parser.parse_args()
    count = arguments.images * arguments.samples
    if count % STEPS:
        parser.error(f"{count} responses are no multiple of {STEPS} optimiser steps")
    torch.set_num_threads(arguments.threads)
    files = sorted(arguments.scenes.rglob("*.png"))
    rows = [json.loads(line) for file in arguments.scenes.glob("*.jsonl") for line in file.read_text().splitlines()]
    asked = re.compile(r"Is there an? (.+) in the image\?")
    names = sorted({asked.fullmatch(row["text"])[1] for row in rows})
    verifier = Verifier(names, arguments.device)
    verifier.images = {file.name: Image.open(file) for file in files}
    folder = ROOT / "crates/fisao-demo-llava/model"
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the image."}]}]
    data = Dataset.from_list([
        {"prompt": message, "image": verifier.images[file.name], "key": file.name} for file in files
    ])
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    processor.tokenizer.padding_side = "left"
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    config = GRPOConfig(
        output_dir="/tmp/trl-run", use_cpu=arguments.device == "cpu", bf16=False, report_to=[], save_strategy="no", disable_tqdm=True,
        logging_strategy="no", per_device_train_batch_size=count // STEPS, num_generations=arguments.samples,
        steps_per_generation=STEPS, num_iterations=EPOCHS, max_completion_length=arguments.tokens, temperature=1.0, top_k=0,
        top_p=1.0, beta=0.1, learning_rate=8e-4, lr_scheduler_type="constant", gradient_checkpointing=False,
        max_steps=STEPS * EPOCHS * (arguments.iterations + 1), dataloader_num_workers=0,
    )
    targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    clock = Clock()
    trainer = GRPOTrainer(
        model=model, reward_funcs=verifier.reward, args=config, train_dataset=data, processing_class=processor,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=targets), callbacks=[clock],
    )
    trainer.train()
    each = STEPS * EPOCHS
    ends = clock.stamps[each - 1 :: each]
    times = sorted(b - a for a, b in zip(ends, ends[1:]))
    median = times[len(times) // 2]
    print(json.dumps({
        "case": "iteration-group", "unit": "responses", "count": count, "repetitions": len(times), "seconds": median,
        "shortest": times[0], "longest": times[-1], "rate": count / median,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "peak_card_mb": torch.cuda.max_memory_allocated() / 1e6 if arguments.device == "cuda" else None,
    }))


if __name__ == "__main__":
    main()
