"""The formats artifacts are written in. One folder per format, found by its name; each offers

    PRECISIONS: tuple[str, ...]
    lower(model: EncoderModel, precision: str, bundle: Path) -> Lowered

`lower` writes into the folder `bundle` under the names the format's clients look for. The blocks it is given
already hold what the precision asks for (float32, float16 or integers); `precision` decides the file's name
and the type of the arithmetic where the format has a choice.
"""
