"""The cases of `fisao bench`, done by PyTorch: one case in this process, one line of JSON as `fisao bench --here` prints it.

    pip install torch transformers peft
    python works.py CASE --engine eager|compile|transformers [--seconds 3] [--threads 2]
    python works.py encode-vit-b-32-224-f32 --export tower.onnx

`eager` and `compile` run a Llama written out here in the way that is quickest in PyTorch: its fused attention, RMS norm
and AdamW, caches allocated once and written in place. `transformers` runs Hugging Face's own classes: `generate` for
the decoding cases, PEFT's adapter for LoRA. Shapes, types, prompts and counts are those of
crates/fisao-experiments/src/bench/{models,works}.rs.
"""

import argparse
import sys

import torch
import torch.nn.functional as F
from torch import nn

from timing import repeat, report

PROMPT, DECODED, PICTURES = 16, 64, 8

# vocabulary, hidden, inner, layers, heads
SIZES = {
    "embedded": (1009, 192, 512, 4, 6),
    "256": (2048, 256, 704, 4, 8),
    "1024": (4096, 1024, 2816, 8, 16),
    "7b": (32064, 4096, 11008, 32, 32),
}


class Linear(nn.Linear):
    """A map that may carry a low-rank path, added as PEFT adds it."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, bias=False)
        self.a = self.b = None

    def adapt(self, rank=16, alpha=32):
        self.a = nn.Parameter(torch.empty(rank, self.in_features))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)
        self.b = nn.Parameter(torch.zeros(self.out_features, rank))
        self.scale = alpha / rank

    def forward(self, x):
        y = F.linear(x.to(self.weight.dtype), self.weight)
        if self.a is None:
            return y
        low = F.linear(F.linear(x.to(self.a.dtype), self.a), self.b) * self.scale
        return y + low.to(y.dtype)


def rotate(x, cos, sin):
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat((-high, low), -1) * sin


class Layer(nn.Module):
    def __init__(self, hidden, inner, heads):
        super().__init__()
        self.heads, self.width = heads, hidden // heads
        self.norm1 = nn.RMSNorm(hidden, eps=1e-5)
        self.norm2 = nn.RMSNorm(hidden, eps=1e-5)
        self.q, self.k, self.v, self.o = (Linear(hidden, hidden) for _ in range(4))
        self.gate, self.up = Linear(hidden, inner), Linear(hidden, inner)
        self.down = Linear(inner, hidden)

    def forward(self, x, cos, sin, cache=None, at=None, mask=None):
        batch, length, hidden = x.shape
        split = lambda y: y.view(batch, length, self.heads, self.width).transpose(1, 2)
        n = self.norm1(x)
        q, k, v = split(self.q(n)), split(self.k(n)), split(self.v(n))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            keys, values = cache
            keys.index_copy_(2, at, k)
            values.index_copy_(2, at, v)
            if mask is None:
                seen = int(at[-1]) + 1
                y = F.scaled_dot_product_attention(q, keys[:, :, :seen], values[:, :, :seen], is_causal=length > 1)
            else:
                y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        x = x + self.o(y.transpose(1, 2).reshape(batch, length, hidden))
        n = self.norm2(x)
        return x + self.down(F.silu(self.gate(n)) * self.up(n))


class Llama(nn.Module):
    def __init__(self, size):
        super().__init__()
        vocabulary, hidden, inner, layers, heads = SIZES[size]
        self.heads, self.width = heads, hidden // heads
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList(Layer(hidden, inner, heads) for _ in range(layers))
        self.norm = nn.RMSNorm(hidden, eps=1e-5)
        self.head = Linear(hidden, vocabulary)

    def turns(self, positions, dtype):
        frequencies = 10000.0 ** (-torch.arange(0, self.width, 2, dtype=torch.float32) / self.width)
        angles = positions[:, None].float() * frequencies
        angles = torch.cat((angles, angles), -1)
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def forward(self, ids, at, caches=None, mask=None, last=False):
        x = self.embedding(ids)
        cos, sin = self.turns(at, x.dtype)
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, caches[index] if caches else None, at, mask)
        return self.head(self.norm(x[:, -1:] if last else x))


def fast(module, dtype):
    """Weights without PyTorch's slow initialisation of billions of numbers."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.uniform_(-0.02, 0.02)
            else:
                parameter.fill_(1.0)
    return module.to(dtype)


def build(make, dtype):
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            module = make()
        return fast(module.to_empty(device="cpu"), dtype)
    finally:
        torch.set_default_dtype(default)


def hf_config(size, dtype):
    from transformers import LlamaConfig

    vocabulary, hidden, inner, layers, heads = SIZES[size]
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, rms_norm_eps=1e-5, max_position_embeddings=4096,
        attn_implementation="sdpa", dtype=dtype, tie_word_embeddings=False, eos_token_id=None, pad_token_id=0,
    )


def hf_llama(size, dtype):
    from transformers import LlamaForCausalLM

    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = LlamaForCausalLM(hf_config(size, dtype))
    finally:
        torch.set_default_dtype(default)
    return model.to(dtype)


def decode(size, batch, dtype, engine):
    ids = torch.tensor([[4 + at % 900 for at in range(PROMPT)]] * batch)
    if engine == "transformers":
        model = hf_llama(size, dtype).eval()

        def work():
            with torch.inference_mode():
                out = model.generate(
                    ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                    min_new_tokens=DECODED, max_new_tokens=DECODED,
                )
            assert out.shape == (batch, PROMPT + DECODED)

        return work, batch * DECODED, "tokens"
    model = build(lambda: Llama(size), dtype).eval()
    _, hidden, _, layers, heads = SIZES[size]
    room = PROMPT + DECODED
    shape = (batch, heads, room, hidden // heads)
    caches = [(torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)) for _ in range(layers)]
    step = torch.compile(model) if engine == "compile" else model
    seen = torch.arange(room)

    def draw(logits):
        return torch.multinomial(logits[:, -1].float().softmax(-1), 1)

    @torch.inference_mode()
    def work():
        at = torch.arange(PROMPT)
        token = draw(model(ids, at, caches, None, True))
        for position in range(PROMPT, PROMPT + DECODED - 1):
            at = torch.tensor([position])
            # A compiled step keeps its shapes: it looks at the whole cache through a mask.
            mask = (seen <= position)[None, None, None, :] if engine == "compile" else None
            token = draw(step(token, at, caches, mask, True))

    return work, batch * DECODED, "tokens"


def train(size, batch, length, dtype, adapter, engine, learned=None):
    """A step; only the last `learned` tokens of a row are predicted, if not all are."""
    ids = torch.tensor([[4 + at % 900 for at in range(length + 1)]] * batch)
    learned = learned or length
    inputs, targets = ids[:, :-1], ids[:, -learned:]
    if engine == "transformers":
        model = hf_llama(size, dtype)
        if adapter:
            from peft import LoraConfig, get_peft_model

            targets_of = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
            model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=targets_of))
        if learned < length:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        forward = lambda: model(input_ids=inputs, logits_to_keep=learned).logits
    else:
        model = build(lambda: Llama(size), dtype)
        if adapter:
            model.requires_grad_(False)
            for module in model.modules():
                if isinstance(module, Linear) and module is not model.head:
                    module.adapt()
        net = torch.compile(model) if engine == "compile" else model
        at = torch.arange(length)
        forward = lambda: net(inputs, at)[:, -learned:]
    model.train()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=1e-5, weight_decay=0.0, fused=True)

    def work():
        optimiser.zero_grad(set_to_none=True)
        logits = forward()
        F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.reshape(-1)).backward()
        optimiser.step()

    return work, batch * length, "tokens"


# kind, hidden, inner, layers, heads, patch, side
TOWERS = {
    "vit-b-32-224": ("CLIP", 768, 3072, 12, 12, 32, 224),
    "vit-l-336": ("CLIP", 1024, 4096, 24, 16, 14, 336),
    "siglip-b-16-224": ("Siglip", 768, 3072, 12, 12, 16, 224),
    "so400m-384": ("Siglip", 1152, 4304, 27, 16, 14, 384),
    "vit-g-224": ("Blip2", 1408, 6144, 39, 16, 14, 224),
}


def tower(name):
    """The image tower of a case, as transformers has it, and the side of its images."""
    import transformers

    kind, hidden, inner, layers, heads, patch, side = TOWERS[name]
    own = getattr(transformers, f"{kind}VisionConfig")(
        attn_implementation="sdpa", hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, patch_size=patch, image_size=side, **({"vision_use_head": False} if kind == "Siglip" else {}),
    )
    return getattr(transformers, f"{kind}VisionModel")(own), side


def encode(name, images, dtype, engine):
    if name == "qformer":
        return qformer(dtype, engine)
    model, side = tower(name)
    model = model.to(dtype).eval()
    net = torch.compile(model) if engine == "compile" else model
    pixels = torch.ones(images, 3, side, side, dtype=dtype)

    @torch.inference_mode()
    def work():
        net(pixel_values=pixels)

    return work, images, "images"


def export(name, path):
    """The image tower of a case as an ONNX file, for as many images as the case has."""

    class States(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, pixel_values):
            return self.model(pixel_values=pixel_values).last_hidden_state

    images, of, _ = parsed(name)
    model, side = tower(of)
    pixels = torch.ones(images, 3, side, side)
    with torch.inference_mode():
        torch.onnx.export(States(model).eval(), (pixels,), path, input_names=["pixel_values"], dynamo=True)


def parsed(name):
    """Images, tower and type of a case `encode-[1-]TOWER-TYPE[-rounded]`."""
    _, *parts = name.removesuffix("-rounded").split("-")
    images = PICTURES
    if parts[0].isdigit():
        images, parts = int(parts[0]), parts[1:]
    return images, "-".join(parts[:-1]), parts[-1]


def qformer(dtype, engine):
    from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel

    config = InstructBlipQFormerConfig(vocab_size=30523, encoder_hidden_size=1408, cross_attention_frequency=2)
    model = InstructBlipQFormerModel(config).to(dtype).eval()
    net = torch.compile(model) if engine == "compile" else model
    instruction = torch.ones(PICTURES, 12, dtype=torch.long)
    queries = torch.ones(PICTURES, 32, 768, dtype=dtype)
    states = torch.ones(PICTURES, 257, 1408, dtype=dtype)
    seen = torch.ones(PICTURES, 32 + 12, dtype=torch.long)

    @torch.inference_mode()
    def work():
        net(input_ids=instruction, attention_mask=seen, query_embeds=queries, encoder_hidden_states=states)

    return work, PICTURES, "images"


def product(rows, side, dtype):
    weight = torch.rand(side, side).to(dtype)
    x = torch.ones(rows, side, dtype=dtype)

    @torch.inference_mode()
    def work():
        for _ in range(8):
            F.linear(x, weight)

    return work, 8, "products"


TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def case(name, engine):
    # PyTorch always rounds activations to the weights' type.
    parts = name.removesuffix("-rounded").split("-")
    match parts[0]:
        case "ceiling" if name == "ceiling-arithmetic":
            return product(1024, 1024, torch.float32)
        case "product" if int(parts[1]) <= 4:
            return product(int(parts[1]), 4096, TYPES[parts[2]])
        case "decode":
            dtype = TYPES[parts[3]] if len(parts) > 3 else torch.float32
            return decode(parts[1], int(parts[2]), dtype, engine)
        case "train":
            return train("256", 16, 96, torch.float32, False, engine)
        case "lora" if parts[2] in ("rows", "groups"):
            # Whoever shares nothing lays out a row for each response.
            return train(parts[1], 8 if parts[1] == "1024" else 4, 716, TYPES[parts[3]], True, engine, learned=100)
        case "lora":
            return train(parts[1], 2, 256, TYPES[parts[2]], True, engine)
        case "encode":
            images, of, dtype = parsed(name)
            return encode(of, images, TYPES[dtype], engine)
    sys.exit(f"{name} is not a case that PyTorch does here")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("case")
    parser.add_argument("--engine", choices=["eager", "compile", "transformers"], default="eager")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--export", metavar="FILE", help="write the case's image tower as ONNX, and measure nothing")
    arguments = parser.parse_args()
    if arguments.export:
        return export(arguments.case, arguments.export)
    torch.set_default_device(arguments.device)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    work, count, unit = case(arguments.case, arguments.engine)
    waited = (lambda: (work(), torch.cuda.synchronize())) if arguments.device.startswith("cuda") else work
    report(arguments.case, unit, count, repeat(waited, arguments.seconds), torch=torch.__version__)


if __name__ == "__main__":
    main()
