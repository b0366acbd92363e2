"""From a configured classifier to one that answers; heavy libraries load only when asked to."""

from dataclasses import replace

from workers import tiles
from workers.classifier import Classifier
from workers.errors import CheckpointError
from workers.spec import ClassifierSpec


def load(spec: ClassifierSpec) -> Classifier:
    """Return the classifier, its model loaded, reading pictures in tiles too where its options say so.

    Raises:
        CheckpointError: the model or its settings are unusable; says what to mend.
    """
    own = {name: value for name, value in spec.options.items() if name not in tiles.OPTIONS}
    return tiles.tiled(_load(replace(spec, options=own)), spec.options)


def _load(spec: ClassifierSpec) -> Classifier:
    if spec.kind == "stub":
        from workers.stub import StubClassifier

        return StubClassifier(spec)
    if spec.kind == "generative" or (spec.kind == "text" and not spec.labels):
        from workers.generative import GenerativeClassifier

        return GenerativeClassifier(spec)
    if spec.kind == "guard":
        from workers.guard import GuardClassifier

        return GuardClassifier(spec)
    if spec.kind == "contrastive":
        from workers.contrastive import ContrastiveClassifier

        return ContrastiveClassifier(spec)
    if spec.kind in {"image", "text"}:
        from workers.labels import LabelClassifier

        return LabelClassifier(spec)
    if spec.kind == "gemini":
        from workers.gemini import GeminiClassifier

        return GeminiClassifier(spec)
    if spec.kind == "remote":
        from workers.remote import RemoteClassifier

        return RemoteClassifier(spec)
    raise CheckpointError("kind", f"classifier {spec.name}: there is no kind {spec.kind!r}")
