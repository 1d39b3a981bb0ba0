"""What people say in vain is answered, and an alarm can always be left."""

import json
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autotuner.cli.main import app
from autotuner.daemon.bundles import Bundles
from autotuner.daemon.hooks import HookError
from autotuner.daemon.keeper import Keeper
from autotuner.daemon.machine import Plan, advance, begin
from autotuner.daemon.watching import Watch
from autotuner.daemon.words import SAID, doubts, in_vain, meaning
from autotuner.telling import sentence_of
from autotuner.types import Deployment, Phase

sys.path.insert(0, str(Path(__file__).parent))
from simulated import LEVEL, TERMS, Simulated, better, until


@pytest.mark.parametrize(("phase", "frozen", "previous"), [*product(Phase, (False, True), ("", "b0"))])
def test_what_is_in_vain_the_machine_does_not_hear_and_the_other_way_round(phase, frozen, previous):
    at = Simulated().now
    state = replace(begin("b1", at), phase=phase, frozen=frozen, previous=previous, reached=True, candidate="b2")
    state = replace(state, wanted=Deployment("b1", "b2", 10)) if phase is Phase.CANARY else state
    for word in SAID:
        same = advance(state, meaning(word, "me"), Plan(), at) == state
        assert bool(in_vain(state, word)) == same, word


class Kept:
    """A keeper whose bundles are real folders; to put one in place that is damaged fails."""

    def __init__(self, journal, folder):
        self.journal, self.world, self.bundles = journal, Simulated(), Bundles(folder / "bundles")
        self.folder, self.names = folder, {}
        self.first, second = self.keep("first"), self.keep("second")
        self.world.latency_s = {self.first: 0.25, second: 0.15}
        self.world.offers, self.second = [second], second
        outside = replace(
            self.world.world(), first=lambda: self.keep("first"), place=self.place, damage=self.bundles.damage
        )
        self.keeper = Keeper(journal, outside, TERMS, Watch([LEVEL], breaches=2), "one")

    def keep(self, text):
        (self.folder / "draft").mkdir(exist_ok=True)
        (self.folder / "draft" / "config.json").write_text(text)
        return self.bundles.keep(self.folder / "draft")

    def place(self, wanted, token):
        for bundle in filter(None, (wanted.stable, wanted.candidate)):
            if why := self.bundles.damage(bundle):
                raise HookError(why)
        self.world.place(wanted, token)

    def damage(self, bundle):
        (self.folder / "bundles" / bundle / "config.json").write_text("something else")

    def say(self, word):
        self.journal.tell(word, {"by": "me"})
        return self.keeper.turn()

    def newest(self):
        return sentence_of(list(self.journal.entries(kinds=("state",)))[-1])


@pytest.fixture
def kept(journal, tmp_path):
    return Kept(journal, tmp_path)


def test_there_is_no_rollback_to_a_bundle_that_is_damaged(kept):
    until(kept.keeper, Phase.CANARY)
    until(kept.keeper, Phase.WATCHING)
    assert kept.world.served == Deployment(kept.second)
    kept.damage(kept.first)
    state = kept.say("rollback")
    assert (state.phase, state.last_good, state.previous) == (Phase.WATCHING, kept.second, kept.first)
    assert kept.newest().startswith("watching: nothing comes of rollback by me: the files of ")
    assert kept.newest().endswith(" were changed")
    kept.keep("first")  # put back
    kept.say("rollback")
    state, _ = until(kept.keeper, Phase.WATCHING)
    assert kept.world.served == Deployment(kept.first)


@pytest.mark.parametrize("cycles", [0, 1])
def test_an_alarm_over_a_damaged_bundle_is_left_for_another_good_one(kept, cycles):
    """For the one before it, or for the study file's defaults, whose bundle is made anew."""
    if cycles:
        until(kept.keeper, Phase.CANARY)
        until(kept.keeper, Phase.WATCHING)
        kept.world.latency_s[kept.second] = 0.25
        worse = kept.keep("third")
        kept.world.latency_s[worse], kept.world.offers = 0.30, [worse]
        kept.say("tune")
    until(kept.keeper, Phase.CANARY)
    kept.damage(kept.second if cycles else kept.first)
    kept.say("rollback")
    for _ in range(5):
        state = kept.keeper.turn()
    assert state.phase is Phase.ALARM
    kept.say("clear")
    state, _ = until(kept.keeper, Phase.WATCHING)
    assert kept.world.served == Deployment(kept.first) == Deployment(state.last_good)


@pytest.mark.parametrize("word", ["tune", "approve"])
def test_what_is_said_while_it_is_frozen_is_answered(journal, tmp_path, word):
    world = Simulated()
    better(world)
    terms = replace(TERMS, plan=Plan((10,), approval=True))
    keeper = Keeper(journal, world.world(), terms, Watch([LEVEL], breaches=2), "one")
    until(keeper, Phase.APPROVAL if word == "approve" else Phase.WATCHING)
    assert doubts(journal, word) == ""
    journal.tell("freeze", {"by": "me"})
    assert doubts(journal, word) == "it is frozen: unfreeze it first", "though nobody has heard yet that it is"
    asked = ["daemon", word, "--db", str(tmp_path / "record.db")]
    said = CliRunner().invoke(app, asked)
    assert said.exit_code == 0
    assert said.stdout.endswith(", but nothing comes of it as things are: it is frozen: unfreeze it first\n")
    assert json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)["but"] == "it is frozen: unfreeze it first"
    keeper.turn()
    (*_, newest) = journal.entries(kinds=("state",))
    assert f"nothing comes of {word} by " in sentence_of(newest)
    assert sentence_of(newest).endswith(": it is frozen: unfreeze it first")
    assert world.tuned == ([1] if word == "approve" else [])
