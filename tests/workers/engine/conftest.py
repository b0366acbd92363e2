"""Tiny checkpoints with random weights, one of each family, built from its own classes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from policies.question import Exempt, Forbidden, Question
from workers import prompt
from workers.dialogue import Dialogue
from workers.families import FAMILIES
from workers.passes import Method
from workers.processors import image_only
from workers.scoring import Scorer

MARKS = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "<image>",
    "<|turn|>",
    "<|end|>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    *(f"<row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5)),
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<video>",
    "<boi>",
    "<eoi>",
    "<img_soft>",
    "<|image|>",
]

QUESTIONS = (
    Question(
        id="weapons",
        policy="weapons",
        question="Does this upload sell a weapon?",
        definitions=(("weapon", "a firearm or a blade made to hurt people"),),
        forbidden=(
            Forbidden(id="W1", text="Offers a weapon for sale.", examples=("pistol, price tag",)),
            Forbidden(id="W2", text="Glorifies harm done with a weapon."),
        ),
        allowed=(Exempt(id="A1", text="Toys and museums.", unless=("W1",)),),
    ),
    Question(
        id="drugs",
        policy="drugs",
        question="Does it show drugs?",
        forbidden=(Forbidden(id="D1", text="Shows pills."),),
    ),
    Question(
        id="hate",
        policy="hate",
        reads=frozenset({"caption"}),
        question="Does the caption insult people for where they come from or what they believe?",
        forbidden=(Forbidden(id="H1", text="Calls a group of people by an animal's name."),),
    ),
    Question(
        id="nudity",
        policy="nudity",
        reads=frozenset({"image"}),
        question="Is somebody naked?",
        forbidden=(Forbidden(id="N1", text="Shows a naked person."),),
        allowed=(Exempt(id="A1", text="Art."), Exempt(id="A2", text="Medicine.")),
    ),
)

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn|>user\n{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}MARK{% else %}{{ p['text'] }}{% endif %}{% endfor %}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


@cache
def _words() -> str:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(MARKS) + 256 + 250,
        special_tokens=MARKS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [prompt.SYSTEM, "Yes No", *(prompt.suffix(question) for question in QUESTIONS)]
    tokenizer.train_from_iterator(texts * 4, trainer)
    return tokenizer.to_str()


def words(**extra: str) -> Any:
    """Return a small tokenizer with every family's marks."""
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_words()),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=extra,
    )


def token(mark: str) -> int:
    """Return a mark's id."""
    return MARKS.index(mark)


TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": len(MARKS) + 256 + 250,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 4096,
}
VIT = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}
SIZE = {"height": 28, "width": 28}
_CLIP = {"size": {"shortest_edge": 28}, "crop_size": SIZE}

Made = tuple[Any, Any]


def _llava() -> Made:
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VIT),
        text_config=hf.LlamaConfig(**TEXT),
        image_token_id=token("<image>"),
        image_seq_length=16,
    )
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(**_CLIP),
        tokenizer=words(image_token="<image>"),
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("MARK", "<image>"),
    )
    return hf.LlavaForConditionalGeneration(config), processor


def _fast_vlm() -> Made:
    vision = hf.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24],
        depths=[1, 1, 1],
        layer_type="basic",
        hidden_size=24,
        out_features=None,
    )
    config = hf.FastVlmConfig(
        vision_config=vision,
        text_config=hf.LlamaConfig(**TEXT, tie_word_embeddings=True),
        image_token_id=token("<image>"),
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(
            size={"height": 64, "width": 64}, do_center_crop=False
        ),
        tokenizer=words(image_token="<image>"),
        patch_size=16,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=TEMPLATE.replace("MARK", "<image>"),
    )
    return hf.FastVlmForConditionalGeneration(config), processor


def _llava_next() -> Made:
    points = [[28, 56], [56, 28], [56, 56]]
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VIT),
        text_config=hf.LlamaConfig(**TEXT),
        image_token_id=token("<image>"),
        image_grid_pinpoints=points,
    )
    processor = hf.LlavaNextProcessor(
        image_processor=hf.LlavaNextImageProcessor(**_CLIP, image_grid_pinpoints=points),
        tokenizer=words(image_token="<image>"),
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("MARK", "<image>"),
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def _llava_onevision() -> Made:
    points = [[28, 28], [28, 56], [56, 28], [56, 56]]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VIT, vision_use_head=False),
        text_config=hf.Qwen2Config(**TEXT),
        image_token_id=token("<image>"),
        video_token_id=token("<video>"),
        image_grid_pinpoints=points,
        vision_feature_select_strategy="full",
    )
    processor = image_only(hf.LlavaOnevisionProcessor)(
        image_processor=hf.LlavaOnevisionImageProcessor(size=SIZE, image_grid_pinpoints=points),
        tokenizer=words(image_token="<image>", video_token="<video>"),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE.replace("MARK", "<image>"),
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def _internvl() -> Made:
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(
            **{**VIT, "image_size": [28, 28], "patch_size": [7, 7]}, norm_type="layer_norm"
        ),
        text_config=hf.Qwen2Config(**TEXT),
        image_token_id=token("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    tokenizer = words(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    processor = image_only(hf.InternVLProcessor)(
        image_processor=hf.GotOcr2ImageProcessor(
            size=SIZE, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=TEMPLATE.replace("MARK", "<IMG_CONTEXT>"),
    )
    return hf.InternVLForConditionalGeneration(config), processor


def _idefics3_config(kind: Any) -> Any:
    return kind(
        vision_config={**VIT, "image_size": 32, "patch_size": 8},
        text_config=hf.LlamaConfig(**TEXT),
        image_token_id=token("<image>"),
        scale_factor=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )


def _idefics3() -> Made:
    processor = hf.Idefics3Processor(
        image_processor=hf.Idefics3ImageProcessor(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
        ),
        tokenizer=words(),
        image_seq_len=4,
        chat_template=TEMPLATE.replace("MARK", "<image>"),
    )
    model = hf.Idefics3ForConditionalGeneration(_idefics3_config(hf.Idefics3Config))
    return model, processor


def _smolvlm() -> Made:
    processor = image_only(hf.SmolVLMProcessor)(
        image_processor=hf.SmolVLMImageProcessor(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
        ),
        tokenizer=words(),
        video_processor=None,
        image_seq_len=4,
        chat_template=TEMPLATE.replace("MARK", "<image>"),
    )
    model = hf.SmolVLMForConditionalGeneration(_idefics3_config(hf.SmolVLMConfig))
    return model, processor


def _idefics2() -> Made:
    config = hf.Idefics2Config(
        vision_config={**VIT, "image_size": 56, "patch_size": 7},
        perceiver_config={
            "hidden_size": 32,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 8,
            "num_key_value_heads": 1,
        },
        text_config=hf.MistralConfig(**TEXT, sliding_window=None),
        image_token_id=token("<image>"),
    )
    processor = hf.Idefics2Processor(
        image_processor=hf.Idefics2ImageProcessor(
            size={"shortest_edge": 28, "longest_edge": 56}, do_image_splitting=False
        ),
        tokenizer=words(),
        image_seq_len=4,
        chat_template=TEMPLATE.replace("MARK", "<image>"),
    )
    return hf.Idefics2ForConditionalGeneration(config), processor


_QWEN_IDS = {
    "image_token_id": token("<|image_pad|>"),
    "video_token_id": token("<|video_pad|>"),
    "vision_start_token_id": token("<|vision_start|>"),
    "vision_end_token_id": token("<|vision_end|>"),
}
_QWEN_MARK = "<|vision_start|><|image_pad|><|vision_end|>"
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


def _qwen_processor(kind: Any, patch: int) -> Any:
    return image_only(kind)(
        image_processor=hf.Qwen2VLImageProcessor(
            patch_size=patch,
            merge_size=2,
            size={"shortest_edge": patch * patch * 16, "longest_edge": patch * patch * 64},
        ),
        tokenizer=words(),
        chat_template=TEMPLATE.replace("MARK", _QWEN_MARK),
    )


def _qwen2_vl() -> Made:
    config = hf.Qwen2VLConfig(
        vision_config={
            "depth": 2,
            "embed_dim": 24,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 7,
        },
        text_config={**TEXT, "rope_parameters": _MROPE},
        **_QWEN_IDS,
    )
    return hf.Qwen2VLForConditionalGeneration(config), _qwen_processor(hf.Qwen2VLProcessor, 7)


def _qwen2_5_vl() -> Made:
    config = hf.Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 24,
            "intermediate_size": 32,
            "out_hidden_size": 32,
            "num_heads": 2,
            "patch_size": 7,
            "window_size": 28,
            "fullatt_block_indexes": [1],
        },
        text_config={**TEXT, "rope_parameters": _MROPE},
        **_QWEN_IDS,
    )
    processor = _qwen_processor(hf.Qwen2_5_VLProcessor, 7)
    return hf.Qwen2_5_VLForConditionalGeneration(config), processor


def _qwen3_vl() -> Made:
    config = hf.Qwen3VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 24,
            "intermediate_size": 32,
            "out_hidden_size": 32,
            "num_heads": 2,
            "patch_size": 8,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 64,
        },
        text_config={**TEXT, "rope_parameters": _MROPE},
        **_QWEN_IDS,
    )
    return hf.Qwen3VLForConditionalGeneration(config), _qwen_processor(hf.Qwen3VLProcessor, 8)


def _gemma3() -> Made:
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**VIT, vision_use_head=False),
        text_config=hf.Gemma3TextConfig(
            **TEXT,
            sliding_window=40,
            layer_types=["sliding_attention", "full_attention"],
            query_pre_attn_scalar=8,
            final_logit_softcapping=3.0,
        ),
        mm_tokens_per_image=4,
        boi_token_id=token("<boi>"),
        eoi_token_id=token("<eoi>"),
        image_token_id=token("<img_soft>"),
    )
    processor = hf.Gemma3Processor(
        image_processor=hf.Gemma3ImageProcessor(size=SIZE),
        tokenizer=words(boi_token="<boi>", eoi_token="<eoi>", image_token="<img_soft>"),
        image_seq_length=4,
        chat_template=TEMPLATE.replace("MARK", "<boi>"),
    )
    return hf.Gemma3ForConditionalGeneration(config), processor


def _paligemma() -> Made:
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**VIT, vision_use_head=False, projection_dim=32),
        text_config=hf.GemmaConfig(**TEXT),
        image_token_id=token("<image>"),
        projection_dim=32,
    )
    processor = hf.PaliGemmaProcessor(
        image_processor=_counted(hf.SiglipImageProcessor(size=SIZE), 16),
        tokenizer=words(image_token="<image>"),
    )
    return hf.PaliGemmaForConditionalGeneration(config), processor


def _counted(images: Any, length: int) -> Any:
    images.image_seq_length = length
    return images


def _mllama() -> Made:
    config = hf.MllamaConfig(
        vision_config={
            **{k: VIT[k] for k in ("hidden_size", "intermediate_size", "image_size", "patch_size")},
            "attention_heads": 2,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 48,
            "max_num_tiles": 4,
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1], [2, 2], [1, 3], [3, 1]],
        },
        text_config={**TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1]},
        image_token_index=token("<|image|>"),
    )
    # Its embedding has eight rows more than its vocabulary: the image mark has a row, no logit.
    processor = hf.MllamaProcessor(
        image_processor=hf.MllamaImageProcessor(size=SIZE, max_image_tiles=4),
        tokenizer=words(),
        chat_template=TEMPLATE.replace("MARK", "<|image|>"),
    )
    return hf.MllamaForConditionalGeneration(config), processor


def _idefics() -> Made:
    config = hf.IdeficsConfig(
        vocab_size=TEXT["vocab_size"],
        additional_vocab_size=0,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        cross_layer_interval=2,
        alpha_initializer="ones",
        vision_config={
            "embed_dim": 24,
            "image_size": 28,
            "patch_size": 7,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        use_resampler=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    processor = hf.IdeficsProcessor(
        image_processor=hf.IdeficsImageProcessor(image_size=28),
        tokenizer=words(),
    )
    return hf.IdeficsForVisionText2Text(config), processor


def _shieldgemma2() -> Made:
    gemma, base = _gemma3()
    config = hf.ShieldGemma2Config(
        vision_config=gemma.config.vision_config,
        text_config=gemma.config.text_config,
        mm_tokens_per_image=4,
        boi_token_index=token("<boi>"),
        eoi_token_index=token("<eoi>"),
        image_token_index=token("<img_soft>"),
    )
    template = (
        "{{ bos_token }}{% for m in messages %}<|turn|>user\nYou are a policy expert.\n"
        "{% for p in m['content'] %}{% if p['type'] == 'image' %}<boi>{% else %}"
        "Our principle: {{ p['text'] }}\nDoes the image violate it? Answer Yes or No."
        "{% endif %}{% endfor %}<|end|>\n{% endfor %}<|turn|>assistant\n"
    )
    processor = hf.ShieldGemma2Processor(
        image_processor=base.image_processor,
        tokenizer=base.tokenizer,
        chat_template=template,
        image_seq_length=4,
    )
    return hf.ShieldGemma2ForImageClassification(config), processor


def _llama_guard() -> Made:
    model, processor = _mllama()
    processor.chat_template = (
        "{{ bos_token }}{% for m in messages %}<|turn|>user\nS1: Violent Crimes.\n"
        "S9: Indiscriminate Weapons.\nS2: Hate.\n{% for p in m['content'] %}"
        "{% if p['type'] == 'image' %}<|image|>{% else %}{{ p['text'] }}{% endif %}"
        "{% endfor %}<|end|>\n{% endfor %}<|turn|>assistant\n"
    )
    return model, processor


def _llava_alibi() -> Made:
    """Return a LLaVA around a language model that knows places by distance alone: its type's entry is wrong for it."""
    text = {k: TEXT[k] for k in ("hidden_size", "vocab_size", "pad_token_id")}
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VIT),
        text_config=hf.BloomConfig(**text, n_layer=2, n_head=4, tie_word_embeddings=False),
        image_token_id=token("<image>"),
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    return hf.LlavaForConditionalGeneration(config), _llava()[1]


def _clip() -> Made:
    text = {**{k: TEXT[k] for k in ("hidden_size", "intermediate_size", "vocab_size")}}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    config = hf.CLIPConfig(
        text_config={**text, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0},
        vision_config=VIT,
        projection_dim=16,
    )
    processor = hf.CLIPProcessor(image_processor=hf.CLIPImageProcessor(**_CLIP), tokenizer=words())
    return hf.CLIPModel(config), processor


def _siglip() -> Made:
    text = {**{k: TEXT[k] for k in ("intermediate_size", "vocab_size")}, "hidden_size": 24}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    config = hf.SiglipConfig(text_config={**text, "projection_size": 24}, vision_config=VIT)
    processor = hf.SiglipProcessor(
        image_processor=hf.SiglipImageProcessor(size=SIZE), tokenizer=words()
    )
    return hf.SiglipModel(config), processor


def _siglip2() -> Made:
    text = {**{k: TEXT[k] for k in ("intermediate_size", "vocab_size")}, "hidden_size": 24}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    seen = {k: v for k, v in VIT.items() if k != "image_size"}
    config = hf.Siglip2Config(
        text_config={**text, "projection_size": 24}, vision_config={**seen, "num_patches": 16}
    )
    processor = hf.Siglip2Processor(
        image_processor=hf.Siglip2ImageProcessor(patch_size=7, max_num_patches=16),
        tokenizer=words(),
    )
    return hf.Siglip2Model(config), processor


_NAMES = {0: "weapon", 1: "pill", 2: "other"}


def _vit() -> Made:
    config = hf.ViTConfig(**VIT, id2label=_NAMES)
    return hf.ViTForImageClassification(config), hf.ViTImageProcessor(size=SIZE)


def _resnet() -> Made:
    config = hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=_NAMES
    )
    return hf.ResNetForImageClassification(config), hf.ViTImageProcessor(size=SIZE)


#: What text models with labels have in common.
_LABELLED = {k: TEXT[k] for k in ("hidden_size", "intermediate_size", "vocab_size")} | {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}


def _toxicity() -> Made:
    config = hf.BertConfig(
        **_LABELLED,
        id2label={0: "insult", 1: "threat", 2: "spam"},
        problem_type="multi_label_classification",
    )
    return hf.BertForSequenceClassification(config), words()


def _roberta() -> Made:
    """Return a model that counts places from behind the mark of padding: one less fits than it has places."""
    config = hf.RobertaConfig(
        **_LABELLED,
        max_position_embeddings=66,
        id2label={0: "insult", 1: "other"},
    )
    return hf.RobertaForSequenceClassification(config), words()


def _text(kind: Any, config: Any) -> Callable[[], Made]:
    return lambda: (kind(config), words())


#: What is no family of its own: guards, dual encoders, models with labels.
OTHERS: dict[str, Callable[[], Made]] = {
    "shieldgemma2": _shieldgemma2,
    "llama_guard": _llama_guard,
    "llava_alibi": _llava_alibi,
    "clip": _clip,
    "siglip": _siglip,
    "siglip2": _siglip2,
    "vit": _vit,
    "resnet": _resnet,
    "toxicity": _toxicity,
    "roberta": _roberta,
}

BUILDERS: dict[str, Callable[[], Made]] = {
    "llava": _llava,
    "fast_vlm": _fast_vlm,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "internvl": _internvl,
    "idefics2": _idefics2,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "gemma3": _gemma3,
    "paligemma": _paligemma,
    "mllama": _mllama,
    "idefics": _idefics,
    "llama": _text(hf.LlamaForCausalLM, hf.LlamaConfig(**TEXT)),
    "mistral": _text(hf.MistralForCausalLM, hf.MistralConfig(**TEXT, sliding_window=100)),
    "qwen2": _text(hf.Qwen2ForCausalLM, hf.Qwen2Config(**TEXT)),
    "qwen3": _text(hf.Qwen3ForCausalLM, hf.Qwen3Config(**TEXT)),
    "gemma3_text": _text(
        hf.Gemma3ForCausalLM,
        hf.Gemma3TextConfig(
            **TEXT, sliding_window=100, layer_types=["sliding_attention", "full_attention"]
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A tiny model with its processor, weights scaled until scores spread."""

    kind: str
    model: Any
    processor: Any

    @property
    def sees(self) -> bool:
        """Return whether it takes images."""
        return hasattr(self.processor, "tokenizer")

    def scorer(self, method: Method | None = None, **options: Any) -> Scorer:
        """Return a scorer by the family's entry."""
        family = FAMILIES[self.kind]
        dialogue = Dialogue(self.processor, family)
        return Scorer(self.model, dialogue, family, method=method, **options)


TEXT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn|>user\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


def build(kind: str) -> Tiny:
    """Return a tiny checkpoint of a family with large random weights, the same each time."""
    torch.manual_seed(5)
    model, processor = (BUILDERS | OTHERS)[kind]()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.25)
            elif "gate" in name:  # shut at first, so that images would not count
                weight.fill_(1.0)
    if isinstance(processor, hf.PreTrainedTokenizerFast):
        processor.chat_template = TEXT_TEMPLATE
    return Tiny(kind=kind, model=model.eval(), processor=processor)


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], Tiny]:
    """Return a maker of tiny checkpoints that keeps what it made."""
    torch.set_num_threads(1)
    return cache(build)


@pytest.fixture(scope="session")
def questions() -> tuple[Question, ...]:
    """Return four questions of different lengths that read different parts."""
    return QUESTIONS


@pytest.fixture(scope="session")
def noise() -> Callable[[int, int, int], Image.Image]:
    """Return a maker of pictures of coarse noise by seed, width and height."""

    def make(seed: int, width: int = 60, height: int = 40) -> Image.Image:
        coarse = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)

    return make


@pytest.fixture(scope="session")
def saved(
    tmp_path_factory: pytest.TempPathFactory, tiny: Callable[[str], Tiny]
) -> Callable[[str], Path]:
    """Return a maker of checkpoint folders that keeps what it wrote."""

    @cache
    def save(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        made = tiny(kind)
        made.model.save_pretrained(folder)
        made.processor.save_pretrained(folder)
        return folder

    return save
