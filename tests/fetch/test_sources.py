"""The table of sources agrees with the adapters and with the lists' own table, and claims nothing untried."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from vcil_bench.data.datasets import ADAPTERS, DatasetError
from vcil_bench.data.datasets.vclimb_import import SOURCES, URL
from vcil_bench.fetch.archives import archive_kind
from vcil_bench.fetch.sources import listed_archives, mirrored, sources


def test_every_dataset_that_is_published_has_a_source() -> None:
    assert sources().keys() == {name for name, known in ADAPTERS.items() if known.fetchable} | {"vclimb"}


@pytest.mark.parametrize("name", [name for name, known in ADAPTERS.items() if known.fetchable])
def test_an_error_of_missing_data_names_the_command(name: str, tmp_path: Path) -> None:
    for root in (tmp_path / "none", tmp_path):
        if name == "activitynet" and root == tmp_path:
            continue  # whose lists come from elsewhere, which is what lacks first
        try:
            assert not ADAPTERS[name].splits(root)
            error = ADAPTERS[name].without_split(root)
        except DatasetError as raised:
            error = raised
        assert str(error).endswith(ADAPTERS[name].fetched_by(root))


def test_every_source_says_where_it_was_read_and_whether_it_was_tried() -> None:
    for source in sources().values():
        assert source.page.startswith("http")
        assert source.licence
        assert source.tried
        assert bool(source.files) != bool(source.account)
        for file in source.files:
            assert re.fullmatch(r"https?://[^/\s]+/\S+", file.url)
            assert file.read
            assert re.fullmatch(r"|md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}|git_blob:[0-9a-f]{40}", file.digest)
            assert file.lists_archives or archive_kind(file.name) or file.name.endswith((".csv", ".pkl"))


def test_vclimbs_files_are_those_that_can_be_imported() -> None:
    files = {(file.url, file.digest) for file in sources()["vclimb"].files}
    assert files == {(f"{URL}{source.file}", f"git_blob:{source.git_blob}") for source in SOURCES}


def test_a_mirror_keeps_the_names(tmp_path: Path) -> None:
    (file,) = (file for file in sources()["kinetics400"].files if file.name.endswith("train_path.txt"))
    assert mirrored(file, None) == file
    assert mirrored(file, "http://host/k400/").url == "http://host/k400/train/k400_train_path.txt"
    text = "https://s3.amazonaws.com/kinetics/400/train/part_0.tar.gz\n\n"
    (listed,) = listed_archives(file, text, None)
    (other,) = listed_archives(file, text, "http://host/k400")
    assert listed.url == text.strip()
    assert other == replace(listed, url="http://host/k400/train/part_0.tar.gz")
