"""What the benchmarks' report says of results: targets met or not, how cost grows, whether two runs agree."""

from __future__ import annotations

import ast
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from test_benchmarks_smoke import FOLDER, load

targets, growth, repeat, rows, feed, render = map(load, ("targets", "growth", "repeat", "rows", "feed", "render"))
ROOT = FOLDER.parent


def case(suite: str, name: str, seconds: float, threads: int = 1, **peers: float) -> dict[str, Any]:
    """A comparison; peers: name → ratio, underscores for spaces."""
    said = {"low": 0, "high": 0, "error": None, "version": "1", "note": "", "agreement": None, "differs": "draws"}
    names = {peer: peer if " " in peer else peer.replace("_", " ") for peer in peers}
    listed = [
        {**said, "name": names[p], "ratio": ratio, "best": ratio * seconds, "median": ratio * seconds}
        for p, ratio in peers.items()
    ]
    ours = {"best": seconds, "median": seconds, "low": seconds, "high": seconds}
    return {"suite": suite, "case": name, "threads": threads, "unit": "clip", "ours": ours, "peers": listed}


def row_of(words: str, cases: list[dict[str, Any]]) -> list[str]:
    (line,) = [line for line in targets.table(cases) if words in line]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_target_is_met_only_if_every_variant_meets_it() -> None:
    one, two = (
        case("effects", f"reverb[{n}]", 1e-3, sox_reverb=ratio) for n, ratio in (("1thread", 8.1), ("2threads", 7.96))
    )
    words = "reverb at least 8 times as fast as sox"
    assert row_of(words, [one])[2:] == ["8.1x (1 thread)", "yes"]
    assert row_of(words, [one, two])[2:] == ["8.1x (1 thread); 7.96x (2 threads)", "**1 of 2**"]
    assert row_of(words, [two])[3] == "**no**"


def test_what_has_no_result_is_not_yet_measured() -> None:
    for line in targets.table([]):
        assert "not yet measured" in line or "shown by" in line or line.startswith(("| subject", "|---"))
    untimed = case("effects", "reverb[1thread]", 1e-3)
    untimed["peers"] = [{"name": "sox reverb", "error": "FileNotFoundError: sox is not installed"}]
    assert row_of("reverb at least 8 times as fast as sox", [untimed])[2:] == ["not yet measured", "–"]


def test_the_fastest_of_several_peers_counts_and_all_must_be_there() -> None:
    words = "whole MP3 files no slower"
    peers = {"libmpg123": 2.0, "soundfile (libsndfile)": 0.9, "miniaudio (dr_mp3, dr_flac)": 3.0}
    assert row_of(words, [case("decode", "whole[1thread-mp3]", 1.0, **peers)])[2:] == ["0.9x (1 thread, mp3)", "**no**"]
    del peers["libmpg123"]
    assert row_of(words, [case("decode", "whole[1thread-mp3]", 1.0, **peers)])[2] == "not yet measured"


def test_times_facts_and_speedups_are_targets_too() -> None:
    cases = [
        case("chain", "eight_transforms_of_one_sample[1thread]", 1.1e-3),
        {"suite": "chain", "case": "peak_memory", "batches": 2.5},
        case("decode", "crop[2threads-flac]", 1e-3, threads=2, fastaug_on_one_thread=2.0),
        {"suite": "gpu_training", "case": "idle_share_while_training[flac]", "idle_percent": 7.0},
    ]  # fmt: skip
    assert row_of("under 1 ms", cases)[2:] == ["1.1 ms (1 thread)", "**no**"]
    assert row_of("memory beside the input", cases)[2:] == ["2.5 batches", "yes"]
    assert row_of("crops of FLAC: two threads", cases)[2:] == ["2x (2 threads, flac)", "yes"]
    assert row_of("5 % idle", cases)[2:] == ["7 % (flac)", "**no**"]


def test_the_tally() -> None:
    one = case("effects", "reverb[1thread]", 1e-3, sox_reverb=7.0, pedalboard_Reverb=5.0)
    assert targets.tally([one]).startswith("1 of 2 measured targets are met in every variant; ")
    assert targets.tally([]).startswith("0 of 0 measured")


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("target", [t for t in targets.TARGETS if t.test], ids=lambda t: t.test)
def test_tests_that_show_a_target_exist(target: Any) -> None:
    file, _, name = target.test.partition("::")
    assert not name or name in functions(ROOT / file)


def test_targets_name_cases_and_peers_that_exist() -> None:
    """A target that nothing can ever measure would stay "not yet measured" for good."""
    source = "".join(path.read_text() for path in FOLDER.glob("test_*.py"))
    defined = {f"{path.stem.removeprefix('test_')}: {name.removeprefix('test_')}"
               for path in FOLDER.glob("test_*.py") for name in functions(path)}  # fmt: skip
    text = (FOLDER / "targets.py").read_text()
    asked = re.findall(r'(?:ratio|seconds|fact)\(\s*"(\w+)", r?"(\w+)', text)
    assert len(asked) > 20
    elsewhere = {"memory: long_run", "gpu_tests: all"}  # of memory.py and gpu_tests.py, which are no tests
    named = {f"{suite}: {name}" for suite, name in asked} - elsewhere
    assert not {name for name in named if not any(case.startswith(name) for case in defined)}
    for peer in re.findall(r'"(soundfile range[^"]*|torchcodec range|libmpg123|sox \w+)"', text):
        assert f'"{peer}"' in source, peer


def curve(axis: str, points: list[tuple[float, float]], unit: str = "clip") -> dict[str, Any]:
    """points: size, seconds per unit."""
    kept = [{"x": x, "work": 64, "best": 64 * cost} for x, cost in points]
    return {"series": "s", "axis": axis, "unit": unit, "points": kept}


def test_growth_in_words() -> None:
    flat = growth.statement(curve("batch size", [(1, 3e-3), (4, 1.1e-3), (16, 1e-3), (64, 1e-3)]))
    assert flat.startswith("3 ms a clip at 1, 1 ms at 64; a fixed cost counts below 4,") and flat.endswith("no bend.")
    bent = growth.statement(curve("batch size", [(1, 1e-3), (4, 1e-3), (16, 1e-3), (64, 2e-3)]))
    assert "no fixed cost shows" in bent and bent.endswith("bends upwards at 64.")
    assert growth.exponent(curve("clip length", [(1, 1.0), (2, 1.0), (8, 1.0)])) == pytest.approx(1)
    assert growth.exponent(curve("clip length", [(1, 1.0), (2, 1.1), (4, 1.21)])) == pytest.approx(1 + math.log2(1.1))
    assert (
        growth.statement(curve("threads", [(1, 1.0), (2, 0.5), (4, 0.4)]))
        == "2.00 times as fast on 2; 2.50 times as fast on 4."
    )
    assert growth.statement(curve("shards", [(1, 1.0), (8, 1.1)])).endswith(": flat.")
    assert "up to 50% above the best" in growth.statement(curve("shards", [(1, 1.0), (8, 1.5)]))


def test_two_runs_agree_or_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def result(best: float, ratio: float) -> dict[str, Any]:
        return {
            "cases": [
                case("effects", "gain", best, p=ratio),
                {"suite": "scaling", "case": "c", "curve": curve("shards", [(1, 1.0)])},
            ]
        }

    near = repeat.agreement(result(1.0, 5.0), result(1.1, 5.0))
    assert repeat.good(near) and "3 of 3 rows (100%) within 15%" in repeat.report(near)
    assert "the worst 10.0% apart" in repeat.report(near) and "then" not in repeat.report(near)
    far = repeat.agreement(result(1.0, 5.0), result(1.0, 4.0))
    assert not repeat.good(far)
    assert "   25.0%  effects: gain, p: 5, then 4" in repeat.report(far)
    assert repeat.good(repeat.agreement(result(1.0, 5.0), result(1.0, 4.0), within=0.3))
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    before.write_text(json.dumps(result(1.0, 5.0)))
    after.write_text(json.dumps(result(1.0, 4.0)))
    monkeypatch.setattr("sys.argv", ["render.py", "compare", str(before), str(after), "--note"])
    with pytest.raises(SystemExit) as left:
        render.main()
    assert left.value.code == 1 and "ratio: 0 of 1 rows" in capsys.readouterr().out
    told = "\n".join(repeat.section(json.loads(after.read_text())["agreement"]))
    assert "- time per item: 2 of 3 rows (67%) within 15%; half of them within 0.0%, the worst 25.0% apart;" in told
    assert "| effects: gain, p | ratio | 5 | 4 | 25% | no |" in told


def test_a_row_says_whether_two_runs_disagree_within_their_own_doubt() -> None:
    def result(best: float, within: tuple[float, float], *ratio: float) -> dict[str, Any]:
        found = case("effects", "gain", best, p=ratio[0])
        found["ours"]["best_within"] = list(within)
        found["peers"][0] |= {"ratio_low": ratio[1], "ratio_high": ratio[2]}
        return {"cases": [found]}

    one = result(1.0, (0.9, 1.3), 5.0, 4.0, 6.0)
    found = repeat.agreement(one, result(1.3, (1.25, 1.4), 7.0, 6.1, 8.0))
    assert not repeat.good(found), "doubt excuses no row"
    lines = "\n".join(repeat.section(found))
    assert "| effects: gain, fastaug | time per item | 1 | 1.3 | 30% | yes |" in lines
    assert "| effects: gain, p | ratio | 5 | 7 | 40% | no |" in lines
    assert (
        "ratio: 0 of 1 rows (0%) within 15%; half of them within 40.0%, the worst 40.0% apart; of the 1 others, 0"
        in lines
    )
    assert "of the 2 others, 1 within the doubt that both runs state" in lines
    assert "fastaug: 1, then 1.3 (in doubt)" in repeat.report(found) and "5, then 7\n" in repeat.report(found) + "\n"
    scaled = {
        "suite": "scaling",
        "case": "c",
        "curve": {"points": [{"x": 2, "work": 4, "best": 8.0, "best_within": [4, 12]}]},
    }
    assert repeat.times({"cases": [scaled]})["scaling: c at 2"] == repeat.Value(2.0, (1.0, 3.0))


def test_a_row_of_one_run_only_is_no_agreement() -> None:
    one, none = {"cases": [case("effects", "gain", 1.0, p=2.0)]}, {"cases": [case("effects", "gain", 1.0)]}
    found = repeat.agreement(one, none)
    assert not repeat.good(found) and found["missing"] == ["time per item: effects: gain, p", "ratio: effects: gain, p"]
    assert "in one run only:\n  time per item: effects: gain, p" in repeat.report(found)
    assert not repeat.good(repeat.agreement({"cases": []}, {"cases": []})), "nothing to compare is no agreement"


def whole(date: str, quick: bool, *cases: dict[str, Any]) -> dict[str, Any]:
    machine = {"cpu": "C", "cores": 2, "load_before": 0.0, "python": "3.11", "versions": {}}
    return {"format": "fastaug-bench-1", "date": date, "quick": quick, "machine": machine, "cases": list(cases)}


def test_the_report_says_whether_it_agrees_with_the_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results, first, out = tmp_path / "results", tmp_path / "first.json", tmp_path / "RESULTS.md"
    results.mkdir()
    first.write_text(json.dumps(whole("2026-01-01", False, case("effects", "gain", 1.0, p=3.0))))
    full, quick = results / "c-2-cores-2026-01-01.json", results / "c-2-cores-2026-01-02-quick.json"
    full.write_text(json.dumps(whole("2026-01-01", False, case("effects", "gain", 1.1, p=3.0))))
    quick.write_text(json.dumps(whole("2026-01-02", True, case("effects", "gain", 9.0, p=3.0))))
    assert "Not compared with a second run." in render.render(results)
    command = ["render.py", "table", "--results", str(results), "--out", str(out), "--beside", str(first)]
    monkeypatch.setattr("sys.argv", command)
    render.main()
    assert "- ratio: 1 of 1 rows (100%) within 15%" in out.read_text() and "Not compared" not in out.read_text()
    assert "1.1 s/clip (before: 1); 1.1 [1.1, 1.1] | 1 |" in out.read_text() and "| 3 (before: 3) |" in out.read_text()
    assert "agreement" in json.loads(full.read_text()) and "agreement" not in json.loads(quick.read_text())
    assert "time per item: 2 of 2 rows" in capsys.readouterr().out


def test_the_outcome_of_the_long_run_is_kept_with_its_date(tmp_path: Path) -> None:
    part, results = tmp_path / "part.json", tmp_path / "results"
    results.mkdir()
    old = whole("2026-01-01", True, {"suite": "memory", "case": "long_run", "growth_percent": 0.5})
    (results / "old.json").write_text(json.dumps(old))
    part.write_text(json.dumps(whole("", False, case("effects", "gain", 1.0))))
    for date in ("2026-01-02", "2026-01-03"):
        merged = json.loads(render.merge([part], results, date, quick=False).read_text())
    assert merged["cases"][-1] == {**old["cases"][0], "date": "2026-01-01"} and len(merged["cases"]) == 2
    assert row_of("anonymous memory", merged["cases"])[2:] == ["0.5 % (2026-01-01)", "yes"]


def test_peers_that_cannot_run_are_reported_and_none_is_forgotten() -> None:
    timed = case("effects", "gain", 1.0, torchaudio_Resample=2.0)
    timed["peers"].append({"name": "DALI decoders.audio", "version": None, "error": "ModuleNotFoundError: no DALI"})
    table = rows.peer_table([timed], {"torchaudio": "2.11.0"})
    assert len(table) == 2 + 13
    assert "| torchaudio | 2.11.0 | 1 cases | – |" in table
    assert "| DALI | – | no case | 1: ModuleNotFoundError: no DALI |" in table
    assert "| julius | – | no case | – |" in table


def test_roofline_is_the_larger_of_bytes_and_operations() -> None:
    fast = case("effects", "gain[1thread]", 2e-6) | {"samples": 1000, "work": {"bytes": 8000, "flops": 1e5},
                "limits": {"bytes_per_second": 8e9, "flops_per_second": 1e11}}  # fmt: skip
    assert "| gain | 2 | 50% | 50% | 2 |" in rows.roofline_table([fast])
    assert rows.roofline_table([fast | {"threads": 2}]) == []


def test_hours_and_budget_of_the_feed() -> None:
    batches = case("feed", "batches", 1e-3, threads=2, webdataset=10.0)
    step = case("feed", "training_step", 0.1, threads=2, webdataset=1.2) | {"budget": {"read": 0.001, "step": 0.099}}
    text = "\n".join(feed.lines([batches, step]))
    assert "| loaded and augmented | **fastaug** | 1000.0 | 5.3 | 1 |" in text  # 48 * 400,000 ms
    assert "| loaded and augmented | webdataset | 100.0 | 53.3 | 10 |" in text
    assert "takes 48 ms or more never waits" in text and "that is 480 ms" in text
    assert "| read | 1 | 1.0% |" in text and "| **sum** | 100 | 100% |" in text
    assert feed.lines([]) == []


def test_the_share_of_time_that_a_device_is_busy() -> None:
    idle_of = load("test_gpu_training").idle_of
    assert idle_of([(0, 10e6)]) == (0, 10)
    share, seconds = idle_of([(0, 4), (1, 2), (3, 5), (5, 6), (8, 10)])
    assert share == pytest.approx(0.2) and seconds == pytest.approx(1e-5)


def test_what_the_tests_on_a_gpu_came_to() -> None:
    outcome = load("gpu_tests").outcome
    report = '<testsuites><testsuite tests="9" failures="{}" errors="1" skipped="2"/></testsuites>'
    assert outcome(report.format(2), 1) == {"suite": "gpu_tests", "case": "all", "passed": 4, "failed": 3}
    fine = '<testsuites><testsuite tests="9" failures="0" errors="0" skipped="0"/></testsuites>'
    assert outcome(fine, 0)["failed"] == 0 and outcome(fine, 124)["failed"] == 1, "stopped early is not passed"
    assert row_of("CUDA agrees with the CPU", [outcome(fine, 0)])[2:] == ["0", "yes"]
    assert row_of("CUDA agrees with the CPU", [outcome(report.format(0), 1)])[2:] == ["1", "**no**"]


def test_the_summary_of_ncu() -> None:
    summary = load("ncu_summary").summary(
        "==PROF== words\n"
        '"ID","Kernel Name","gpu__time_duration.sum","launch__registers_per_thread"\n"","","us","register/thread"\n'
        '"0","fa_gain(const float*)","12.5","32"\n'
    )
    assert len(summary) == 2 and "fa_gain(const float*)" in summary[1] and "12.5 us" in summary[1]


def test_a_ratio_that_its_times_do_not_give_says_what_they_give() -> None:
    found = case("effects", "gain", 1.0, p=5.0)
    (peer,) = found["peers"]
    assert rows.quotient(found, {**peer, "median": 5.4}) == ""
    assert rows.quotient(found, {**peer, "median": 9.4}) == " (medians: 9.4)"
    assert rows.quotient(found, {**peer, "median": 4.0}) == " (medians: 4)"
    peer["median"] = 9.4
    assert "| 5 (medians: 9.4) |" in rows.case_rows(found)[1]


def test_the_time_lost_to_slow_spells_is_told(tmp_path: Path) -> None:
    for number in (1, 2):
        pace = {"kept": 100.0 * number, "lost": 30.0, "slow": 6.0}
        part = whole("", False, case("effects", f"gain{number}", 1.0)) | {"pace": pace}
        (tmp_path / f"part{number}.json").write_text(json.dumps(part))
    parts, results = sorted(tmp_path.glob("part*.json")), tmp_path / "results"
    render.merge(parts, results, "2026-01-01", quick=False)
    assert "Turns took 300 s; waiting for the machine's own pace and turns taken again cost 60 s" in render.render(
        results
    )
    assert "; 4% of them were slow nonetheless" in render.render(results)
    assert render.calm(None) == ""


def test_what_the_run_before_said_stands_in_the_row() -> None:
    found = {"cases": [case("effects", "gain", 1e-3, p=5.0)]}
    before = {"cases": [case("effects", "gain", 1.1e-3, p=123.4)]}
    repeat.remember(before, found)
    ours, peer = rows.case_rows(found["cases"][0])
    assert "| 1 ms/clip (before: 1.1); 1 [" in ours and "| 5 (before: **123**)" in peer and "before: **136**" in peer
    alone = {"cases": [case("effects", "new", 1e-3, p=5.0)]}
    repeat.remember(before, alone)
    assert not any("before" in row for row in rows.case_rows(alone["cases"][0]))


def test_a_case_that_others_disturbed_says_so() -> None:
    found = case("effects", "gain", 1.0, p=5.0)
    assert "meanwhile" not in rows.case_rows({**found, "others": 0.05})[0]
    assert "gain (others used 0.7 cores meanwhile) |" in rows.case_rows({**found, "others": 0.7})[0]
