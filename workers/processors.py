"""Loading a checkpoint's processor so that equal pixels come out on every machine."""

import json
from functools import cache
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any, Final

import transformers
from transformers import AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from workers.errors import CheckpointError

#: What some processors ask of their part for videos even for images.
_NO_VIDEO: Final = SimpleNamespace(num_frames=0, fps=1, video_size={})


def load_processor(folder: Path, *, backend: str = "pil") -> Any:
    """Return the processor of a checkpoint, its images resized by Pillow unless said otherwise.

    transformers would choose between Pillow and torchvision by what is installed, and the two
    resize differently: a calibration made with one would not hold for the other.

    Raises:
        CheckpointError: the processor cannot be loaded.
    """
    known = {"local_files_only": True, "trust_remote_code": False, "backend": backend}
    try:
        kind = _class_of(folder)
        if kind is None or "video_processor" not in kind.get_attributes():
            return AutoProcessor.from_pretrained(folder, **known)
        return image_only(kind).from_pretrained(folder, **known)  # type: ignore[attr-defined]
    except (OSError, ValueError, ImportError, TypeError, KeyError) as fault:
        raise CheckpointError("processor", f"{folder}: {fault}") from fault


def described(processor: Any) -> Any:
    """Return what a processor does to pixels; its text side shows in the weights and template."""
    images = getattr(processor, "image_processor", None)
    return None if images is None else {"class": type(images).__name__, **images.to_dict()}


@cache
def image_only(kind: type) -> type:
    """Return the processor class without its part for videos, which we never use.

    That part needs torchvision (and on some machines CUDA) only to be made.
    """
    names = [name for name in kind.get_attributes() if name != "video_processor"]  # type: ignore[attr-defined]
    return type(
        kind.__name__,
        (kind,),
        {
            "__init__": _forgiving(vars(kind)["__init__"]),
            "get_attributes": classmethod(lambda _: names),
            "video_processor": _NO_VIDEO,
        },
    )


def _forgiving(init: FunctionType) -> FunctionType:
    """Return a constructor whose arguments may all be left out.

    transformers reads which settings a processor takes from its constructor's code, so this must
    be the same code and not one that wraps it.
    """
    given = init.__defaults__ or ()
    count = init.__code__.co_argcount - 1
    defaults = (None,) * (count - len(given)) + given
    copied = FunctionType(
        init.__code__, init.__globals__, init.__name__, defaults, init.__closure__
    )
    copied.__kwdefaults__ = init.__kwdefaults__
    return copied


def _class_of(folder: Path) -> Any:
    """Return the processor class that the checkpoint names, else that of its model type."""
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            named = json.loads(path.read_text(encoding="utf-8")).get("processor_class")
            if named:
                return getattr(transformers, named, None)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return getattr(transformers, str(PROCESSOR_MAPPING_NAMES.get(config.get("model_type"))), None)
