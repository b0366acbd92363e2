"""Checkpoints on disk: where they lie, which weights exactly, and how they are loaded."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from workers.errors import CheckpointError
from workers.spec import BUNDLED, ClassifierSpec

#: What of a repository is fetched: no pickles, no code.
_WANTED: Final = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
#: What of a folder scores depend on: weights, and what words and pixels become before them. Cards and figures are
#: no part of it, nor is how text is generated.
_JUDGING: Final = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.*",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "tekken.json",
    "*.model",
)

#: Options of every model that is loaded here.
LOADING: Final = frozenset({"device", "attention", "quantise", "compile"})

#: Ways of keeping the language part's weights small; the vision tower keeps its own.
QUANTISED: Final = ("int8",)
#: What transformers calls the part that sees.
SEEING: Final = ("vision_tower", "vision_model", "visual")

_DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def folder_of(spec: ClassifierSpec) -> Path:
    """Return the folder with the checkpoint; a hub name is fetched if it is not there yet.

    Raises:
        CheckpointError: there is no such folder or repository, or it has no safetensors.
    """
    folder = BUNDLED if spec.model == "bundled" else Path(spec.model).expanduser()
    if not folder.is_dir():
        folder = _fetched(spec)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            "checkpoint",
            f"classifier {spec.name}: {folder} has no config.json with *.safetensors beside it;"
            " weights in other formats are not loaded",
        )
    return folder


def revision_of(folder: Path) -> str:
    """Return the hub's commit for a fetched checkpoint, else a digest of the bytes that scores depend on."""
    if folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name):
        return folder.name
    files = _files(folder)
    return _bytes(folder, tuple((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files))


def config_of(folder: Path) -> dict[str, Any]:
    """Return the checkpoint's own configuration."""
    text: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return text


def check_options(spec: ClassifierSpec, known: Collection[str]) -> None:
    """Refuse an option that this kind of classifier does not have.

    Raises:
        CheckpointError: there is one; names those that there are.
    """
    for name in spec.options:
        if name not in known:
            told = ", ".join(sorted(known))
            raise CheckpointError(
                "options",
                f"classifier {spec.name}: {spec.kind} has no option {name!r}; it has {told}",
            )


def device_of(options: Mapping[str, Any]) -> torch.device:
    """Return the device that the options name, else a GPU where there is one."""
    named = options.get("device", "auto")
    if named != "auto":
        return torch.device(str(named))
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_of(spec: ClassifierSpec, config: Mapping[str, Any], device: torch.device) -> torch.dtype:
    """Return the number format: on a CPU float32, on a GPU the checkpoint's, unless one is set."""
    if spec.dtype != "auto":
        return _DTYPES[spec.dtype]
    if device.type == "cpu":
        return torch.float32
    text = config.get("text_config") or {}
    own = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "bfloat16"
    return _DTYPES.get(str(own), torch.bfloat16)


def model_of(kind: Any, spec: ClassifierSpec, folder: Path) -> Any:
    """Return the model, loaded by this auto class, ready to answer.

    Raises:
        CheckpointError: transformers cannot load it.
    """
    device = device_of(spec.options)
    extra = {}
    if "attention" in spec.options:
        extra["attn_implementation"] = spec.options["attention"]
    try:
        model = kind.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype_of(spec, config_of(folder), device),
            **extra,
        )
    except (OSError, ValueError, ImportError, KeyError) as fault:
        raise CheckpointError("checkpoint", f"classifier {spec.name}: {fault}") from fault
    model = model.to(device).eval()
    how = spec.options.get("quantise")
    if how is not None:
        _quantise(model, str(how), spec)
    if spec.options.get("compile"):
        # Only what keeps its shape from call to call: prompts differ in length, pictures do not.
        for part in _towers(model):
            part.compile()
    return model


def _quantise(model: Any, how: str, spec: ClassifierSpec) -> None:
    """Keep the weights of the language part's layers in 8 bits, one scale a row.

    By measurement (tests/benchmarks/README.md): on a CPU bitsandbytes and torchao are equally fast and exact, but
    torchao, where it is installed, makes every process that loads any model start seconds later.
    """
    if how not in QUANTISED:
        told = ", ".join(QUANTISED)
        raise CheckpointError("options", f"classifier {spec.name}: quantise is {told}, not {how!r}")
    try:
        from bitsandbytes.nn import Int8Params, Linear8bitLt
    except ImportError as fault:
        raise CheckpointError(
            "quantise-missing",
            f"classifier {spec.name}: quantised loading needs `pip install 'weir-moderation[quantise]'`",
        ) from fault
    head = model.get_output_embeddings()
    for name, part in list(model.named_modules()):
        # The output layer stays as it is: its rows of Yes and No are read one by one.
        seeing = any(word in name for word in SEEING)
        if not isinstance(part, torch.nn.Linear) or part is head or seeing:
            continue
        small = Linear8bitLt(
            part.in_features,
            part.out_features,
            bias=part.bias is not None,
            has_fp16_weights=False,
            threshold=0.0,
        )
        small.weight = Int8Params(part.weight.data, requires_grad=False, has_fp16_weights=False)
        if part.bias is not None:
            small.bias = part.bias
        owner, _, last = name.rpartition(".")
        # Moving it to its device is what quantises it.
        setattr(model.get_submodule(owner), last, small.to(part.weight.device).eval())


def _towers(model: Any) -> list[Any]:
    inner = model.base_model
    return [tower for name in SEEING if (tower := getattr(inner, name, None)) is not None]


def loading_of(spec: ClassifierSpec) -> dict[str, Any]:
    """Return what of the way of loading changes scores, for the digest; nothing where it is the usual one."""
    told = {name: spec.options.get(name) for name in ("quantise", "compile")}
    return {name: value for name, value in told.items() if value}


def attention_of(model: Any) -> str:
    """Return the name of the attention that the language part runs."""
    text = model.config.get_text_config()
    return str(getattr(text, "_attn_implementation", None) or "eager")


def digest(facts: Mapping[str, Any]) -> str:
    """`sha256:…` of everything that a calibration depends on."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, default=str)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _fetched(spec: ClassifierSpec) -> Path:
    for offline in (True, False):
        try:
            return Path(
                snapshot_download(
                    spec.model,
                    revision=spec.revision,
                    allow_patterns=_WANTED,
                    local_files_only=offline,
                )
            )
        except LocalEntryNotFoundError as fault:
            missing: Exception = fault
        except (RepositoryNotFoundError, HfHubHTTPError, OSError, ValueError) as fault:
            missing = fault
            break
    raise CheckpointError(
        "checkpoint",
        f"classifier {spec.name}: {spec.model!r} is neither a folder nor a model that can be"
        f" fetched from the hub: {missing}",
    ) from missing


def _files(folder: Path) -> list[Path]:
    return sorted({path for pattern in _JUDGING for path in folder.glob(pattern)})


_State = tuple[tuple[str, int, int], ...]
_known: dict[tuple[Path, _State], str] = {}


def _bytes(folder: Path, state: _State) -> str:
    if (folder, state) not in _known:
        summed = hashlib.sha256()
        for name, _, _ in state:
            with (folder / name).open("rb") as stream:
                summed.update(f"{name}\n".encode())
                summed.update(hashlib.file_digest(stream, "sha256").digest())
        _known[folder, state] = "sha256:" + summed.hexdigest()
    return _known[folder, state]
