"""`mobile-llm` for launchers, where the first process starts long after the others have found the fault."""

import os
import sys
import time

from mobile_llm.commands import main

if __name__ == "__main__":
    time.sleep(3 if os.environ["RANK"] == "0" else 0)
    sys.exit(main())
