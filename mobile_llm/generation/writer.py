"""What a model that writes is made of: one engine, its tokenizer, its chat template, and whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence

from mobile_llm.bundle import Bundle
from mobile_llm.bundle.manifest import Generation
from mobile_llm.errors import IntegrityFailed, InvalidInput
from mobile_llm.generation.engine import DecoderEngine
from mobile_llm.generation.loop import Request
from mobile_llm.generation.stream import Done, Stream
from mobile_llm.generation.template import ChatTemplate, Message
from mobile_llm.generation.turn import Turn, Turns
from mobile_llm.tasks.tokenization import TextTokenizer

TEMPLATE_FILE = "chat_template.jinja"


class Writer:
    """Shared by a model and its sessions."""

    def __init__(self, engine: DecoderEngine) -> None:
        self.engine = engine
        self.turns = Turns(engine.close)
        self.tokenizer = TextTokenizer(engine.bundle)
        self.template = chat_template(engine.bundle)
        self.generation = engine.manifest.task.generation or Generation(stop=())

    def prompt(self, messages: Sequence[Message]) -> str:
        """A conversation as the model reads it, up to where it is to answer. Raises InvalidInput."""
        return self.needed_template().render(messages)

    def needed_template(self) -> ChatTemplate:
        """Raises InvalidInput where there is none."""
        if self.template is None:
            raise InvalidInput(f"this model has no chat template ({TEMPLATE_FILE}); pass the prompt as one text")
        return self.template

    def encode(self, prompt: str | Sequence[Message]) -> list[int]:
        """A prompt's ids. A conversation's template writes the special tokens itself."""
        if isinstance(prompt, str):
            return list(self.tokenizer.encode(prompt).ids)
        return self.encode_prompt(self.prompt(prompt))

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of what the template has written."""
        return list(self.tokenizer.encode(text, special=False).ids)

    def stream(self, request: Request, turn: Turn, done: Done) -> Stream:
        """An answer that is written as it is read."""
        return Stream(self.engine, self.tokenizer.decode, request, turn, done)


def chat_template(bundle: Bundle) -> ChatTemplate | None:
    """A bundle's template, None where it has none. Raises IntegrityFailed for a file that cannot be read."""
    if not any(file.path == TEMPLATE_FILE for file in bundle.manifest.files):
        return None
    try:
        source = bundle.own_file(TEMPLATE_FILE).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise IntegrityFailed(f"{TEMPLATE_FILE} is not UTF-8; fetch the bundle again") from None
    generation = bundle.manifest.task.generation
    return ChatTemplate(source, generation.special if generation else None)
