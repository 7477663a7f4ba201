"""Tables from the literature that the tests reproduce, each with its source."""

import io

import numpy as np
import pandas as pd

# Demsar (2006), Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, 1-30, table 6: AUC.
DEMSAR_METHODS = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]
DEMSAR = pd.DataFrame(
    [
        ("adult (sample)", 0.763, 0.768, 0.771, 0.798),
        ("breast cancer", 0.599, 0.591, 0.590, 0.569),
        ("breast cancer wisconsin", 0.954, 0.971, 0.968, 0.967),
        ("cmc", 0.628, 0.661, 0.654, 0.657),
        ("ionosphere", 0.882, 0.888, 0.886, 0.898),
        ("iris", 0.936, 0.931, 0.916, 0.931),
        ("liver disorders", 0.661, 0.668, 0.609, 0.685),
        ("lung cancer", 0.583, 0.583, 0.563, 0.625),
        ("lymphography", 0.775, 0.838, 0.866, 0.875),
        ("mushroom", 1.000, 1.000, 1.000, 1.000),
        ("primary tumor", 0.940, 0.962, 0.965, 0.962),
        ("rheum", 0.619, 0.666, 0.614, 0.669),
        ("voting", 0.972, 0.981, 0.975, 0.975),
        ("wine", 0.957, 0.978, 0.946, 0.970),
    ],
    columns=["dataset", *DEMSAR_METHODS],
)
# His ranks of "voting" are 4, 1, 2, 3: the two values printed as 0.975 differ in a digit that is not printed,
# and his mean ranks rest on those ranks.
DEMSAR_UNROUNDED = DEMSAR.copy()
DEMSAR_UNROUNDED.loc[12, "C4.5+cf"] = 0.9751

# Garcia and Herrera (2008), JMLR 9, 2677-2694: mean ranks of 5 classifiers over 30 data sets, printed as
# 2.100, 3.250, 2.200, 4.333 and 3.117 (they are multiples of 1/60).
GARCIA_METHODS = ["C4.5", "1-NN", "NaiveBayes", "Kernel", "CN2"]
GARCIA_RANKS = [2.100, 3.250, 2.200, 260 / 60, 187 / 60]
# Their unadjusted p-values, in the order of combinations(), to the digits that the example of scmamp's
# adjustShaffer prints for the same data (https://rdrr.io/cran/scmamp/man/adjustShaffer.html).
GARCIA_P = [
    0.004848763, 0.8064959, 4.486991e-08, 0.012763008, 0.010112334,
    0.007963489, 0.743971478, 1.736118e-07, 0.024744672, 0.002880485,
]  # fmt: skip

# MLCommons AlgoPerf, repository mlcommons/submissions_algorithms, artifacts/leaderboard_v2/: steps to target
# on 9 workloads (time_to_targets_steps.csv) and the published scores (scores_steps.csv).
ALGOPERF = pd.read_csv(
    io.StringIO(
        """submission,criteo1tb,fastmri,finewebedu_lm,resnet,vit,conformer,deepspeech,ogbg,wmt,score
AdEMAMix,8371,10206,44503,inf,inf,67706,inf,27247,112742,0.5258136924803595
Cautious NAdamW,inf,7518,58199,inf,inf,inf,inf,24948,112372,0.31986531986531946
Lion,inf,10645,59524,inf,inf,inf,inf,33386,109080,0.2732884399551064
Muon (JAX),inf,8801,40724,inf,151926,inf,inf,inf,inf,0.31986531986531946
Muon (PyTorch),7716,inf,39220,inf,inf,inf,inf,7711,97224,0.4326599326599318
NAdamW,8286,9924,58784,inf,152461,inf,inf,inf,inf,0.40404040404040326
NAdamW (Baseline v0.5),9145,6648,47039,inf,inf,inf,inf,20879,118600,0.45454545454545503
NAdamW (ResNet),inf,9220,53029,inf,inf,inf,inf,32738,inf,0.19528619528619492
Schedule-Free AdamW,10346,10599,inf,inf,inf,inf,90588,15853,133517,0.4461279461279469
Schedule-Free AdamW (JAX),inf,7160,57242,inf,175889,inf,inf,27341,122198,0.4090909090909087
Schedule-Free AdamW (JAX v2),9005,8750,68640,inf,164206,inf,inf,27457,inf,0.41245791245791213
Schedule-Free AdamW v2,7951,12431,inf,inf,inf,83184,78669,28449,73222,0.5252525252525259
DiLoCo (Single Worker),inf,9342,61209,inf,inf,inf,inf,inf,inf,0.18630751964085265
DiLoCo v2 (Single Worker),inf,10140,59550,inf,inf,inf,inf,inf,inf,0.1829405162738493
"""
    ),
    index_col="submission",
).astype(float)

# Benjamini and Hochberg (1995), JRSS B 57, 289-300, section 4: 15 ordered p-values (Neuhaus et al. 1992).
BENJAMINI_HOCHBERG = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240,
    0.4262, 0.5719, 0.6528, 0.7590, 1.0000,
]  # fmt: skip

# Freireich et al. (1963), Blood 21, 699-716: weeks of remission in 21 matched pairs (placebo, 6-MP, 6-MP
# relapsed), as in MASS::gehan and Andersen, Borgan, Gill and Keiding (1993), pp. 22-23.
FREIREICH = np.array(
    [
        (1, 10, 1), (22, 7, 1), (3, 32, 0), (12, 23, 1), (8, 22, 1), (17, 6, 1), (2, 16, 1),
        (11, 34, 0), (8, 32, 0), (12, 25, 0), (2, 11, 0), (5, 20, 0), (4, 19, 0), (15, 6, 1),
        (8, 17, 0), (23, 35, 0), (5, 6, 1), (11, 13, 1), (4, 9, 0), (1, 6, 0), (8, 10, 0),
    ]
)  # fmt: skip
