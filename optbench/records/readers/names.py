"""What columns, labels and states mean: whole names, each listed here; all else is asked about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from optbench.datasets.cells import words
from optbench.task import known

#: Columns with a meaning of their own, and the names that other tools give them, the plainest first.
ROLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dataset": words(
            """dataset dataset_name data_set data_name testproblem test_problem problem problem_name task
            task_name workload benchmark data"""
        ),
        "optimizer": words(
            """optimizer optimiser optimizer_name optimiser_name optim opt optimizer_class optimizer_type
            method algorithm algo solver solver_name submission"""
        ),
        "seed": words(
            """seed random_seed rng_seed random_state seed_id train_seed run_seed trial_seed repetition
            replicate replication repeat rep idx_rep"""
        ),
        "status": words(
            """status state run_state trial_status job_state jobstate run_status attributes_status info_status
            sys_state sys_failed exit_code exitcode exit_status return_code returncode crashed failed diverged
            finished completed succeeded"""
        ),
        "model": words("model model_name architecture arch network"),
        "epoch": words("epoch epochs_trained epoch_number epoch_idx current_epoch"),
        "step": words(
            """step global_step trainer_global_step steps iteration iterations iter stop_val num_steps
            training_iteration"""
        ),
    }
)
#: Set apart by tools from what is measured: settings, tags, attributes.
_PREFIXES = words(
    """params param config hparams hyperparameters hp args user_attrs user_attr attrs tags tag cfg
    parameters p_solver p_dataset p_obj system_attrs"""
)
_MEASURED = ("metrics", "metric", "summary", "values", "value")
#: First columns of a matrix that name its rows' datasets, beside those of the role.
_ROW_NAMES = (
    *ROLES["dataset"],
    *words(
        """name datasets tasks problems domain corpus collection suite env environment game function instance
        openml_id did task_id dataset_id problem_id"""
    ),
)
#: What counts the rows of a log.
_AXES = frozenset(
    (
        *ROLES["epoch"],
        *ROLES["step"],
        *words(
            """epochs itr wall_time walltime time relative_time relative_time_process relative_time_wall
            timestamp datetime date batch batches round generation tokens samples_seen examples_seen updates
            update minute minutes hour hours second seconds elapsed elapsed_time runtime ep frame frames
            episode episodes timestep timesteps time_step env_step env_steps total_timesteps n_iter niter
            epoch_num num_epochs training_step train_step training_steps train_steps num_updates x"""
        ),
    )
)
_INDEX = frozenset(
    (
        "",
        *words(
            """index idx id row rows no nr number num rownames row_names row_id rowid row_number level_0 line
            record observation obs"""
        ),
    )
)
#: Facts about a dataset that stand beside its results.
_FACTS = frozenset(
    words(
        """n d p n_samples samples n_features features n_classes classes num_classes num_samples num_features
        instances n_instances attributes size n_train n_test year examples dimension dimensions dim"""
    )
)
_STATISTIC = re.compile(
    r"((weighted|overall|total|grand|macro|micro|arithmetic|geometric|harmonic|sample|running)_)?"
    r"(averages?|avgs?|means?|medians?|geomeans?|gmeans?|std|stds|stdev|stddev|std_dev(iation)?|"
    r"std_err(or)?|sd|standard_deviation|standard_error|stderr|sem|variance|var|iqr|ranks?|ranking|mittelwert|"
    r"durchschnitt|moyenne|promedio|p_?values?|confidence_interval|ci|95_ci|wins?|losses|win_tie_loss|"
    r"wins_ties_losses|w_t_l|num_wins|percentile|quantile|q1|q3|mean_std|mean_sd)"
    r"(_(ranks?|ranking|scores?|acc(uracy)?|err(or)?|loss|values?|results?|performance|all|total|overall|std|"
    r"sd|sums?|p|(all|over|of|across)_.*))*|"
    r"(friedman|iman_davenport|wilcoxon|nemenyi|holm|bonferroni|sign_test|t_test|signed_rank)"
    r"(_(test|p|p_?values?|statistic|stat|chi2|rank))*"
)
#: Statistics if they end a table, labels elsewhere.
_LAST_STATISTIC = frozenset(
    words(
        """all total sum overall min max minimum maximum best worst count range aggregate summary
        media gain improvement difference diff"""
    )
)
_SUFFIX = re.compile(
    r"(.+?)[\s_\-./(\[]+(min|max|mean|avg|average|median|std|stdev|stddev|std_dev|sd|se|sem|stderr|var|variance|"
    r"ci|lower|upper|low|high|rank|count|q1|q3|p25|p75|iqr)[)\]]*",
    re.IGNORECASE,
)

_ARROWS = "↑↓⇧⇩▲▼"
#: Words in brackets behind a name that leave its meaning as it is.
_ASIDE = re.compile(
    rf"\s*[(\[]\s*(%|percent|pct|s|secs?|seconds?|ms|min|minutes|h|hours?|nats|bits|-|all|macro|micro|"
    rf"(the\s+)?(higher|lower|larger|smaller)(\s+is|,?\s+the)\s+better)\s*[)\]][\s{_ARROWS}]*$",
    re.IGNORECASE,
)


def undecorated(name: str) -> str:
    """Take what a header says beside a name off it: a unit in brackets, an arrow for what is better.

    Examples
    --------
    >>> undecorated("test acc. (%) ↑"), undecorated("val_loss (ema)"), undecorated("Time [s]")
    ('test acc.', 'val_loss (ema)', 'Time')
    """
    return _ASIDE.sub("", name.strip(f" \t{_ARROWS}")).strip(f" \t{_ARROWS}")


def arrow_of(name: str) -> str | None:
    """What an arrow in a header says is better: ``higher``, ``lower``, or nothing."""
    up, down = (any(mark in name for mark in marks) for marks in ("↑⇧▲", "↓⇩▼"))
    return None if up == down else "higher" if up else "lower"


def plain(name: str) -> str:
    """Normalise a name: lower case, marks and spaces as single ``_``."""
    return re.sub(r"[^0-9a-zÀ-￿%]+", "_", name.strip().lower()).strip("_")


def bare(name: str) -> tuple[str, str]:
    """Take a tool's prefix off a normalised name; it says ``setting``, ``measured`` or nothing.

    Examples
    --------
    >>> bare("params.optimizer"), bare("metrics.val_acc"), bare("Optimizer")
    (('optimizer', 'setting'), ('val_acc', 'measured'), ('optimizer', ''))
    """
    text = plain(undecorated(name))
    for kind, prefixes in (("setting", _PREFIXES), ("measured", _MEASURED)):
        for prefix in prefixes:
            # A bar of letters is a prefix only where a mark follows it, as in params.lr and params_lr.
            if text.startswith(f"{prefix}_") and not text[len(prefix) + 1 :].isdigit():
                return text[len(prefix) + 1 :], kind
    return text, ""


def role_of(name: str) -> tuple[str, int] | None:
    """Role that a column name means, and how plainly it says so (0: its very name)."""
    text, kind = bare(name)
    if kind == "measured":
        return None
    for role, names in ROLES.items():
        if text in names:
            exact = 0 if name == role else 1 if text == role and not kind else 2
            return role, exact + (10 * names.index(text))
    return None


def is_axis(name: str) -> bool:
    """Whether a column counts the rows of a log: epoch, step, time."""
    return plain(undecorated(name)) in _AXES


def names_rows(name: str) -> bool:
    """Whether a first column says that it names datasets."""
    return plain(name) in _ROW_NAMES


def is_index_name(name: str) -> bool:
    """Whether a column is called as an index is: not at all, ``Unnamed: 0``, ``index``, ``#``."""
    return (
        plain(name) in _INDEX
        or re.fullmatch(r"unnamed_\d+(_level_\d+)?(_\d+)?|v1|x_?1", plain(name)) is not None
    )


def is_fact(name: str) -> bool:
    """Whether a column is a fact about datasets, no method."""
    return plain(name) in _FACTS or name.strip().startswith("#")


def is_statistic(label: str, *, last: bool) -> bool:
    """Whether a label is a statistic over other rows.

    Examples
    --------
    >>> is_statistic("Avg. rank", last=False), is_statistic("max", last=False), is_statistic("max", last=True)
    (True, False, True)
    """
    text = plain(undecorated(label))
    percentile = re.fullmatch(r"\d+(_\d+)?%", text) is not None
    text = text.replace("%", "").strip("_")
    return percentile or _STATISTIC.fullmatch(text) is not None or (last and text in _LAST_STATISTIC)


def statistic_column(name: str, names: Iterable[str]) -> bool:
    """Whether a column of a matrix holds statistics: ``x__MIN`` of x, ``adam std`` of adam, ``mean``."""
    if is_statistic(name, last=False) or plain(name) in _LAST_STATISTIC - {"all"}:
        return True
    stem = _stem(name)
    return stem is not None and any(other != name and stem in (plain(other), _stem(other)) for other in names)


def _stem(name: str) -> str | None:
    """What a statistic is of: ``adam`` of ``adam_std`` and ``mean(adam)``."""
    if found := _SUFFIX.fullmatch(name.strip()):
        return plain(found[1])
    found = re.fullmatch(r"(std|mean|avg|min|max)[ (_]+(.+?)\)?", name.strip(), re.IGNORECASE)
    return plain(found[2]) if found else None


def is_setting(name: str) -> bool:
    """Whether a column of numbers says how a run was made, not how it came out."""
    if bare(name)[1] == "setting":
        return True
    metric = known(name)
    return metric is not None and metric.direction is None


def is_loss(name: str) -> bool:
    """Whether a column is a loss of training or evaluation, which a diverged run cannot have."""
    metric = known(bare(name)[0])
    return metric is not None and metric.unit == "loss"


def seed_in(piece: str) -> str | None:
    """Seed that a part of a path spells out: ``seed3``, ``adam_seed-3``.

    Examples
    --------
    >>> seed_in("seed_3"), seed_in("adam-seed0"), seed_in("seeds"), seed_in("version_0")
    ('3', '0', None, None)
    """
    found = re.search(r"(?:^|[_\-. ])(?:random_)?seed[_\-. ]?(\d+)(?=$|[_\-. ])", piece, re.IGNORECASE)
    return found[1] if found else None
