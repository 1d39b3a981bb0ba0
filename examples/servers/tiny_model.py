"""A tiny language model with random weights, to try a server with: `python tiny_model.py FOLDER` or `… FILE.gguf`.

Every token of it is a word of its own: a byte-level vocabulary with random weights would make text that is no text,
which servers hold back. It never says that it is done, so that every answer is as long as was asked for.
"""

import sys
from pathlib import Path

VOCABULARY, WIDTH, LAYERS, HEADS = 512, 256, 4, 4
BYTES = [f"<0x{number:02X}>" for number in range(256)]  # llama.cpp spells with them what is no word
SILENT = ["<unk>", "<s>", "</s>", *BYTES]  # that are never generated
WORDS = [*SILENT, *(f"w{number}" for number in range(VOCABULARY - len(SILENT)))]
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def write_transformers(folder: Path) -> None:
    """A folder that transformers, vLLM and SGLang can open; needs transformers."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=2048,
        bos_token_id=1, eos_token_id=None, pad_token_id=2,  # whose embedding is zero, and whose answer nothing
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = None
    model.lm_head.weight.data[: len(SILENT)] = 0
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>", pad_token="</s>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


def write_gguf(file: Path) -> None:
    """A file that llama.cpp can open; needs gguf."""
    import gguf
    import numpy

    draw = numpy.random.default_rng(0)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("llama")
    pieces = [word if word in SILENT else f"▁{word}" for word in WORDS]
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0] * VOCABULARY)
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * 256]
    writer.add_token_types([*kinds, *[gguf.TokenType.NORMAL] * (VOCABULARY - len(kinds))])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)

    def add(name: str, *shape: int) -> None:
        values = draw.standard_normal(shape, dtype=numpy.float32) * 0.02 if len(shape) > 1 else numpy.ones(shape, "f4")
        if name == "output.weight":
            values[: len(SILENT)] = 0
        writer.add_tensor(name, values.astype(numpy.float32))

    add("token_embd.weight", VOCABULARY, WIDTH)
    add("output_norm.weight", WIDTH)
    add("output.weight", VOCABULARY, WIDTH)
    for block in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{block}.{name}.weight", WIDTH, WIDTH)
        add(f"blk.{block}.ffn_gate.weight", 2 * WIDTH, WIDTH)
        add(f"blk.{block}.ffn_up.weight", 2 * WIDTH, WIDTH)
        add(f"blk.{block}.ffn_down.weight", WIDTH, 2 * WIDTH)
        add(f"blk.{block}.attn_norm.weight", WIDTH)
        add(f"blk.{block}.ffn_norm.weight", WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    if not target.exists():
        (write_gguf if target.suffix == ".gguf" else write_transformers)(target)
