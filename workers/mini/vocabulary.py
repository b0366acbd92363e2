"""The bundled model's tokenizer and processor, trained on the project's own prompts and captions."""

import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from workers import prompt
from workers.mini.captions import LINES, STEERING
from workers.mini.concepts import CONCEPTS, GROUPS, Concept, Group
from workers.mini.lessons import Teacher
from workers.mini.scenes import SIDE_PX, Shown

USER, ASSISTANT, END, PAD, IMAGE = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>", "<|image|>"

#: How many tokens the tokenizer has.
SIZE = 8_192

#: How many common words deserve a token of their own, though no lesson may use them.
COMMON = 5_500

#: What is said in every prompt or rationale, and so deserves one token.
FIXED = (
    prompt.SYSTEM,
    prompt.ASK,
    prompt.EXPLAIN,
    "Policy:",
    "Forbidden:",
    "Allowed:",
    "No caption.",
    "Caption: «",
    "Text in the image: «",
    " But not if",
    " is broken.",
    " For example:",
    "Does this upload",
    '{"clause":"',
    '","text":"',
    '","media":0,"box":',
    "null}",
)

TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{% else %}<|user|>{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def corpus(seed: int, uploads: int = 1_500) -> Iterator[str]:
    """Yield texts such as the model will read and write."""
    rng = np.random.default_rng(seed)
    teacher = Teacher(rng)
    kinds = (
        "plain",
        "plain",
        "inverted",
        "caption",
        "act",
        "carve-out",
        "many",
        "together",
        "theme",
    )
    for _ in range(uploads):
        chosen = rng.choice(len(CONCEPTS), int(rng.integers(1, 6)), replace=False)
        shown = [
            Shown(concept=int(each), box=tuple(np.sort(rng.random(4)).tolist())) for each in chosen
        ]
        said = teacher.words(frozenset(each.concept for each in shown))
        yield prompt.prefix(
            images=1, caption=said.caption, text_in_image=said.text_in_image
        ).content
        for kind in rng.choice(np.array(kinds), 3):
            asked = teacher.ask(said.upload, str(kind))
            item = teacher.item(asked, said, shown, explain=bool(rng.random() < 0.5))
            yield item.text
            yield item.reply
            yield prompt.SYSTEM
            yield "Yes" if item.answer else "No"
    things: tuple[Concept | Group, ...] = (*CONCEPTS, *GROUPS)
    for _ in range(12):
        yield "\n".join(
            f"{one}. {many}, a {one}, {one} {many} {one.capitalize()}"
            for each in things
            for one, many in each.words
        )
        yield "\n".join(line for lines in LINES.values() for line in lines.trained)
        yield "\n".join((*STEERING.trained, prompt.SYSTEM))
        yield ",".join(str(number) for number in range(101))


def used(words: PreTrainedTokenizerFast, seed: int = 6) -> torch.Tensor:
    """Return for each token whether lessons use it."""
    found = torch.zeros(len(words), dtype=torch.bool)
    for text in corpus(seed):
        found[words(text, add_special_tokens=False)["input_ids"]] = True
    found[words.convert_tokens_to_ids([PAD, USER, ASSISTANT, END, IMAGE])] = True
    return found


def tokenizer(common: Sequence[str], seed: int = 5) -> PreTrainedTokenizerFast:
    """Train the tokenizer: word-like pieces over bytes, one token for what every prompt repeats and for common words."""
    fixed = "|".join(re.escape(text) for text in sorted(FIXED, key=len, reverse=True))
    made = Tokenizer(models.BPE(byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(rf"{fixed}|\n| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]|\s"), "isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - 5,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=2,
    )
    words = " ".join(common[:COMMON])
    made.train_from_iterator(itertools.chain(corpus(seed), [words] * 4), trainer)
    made.add_special_tokens(
        [
            AddedToken(each, special=True, normalized=False)
            for each in (PAD, USER, ASSISTANT, END, IMAGE)
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=PAD,
        eos_token=END,
        padding_side="right",
        additional_special_tokens=[USER, ASSISTANT, IMAGE],
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def processor(words: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Return the processor: pictures squeezed to one size by Pillow, and the chat template."""
    images = CLIPImageProcessorPil(
        do_resize=True,
        size={"height": SIDE_PX, "width": SIDE_PX},
        resample=3,
        do_center_crop=False,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        do_convert_rgb=True,
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=words,
        patch_size=16,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=0,
    )
