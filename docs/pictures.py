"""Makes the pictures of README and docs from the newest study of a record: its page, in a headless Chromium.

python docs/pictures.py inference [--db studies/autotune.db]
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from autotuner.records import open_record
from autotuner.report.study_page import page
from autotuner.story import tell

HERE = Path(__file__).parent
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def shoot(html: Path, picture: Path, width: int, height: int, scheme: int) -> None:
    """The top of a page as PNG, with twice as many pixels."""
    assert BROWSER is not None, "needs chromium"
    with tempfile.TemporaryDirectory() as folder:
        argv = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={folder}",
                f"--window-size={width},{height}", "--force-device-scale-factor=1.5",
                f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={picture}",
                html.as_uri()]  # fmt: skip
        subprocess.run(argv, check=True, capture_output=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--db")
    given = parser.parse_args()
    (HERE / "images").mkdir(exist_ok=True)
    with open_record(given.db) as record, tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "report.html"
        html.write_text(page(tell(record, given.study)))
        for name, scheme in (("light", 1), ("dark", 0)):
            shoot(html, HERE / "images" / f"report-{name}.png", 1200, 1180, scheme)


if __name__ == "__main__":
    main()
