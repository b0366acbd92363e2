"""Models of real shapes with random weights, for benchmarks: speed does not depend on what was learned.

Nothing is fetched: the tokenizer is trained on the spot on the prompts that will be asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from workers import prompt

Shape = Literal["tiny", "smolvlm-256m", "gemma3-300m", "qwen2.5-vl-3b", "gemma3-4b"]

_MARKS: Final = (
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<boi>",
    "<eoi>",
    "<img_soft>",
)

_TEMPLATE: Final = (
    "{{ bos_token }}{% for m in messages %}User:{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}MARK{% else %}{{ p['text'] }}{% endif %}{% endfor %}\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:\n{% endif %}"
)


def build(
    shape: Shape, questions: Sequence[str], *, device: str, dtype: torch.dtype
) -> tuple[Any, Any]:
    """Return a model and its processor."""
    makers = {
        "tiny": _tiny_gemma,
        "smolvlm-256m": _smolvlm,
        "gemma3-300m": _small_gemma,
        "qwen2.5-vl-3b": _qwen,
        "gemma3-4b": _gemma,
    }
    config, kind, processor = makers[shape](questions)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = kind(config).eval()
    finally:
        torch.set_default_dtype(before)
    return model, processor


def _words(questions: Iterable[str], **extra: str) -> Any:
    tokenizer = Tokenizer(BPE(unk_token="<unk>"))  # noqa: S106 -- no secret
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4_000,
        special_tokens=list(_MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([prompt.SYSTEM, "Yes No", *questions], trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        pad_token="<pad>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        extra_special_tokens=extra,
    )


def _id(mark: str) -> int:
    return _MARKS.index(mark)


def _smolvlm(questions: Sequence[str]) -> tuple[Any, Any, Any]:
    config = hf.SmolVLMConfig(
        vision_config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 512,
            "patch_size": 16,
        },
        text_config=hf.LlamaConfig(
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            vocab_size=49_280,
            max_position_embeddings=8192,
            pad_token_id=0,
        ),
        image_token_id=_id("<image>"),
        scale_factor=4,
        pad_token_id=0,
    )
    # One 512-pixel picture is one tile: 64 tokens.
    processor = hf.Idefics3Processor(
        image_processor=hf.Idefics3ImageProcessorPil(
            size={"longest_edge": 512},
            max_image_size={"longest_edge": 512},
            do_image_splitting=False,
        ),
        tokenizer=_words(questions),
        image_seq_len=64,
        chat_template=_TEMPLATE.replace("MARK", "<image>"),
    )
    return config, hf.SmolVLMForConditionalGeneration, processor


def _qwen(questions: Sequence[str]) -> tuple[Any, Any, Any]:
    from workers.processors import image_only

    config = hf.Qwen2_5_VLConfig(
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "out_hidden_size": 2048,
            "num_heads": 16,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        text_config={
            "hidden_size": 2048,
            "intermediate_size": 11_008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151_936,
            "max_position_embeddings": 32_768,
            "pad_token_id": 0,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
        },
        image_token_id=_id("<|image_pad|>"),
        video_token_id=_id("<|video_pad|>"),
        vision_start_token_id=_id("<|vision_start|>"),
        vision_end_token_id=_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    processor = image_only(hf.Qwen2_5_VLProcessor)(
        image_processor=hf.Qwen2VLImageProcessorPil(patch_size=14, merge_size=2),
        tokenizer=_words(questions),
        chat_template=_TEMPLATE.replace("MARK", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return config, hf.Qwen2_5_VLForConditionalGeneration, processor


def _tiny_gemma(questions: Sequence[str]) -> tuple[Any, Any, Any]:
    """Return Gemma 3 with hardly any weights: shows in seconds that the figures come out."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    return _gemma_of(
        questions,
        hf.SiglipVisionConfig(
            **sizes, num_attention_heads=2, image_size=224, patch_size=14, vision_use_head=False
        ),
        hf.Gemma3TextConfig(
            **sizes,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            vocab_size=4_096,
            sliding_window=512,
            pad_token_id=0,
        ),
    )


def _small_gemma(questions: Sequence[str]) -> tuple[Any, Any, Any]:
    """Return Gemma 3's smallest language part (270M) behind a SigLIP of the base size: for a CPU."""
    return _gemma_of(
        questions,
        hf.SiglipVisionConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            image_size=448,
            patch_size=14,
            vision_use_head=False,
        ),
        hf.Gemma3TextConfig(
            hidden_size=640,
            intermediate_size=2048,
            num_hidden_layers=18,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=256,
            vocab_size=262_208,
            sliding_window=512,
            pad_token_id=0,
        ),
    )


def _gemma(questions: Sequence[str]) -> tuple[Any, Any, Any]:
    return _gemma_of(
        questions,
        hf.SiglipVisionConfig(
            hidden_size=1152,
            intermediate_size=4304,
            num_hidden_layers=27,
            num_attention_heads=16,
            image_size=896,
            patch_size=14,
            vision_use_head=False,
        ),
        hf.Gemma3TextConfig(
            hidden_size=2560,
            intermediate_size=10_240,
            num_hidden_layers=34,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=256,
            vocab_size=262_208,
            sliding_window=1024,
            pad_token_id=0,
        ),
    )


def _gemma_of(questions: Sequence[str], seeing: Any, text: Any) -> tuple[Any, Any, Any]:
    edge = seeing.image_size
    config = hf.Gemma3Config(
        vision_config=seeing,
        text_config=text,
        mm_tokens_per_image=256,
        boi_token_id=_id("<boi>"),
        eoi_token_id=_id("<eoi>"),
        image_token_id=_id("<img_soft>"),
    )
    processor = hf.Gemma3Processor(
        image_processor=hf.Gemma3ImageProcessorPil(size={"height": edge, "width": edge}),
        tokenizer=_words(
            questions,
            boi_token="<boi>",  # noqa: S106
            eoi_token="<eoi>",  # noqa: S106
            image_token="<img_soft>",  # noqa: S106
        ),
        image_seq_length=256,
        chat_template=_TEMPLATE.replace("MARK", "<boi>"),
    )
    return config, hf.Gemma3ForConditionalGeneration, processor


def guard_of(
    model: Any, processor: Any, questions: Mapping[str, str], *, yes: int, no: int
) -> tuple[Any, Any]:
    """Return ShieldGemma 2's own classifier around a Gemma 3's weights, and its processor with these questions."""
    config = hf.ShieldGemma2Config(
        vision_config=model.config.vision_config,
        text_config=model.config.text_config,
        mm_tokens_per_image=model.config.mm_tokens_per_image,
        boi_token_index=model.config.boi_token_id,
        eoi_token_index=model.config.eoi_token_id,
        image_token_index=model.config.image_token_id,
    )
    with torch.device("meta"):
        guard = hf.ShieldGemma2ForImageClassification(config).eval()
    guard.model = model
    guard.yes_token_index, guard.no_token_index = yes, no
    return guard, hf.ShieldGemma2Processor(
        image_processor=processor.image_processor,
        tokenizer=processor.tokenizer,
        chat_template=processor.chat_template,
        image_seq_length=processor.image_seq_length,
        policy_definitions=dict(questions),
    )
