"""Suspicion = the log-odds of another label, by neighbours and head, averaged over the checkpoints kept.

Means with 10 % flipped (small_cnn, `recipe=small`; omniglot: SoftTriple seeds 0-2 and Proxy-NCA++ 0-1;
glyphs: 0-1 and 0): average precision by the log-odds, in brackets by 1 - P(current label), and of the flipped
samples the share whose likeliest other label is the true one.

    view                             omniglot               glyphs
    neighbours of embeddings         0.990 (0.978)  0.860   0.997 (0.994)  0.823
    neighbours of features           0.991 (0.968)  0.854   0.998 (0.994)  0.819
    head                             0.948 (0.949)  0.837   0.994 (0.990)  0.812
    all three                        0.991 (0.986)  0.866   0.998 (0.998)  0.830
    all three, last epoch alone      0.980 (0.978)  0.862   0.997 (0.997)  0.806
    detector=knn, last epoch         0.979 (0.965)  0.844   0.995 (0.991)  0.799
    detector=cleanlab, last epoch    0.963 (0.970)  0.832   0.995 (0.996)  0.812

The log-odds are high if another label fits better, not if this label fits badly: a sample that no label fits
is unusual, but not mislabelled. A fourth view, cleanlab's regressions, adds 0.01 to the share and takes more
time than the three together.
"""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Training
from deconfuse.labels.evidence import evidence, odds
from deconfuse.labels.relabel import Judgement, Votes
from deconfuse.system.errors import UserError


def suspicion(
    training: Training, influence: Float[Tensor, "p n"], votes: Votes, earlier: Iterable[Training] = ()
) -> Judgement:
    """log P(most likely other label) - log P(current label), nats; higher = more likely mislabelled.

    P is the `evidence` of the model and of its earlier checkpoints (recipe.checkpoints), by which labels are
    recommended too. The number of neighbours is that of votes. Raises UserError if some samples were not
    candidates.
    """
    if votes.own.isnan().any():
        raise UserError(
            "detector=evidence needs votes on all samples, and candidates= limits them; take "
            "candidates=null, or detector=influence"
        )
    combined = evidence([*earlier, training], votes.k or votes.classes.shape[1])
    return Judgement(odds(combined, training.labels)[1], combined)
