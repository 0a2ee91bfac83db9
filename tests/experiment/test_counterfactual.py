from deconfuse.experiment import counterfactual
from deconfuse.runs.section import MISSING
from tests.finished import finish


def test_methods_by_how_well_they_predict(tmp_path):
    def made(method, seed, mean, **influence):
        return finish(
            tmp_path,
            f"{method}{seed}{influence}",
            seed,
            choices={"influence": method, "target": "pairs"},
            settings={"influence": influence},
            counterfactual={"mean": mean},
        )

    (section,) = counterfactual.sections(
        [
            made("if", 0, 0.8, damping=0.01),
            made("if", 1, 0.9, damping=0.01),
            made("if", 0, 0.5, damping=1.0),
            made("eif", 0, None),
        ]
    )
    found = sorted(section.table[["influence", "damping", "models", "LDS"]].values.tolist())
    assert found == [["eif", "-", 1, MISSING], ["if", "0.01", 2, "0.850 ± 0.071"], ["if", "1.0", 1, "0.500"]]
