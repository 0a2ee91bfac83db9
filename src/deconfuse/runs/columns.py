"""A description of each column of the tables, with its unit, and of the sign of the scores."""

COLUMNS = {
    "confusions.csv": {
        "confusion": "0 is the closest, most confusing pair",
        "query": "name of the query image",
        "query_class": "its class",
        "neighbour": "name of its nearest gallery image",
        "neighbour_class": "that image's class, another one",
        "distance": "squared distance of the normalised embeddings, in [0, 4]",
        "same_thing": "True where the data set knows the two classes to look alike",
    },
    "groups.csv": {
        "group": "0 is the class with most confusions",
        "class": "a test class with confusions, a confusion group; largest first",
        "confusions": "how many of its queries are nearest to another class",
        "queries": "how many queries it has",
        "confused_with": "the class they are nearest to most often",
        "distance": "mean squared distance of its confusion pairs, in [0, 4]",
    },
    "mis_similar.csv": {
        "pair": "0 is the pair that is farthest apart",
        "query": "name of the query image",
        "neighbour": "name of the farthest gallery image of its class",
        "class": "the class of both",
        "distance": "squared distance of the normalised embeddings, in [0, 4]",
    },
    "counterfactual.csv": {
        "row": "row of influence.npy",
        "lds": "linear datamodeling score: rank correlation of its scores, summed over random subsets, with "
        "the real change of d when the head is trained without them; in [-1, 1], 1 = predicted right",
    },
    "left_out.csv": {
        "row": "row of influence.npy",
        "share": "of the training set that was left out (or relabelled), those that score most harmful",
        "left_out": "how many samples that is",
        "seed": "of the training from scratch; 0 is the run's own, 1 the next",
        "d_kept": "squared distance of the pair after that seed's training with all samples, in [0, 4]",
        "d": "the same after the training without them; d > d_kept: the pair is further apart",
        "confused_kept": "True where the query's nearest neighbour is of another class, with all samples",
        "confused": "the same without them",
    },
    "retrained.csv": {
        "row": "row of influence.npy",
        "d_before": "what is explained, at the trained head: d of the pair, or its mean over the group, in "
        "[0, 4]; -d for mis-similar pairs",
        "d_after": "the same after the head was trained again with the row's helpful samples up and its "
        "harmful ones down (Eq. 7; of a group Eq. 8)",
        "change": "d_after - d_before; > 0: the explanation helped (a confusion is further apart, a "
        "mis-similar pair closer)",
    },
    "classes.csv": {
        "class": "a training class with samples in relabels.csv",
        "samples": "how many samples have that label",
        "suggestions": "how many of them are in relabels.csv",
        "share": "suggestions / samples, in [0, 1]",
        "leans_to": "the label recommended most often",
        "lean": "share of the suggestions that recommend it, in [0, 1]",
        "entropy": "entropy of the recommended labels, in nats; 0 = all suggestions agree",
        "kind": "by the paper's Table 5: centralized or diversified where share > 0.1, as entropy < 0.35 or "
        "not; individual where share < 0.05; else others",
        "kind_by_share": "by the authors' scripts: centralized where lean >= 0.9 instead",
        "merge_with": "leans_to, where the class is centralized by either rule; else empty",
    },
    "rounds.csv": {
        "round": "0 is the model of the labels given; each round relabels and trains again from scratch",
        "R@1": "recall at 1 on the test classes, in [0, 1]",
        "MAP@R": "mean average precision at R on the test classes, in [0, 1]",
        "relabelled": "training samples whose label is another than the one given",
        "left_out": "training samples that this round left out, as the evidence spoke against their label "
        "but was sure of no other",
        "wrong": "samples trained with a wrong label; empty without noise",
        "broken": "those among them whose given label was right; empty without noise",
        "won_back_R@1": "(R@1 - round 0's) / (R@1 of the model trained on clean labels - round 0's); 1 = "
        "all; empty where that is not measured (loop.clean=true with noise) or nothing was lost",
        "won_back_MAP@R": "the same share for MAP@R",
        "checkpoint": "the round's model",
    },
    "corrected.csv": {
        "sample": "row of samples.csv",
        "path": "name of the training image",
        "class": "the label given",
        "corrected": "the label that the last round trained with",
        "left_out": "True where the last round trained without the sample",
        "evidence": "P(corrected) / (P(corrected) + P(the other)) of two labels, the one given and the "
        "likeliest other, in [0, 1]; below 0.5 it spoke for the other; empty where no round decided",
    },
    "influence_epochs.csv": {
        "epoch": "of training, counted from 1; the last row is the last epoch; the same row of "
        "influence_epochs.npy has the mean score of every sample of samples.csv",
        "R@1": "recall at 1 of that epoch's model on the test classes, in [0, 1]",
        "confusions": "how many confusion pairs it has",
        "explained": "how many of its rows (pairs or groups, as target= says) were explained",
        "harmful": "training samples whose mean score over them is > 0",
        "agreement": "Spearman's rank correlation of the samples' mean scores with the last epoch's, in "
        "[-1, 1]; empty where nothing was explained",
        "harmful_flipped": "how many of the harmful samples are flipped (only with noise)",
        "AUROC": "of ranking flipped samples first by the mean absolute score of that epoch, in [0, 1] (only "
        "with noise)",
        "AP": "average precision of the same (only with noise)",
    },
    "explained_epochs.csv": {
        "epoch": "of training, counted from 1",
        "row": "which explanation of that epoch; the pairs of a group share it",
        "query": "name of the query image",
        "query_class": "its class",
        "neighbour": "name of the gallery image it is paired with",
        "neighbour_class": "that image's class",
        "distance": "squared distance of the normalised embeddings at that epoch, in [0, 4]",
        "most_harmful": "the training sample that scores highest on the explanation",
        "score": "its score; > 0 harmful, unit as influence.npy",
    },
    "changes.csv": {
        "change": "vanished: the query was confused before the labels were corrected, and is not now; "
        "appeared: the other way round; moved: it is taken for another wrong class than before",
        "query": "name of the query image",
        "query_class": "its class",
        "neighbour_before": "name of its nearest gallery image before; empty where it was of its class",
        "class_before": "that image's class",
        "neighbour_after": "name of its nearest gallery image now; empty where it is of its class",
        "class_after": "that image's class",
        "distance_before": "squared distance of the pair before (of an appeared one: of the pair now) in the "
        "model of the labels before, in [0, 4]",
        "distance_after": "of the same pair in the model of the corrected labels, in [0, 4]",
    },
    "duplicates.csv": {
        "group": "near-identical pictures; 0 is the largest group",
        "kind": "two labels: on one side of the split with more than one label, so at least one is wrong; "
        "both sides: in training and in test; copies: of one class on one side",
        "part": "train, query or gallery",
        "row": "the sample's row in that part; of train the row of samples.csv",
        "path": "name of the image",
        "class": "its label",
        "distance": "squared distance of the normalised embeddings to the nearest other of its group, in "
        "[0, 4]",
        "bits": "in how many of 256 bits its perceptual hash differs from the most similar other of its "
        "group; -1 where the samples are no pictures",
    },
    "clean_list.csv": {
        "path": "name of the training image; the rows that change come first. A cell that begins with "
        "= + - @ or ' has one ' more, so that no spreadsheet computes it",
        "old_label": "the label given",
        "new_label": "the label after relabels= and loop=; empty where the sample was left out",
        "change": "relabelled, left out or kept",
        "evidence": "of a change: reviewer (decisions), classes (merged or swapped), vote P (of a "
        "relabels.csv), loop P (as in corrected.csv), or list",
    },
    "samples.csv": {
        "sample": "column of influence.npy: position in the training set",
        "path": "name of the training image",
        "class": "the label that training believed",
        "influence_mean": "mean score over all that was explained; sign: > 0 harmful (fitting it more brings "
        "confused pairs closer, or moves mis-similar ones apart), < 0 helpful; influence_index.json says "
        "what was explained, and the unit; empty where nothing was",
        "influence_abs_mean": "mean absolute score over the same, >= 0, same unit; how much it matters",
        "harmful_share": "share of the same on which the sample scores > 0, in [0, 1]",
        "influence_epochs_mean": "mean of influence_mean over the epochs of influence_epochs.csv, each of "
        "which explains what its own model confuses; > 0 harmful (only with influence.when=)",
        "influence_epochs_std": "standard deviation (n - 1) of the same over those epochs, same unit; how "
        "much it moved during training (only with influence.when=)",
        "first_harmful_epoch": "the first of those epochs at which influence_mean > 0; empty where it never "
        "was (only with influence.when=)",
        "suspicion": "of the chosen detector; higher = more likely mislabelled",
        "p_wrong": "P(the label is wrong), in [0, 1], by a classifier that has not seen it",
        "vote_current": "P(current label), in [0, 1], by the neighbours (Algorithm 1) or detector=evidence",
        "recommended": "class with the largest vote; where p_wrong > 0.5, the likeliest other one by "
        "the classifier of p_wrong",
        "vote_recommended": "that vote, in [0, 1]",
        "flipped": "True where noise= changed the label (only with noise)",
        "true_class": "the label before it was flipped (only with noise)",
    },
    "relabels.csv": {
        "rank": "0 is the sample whose label is most likely wrong",
        "sample": "row of samples.csv",
        "path": "name of the training image",
        "class": "current label",
        "recommended": "label to give instead",
        "p_wrong": "P(the label is wrong), in [0, 1]: above 0.5 in all rows here",
        "vote_recommended": "neighbours' vote for it, in [0, 1]",
        "vote_current": "neighbours' vote for the current label, in [0, 1]",
        "influence_mean": "as in samples.csv; > 0 harmful",
        "suspicion": "of the chosen detector; higher = more likely mislabelled",
        "flipped": "True where noise= changed the label (only with noise)",
        "true_class": "the label before it was flipped (only with noise)",
    },
}

SIGNS = {
    1.0: "> 0 harmful: fitting the sample more brings the confused pair closer",
    -1.0: "> 0 harmful: fitting the sample more moves the mis-similar pair further apart",
}
