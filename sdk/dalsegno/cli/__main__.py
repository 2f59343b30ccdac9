"""``python -m dalsegno.cli``: the same as the command ``dalsegno``."""

from __future__ import annotations

from dalsegno.cli import main

if __name__ == "__main__":
    main()
