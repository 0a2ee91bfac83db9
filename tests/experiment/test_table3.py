from deconfuse.experiment import table3
from tests.finished import finish


def test_table3_is_of_one_machine_and_one_loss_each(tmp_path):
    def made(name, seed, seconds, method="eif", loss="proxynca", **report):
        return finish(
            tmp_path,
            name,
            seed,
            choices={"experiment": "table3", "influence": method, "loss": loss},
            seconds={"influence": seconds, "relabelling": 0.5},
            explained={"rows": 90},
            **report,
        )

    machine = {"machine": {"cores": 2, "threads": 1, "device": "cpu"}}
    (section,) = table3.sections(
        [
            made("a", 0, 1.0, **machine),
            made("b", 1, 3.0, **machine),
            made("c", 0, 9.0, machine={"cores": 64, "threads": 8, "device": "cuda:0"}),
            made("d", 0, 7.0, loss="softtriple", **machine),
            made("e", 0, 5.0, "if", **machine),
        ]
    )
    found = section.table[["loss", "method", "device, cores, threads", "models", "detection"]].values.tolist()
    assert found == [
        ["proxynca", "eif", "cpu, 2, 1", 2, "2.00 ± 1.41"],
        ["proxynca", "eif", "cuda:0, 64, 8", 1, "9.00"],
        ["proxynca", "if", "cpu, 2, 1", 1, "5.00"],
        ["softtriple", "eif", "cpu, 2, 1", 1, "7.00"],
    ]
    assert section.table["paper, CUB200"].tolist()[2] == "375.56 ± 68.06, -"
