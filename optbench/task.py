"""The words of what a trial is asked and measured by: tasks and metrics.

A :class:`Metric` is a declared quantity: nothing about it is guessed from its name. :func:`known` finds the
declaration of a name as records and other tools write it (``test_accuracy_best``, ``eval/loss``); what it
does not know must be declared (:func:`undeclared` says how). :class:`Metrics` adds what a suite declares. A
:class:`Task` is what a workload asks: its loss, its targets, its metrics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal, cast

from optbench.errors import UserError

#: Set as ``__pydantic_config__`` on the frozen dataclasses that a suite file can name: a misspelt key is an
#: error rather than ignored, and so is a number that is not finite.
FORBID_EXTRA = {"extra": "forbid", "allow_inf_nan": False}

#: ``share``: in [0, 1], shown in percent; ``number``: anything else without a unit.
Unit = Literal["share", "loss", "seconds", "count", "bytes", "number"]
Direction = Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A declared quantity.

    Attributes
    ----------
    name : str
        As recorded: ``accuracy`` in :data:`METRICS`, ``test_accuracy`` for a column.
    direction : "higher", "lower" or None
        What is better; None for a fact that is no merit (a count of epochs).
    unit : str
        See :data:`Unit`.
    title : str
        In a table or on an axis, without its unit.
    digits : int
        Decimals shown, in the unit that is shown (percent for a share).
    low, high : float
        Values that are possible.
    """

    name: str
    direction: Direction | None
    unit: Unit = "number"
    title: str = ""
    digits: int = 4
    low: float = -float("inf")
    high: float = float("inf")

    @property
    def maximised(self) -> bool:
        """Whether a larger value is better."""
        return self.direction == "higher"

    @property
    def sign(self) -> int:
        """1 where a larger value is better, else -1: times a value it is a gain."""
        return 1 if self.maximised else -1

    @property
    def factor(self) -> float:
        """From the recorded to the shown unit: shares are shown in percent."""
        return 100.0 if self.unit == "share" else 1.0

    @property
    def symbol(self) -> str:
        """Of the shown unit; empty for a metric without one."""
        return _SYMBOLS.get(self.unit, "")

    @property
    def heading(self) -> str:
        """Title and unit: ``test accuracy, %``."""
        return f"{self.title}, {self.symbol}" if self.symbol else self.title

    @property
    def better(self) -> Literal["larger", "smaller"]:
        """Which values are better, as a word."""
        return "larger" if self.maximised else "smaller"


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a workload asks of a model.

    Attributes
    ----------
    name : str
        ``classification``.
    loss : str
        Name of the loss that is trained and evaluated; each backend has a function of that name.
    targets : str
        Kind of an example's target: ``label``, a class counted from 0.
    view : str
        How the errors of one model are shown: ``confusion``.
    metrics : tuple of str
        Recorded for the validation and the test part beside the loss, in this order.
    primary, monitor : str
        Tested by a report, and watched on the validation part, unless a suite says otherwise.
    """

    name: str
    loss: str
    targets: Literal["label"]
    view: Literal["confusion"]
    metrics: tuple[str, ...]
    primary: str
    monitor: str


CLASSIFICATION = Task(
    name="classification",
    loss="cross_entropy",
    targets="label",
    view="confusion",
    metrics=("accuracy", "f1"),
    primary="test_accuracy",
    monitor="val_accuracy",
)
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in (CLASSIFICATION,)})


_SYMBOLS: Mapping[str, str] = MappingProxyType({"share": "%", "seconds": "s", "bytes": "B"})
_DIGITS: Mapping[str, int] = MappingProxyType(
    {"share": 2, "loss": 4, "seconds": 2, "count": 0, "bytes": 0, "number": 4}
)

#: A line a metric: what is better, unit, name, then where they differ from the name and from what the unit
#: implies "title" and low..high, and after a colon the other names that mean it.
_TABLE = """
higher share accuracy : acc accuracy_score categorical_accuracy sparse_categorical_accuracy binary_accuracy
higher share f1 "macro F1" : macro_f1 f1_macro
higher share precision
higher share recall : sensitivity true_positive_rate tpr
lower  loss  loss -inf..inf : total_loss
lower  loss  batch_loss "mean batch loss" -inf..inf
-      count epochs : epoch num_epochs n_epochs
-      count steps : step global_step num_steps n_steps iterations
-      count best_epoch
-      number lr "learning rate" : learning_rate
lower  bytes state_bytes "optimizer state"
lower  seconds step_seconds "training time"
lower  seconds eval_seconds "evaluation time"
lower  seconds setup_seconds "setup time"
lower  seconds warm_up_seconds "compilation time"
lower  seconds augment_seconds "augmentation time"
lower  seconds total_seconds "total time"
lower  seconds tuning_seconds "tuning time"

higher share balanced_accuracy : balanced_accuracy_score bal_acc
higher share top_k_accuracy "top-k accuracy" : top_k_categorical_accuracy top_k_accuracy_score \
    sparse_top_k_categorical_accuracy
lower  share error_rate : classification_error misclassification_rate zero_one_loss zero_one_error merror \
    multi_error binary_error hamming_loss hamming_distance
lower  number error : err
higher share f1_score "F1" : f1_micro micro_f1 f1_weighted weighted_f1 f1_samples fbeta fbeta_score f2_score
higher share precision_score "precision" : precision_macro macro_precision precision_micro micro_precision \
    precision_weighted weighted_precision ppv
higher share recall_score "recall" : recall_macro macro_recall recall_micro micro_recall recall_weighted \
    weighted_recall
higher share specificity : true_negative_rate tnr
lower  share false_positive_rate : fpr
lower  share false_negative_rate : fnr
higher share auc "AUC" : auroc roc_auc auc_roc roc_auc_score roc_auc_ovr roc_auc_ovo roc_auc_ovr_weighted \
    roc_auc_ovo_weighted
higher share average_precision : average_precision_score auprc aupr pr_auc auc_pr ap
higher share map "mean average precision" : mean_average_precision map50_95 map_50_95
higher share iou "IoU" : miou mean_iou iou_score jaccard jaccard_score jaccard_index
higher share dice "Dice" : dice_score dice_coefficient dice_coef dsc
higher number mcc "MCC" -1..1 : matthews_corrcoef matthews_correlation
higher number kappa -1..1 : cohen_kappa cohens_kappa cohen_kappa_score quadratic_weighted_kappa qwk
lower  share ece "ECE" : expected_calibration_error calibration_error
lower  share mce "MCE" : max_calibration_error maximum_calibration_error
lower  number brier "Brier score" 0..2 : brier_score brier_loss brier_score_loss
higher share hit_rate : success_rate win_rate solve_rate
higher share ndcg "NDCG"
higher share mrr "MRR" : mean_reciprocal_rank

lower  loss  cross_entropy "cross-entropy" : crossentropy ce ce_loss cross_entropy_loss \
    categorical_crossentropy sparse_categorical_crossentropy
lower  loss  binary_cross_entropy : binary_crossentropy bce bce_loss binary_logloss
lower  loss  log_loss : logloss multi_logloss mlogloss
lower  loss  nll "negative log likelihood" -inf..inf : nll_loss
higher number log_likelihood -inf..inf : loglik elbo
lower  loss  hinge : hinge_loss squared_hinge
lower  loss  focal_loss
lower  loss  dice_loss
lower  loss  kl "KL divergence" : kl_loss kl_divergence kld kullback_leibler_divergence

lower  loss  mse "mean squared error" : mean_squared_error mse_loss
lower  loss  rmse "root mean squared error" : root_mean_squared_error
lower  loss  mae "mean absolute error" : mean_absolute_error l1_loss
lower  loss  median_absolute_error
lower  loss  max_error
lower  number mape "MAPE" : mean_absolute_percentage_error
lower  number smape "sMAPE"
lower  number mase "MASE"
lower  loss  msle : mean_squared_log_error mean_squared_logarithmic_error
lower  loss  rmsle : root_mean_squared_log_error
lower  loss  huber : huber_loss smooth_l1_loss log_cosh
lower  loss  pinball_loss : mean_pinball_loss quantile_loss
lower  loss  crps "CRPS"
lower  loss  mean_poisson_deviance
lower  loss  mean_gamma_deviance
higher number r2 "R2" -inf..1 : r2_score r_squared
higher number explained_variance -inf..1 : explained_variance_score
higher number pearson "Pearson correlation" -1..1 : pearsonr pearson_r
higher number spearman "Spearman correlation" -1..1 : spearmanr spearman_r
higher number kendall_tau -1..1 : kendalltau

lower  loss  perplexity : ppl
lower  loss  bits_per_byte : bpb
lower  loss  bits_per_character : bits_per_char bpc
lower  loss  bits_per_dim -inf..inf : bits_per_dimension bpd
higher number bleu "BLEU" : bleu_score sacrebleu
higher number rouge "ROUGE"
higher number chrf : chrf++
higher number meteor "METEOR"
higher number cider "CIDEr"
higher number spice "SPICE"
higher number bertscore : bert_score
higher number exact_match : em
lower  share wer "word error rate" 0..inf : word_error_rate
lower  share cer "character error rate" 0..inf : character_error_rate char_error_rate
lower  number ter : translation_edit_rate

higher number psnr "PSNR" -inf..inf
higher number ssim "SSIM" -1..1 : ms_ssim
lower  number fid "FID" : frechet_inception_distance
lower  number kid "KID" -inf..inf : kernel_inception_distance
lower  number lpips "LPIPS"
higher number inception_score
higher number reward -inf..inf : return episode_reward episode_return ep_rew_mean cumulative_reward
lower  number regret -inf..inf : cumulative_regret simple_regret

lower  seconds seconds "time" : time runtime duration wall_time walltime wall_clock elapsed elapsed_time \
    total_time step_time epoch_time fit_time score_time inference_time latency time_per_step time_per_epoch \
    seconds_per_step seconds_per_epoch sec_per_step sec_per_epoch s_per_step s_per_epoch time_to_target
lower  number step_ms : ms_per_step ms_per_epoch
lower  number minutes
lower  number hours : gpu_hours
lower  count epochs_to_target
lower  count steps_to_target
higher number throughput : steps_per_sec steps_per_second samples_per_sec samples_per_second fps it_per_sec \
    examples_per_sec examples_per_second images_per_sec images_per_second tokens_per_sec tokens_per_second \
    batches_per_sec batches_per_second iterations_per_sec iterations_per_second
lower  number peak_memory : memory_bytes peak_memory_bytes
"""
_LINE = re.compile(r'(\S+) +(\S+) +([\w+]+)(?: "([^"]+)")?(?: (\S+)\.\.(\S+))?(?: : (.+))?')


def _declared(line: str) -> tuple[Metric, tuple[str, ...]]:
    """A metric of the table, and every whole name that means it."""
    found = _LINE.fullmatch(line)
    assert found is not None, line
    direction, unit, name, title, low, high, others = found.groups()
    metric = Metric(
        name=name,
        direction=None if direction == "-" else cast(Direction, direction),
        unit=cast(Unit, unit),
        title=title or name.replace("_", " "),
        digits=_DIGITS[unit],
        low=float(low or 0),
        high=float(high or (1 if unit == "share" else "inf")),
    )
    return metric, (name, *(others or "").split())


_DECLARED = [_declared(line) for line in _TABLE.splitlines() if line]
#: Every quantity that optbench records or recognises in other tools' results, by its bare name.
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric, _ in _DECLARED})
#: All whole names that mean a metric.
NAMES: Mapping[str, Metric] = MappingProxyType(
    {name: metric for metric, names in _DECLARED for name in names}
)

#: Names with a number or a class in them, and the metric that they are one of.
_FORMS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"top_?(\d+)(_acc|_accuracy|_categorical_accuracy)?|(acc|accuracy|prec)_?(top_?)?\d+", "accuracy"),
        (r"(err|error)_?(top_?)?\d+|top_?\d+_(err|error)(_rate)?", "error_rate"),
        (r"(auc|auroc)_\d+", "auc"),
        (r"precision_?(at_?)?\d+", "precision"),
        (r"recall_?(at_?)?\d+", "recall"),
        (r"map_?(at_?)?\d+", "map"),
        (r"(hits|hit_rate|success_rate|pass)_?(at_?)?\d+", "hit_rate"),
        (r"ndcg_?(at_?)?\d+", "ndcg"),
        (r"mrr_?(at_?)?\d+", "mrr"),
        (r"bleu_?\d+", "bleu"),
        (r"rouge_?(\d|l|lsum|w|s|su)(_(f|f1|fmeasure|p|precision|r|recall))?", "rouge"),
    )
)
_PER_CLASS = re.compile(r"(^|_)(precision|recall|f1)$")
#: What may stand before a name, and how a title says it.
_PARTS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("train", "training"), "train"),
        **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
        **dict.fromkeys(("test", "testing"), "test"),
        **dict.fromkeys(("eval", "evaluation"), "eval"),
        **dict.fromkeys(("metrics", "metric", "epoch"), ""),
        **dict.fromkeys(("mean", "avg", "average"), "mean"),
        **{word: word for word in ("best", "last", "final")},
    }
)
_POINTS = ("best", "last", "final")
_NEGATED = ("neg", "negative")


@lru_cache(maxsize=1024)
def known(name: str) -> Metric | None:
    """Find the declared metric that a name means; None for a name that is not declared.

    Whole names only, in any case, ``-``, ``/``, ``.``, ``@`` and spaces as good as ``_``. What stands before
    one may say the part of the data or which mean (``val_``, ``test/``, ``eval/``, ``metrics/``, ``best_``
    ..), what stands behind it the epoch (``_best``, ``_last``, ``_final``). ``neg_`` turns a metric round, as
    scikit-learn writes losses as scores.

    Parameters
    ----------
    name : str
        As a record, a table or a log has it.

    Returns
    -------
    Metric or None
        Its ``name`` is the name given, its title says the part too.

    Examples
    --------
    >>> known("test_accuracy_best").direction, known("eval/loss").direction, known("Brier-Score").direction
    ('higher', 'lower', 'lower')
    >>> known("neg_mean_squared_error").direction, known("accuracy_drop"), known("my_score")
    ('higher', None, None)
    """
    head, bracket, rest = name.partition("[")
    plain = re.sub(r"[\s\-/.:@]+", "_", head.strip().lower()).strip("_")
    metric = _parsed(plain)
    if metric is None or not bracket:
        return None if metric is None else replace(metric, name=name)
    of_class = rest.endswith("]") and _PER_CLASS.search(plain)
    if not of_class:
        return None
    return replace(metric, name=name, title=f"{metric.title.replace('macro ', '')} of {rest[:-1]}")


def _parsed(plain: str) -> Metric | None:
    """The metric of a normalised name: whole, negated, or with a part before or a point behind it."""
    if (whole := NAMES.get(plain)) is not None:
        return whole
    for form, name in _FORMS:
        if form.fullmatch(plain):
            return replace(METRICS[name], title=_form_title(plain, METRICS[name]))
    first, _, rest = plain.partition("_")
    if rest and first in _NEGATED and (metric := _parsed(rest)) is not None:
        return _negated(metric)
    if rest and first in _PARTS and (metric := _parsed(rest)) is not None:
        return replace(metric, title=f"{_PARTS[first]} {metric.title}".strip())
    rest, _, last = plain.rpartition("_")
    if rest and last in _POINTS and (metric := _parsed(rest)) is not None:
        return replace(metric, title=f"{metric.title} {last}")
    return None


def _form_title(plain: str, metric: Metric) -> str:
    top = re.match(r"top_?(\d+)", plain)
    return f"top-{top[1]}" if top and metric.name == "accuracy" else plain.replace("_", " ")


def _negated(metric: Metric) -> Metric:
    turned: Mapping[Direction, Direction] = {"higher": "lower", "lower": "higher"}
    direction = None if metric.direction is None else turned[metric.direction]
    unit: Unit = "number" if metric.unit == "share" else metric.unit
    return replace(
        metric,
        direction=direction,
        unit=unit,
        digits=_DIGITS[unit],
        title=f"negative {metric.title}",
        low=-metric.high,
        high=-metric.low,
    )


def undeclared(name: str, how: str) -> str:
    """Say that a name tells no direction, and how to declare one.

    Examples
    --------
    >>> undeclared("my_score", "--maximise or --minimise")
    "metric 'my_score' is not known; say which is better: --maximise or --minimise"
    """
    metric = known(name)
    why = "is not known" if metric is None else f"({metric.title}) is neither better large nor better small"
    return f"metric {name!r} {why}; say which is better: {how}"


def sign_of(name: str) -> int:
    """1 where a larger value of a known metric is better, else -1: times a value it is a gain.

    Examples
    --------
    >>> sign_of("val_accuracy"), sign_of("val_loss")
    (1, -1)
    """
    return Metrics()[name].sign


def is_time(name: str) -> bool:
    """Whether a recorded column is a time, which no repetition reproduces."""
    metric = known(name)
    return metric is not None and metric.unit == "seconds"


#: What every trial has; a metric of one's own takes none of these names.
BUILT_IN = ("test_accuracy", "test_loss", "val_accuracy", "val_loss", "test_f1", "train_loss")


@dataclass(frozen=True, kw_only=True)
class CustomMetric:
    """A metric of the user's own; its name and code are part of a trial's identity, its direction is not.

    Attributes
    ----------
    name : str
        As in ``test_<name>``.
    reference : str
        ``file.py:function`` or ``package.module:function``.
    code : str
        What identifies the code: ``sha256:...`` of the file, or ``name==version`` of the package.
    minimise : bool
        Smaller is better.
    directory : Path, optional
        Where a file is looked for; the working directory otherwise.
    """

    __pydantic_config__ = FORBID_EXTRA

    name: str
    reference: str
    code: str
    minimise: bool = field(default=False, compare=False)
    directory: InitVar[Path | None] = None

    def __post_init__(self, directory: Path | None) -> None:
        object.__setattr__(self, "_directory", directory)

    def column(self, name: str) -> Metric:
        """The metric of one of its columns, such as ``test_<name>_best``.

        A known name gives unit, digits and range; what the suite or its record says gives the direction.
        """
        like = known(self.name) or Metric(name=self.name, direction=None)
        direction: Direction = "lower" if self.minimise else "higher"
        return replace(like, name=name, direction=direction, title=name.replace("_", " "))

    def columns(self) -> tuple[str, ...]:
        """Its final columns: of the test and of the validation part."""
        return tuple(f"{part}_{self.name}" for part in ("test", "val"))


class UndeclaredError(UserError, ValueError):
    """A metric whose direction is neither known nor declared; the message says how to declare it."""


@dataclass(frozen=True)
class Metrics:
    """What the names in some results mean: the known metrics, and those that their suites declare.

    Attributes
    ----------
    custom : tuple of CustomMetric
        Those of the suites. What a store recorded of one holds even where its name has become known.
    """

    custom: tuple[CustomMetric, ...] = ()

    @classmethod
    def of(cls, metrics: Iterable[CustomMetric]) -> Metrics:
        """Collect metrics by name, each once.

        Raises
        ------
        UndeclaredError
            If two of one name have two directions.
        """
        found: dict[str, CustomMetric] = {}
        for metric in metrics:
            if found.setdefault(metric.name, metric).minimise is not metric.minimise:
                raise UndeclaredError(
                    f"metric {metric.name!r} is minimised in one place and maximised in another; name one "
                    "otherwise"
                )
        return cls(tuple(found[name] for name in sorted(found)))

    def __getitem__(self, name: str) -> Metric:
        """The metric of a column.

        Raises
        ------
        UndeclaredError
            If its direction is neither known nor declared.
        """
        bare = re.sub(r"_(best|last)$", "", name)
        for metric in self.custom:
            if bare in metric.columns():
                return metric.column(name)
        found = known(name)
        if found is None or found.direction is None:
            raise UndeclaredError(
                undeclared(name, "declare it in the suite with `minimise: true` or `false`")
            )
        return found
