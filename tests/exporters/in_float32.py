"""`mobile-llm` for launchers, training in float32 on every machine, so that curves are equal to its rounding."""

import sys

from exporters.finetuning import training
from mobile_llm.commands import main

if __name__ == "__main__":
    training.bfloat16_helps = lambda: False
    sys.exit(main())
