import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))  # for scripted_study
sys.path.insert(0, str(Path(__file__).parent))  # for refusal
