"""The promise of the room, in small: `benchmarks/false_positives.py` with fewer studies, through the real contest."""

import pytest
from false_positives import GAIN, LAUNCH_SD, Setting, main, peeking, simulate, welch
from simulated_machine import NOISES

STUDIES = 100


@pytest.mark.parametrize("noise", NOISES)
def test_twins_are_not_called_better_and_the_interval_covers(noise):
    studies = [simulate(Setting(noise, LAUNCH_SD, 1.0), seed) for seed in range(2 * STUDIES)]
    assert sum(study.better for study in studies) <= 0.02 * len(studies)
    assert sum(study.covered for study in studies) >= 0.93 * len(studies)


@pytest.mark.parametrize("noise", NOISES)
def test_a_true_gain_is_found_without_flattery(noise):
    studies = [simulate(Setting(noise, LAUNCH_SD, GAIN), seed) for seed in range(STUDIES)]
    assert sum(study.better for study in studies) >= 0.9 * STUDIES
    assert sum(study.covered for study in studies) >= 0.93 * STUDIES
    assert abs(sum(study.bias_log for study in studies) / STUDIES) < 0.006


@pytest.mark.parametrize("noise", sorted(set(NOISES) - {"spiking"}))
def test_twelve_pairs_suffice_for_five_percent_at_two_percent_noise(noise):
    studies = [simulate(Setting(noise, 0.0, GAIN), seed) for seed in range(STUDIES)]
    assert sum(study.better and study.pairs <= 12 for study in studies) >= 0.88 * STUDIES


def test_the_rules_that_people_use_do_lie_here():
    """Else the simulated machine would be too kind to prove anything."""
    peeks = [peeking(Setting("independent", LAUNCH_SD, 1.0), seed) for seed in range(STUDIES)]
    welches = [welch(Setting("autocorrelated 0.9", LAUNCH_SD, 1.0), seed) for seed in range(STUDIES)]
    assert sum(study.better for study in peeks) > 0.1 * STUDIES
    assert sum(study.better for study in welches) > 0.2 * STUDIES


def test_program_prints_and_keeps_raw_counts(tmp_path, capsys):
    main(["--studies", "2", "--json", str(tmp_path / "counts.json")])
    assert "autotune contest" in capsys.readouterr().out
    assert (tmp_path / "counts.json").read_text().count('"studies": 2') == 50
