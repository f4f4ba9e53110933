"""LLaVA-1.5-7B's shapes on a card by Hugging Face's classes, beside `cargo run --release -p fisao-cuda --example time_decoder`.

    pip install torch transformers peft
    python card.py [--layers 32]
    python card.py --device cpu --small        to see that it runs

Prompts of 626 tokens, responses of 90, bf16, weights that mean nothing: decoding with `generate`, plain, with a static cache, and with that
compiled; a LoRA step with recomputed layers; the image tower. `generate` reads every response's prompt for itself. First what the card
copies and multiplies at best. A line of text for each; what does not fit or fails is told and left out.
"""

import argparse
import time

import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM
from works import fast

PROMPT, RESPONSE, TOKENS = 626, 90, 32


# With --small all of it a tenth or less.
WIDTH, INNER, BLOCK, SIDE, IMAGES = 4096, 11008, 2 << 30, 8192, 64
TOWER = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}


def shrink():
    global PROMPT, RESPONSE, TOKENS, WIDTH, INNER, BLOCK, SIDE, IMAGES, TOWER
    PROMPT, RESPONSE, TOKENS, WIDTH, INNER, BLOCK, SIDE, IMAGES = 20, 8, 4, 64, 96, 1 << 20, 256, 2
    TOWER = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


def synchronize():
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()


def seconds(work, repetitions=3):
    """The quickest of some repetitions, after one that warms up."""
    times = []
    for _ in range(repetitions + 1):
        synchronize()
        begun = time.perf_counter()
        work()
        synchronize()
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def ceilings():
    block = torch.empty(BLOCK, dtype=torch.uint8)
    copy = torch.empty_like(block)
    rate = 2 * block.numel() / seconds(lambda: copy.copy_(block)) / 1e12
    a, b = (torch.randn(SIDE, SIDE, dtype=torch.bfloat16) for _ in range(2))
    arithmetic = 2 * SIDE**3 / seconds(lambda: a @ b) / 1e12
    print(f"copy {rate:.2f} TB/s, products of bf16 {arithmetic:.0f} TFLOP/s")


def llama(layers):
    config = LlamaConfig(
        vocab_size=32064, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=layers, num_attention_heads=32,
        rms_norm_eps=1e-5, max_position_embeddings=4096, attn_implementation="sdpa", eos_token_id=None, pad_token_id=0,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model = fast(model.to(torch.bfloat16).to_empty(device=torch.get_default_device()), torch.bfloat16)
    # Buffers of rotary embeddings are not parameters, and were lost with the meta device.
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(torch.get_default_device())
    return model


def decode(model, rows, **options):
    ids = torch.randint(3, 32000, (rows, PROMPT))

    def generate(tokens):
        with torch.inference_mode():
            model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                min_new_tokens=tokens, max_new_tokens=tokens, **options,
            )

    first = seconds(lambda: generate(1), 2)
    step = (seconds(lambda: generate(TOKENS + 1), 2) - first) / TOKENS
    return f"prefill {1e3 * first:.1f} ms, step {1e3 * step:.2f} ms, {rows / step:.0f} tokens/s"


def lora(model, sequences, length):
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=targets))
    adapted.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    adapted.train()
    ids = torch.randint(3, 32000, (sequences, length))

    def step():
        logits = adapted(input_ids=ids, logits_to_keep=RESPONSE + 1).logits[:, :-1].float()
        loss = nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, PROMPT:].reshape(-1))
        loss.backward()

    cuda = torch.get_default_device().type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    took = seconds(step, 2)
    memory = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB with the weights" if cuda else ""
    return f"{1e3 * took:.0f} ms{memory}"


def tower(images):
    config = CLIPVisionConfig(
        **TOWER, patch_size=14, image_size=336, attn_implementation="sdpa",
    )
    model = CLIPVisionModel(config).to(torch.get_default_device(), torch.bfloat16).eval()
    pixels = torch.ones(images, 3, 336, 336, dtype=torch.bfloat16)
    with torch.inference_mode():
        took = seconds(lambda: model(pixel_values=pixels))
    return f"{1e3 * took:.1f} ms, {images / took:.0f} images/s"


def told(name, work):
    try:
        print(f"{name}: {work()}", flush=True)
    except Exception as error:
        print(f"{name}: failed: {str(error).splitlines()[0] if str(error) else type(error).__name__}", flush=True)
    if torch.get_default_device().type == "cuda":
        torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    if arguments.small:
        shrink()
        arguments.layers = 2
    torch.manual_seed(0)
    torch.set_default_device(arguments.device)
    print(torch.__version__, torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU")
    ceilings()
    told(f"ViT-L/14-336, batch {IMAGES}", lambda: tower(IMAGES))
    model = llama(arguments.layers).eval()
    for rows in [1, 8, 32]:
        told(f"generate, batch {rows}", lambda rows=rows: decode(model, rows))
    for rows in [1, 32]:
        told(f"generate with a static cache, batch {rows}", lambda rows=rows: decode(model, rows, cache_implementation="static", disable_compile=True))
        told(f"the same compiled, batch {rows}", lambda rows=rows: decode(model, rows, cache_implementation="static"))
    told(f"LoRA, 32 × {PROMPT + RESPONSE}, {32 * RESPONSE} tokens scored", lambda: lora(model, 32, PROMPT + RESPONSE))


if __name__ == "__main__":
    main()
