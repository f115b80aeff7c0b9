"""Files that are right by themselves and wrong together."""

from __future__ import annotations

from pathlib import Path

from edgefn import loader, manifest
from edgefn.manifest import HandlerManifest, Manifest


def described(tmp_path: Path, name: str, source: str) -> Manifest:
    file = tmp_path / name
    file.write_text(source)
    return Manifest(str(file), handlers=tuple(HandlerManifest.of(one) for one in loader.describe(file, source)[0]))


def test_two_files_of_one_name_are_told_apart_by_line(tmp_path: Path) -> None:
    source = "from edgefn import filter\n@filter('a')\ndef same(x):\n    return True\n"
    one, two = described(tmp_path, "one.py", source), described(tmp_path, "two.py", source)
    (finding,) = manifest.conflicts([one, two])
    assert str(finding).startswith(f"{tmp_path}/two.py:2: same: a handler of this name is already defined in")


def test_handlers_that_feed_themselves_over_topics_are_found(tmp_path: Path) -> None:
    there = described(
        tmp_path, "there.py", "from edgefn import transform\n@transform('a/+', to='b/x')\ndef there(x):\n    return x\n"
    )
    back = described(
        tmp_path, "back.py", "from edgefn import transform\n@transform('b/#', to='a/x')\ndef back(x):\n    return x\n"
    )
    assert manifest.conflicts([there]) == []
    findings = manifest.conflicts([there, back])
    assert [finding.message for finding in findings] == [
        "there: what it publishes to b/x comes back to it",
        "back: what it publishes to a/x comes back to it",
    ]


def test_a_pipeline_is_no_circle(tmp_path: Path) -> None:
    source = (
        "from edgefn import aggregate, count, transform\n"
        "@transform('a/+', to='b/x')\ndef there(x):\n    return x\n"
        "@aggregate(there, count(2), to='c')\ndef both(value):\n    return value.sum()\n"
    )
    assert manifest.conflicts([described(tmp_path, "pipeline.py", source)]) == []


def test_more_fields_of_one_source_than_it_has_columns_are_refused_in_the_second_file(tmp_path: Path) -> None:
    source = "from edgefn import filter\n@filter('a')\ndef {name}({fields}):\n    return True\n"
    one = described(tmp_path, "one.py", source.format(name="one", fields=", ".join(f"a{i}" for i in range(40))))
    two = described(tmp_path, "two.py", source.format(name="two", fields=", ".join(f"b{i}" for i in range(40))))
    (finding,) = manifest.conflicts([one, two])
    assert "two.py:2: two: with it 80 fields of a are taken; 62 are possible" in str(finding)
