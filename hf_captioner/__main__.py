"""`python -m hf_captioner` is `hf-captioner`."""

import sys

from hf_captioner.cli import main

sys.exit(main())
