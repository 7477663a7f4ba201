"""Spend a suite's tuning budget: every optimizer on every workload the same, then take the winners.

Searches go on side by side, round by round. A round trains what each of them asks for and the store lacks; so
the same command, run again after an interruption, asks the same questions, finds the answers in the store and
goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Protocol

from optbench.optimizers import on_backend
from optbench.records.store import Store
from optbench.suite.entries import SuiteWorkload
from optbench.suite.spec import PlannedTrial, Suite
from optbench.suite.tuning_section import Tuning
from optbench.suite.validation import InvalidError
from optbench.task import Metric
from optbench.trial import TrialSpec, Workload, content_hash, to_plain, trial_id
from optbench.tuning.journal import KEY, Journal, Setting, Stage, Study, Training
from optbench.tuning.space import Axis, with_others, with_values
from optbench.tuning.strategies import Answer, Ask, Strategy, strategy


class Trainer(Protocol):
    """What trains: :class:`optbench.execution.local.Run`."""

    def trials(self, planned: Sequence[PlannedTrial]) -> int:
        """Make these the plan and train what the store lacks."""

    def drop_checkpoints(self, trial_ids: Sequence[str]) -> None:
        """Forget trainings that will not go on."""


def tune(suite: Suite, run: Trainer, store: Store, device: str) -> tuple[list[PlannedTrial], int]:
    """Search, and write the journal with the winners.

    Parameters
    ----------
    suite : Suite
        With a section ``tuning``.
    run : Trainer
        Trains; it may leave out some trials, and then their searches stop where they are.
    store : Store
        Where records and journal are kept.
    device : str
        Where the trials of the first backend run; all searches use that backend.

    Returns
    -------
    list of PlannedTrial
        All tuning trials.
    int
        How many of them were run now.
    """
    return _Tuner(suite, run, store, device).run()


def tuned(suite: Suite, journal: Journal | None) -> Suite | None:
    """Put the winners in place of the declared numbers; None where tuning has not ended for this suite.

    An optimizer none of whose settings has a score keeps its declared numbers.
    """
    if suite.tuning is None or journal is None or not journal.done or journal.of != suite.hash:
        return None
    if suite.tuning.winners > 1:
        return _with_winners(suite, suite.tuning, journal)
    workloads = []
    for entry in with_networks(suite, journal):
        optimizers = {}
        for label, config in entry.optimizers.items():
            study = journal.study(entry.label, label)
            optimizers[label] = _winner(suite.tuning, study, config)
        workloads.append(replace(entry, optimizers=optimizers))
    return replace(suite, workloads=tuple(workloads))


def _with_winners(suite: Suite, tuning: Tuning, journal: Journal) -> Suite:
    """Put the best settings of each search in place of the declared numbers, numbered from the best."""
    network = set(network_keys(tuning))
    workloads: list[SuiteWorkload] = []
    for entry in suite.workloads:
        chosen: dict[str, list[Mapping[str, Any]]] = {}
        for label in entry.optimizers:
            study = journal.study(entry.label, label)
            best = study.ranking()[: tuning.winners] if study is not None else []
            chosen[label] = [study.settings[k].values for k in best] if study is not None else []
        if network:
            ((label, config),) = entry.optimizers.items()
            for rank, values in enumerate(chosen[label], start=1):
                assert entry.vary is not None
                varied = entry.vary({name: values[name] for name in network})
                own = {name: value for name, value in values.items() if name not in network}
                optimizers = {label: with_values(config, own)}
                workloads.append(
                    replace(
                        varied,
                        label=f"{entry.label} #{rank}",
                        optimizers=optimizers,
                        entry=entry.label,
                        setting=f"#{rank}",
                    )
                )
            continue
        numbered = {
            f"{label} #{rank}": with_values(entry.optimizers[label], values)
            for label, settings in chosen.items()
            for rank, values in enumerate(settings, start=1)
        }
        workloads.append(replace(entry, optimizers=numbered))
    analysis = suite.analysis
    if analysis.baseline is not None and not network:
        analysis = replace(analysis, baseline=f"{analysis.baseline} #1")
    return replace(suite, workloads=tuple(workloads), analysis=analysis)


def network_keys(tuning: Tuning) -> list[str]:
    """Keys of the workload that are searched, those that get another one's value included."""
    return [key for axis in tuning.network for key in (axis.name, *(axis.also or ()))]


def with_networks(suite: Suite, journal: Journal) -> list[SuiteWorkload]:
    """Workloads of a suite with the networks that were found, the optimizers as declared."""
    return [
        entry.vary(journal.networks[entry.label])
        if journal.networks.get(entry.label) and entry.vary
        else entry
        for entry in suite.workloads
    ]


def _winner(tuning: Tuning, study: Study | None, config: Any) -> Any:
    if study is None or study.winner is None:
        return config
    network = set(network_keys(tuning))
    values = study.settings[study.winner].values
    return with_values(config, {name: v for name, v in values.items() if name not in network})


@dataclass
class _Search:
    """A running search: its study so far, the generator, and what it asked for last."""

    study: Study
    entry: SuiteWorkload
    generator: Strategy
    network: frozenset[str]
    first: int = 0
    asked: list[Ask] | None = None
    seconds: float = 0.0
    stopped: bool = False


class _Tuner:
    def __init__(self, suite: Suite, run: Trainer, store: Store, device: str) -> None:
        assert suite.tuning is not None
        self._suite, self._tuning = suite, suite.tuning
        self._run, self._store, self._device = run, store, device
        self._planned: dict[str, PlannedTrial] = {}
        self._lineages: dict[str, str] = {}
        self._ran = 0
        self._journal = Journal(
            of=suite.hash,
            sampler=self._tuning.sampler,
            monitor=self._tuning.monitor,
            budget=to_plain(self._tuning.budget),
            seeds=tuple(seeds.init for seeds in self._tuning.seeds),
        )

    def run(self) -> tuple[list[PlannedTrial], int]:
        complete = True
        workloads: Sequence[SuiteWorkload] = self._suite.workloads
        if self._tuning.stages > 1:
            complete = self._stage("network", workloads)
            if complete:
                self._journal = replace(self._journal, networks=self._networks())
                workloads = with_networks(self._suite, self._journal)
        complete = complete and self._stage("optimizer", workloads)
        if complete and self._tuning.network and not self._journal.networks and self._tuning.winners == 1:
            self._journal = replace(self._journal, networks=self._networks())
        self._run.drop_checkpoints(list(self._lineages.values()))
        self._write(done=complete)
        return list(self._planned.values()), self._ran

    def _stage(self, stage: Stage, workloads: Sequence[SuiteWorkload]) -> bool:
        """Go through a stage; False if some search could not be finished."""
        done = self._journal.studies
        searches = [self._start(stage, entry, label) for entry in workloads for label in entry.optimizers]
        widened = 0
        while True:
            while any(search.asked for search in searches):
                self._journal = replace(self._journal, studies=(*done, *(s.study for s in searches)))
                self._round(searches)
            if any(search.stopped for search in searches):
                complete = False
                break
            for search in searches:
                search.study = _settled(search.study, self._tuning, search.entry)
            wide = (
                {s.entry.label for s in searches if _can_widen(s)} if widened < self._tuning.widen else set()
            )
            if not wide:
                complete = True
                break
            widened += 1
            for search in searches:
                if search.entry.label in wide:
                    self._widen(search)
        self._journal = replace(self._journal, studies=(*done, *(s.study for s in searches)))
        return complete

    def _start(self, stage: Stage, entry: SuiteWorkload, label: str) -> _Search:
        axes = self._tuning.space[label]
        if stage == "network" or self._tuning.stages == 1:
            axes = (*self._tuning.network, *axes)
        study = Study(
            workload=entry.label,
            optimizer=label,
            stage=stage,
            epochs=self._tuning.whole(entry.workload),
            searches=(axes,),
        )
        search = _Search(
            study=study,
            entry=entry,
            generator=self._strategy(entry, study),
            network=frozenset(network_keys(self._tuning)),
        )
        search.asked = next(search.generator, None)
        return search

    def _widen(self, search: _Search) -> None:
        """Search again, beyond the edges that the winner lies on, or the same space where it lies on none."""
        axes = tuple(_shifted(axis, search) for axis in search.study.searches[-1])
        search.study = replace(
            search.study, searches=(*search.study.searches, axes), winner=None, config=None, edges={}
        )
        search.first, search.seconds = len(search.study.settings), 0.0
        search.generator = self._strategy(search.entry, search.study)
        search.asked = next(search.generator, None)

    def _strategy(self, entry: SuiteWorkload, study: Study) -> Strategy:
        axes = study.searches[-1]
        # The same question draws the same settings, whatever its labels and wherever it runs.
        declared = TrialSpec(
            workload=entry.workload,
            optimizer=entry.optimizers[study.optimizer],
            seeds=self._tuning.seeds[0],
            backend="torch",
            device="cpu",
            precision=self._suite.precision,
        )
        facts = [trial_id(declared), study.stage, to_plain(axes), len(study.searches), self._tuning.sampler]
        return strategy(
            self._tuning,
            axes,
            epochs=self._tuning.whole(entry.workload),
            settings=self._tuning.settings(entry.workload),
            seed=int(content_hash(facts)[:8], 16),
        )

    def _round(self, searches: Sequence[_Search]) -> None:
        """Train what all searches ask for, and tell them."""
        before = set(self._lineages.values())
        wanted: list[tuple[_Search, list[list[str]]]] = []
        lineages: dict[str, str] = {}
        for search in searches:
            if search.asked:
                ids = [self._plan(search, ask, lineages) for ask in search.asked]
                _record(search, ids)
                wanted.append((search, ids))
        self._run.drop_checkpoints(sorted(before - set(lineages.values())))
        self._lineages = lineages
        self._journal = replace(
            self._journal,
            studies=tuple(
                next((s.study for s in searches if _same(s.study, old)), old) for old in self._journal.studies
            ),
        )
        self._write(done=False)
        self._ran += self._run.trials(list(self._planned.values()))
        keys = [key for _, ids in wanted for group in ids for key in group]
        outcomes = {outcome.trial_id: outcome for outcome in self._store.summaries(keys)}
        for search, ids in wanted:
            self._tell(search, ids, outcomes)

    def _plan(self, search: _Search, ask: Ask, lineages: dict[str, str]) -> list[str]:
        """Plan the trials of a setting, one a tuning seed and fold; returns their ids."""
        drawn = with_others(search.study.searches[-1], ask.values)
        network = {name: drawn[name] for name in search.network if name in drawn}
        entry = search.entry.vary(network) if network and search.entry.vary else search.entry
        values = {name: value for name, value in drawn.items() if name not in network}
        ids = []
        for seeds, fold in product(self._tuning.seeds, range(self._tuning.folds or 1)):
            whole = entry.workload.lasting(self._tuning.whole(entry.workload))
            if self._tuning.folds is not None:
                split = replace(whole.split, how="folds", folds=self._tuning.folds, fold=fold)
                whole = replace(whole, split=split)
            spec = TrialSpec(
                workload=replace(whole, stop=ask.epochs) if ask.epochs < whole.epochs else whole,
                optimizer=on_backend(
                    with_values(search.entry.optimizers[search.study.optimizer], values),
                    self._suite.backends[0],
                ),
                seeds=seeds,
                backend=self._suite.backends[0],
                device=self._device,  # type: ignore[arg-type]
                precision=self._suite.precision,
            )
            key = trial_id(spec)
            self._planned[key] = PlannedTrial(
                workload=entry.label, optimizer=search.study.optimizer, spec=spec, role="tuning"
            )
            if self._tuning.sampler in ("halving", "hyperband"):
                lineages[key] = trial_id(replace(spec, workload=whole))
            ids.append(key)
        return ids

    def _tell(self, search: _Search, ids: Sequence[Sequence[str]], outcomes: Mapping[str, Any]) -> None:
        if any(key not in outcomes for group in ids for key in group):
            search.asked, search.stopped = None, True
            return
        workload, metric = search.entry.workload, self._suite.metrics[self._tuning.monitor]
        scores = [_score([outcomes[key] for key in group], workload, metric) for group in ids]
        search.seconds += sum(outcomes[key].seconds for group in ids for key in group)
        settings = list(search.study.settings)
        for ask, score in zip(search.asked or (), scores, strict=True):
            setting = settings[search.first + ask.setting]
            last = replace(setting.trainings[-1], score=score if math.isfinite(score) else None)
            settings[search.first + ask.setting] = replace(setting, trainings=(*setting.trainings[:-1], last))
        search.study = replace(search.study, settings=tuple(settings))
        try:
            search.asked = search.generator.send(Answer(scores=scores, seconds=search.seconds))
        except StopIteration:
            search.asked = None

    def _networks(self) -> dict[str, dict[str, Any]]:
        """The network of the best setting of any optimizer, by workload: all of them then train that one."""
        names = network_keys(self._tuning)
        found: dict[str, tuple[float, dict[str, Any]]] = {}
        for study in self._journal.studies:
            if study.winner is None:
                continue
            setting = study.settings[study.winner]
            score = setting.trainings[-1].score
            if score is not None and score > found.get(study.workload, (-math.inf,))[0]:
                found[study.workload] = score, {name: setting.values[name] for name in names}
        return {workload: values for workload, (_, values) in found.items()}

    def _write(self, *, done: bool) -> None:
        self._journal = replace(self._journal, done=done)
        self._store.set_meta(**{KEY: self._journal.to_json()})


def _same(a: Study, b: Study) -> bool:
    return (a.workload, a.optimizer, a.stage) == (b.workload, b.optimizer, b.stage)


def _record(search: _Search, ids: Sequence[Sequence[str]]) -> None:
    """Note in the study what is about to be trained."""
    settings = list(search.study.settings)
    for ask, group in zip(search.asked or (), ids, strict=True):
        number = search.first + ask.setting
        if number == len(settings):
            values = with_others(search.study.searches[-1], ask.values)
            settings.append(Setting(values=values, search=len(search.study.searches) - 1))
        training = Training(epochs=ask.epochs, trials=tuple(group), score=None)
        settings[number] = replace(settings[number], trainings=(*settings[number].trainings, training))
    search.study = replace(search.study, settings=tuple(settings))


def _settled(study: Study, tuning: Tuning, entry: SuiteWorkload) -> Study:
    """Name the winner and the edges that it lies on."""
    winner = study.best()
    if winner is None:
        return replace(study, winner=None, config=None, edges={})
    setting = study.settings[winner]
    sides = {axis.name: axis.edge(setting.values[axis.name]) for axis in study.searches[setting.search]}
    settled = replace(study, winner=winner)
    return replace(
        settled,
        config=to_plain(_winner(tuning, settled, entry.optimizers[study.optimizer])),
        edges={name: side for name, side in sides.items() if side is not None},
    )


def _can_widen(search: _Search) -> bool:
    return any(_shifted(axis, search) != axis for axis in search.study.searches[-1])


def _shifted(axis: Axis, search: _Search) -> Axis:
    """Range beyond the winner's edge; the same where there is none, or the optimizer takes no such value."""
    study = search.study
    side = study.edges.get(axis.name)
    if side is None or study.winner is None:
        return axis
    # From the range in which the winner was found: an earlier one perhaps.
    found_in = study.searches[study.settings[study.winner].search]
    moved = next(a for a in found_in if a.name == axis.name).shifted(side)
    try:
        for u in (0.0, 1.0):
            if axis.name in search.network and search.entry.vary is not None:
                search.entry.vary({axis.name: moved.at(u)})
            else:
                with_values(search.entry.optimizers[study.optimizer], {axis.name: moved.at(u)})
    except InvalidError:
        return axis
    return moved


def _score(outcomes: Sequence[Any], workload: Workload, metric: Metric) -> float:
    """Mean validation score of a setting, larger is better; -inf if a trial diverged or crashed."""
    name = f"{metric.name}_best" if workload.kept == "best" else metric.name
    values = [o.metrics.get(name, math.nan) if o.status == "completed" else math.nan for o in outcomes]
    mean = math.fsum(values) / len(values)
    if not math.isfinite(mean):
        return -math.inf
    return metric.sign * mean
