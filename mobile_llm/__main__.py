"""`python -m mobile_llm COMMAND` is `mobile-llm COMMAND`, for launchers that start modules."""

import sys

from mobile_llm.commands import main

if __name__ == "__main__":
    sys.exit(main())
