"""manifest.json: what a bundle says of itself, typed. The JSON Schema beside this file says the same.

Roles, not names: tasks ask for a logical entry point (`encode`) and logical tensors (`input_ids`, `logits`);
the manifest binds them to the physical signature, names, dtypes and shapes of each artifact. Versions: 1.0; 1.1 has
adapters; since 2.0 bindings that are alike in every layer are written once (see `mobile_llm.bundle.layers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mobile_llm.errors import WrongTask

SCHEMA_VERSION = "2.0"


@dataclass(frozen=True)
class TensorBinding:
    """A logical tensor's place in an artifact.

    `shape` names what is dynamic ("batch", "sequence") and gives the number of what is not; `range` gives
    the smallest and largest size of each dynamic dimension.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    range: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class EntryPoint:
    """One physical way into an artifact: `signature` (TFLite) or function (Core ML), None for the only one."""

    inputs: Mapping[str, TensorBinding]
    outputs: Mapping[str, TensorBinding]
    signature: str | None = None


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: its path with forward slashes, relative to the bundle."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class KvCache:
    """What a decoder keeps of the tokens it has read: for each of `layers` a key and a value of `kv_heads` heads,
    `head_dim` numbers per token, in `dtype`, for at most `context` tokens.

    `kind` says how it travels: `grown` (the whole cache goes in and comes out longer), `rows` (the whole goes in, the
    new tokens' rows come out, and the runtime writes them), `whole` (it goes in and comes out at one size, new rows
    written), `state` (the artifact keeps it).
    """

    kind: str
    layers: int
    kv_heads: int
    head_dim: int
    dtype: str
    context: int


@dataclass(frozen=True)
class Artifact:
    """One loadable model. Several `entry_points[role]` are the same computation at several static shapes."""

    format: str
    precision: str
    path: str
    files: tuple[FileEntry, ...]
    entry_points: Mapping[str, tuple[EntryPoint, ...]]
    minimum: Mapping[str, str] = field(default_factory=dict)
    cache: KvCache | None = None

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.bytes for file in self.files)

    @property
    def scoring(self) -> tuple[EntryPoint, ...]:
        """What reads several tokens at once, with logits after each: of the role `verify`, which gives those that steps
        of one token would, to the last bit, or `score`. Empty where there is neither."""
        return self.entry_points.get("verify") or self.entry_points.get("score", ())


@dataclass(frozen=True)
class AdapterOrigin:
    """An adapter that was merged into the model; `weights_sha256` is of its weight file."""

    id: str
    weights_sha256: str


@dataclass(frozen=True)
class Origin:
    """The model that came in. `weights_sha256` is over its weight files, by name; of a GGUF file its own.
    `adapters` were merged into it in this order."""

    id: str
    architecture: str
    weights_sha256: str
    licence: str | None = None
    data_licence: str | None = None
    parameters: int = 0
    weights_format: str = "safetensors"
    adapters: tuple[AdapterOrigin, ...] = ()


@dataclass(frozen=True)
class Tokenizer:
    """How texts become ids. `truncation` is the side that is cut, or `none`: what does not fit is then refused. Without
    `token_types` they are 0 for both texts of a pair, whatever tokenizer.json gives. Everything else is in
    tokenizer.json."""

    max_length: int
    truncation: str = "right"
    padding: str = "right"
    tokenizer_class: str | None = None
    token_types: bool = True


@dataclass(frozen=True)
class Generation:
    """How a model is made to write. Any of the ids `stop` ends an answer; `special` are the strings that a chat
    template refers to, such as `bos_token`. The others are the model's own defaults for sampling, where it has them.
    """

    stop: tuple[int, ...]
    special: Mapping[str, str] = field(default_factory=dict)
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class TaskInfo:
    """The task and what its outputs mean. `labels[i]` is the string of logit i; of a regression the only one names the
    number. With `text_pairs` the model was trained on pairs of texts, and the golden references hold pairs."""

    name: str
    problem_type: str | None = None
    text_pairs: bool = False
    labels: tuple[str, ...] = ()
    pooling: str | None = None
    normalize: bool | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    generation: Generation | None = None


@dataclass(frozen=True)
class Manifest:
    """The whole of manifest.json. Artifact ids are `format/variant`; `defaults` names one per format;
    `files` are the bundle's own (tokenizer, config, golden references), each with its hash. Models that take
    tensors have no `tokenizer`."""

    schema_version: str
    created_by: str
    origin: Origin
    task: TaskInfo
    artifacts: Mapping[str, Artifact]
    defaults: Mapping[str, str]
    files: tuple[FileEntry, ...]
    tokenizer: Tokenizer | None = None

    @property
    def text_policy(self) -> Tokenizer:
        """How texts are cut. Raises WrongTask where the model takes tensors."""
        if self.tokenizer is None:
            raise WrongTask(f"{self.origin.id} takes tensors, not texts: use mobile_llm.load(bundle).run(…) in Python")
        return self.tokenizer
