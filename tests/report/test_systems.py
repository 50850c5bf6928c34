"""The systems of the literature: none that a table or a document names is left out; what is missing is said."""

from __future__ import annotations

import pytest

from vcil_bench.common.config import ConfigError
from vcil_bench.report import latex, papers, published, table_text
from vcil_bench.report.layout import of_table
from vcil_bench.report.systems import System, families, missing, system_of

# What the documents that the project came from compare with.
NAMED = [
    *("StPR", "HCE", "ESSENTIAL", "DiST", "TCD", "FrameMaker", "STSP", "L2P", "S-iPrompts", "ST-Prompt"),
    *("CoSTEP", "CSTA", "iCaRL", "UCIR", "PODNet", "LwM", "LwF, LwF.MC", "SDC", "DER"),
]


@pytest.mark.parametrize("name", sorted({line["method"] for line in published.lines()}))
def test_every_published_number_is_of_a_system_on_the_page(name: str) -> None:
    assert system_of(name) is not None


@pytest.mark.parametrize("name", NAMED)
def test_every_system_of_the_documents_is_there(name: str) -> None:
    assert sum(system.name == name for family in families() for system in family.systems) == 1


@pytest.mark.parametrize(
    ("published", "name"),
    [
        ("iCaRL", "iCaRL"),
        ("iCaRL+TC", "vCLIMB's temporal consistency"),
        ("HCE: multi-level (TCD)", "HCE"),
        ("backpropagation fine-tuning (SFCL ablation)", "fine-tuning"),
    ],
)
def test_a_published_name_is_of_the_system_that_begins_it_at_most_length(published: str, name: str) -> None:
    system = system_of(published)
    assert system is not None
    assert system.name == name


def test_a_name_that_nobody_published_is_of_no_system() -> None:
    assert system_of("a method") is None


@pytest.mark.parametrize("given", [{}, {"methods": ("tcd",), "missing": "no code"}])
def test_a_system_is_here_or_missing(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="one of methods, option, missing"):
        System(name="a", paper="b", **given)  # type: ignore[arg-type]


def test_tables_say_why_methods_of_their_paper_are_not_here() -> None:
    (table,) = (table for table in papers.tables([]) if table.spec.id == "stpr_main")
    reasons = missing(["CSTA", "StPR", 'CoSTEP (printed "CoSTEO")'])
    assert list(reasons) == ["CSTA", "CoSTEP"]
    for text in (table_text.markdown(table), " ".join(latex.table(of_table(table)).split())):
        assert all(f"{name} ({reason})" in text for name, reason in reasons.items())
        assert "docs/systems.md" in text


def test_tables_whose_methods_are_all_here_say_nothing() -> None:
    (table,) = (table for table in papers.tables([]) if table.spec.id == "hce_ablations")
    assert "Not implemented here" not in table.caption
