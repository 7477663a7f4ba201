"""What a store keeps of its declaration and of the looks at its verdicts, through real runs."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

from optbench import api
from optbench.datasets.base import DataError
from optbench.execution import local
from optbench.records import declarations
from optbench.records.format import DamageError
from optbench.records.frames import load_results
from optbench.records.merge import merge
from optbench.records.store import Store
from optbench.report.analysis import analyse
from optbench.report.build import markdown_text
from optbench.report.declared import declared
from optbench.suite.declaration import DeclarationError, read, write
from optbench.suite.load import load_suite


def stored(path):
    with Store(path) as store:
        return declarations.read(store.meta())


def said(path, suite=None):
    spec, results, _ = api.gather_results(suite or path)
    return declared(results, spec)


def test_the_first_run_freezes_and_a_change_is_kept_with_the_trials_seen(write_suite, tmp_path):
    path, results = write_suite(), tmp_path / "results"
    first = local.run_suite(load_suite(path), results=results)
    again = said(first.store)
    assert (again.short, again.before) == ("declared before the first trial", True)
    local.run_suite(load_suite(path), results=results)
    assert len(stored(first.store).states) == 1
    changed = load_suite(write_suite(("{baseline: wame}", "{baseline: wame, margin: 0.01, alpha: 0.1}")))
    local.run_suite(changed, results=results)
    state = stored(first.store).states[-1]
    assert (state.seen, state.planned) == (4, 4)
    found = said(first.store)
    assert found.short == "changed after 4 of 4 trials: alpha, margin"
    assert not found.before
    assert any(text.startswith("Changed after 4 of 4 trials (") for text in found.sentences)


def test_a_slip_that_trains_nothing_leaves_the_declaration_as_it_was(write_suite, tmp_path):
    path, results = write_suite(), tmp_path / "results"
    store = local.run_suite(load_suite(path), results=results).store
    with Store(store) as opened:
        before = opened.meta(), opened.plan()
    slip = "  - {dataset: cifar-10, model: {name: mlp}, batch_size: 32, epochs: 1}\noptimizers:"
    with pytest.raises(DataError, match="not on this machine"):
        api.run(write_suite(("optimizers:", slip)), results=results, data_dir=tmp_path)
    with Store(store) as opened:
        assert (opened.meta(), opened.plan()) == before
    assert said(store).before


def test_a_change_under_which_nothing_ran_is_taken_back_with_it(write_suite, tmp_path):
    path, results = write_suite(), tmp_path / "results"
    store = local.run_suite(load_suite(path), results=results).store
    changed = write_suite(("{baseline: wame}", "{baseline: wame, alpha: 0.1}"))
    local.run_suite(load_suite(changed), results=results)
    assert not said(store).before
    local.run_suite(load_suite(write_suite()), results=results)
    assert said(store).before
    more = (("{baseline: wame}", "{baseline: wame, alpha: 0.1}"), ("seeds: 2", "seeds: 3"))
    local.run_suite(load_suite(write_suite(*more)), results=results)
    local.run_suite(load_suite(write_suite(("seeds: 2", "seeds: 3"))), results=results)
    assert not said(store).before, "two trials ran under the change"


def test_before_any_trial_is_seen_a_suite_may_change_freely(write_suite, tmp_path):
    def none(trial):
        return False

    path, results = write_suite(), tmp_path / "results"
    local.run_suite(load_suite(path), results=results, only=none)
    changed = load_suite(write_suite(("{baseline: wame}", "{alpha: 0.1}")))
    store = local.run_suite(changed, results=results).store
    assert [state.seen for state in stored(store).states] == [0]
    assert said(store).before


def test_trials_that_were_forgotten_stay_counted(write_suite, tmp_path):
    suite, results = load_suite(write_suite()), tmp_path / "results"
    local.run_suite(suite, results=results)
    store = local.run_suite(suite, results=results, fresh=True).store
    found = said(store)
    assert found.short == "started over after 4 of 4 trials"
    assert any("then removed (--fresh)" in text for text in found.sentences)


def test_an_early_stop_of_the_run_and_another_analysis_of_the_report_are_said(write_suite, tmp_path):
    suite = load_suite(write_suite())
    store = local.run_suite(
        suite, results=tmp_path / "results", only=lambda trial: trial.spec.seeds.init == 0
    ).store
    spec, results, _ = api.gather_results(store)
    report = analyse(results, api.with_analysis(spec, alpha=0.2))
    assert report.declared.short == "changed after 2 of 4 trials: alpha"
    assert any(
        "asks otherwise than declared, after 2 of 4 trials: alpha (0.05 to 0.2)" in text
        for text in report.declared.sentences
    )
    assert any(text.startswith("An early look, after 2 of 4 trials") for text in report.warnings)


def test_looks_are_noted_once_and_seeds_added_after_one_take_the_p_values_away(write_suite, tmp_path):
    path, results = write_suite(), tmp_path / "results"
    store = local.run_suite(load_suite(path), results=results).store
    assert stored(store).looks == ()
    for _ in range(2):
        api.report(store, out=tmp_path / "report", formats=("markdown",))
    assert [(look.seen, look.planned, look.asked) for look in stored(store).looks] == [(4, 4, ())]
    with Store(store) as opened:
        assert opened.verify().misfits == ()
    more = load_suite(write_suite(("seeds: 2", "seeds: 3")))
    local.run_suite(more, results=results)
    spec, found, _ = api.gather_results(store)
    report = analyse(found, spec)
    (warning,) = [text for text in report.warnings if "no longer hold" in text]
    assert "changed after a look at verdicts: seeds (2 to 3), after 4 of 4 trials" in warning
    assert "no longer hold" in markdown_text(report)


def test_a_notebook_cell_is_a_look_and_says_when_it_was_declared(write_suite, tmp_path):
    store = local.run_suite(load_suite(write_suite()), results=tmp_path / "results").store
    html = load_results(store)._repr_html_()
    assert "declared before the first trial" in html
    assert "(confirmatory)" in html
    assert [look.seen for look in stored(store).looks] == [4]


def test_seeds_added_without_a_look_are_a_change_and_no_warning(write_suite, tmp_path):
    path, results = write_suite(), tmp_path / "results"
    local.run_suite(load_suite(path), results=results)
    store = local.run_suite(load_suite(write_suite(("seeds: 2", "seeds: 3"))), results=results).store
    spec, found, _ = api.gather_results(store)
    report = analyse(found, spec)
    assert report.declared.short == "changed after 4 of 4 trials: seeds"
    assert not any("no longer hold" in text for text in report.warnings)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes to any file")
def test_a_store_that_cannot_be_written_is_reported_all_the_same(write_suite, tmp_path):
    store = local.run_suite(load_suite(write_suite()), results=tmp_path / "results").store
    os.chmod(store, 0o400)
    assert "could not be noted" in declarations.record_look(store, asked=())


def test_a_look_that_cannot_be_written_says_so(write_suite, tmp_path, monkeypatch):
    store = local.run_suite(load_suite(write_suite()), results=tmp_path / "results").store
    real = sqlite3.connect

    def read_only(name, **options):
        return real(str(name).replace("mode=rw", "mode=ro"), **options)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    assert "attempt to write a readonly database" in declarations.record_look(store, asked=())
    assert api.report(store, out=tmp_path / "report", formats=("json",)).files
    monkeypatch.undo()
    assert stored(store).looks == ()


def test_a_look_hides_no_fact_that_was_edited(write_suite, tmp_path):
    store = local.run_suite(load_suite(write_suite()), results=tmp_path / "results").store
    with sqlite3.connect(store) as db:
        db.execute("UPDATE meta SET value = 'Another title' WHERE key = 'title'")
    assert "not those that were written" in declarations.record_look(store, asked=())
    with Store(store) as opened:
        assert [str(misfit) for misfit in opened.verify().misfits] == [
            "meta entry 'title' has changed since it was written"
        ]


def test_a_published_declaration_is_checked_and_named(write_suite, tmp_path):
    suite = load_suite(write_suite())
    published = write(suite, tmp_path / "declared.json")
    changed = load_suite(write_suite(("{baseline: wame}", "{alpha: 0.1}"), name="changed.yaml"))
    with pytest.raises(DeclarationError, match="alpha"):
        local.run_suite(changed, results=tmp_path / "results", declaration=published)
    assert not (tmp_path / "results").exists()
    store = local.run_suite(suite, results=tmp_path / "results", declaration=published).store
    assert any("as published on" in text and "declared.json" in text for text in said(store).sentences)
    api.report(store, out=tmp_path / "report", formats=("markdown",), declaration=tmp_path / "declared.json")
    text = (tmp_path / "report" / "leaderboard.md").read_text()
    assert "which is dated before the first trial" in text
    other = write(changed, tmp_path / "other.json")
    spec, results, _ = api.gather_results(store)
    assert any(
        text.startswith("Other than in the declaration other.json") and "alpha" in text
        for text in declared(results, spec, read(Path(tmp_path / "other.json"))).sentences
    )
    assert other.hash != published.hash


def test_merged_stores_keep_states_and_looks_and_count_what_is_not_recorded(write_suite, tmp_path):
    suite = load_suite(write_suite())
    for name, seed in (("a", 0), ("b", 1)):
        store = local.run_suite(
            suite, results=tmp_path / name, only=lambda trial, seed=seed: trial.spec.seeds.init == seed
        ).store
        api.report(store, out=tmp_path / name / "report", formats=("json",))
    parts = [tmp_path / name / "tiny" for name in "ab"]
    found = stored(merge(parts, tmp_path / "both").store)
    assert len(found.states) == 1
    assert found.states[0].at == min(stored(part).states[0].at for part in parts)
    assert {look.seen for look in found.looks} == {2}
    assert said(tmp_path / "both").before
    with Store(parts[0], write=True) as store, store._transaction("meta"):
        store._db.execute("DELETE FROM meta WHERE key IN ('declaration', 'looks')")
    for order, name in ((parts, "old first"), (parts[::-1], "old last")):
        old = merge(order, tmp_path / name).store
        assert stored(old).unrecorded == 2, name
        assert said(old).short == "not recorded"
    assert any("Of 2 merged trials it is not recorded" in text for text in said(old).sentences)


def test_an_old_store_says_that_nothing_is_recorded_and_stays_as_it_is(repository, tmp_path):
    golden = repository / "tests" / "records" / "golden" / "store-format-1" / "store.sqlite"
    copy = tmp_path / "store.sqlite"
    copy.write_bytes(golden.read_bytes())
    api.report(copy, out=tmp_path / "report", formats=("json",))
    assert copy.read_bytes() == golden.read_bytes()
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["declared"]["short"] == "not recorded"
    assert {board["evidence"] for board in content["leaderboards"]} <= {"main question", "exploratory"}


def test_seen_trials_before_the_first_record_are_said(write_suite, tmp_path):
    suite, results = load_suite(write_suite()), tmp_path / "results"
    store = local.run_suite(suite, results=results).store
    with Store(store, write=True) as opened, opened._transaction("meta"):
        opened._db.execute("DELETE FROM meta WHERE key = 'declaration'")
    local.run_suite(suite, results=results)
    assert said(store).short == "recorded only after 4 of 4 trials"
    assert not said(store).before


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '{"states": []}', '{"states": [{"at": 1}]}'])
def test_a_damaged_entry_is_named(text):
    with pytest.raises(DamageError, match="declaration"):
        declarations.read({"declaration": text})


def test_two_suites_together_were_declared_together_by_none(write_suite, tmp_path):
    stores = []
    for name in ("one", "two"):
        suite = load_suite(write_suite(("suite: tiny", f"suite: {name}"), name=f"{name}.yaml"))
        other = load_suite(write_suite(("suite: tiny", f"suite: {name}"), ("seeds: 2", "seeds: 3")))
        stores.append(local.run_suite(suite if name == "one" else other, results=tmp_path / "results").store)
    found = analyse(load_results(*stores), api.gather_results(*stores)[0]).declared
    assert found.short == "not declared together"
    assert not found.before
