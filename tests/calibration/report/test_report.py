"""The report: the verdict first, every number there, one file that needs nothing else."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx_ir as ir
import pytest
from sample_report import comparison, report

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibration_data import CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.calibration.graphs.linears import Linear, find_linears
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice
from hicom_edge.calibration.layers.sensitivity import LayerSensitivity
from hicom_edge.calibration.quality.quality import wilson_interval
from hicom_edge.calibration.quality.speed import GRAPH_STAGES, VIDEO_STAGE, StageSpeed, stage_times
from hicom_edge.calibration.ranges.histogram import Histogram
from hicom_edge.calibration.ranges.range_methods import RangeMethod, find_amax
from hicom_edge.calibration.ranges.statistics import BundleStatistics, TensorStatistics
from hicom_edge.calibration.recipe import prepare_graphs
from hicom_edge.calibration.report import page as page_module
from hicom_edge.calibration.report.number_formats import (
    megabytes,
    milliseconds,
    noise_share,
    percent,
    points,
    small,
    times,
)
from hicom_edge.calibration.report.page import report_page
from hicom_edge.calibration.report.plots import (
    Axis,
    Dot,
    Span,
    dot_plot,
    histogram,
    log_ticks,
    span_plot,
)
from hicom_edge.calibration.report.report_builder import (
    data_report,
    graph_bytes,
    graph_reports,
    layer_reports,
    range_report,
    range_reports,
)
from hicom_edge.calibration.report.report_data import GateReport, report_json
from hicom_edge.calibration.run import Run
from hicom_edge.calibration.run_directory import RunDirectory, RunKey
from hicom_edge.commands.calibrate import calibrate
from hicom_edge.datasets.sample import Sample
from hicom_edge.runtime.timings import Timings, WatchTimings

ROOT = Path(__file__).resolve().parents[3]
DEMO, DOCS = ROOT / "demo" / "bundle", ROOT / "docs"
STYLE_SHEET = Path(page_module.__file__).parent / "report.css"  # of the package that is tested
VOID = {"meta", "link", "br", "img"}


class Outline(HTMLParser):
    """Refuses tags that do not match, and collects what a page holds."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.ids: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        self.references += [named[key] or "" for key in ("href", "src") if key in named]
        self.ids |= {named["id"] or ""} if "id" in named else set()
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text.append(data)


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    assert parsed.open == []
    return parsed


def text_of(page: str) -> str:
    return " ".join(" ".join(outline(page).text).split())


@pytest.fixture(scope="module")
def page() -> str:
    return report_page(report())


@pytest.mark.parametrize(
    ("changed", "verdict", "headline"), [(2, "ship", "Ship it"), (9, "do not ship", "Do not ship")]
)
def test_the_verdict_comes_first_and_follows_the_gate(changed, verdict, headline) -> None:
    judged = report(changed=changed)
    text = text_of(report_page(judged))
    assert judged.gate.verdict == verdict
    assert text.index(headline) < text.index("Answers unchanged")
    for reason in judged.gate.reasons:
        assert reason.lower() in text.lower()
    assert ("What next" in text) is (verdict == "do not ship")


def test_without_thresholds_nothing_is_passed() -> None:
    judged = report(min_agreement=None, max_accuracy_loss=None)
    assert judged.gate.verdict == "not judged"
    assert "nothing was passed or missed" in text_of(report_page(judged))


def test_reasons_without_thresholds_still_stop_the_bundle() -> None:
    assert GateReport(None, None, ("3 answers are not finite",)).verdict == "do not ship"


def test_an_uncertain_pass_says_so() -> None:
    text = text_of(report_page(report(questions=30, changed=0)))
    assert "Ship it" in text
    assert "The lower end is below the threshold" in text


def test_a_threshold_finer_than_one_answer_says_how_many_questions_it_takes() -> None:
    text = text_of(report_page(report(questions=120, changed=1, max_accuracy_loss=0.005)))
    assert "One answer of 120 is 0.83 points of accuracy" in text
    assert "it takes 200 labelled questions" in text
    enough = text_of(report_page(report(questions=200, changed=1, max_accuracy_loss=0.005)))
    assert "One answer of" not in enough


def test_a_threshold_of_accuracy_without_labels_is_not_called_met() -> None:
    base = report(min_agreement=None, max_accuracy_loss=0.01, changed=0)
    rows = tuple(replace(c, expected=None, kind=None) for c in base.quality.comparisons)
    text = text_of(report_page(replace(base, quality=replace(base.quality, comparisons=rows))))
    assert "The accuracy threshold had no effect" in text


def test_the_figures_at_the_top_answer_what_was_lost_and_what_was_gained(page: str) -> None:
    base = report()
    text = text_of(page)
    top = text[: text.index("Right answers that became wrong")]
    quantised = [layer for layer in base.layers if not layer.is_float]
    noisiest = min(quantised, key=lambda layer: layer.sqnr_db)
    for said in (
        "Answers unchanged 98.5%",
        "Accuracy −1.5 points 100.00% → 98.50% of 200 questions",
        f"Noisiest quantised layer {noisiest.sqnr_db:.1f} dB",
        f"{noisiest.graph}, {noisiest.layer}",
        "Graphs on disk 3.2× smaller 6.9 MB → 2.1 MB",
        "Graphs to the first token 2.2× faster 33.1 ms → 15.3 ms",
        f"Linear layers quantised {len(quantised)} of 16",
    ):
        assert said in top, said


def test_noise_of_decoding_a_video_is_no_gain_of_quantisation() -> None:
    base = report()
    stages = (StageSpeed(VIDEO_STAGE, 90.0, 9.0), *base.speed.stages[1:])
    noisy = replace(base, speed=replace(base.speed, stages=stages))
    assert noisy.speed.graphs == base.speed.graphs
    assert "decode and preprocess 90.0 ms 9.00 ms not quantised" in text_of(report_page(noisy))


def test_the_stages_that_are_added_up_are_those_that_are_timed() -> None:
    timings = Timings(*([1] * len(fields(Timings))))
    timed = dict(stage_times(WatchTimings(1, 1, 1), timings))
    assert {VIDEO_STAGE, *GRAPH_STAGES} < timed.keys()


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    parsed = outline(page)
    assert "script" not in parsed.tags
    assert "link" not in parsed.tags
    assert all(reference.startswith("#") for reference in parsed.references)
    assert {reference[1:] for reference in parsed.references} <= parsed.ids
    assert not re.search(r"url\(|@import|https?://", page)


def test_every_changed_answer_is_shown_with_its_words_marked() -> None:
    page = report_page(report(changed=3))
    assert page.count("right → wrong") == 3
    assert "a <mark>blue</mark> ball" in page
    assert "a red <mark>square</mark>" in page


def test_hundreds_of_changed_answers_are_folded_and_counted() -> None:
    text = text_of(report_page(report(questions=700, changed=600)))
    assert "480 more" in text
    assert "100 more are in report.json" in text


def test_what_videos_and_models_say_is_text_and_never_markup() -> None:
    evil = "<script>alert(1)</script>"
    base = report()
    row = comparison(0, evil, video=f"{evil}.mp4", question=evil, expected=evil, kind=evil)
    layers = (replace(base.layers[0], layer=evil, graph=evil), *base.layers[1:])
    quality = replace(base.quality, comparisons=(row, *base.quality.comparisons))
    page = report_page(replace(base, quality=quality, layers=layers, result=evil, notes=(evil,)))
    assert "script" not in outline(page).tags
    assert "<script" not in page


def test_hundreds_of_layers_give_a_page_of_bounded_size_with_all_of_them() -> None:
    large = report(towers=40)
    page = report_page(large)
    text = text_of(page)
    assert len(large.layers) == 320
    assert all(layer.layer in text for layer in large.layers)
    assert len(page) < 1_500_000


def test_a_report_with_nothing_measured_but_quality_is_a_page() -> None:
    bare = replace(report(), layers=(), ranges=(), speed=None, notes=(), versions={}, options={})
    text = text_of(report_page(bare))
    assert "No layer was quantised" in text
    assert "Not measured in this run" in text


def test_unlabelled_questions_give_no_accuracy() -> None:
    base = report()
    rows = tuple(replace(c, expected=None, kind=None) for c in base.quality.comparisons)
    text = text_of(report_page(replace(base, quality=replace(base.quality, comparisons=rows))))
    assert "accuracy was not measured" in text
    assert "Accuracy not measured" in text


def test_layers_that_stay_in_floating_point_are_named_with_the_reason() -> None:
    base = report(towers=12)
    kept = [layer for layer in base.layers if layer.is_float]
    assert kept
    text = text_of(report_page(base))
    assert f"{len(kept)} layer" in text
    assert "one of the worst; the gate held without it" in text


def test_layers_are_ranked_by_what_reaches_the_answer_where_that_was_measured() -> None:
    base = report(towers=6)
    quiet = replace(base.layers[0], sqnr_db=60.0, logit_kl=0.9)
    with_effect = replace(base, layers=(quiet, *base.layers[1:]))
    text = text_of(report_page(with_effect))
    ranked = text[text.index("layers that change the first token most") :]
    assert ranked.index(quiet.layer) < ranked.index("All 48 layers")
    alone = tuple(replace(n, token_cosine=None, logit_kl=None) for n in with_effect.layers)
    text = text_of(report_page(replace(base, layers=alone)))
    ranked = text[text.index("layers that add most noise") : text.index("All 48 layers")]
    assert quiet.layer not in ranked
    assert "KL in nats" not in ranked


def test_one_scale_serves_the_charts_of_all_graphs(page: str) -> None:
    charts = re.findall(r'<svg class="chart".*?</svg>', page)[:2]
    ticks = [re.findall(r'<text class="tick"[^>]*>([^<]+)</text>', chart) for chart in charts]
    assert ticks[0] == ticks[1]


def test_the_json_has_the_verdict_and_every_comparison() -> None:
    judged = report(changed=9)
    document = json.loads(report_json(judged))
    assert document["format"] == "hicom-edge-calibration-report"
    assert document["format_version"] == 1
    assert document["verdict"] == "do not ship"
    assert document["reasons"] == list(judged.gate.reasons)
    assert document["quality"]["unchanged"] == 191
    assert document["quality"]["agreement"] == pytest.approx(0.955)
    assert len(document["quality"]["comparisons"]) == 200
    assert document["quality"]["comparisons"][0]["outcome"] == "lost"
    assert document["ranges"][0]["counts"] == list(judged.ranges[0].counts)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_measure_that_is_not_finite_is_null_and_a_word_on_the_page(value: float) -> None:
    base = report()
    layer = replace(base.layers[0], sqnr_db=value, logit_kl=value, token_cosine=value)
    broken = replace(base, layers=(layer, *base.layers[1:]))
    text = report_json(broken)
    assert "Infinity" not in text
    assert "NaN" not in text
    assert json.loads(text)["layers"][0]["sqnr_db"] is None
    assert "not finite" in text_of(report_page(broken))


def test_the_documentation_names_every_key_of_the_json() -> None:
    document = json.loads(report_json(report()))
    text = (DOCS / "calibration.md").read_text(encoding="utf-8")
    parts = [document, *(document[k][0] for k in ("graphs", "layers", "ranges"))]
    missing = {key for part in parts for key in part if f"`{key}`" not in text}
    assert missing - {"graph", "layer"} == set()


def test_the_documentations_table_of_sample_sizes_is_the_interval() -> None:
    text = (DOCS / "calibration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\d.]+)% \|$", text, re.M)
    assert len(rows) == 4
    for number, share in rows:
        low = wilson_interval(int(number), int(number))[0] * 100
        assert low - 0.1 < float(share) <= low


def test_the_documentations_clips_of_an_extreme_value_are_the_methods() -> None:
    text = (DOCS / "calibration.md").read_text(encoding="utf-8")
    methods = re.search(r"^\| values \| (.+) \|$", text, re.M)[1].replace("`", "").split(" | ")
    rows = re.findall(r"^\| (1[0,]+) \| ([\d.| ]+) \|$", text, re.M)
    assert len(rows) == 2
    for number, clips in rows:
        values = np.random.default_rng(0).normal(0, 1, int(number.replace(",", "")))
        values[0] = 50
        seen = counted(np.abs(values))
        found = [find_amax(seen, RangeMethod(method)) for method in methods]
        np.testing.assert_allclose(found, [float(c) for c in clips.split(" | ")], atol=0.06)


def test_the_documentation_names_every_option_of_the_command() -> None:
    text = (DOCS / "calibration.md").read_text(encoding="utf-8")
    options = {f"--{name.replace('_', '-')}" for name in inspect.signature(calibrate).parameters}
    missing = {option for option in options if option not in text}
    assert missing == {"--bundle", "--output", "--overwrite", "--json"}
    known = {"--compare", "--opset", "--llm", "--scales", "--onnx", "--int8", "--fp16", "--calib"}
    known |= {"--dtype", "--quantization"}  # of export, for TensorRT-LLM
    known |= {"--outliers"}  # of benchmarks/demo_int8.py
    assert set(re.findall(r"--[a-z][a-z0-9-]*\b", text)) <= options | known


def test_sizes_count_a_graph_with_the_weights_beside_it() -> None:
    bundle = Bundle.open(DEMO)
    name = bundle.graph("vision").file
    files = bundle.manifest.files
    with_data = {**files, f"{name}.data": replace(files[name], size=7)}
    larger = replace(bundle, manifest=replace(bundle.manifest, files=with_data))
    assert graph_bytes(bundle, "vision") == (DEMO / name).stat().st_size
    assert graph_bytes(larger, "vision") == graph_bytes(bundle, "vision") + 7
    rows = graph_reports(bundle, larger)
    assert [r.graph for r in rows] == list(bundle.manifest.graphs)
    assert [r.bytes_after - r.bytes_before for r in rows if r.graph == "vision"] == [7]


def counted(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.add(values.astype(np.float32))
    return histogram


@pytest.mark.parametrize("spread", [1e-6, 0.7, 3.0, 9000.0])
def test_a_reduced_histogram_keeps_every_value_and_its_place(spread: float) -> None:
    values = np.abs(np.random.default_rng(3).normal(0, spread, 5000)).astype(np.float32)
    found = range_report("g", "t", "mse", 2 * spread, counted(values))
    assert sum(found.counts) == 5000
    assert values.max() <= found.counted_to <= 2.1 * values.max()
    edges = np.linspace(0, found.counted_to, len(found.counts) + 1)
    assert list(found.counts) == np.histogram(values, edges)[0].tolist()
    assert found.clipped_share == pytest.approx((values > 2 * spread).mean(), abs=0.002)
    assert found.headroom == pytest.approx(values.max() / (2 * spread))


def test_nothing_is_cut_off_by_the_largest_value() -> None:
    values = np.random.default_rng(4).uniform(0, 5, 1000).astype(np.float32)
    found = range_report("g", "t", "minmax", float(values.max()), counted(values))
    assert found.clipped_share == 0


def test_a_histogram_of_nothing_but_zeros_is_a_range_without_clipping() -> None:
    found = range_report("g", "t", "minmax", 1.0, counted(np.zeros(5)))
    assert found.clipped_share == 0
    assert sum(found.counts) == 5
    svg_of(histogram(found.counts, found.counted_to, found.amax, "zeros"))


def test_layers_carry_their_choice_and_their_cost() -> None:
    linears = [Linear(n, f"{n}/MatMul", f"{n}_in", f"{n}_out", f"{n}.weight", 8, 4) for n in "abc"]
    choice = PrecisionChoice({"vision": {"a": "int8", "b": "float"}}, {"vision/b": "the worst"})
    measured = [
        LayerSensitivity("vision", "a", "int8", 30.0, 0.99, 1e-3),
        LayerSensitivity("vision", "b", "int8", 9.0, 0.5, 0.2),
        LayerSensitivity("decoder", "c", "int8", 1.0),
    ]
    a, b, c = layer_reports("vision", linears, choice, measured)
    assert (a.precision, a.sqnr_db, a.token_cosine, a.logit_kl) == ("int8", 30.0, 0.99, 1e-3)
    assert (b.precision, b.reason, b.sqnr_db, b.logit_kl) == ("float", "the worst", 9.0, 0.2)
    assert (c.precision, c.reason, c.sqnr_db) == ("float", None, None)
    assert {layer.parameters for layer in (a, b, c)} == {32}
    assert a.tensor == "a_in"


@pytest.fixture(scope="module")
def statistics() -> dict[str, TensorStatistics]:
    """Of every input of the demo's guide: one channel is 50 times the others."""
    seen = {}
    for linear in find_linears(ir.load(DEMO / "guide.onnx")):
        one = TensorStatistics(linear.input)
        rows = np.random.default_rng(1).normal(0, 1, (64, linear.in_features))
        one.add(np.concatenate([rows[:, :1] * 50, rows[:, 1:]], axis=1))
        seen[linear.input] = one
    return seen


@pytest.mark.parametrize("smoothing", [None, 0.5])
def test_ranges_are_those_that_the_graph_is_quantised_with(
    statistics, smoothing, tmp_path: Path
) -> None:
    bundle = Bundle.open(DEMO)
    kept = tuple(name for name in bundle.manifest.graphs if name != "guide")
    options = CalibrationOptions(keep=kept, activations="minmax", smoothing=smoothing)
    place = RunDirectory(tmp_path / "out", RunKey("bundle", "data", "options"))
    with place:
        run = Run(bundle, CalibrationData((), ()), options, tmp_path, place, lambda *progress: None)
        (prepared,) = prepare_graphs(run, ["guide"], BundleStatistics({"guide": statistics}))
    layers = prepared.plan.layers[:-1]
    found = range_reports(prepared, statistics, layers, "minmax")
    read = {n.input for n in find_linears(prepared.plan.model) if n.name in layers}
    assert {r.tensor for r in found} == read
    assert len(found) == len(read) > 1
    assert all(r.amax == prepared.amax[r.tensor] for r in found)
    assert all(r.clipped_share == 0 and r.graph == "guide" for r in found)
    assert any(r.tensor in prepared.factors for r in found) is (smoothing is not None)


def test_the_data_names_every_video_with_its_hash_and_use(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    samples = [Sample(tmp_path / f"{name}.mp4", "what?") for name in "aabc"]
    found = data_report(samples[:3], samples[3:], 7)
    assert (found.calibration_questions, found.held_out_questions, found.seed) == (3, 1, 7)
    assert (found.videos("calibration"), found.videos("held-out")) == (2, 1)
    hashes = {hashlib.sha256(name.encode()).hexdigest() for name in "abc"}
    assert {f.sha256 for f in found.files} == hashes


def test_videos_of_one_name_on_both_sides_are_told_apart(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "clip.mp4").write_text(folder)
    one, other = (Sample(tmp_path / folder / "clip.mp4", "what?") for folder in "ab")
    assert [f.path for f in data_report([one], [other], 0).files] == ["a/clip.mp4", "b/clip.mp4"]


def svg_of(text: str) -> ElementTree.Element:
    root = ElementTree.fromstring(text)
    return root if root.tag == "svg" else root[0]


def inside(svg: ElementTree.Element) -> bool:
    """Every mark lies in the picture."""
    width, height = map(float, svg.attrib["viewBox"].split()[2:])
    limits = {"x": width, "x1": width, "x2": width, "cx": width}
    limits |= {"y": height, "y1": height, "y2": height, "cy": height}
    found = [(v, limits[k]) for e in svg.iter() for k, v in e.attrib.items() if k in limits]
    return all(-0.5 <= float(value) <= limit + 0.5 for value, limit in found)


@pytest.mark.parametrize("number", [1, 7, 400])
def test_dots_lie_inside_the_plot_and_higher_values_are_higher(number: int) -> None:
    values = np.linspace(-3, 60, number)
    dots = [Dot(v, f"<{v}>", "quantised", "<lowest>" if v == values[0] else "") for v in values]
    svg = svg_of(dot_plot(dots, Axis((-10, 25, 60), "dB", noise_share, "noise"), "layer", "a & b"))
    heights = [float(e.attrib["cy"]) for e in svg.iter("circle")]
    assert inside(svg)
    assert len(heights) == number
    assert heights == sorted(heights, reverse=True)
    assert [e.text for e in svg.iter("text") if e.attrib["class"] == "name"] == ["<lowest>"]


@pytest.mark.parametrize("end", [1.0, 3.0, 1e6])
def test_spans_lie_inside_the_plot(end: float) -> None:
    svg = svg_of(span_plot([Span(1.0, end, "x"), Span(0.5, end, "y")], "unit", "tensor", "ranges"))
    assert inside(svg)


def test_a_histograms_clip_stands_where_its_value_is() -> None:
    svg = svg_of(histogram((5, 3, 0, 1), 4.0, 1.0, "t"))
    limit = next(e for e in svg.iter("line") if e.attrib["class"] == "limit")
    assert float(limit.attrib["x1"]) == pytest.approx(168 / 4)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (0.3, 40), (1e-9, 1e9), (5, 5000)])
def test_log_ticks_enclose_the_values_in_equal_factors(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 9
    np.testing.assert_allclose(np.diff(np.log(ticks)), np.log(ticks[1] / ticks[0]))


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def themes() -> list[dict[str, str]]:
    """The colours of the light and the dark theme, by name."""
    roots = re.findall(r":root \{(.*?)\}", STYLE_SHEET.read_text(encoding="utf-8"), re.S)
    return [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", root)) for root in roots]


@pytest.mark.parametrize("theme", themes(), ids=["light", "dark"])
def test_text_and_marks_stand_out_as_wcag_asks(theme: dict[str, str]) -> None:
    texts = ("ink", "muted", "after", "float", "good", "bad")
    grounds = ("page", "panel", "good-tint", "bad-tint")
    for ground in grounds:
        for name in texts:
            assert contrast(theme[name], theme[ground]) >= 4.5, (name, ground)
        assert contrast(theme["before"], theme[ground]) >= 3, ground
    assert contrast(theme["ink"], theme["mark-tint"]) >= 7


def test_both_themes_define_the_colours_that_the_page_uses(page: str) -> None:
    used = set(re.findall(r"var\(--([a-z-]+)\)", page))
    light, dark = themes()
    assert used == set(light) == set(dark)


def test_numbers_read_as_people_write_them() -> None:
    assert [percent(x) for x in (1, 0, 0.9996, 0.0001, 0.5)] == [
        "100.0%",
        "0.0%",
        "99.9%",
        "0.1%",
        "50.0%",
    ]
    assert [points(x) for x in (-0.002, 0.0123, 0)] == ["−0.2 points", "+1.2 points", "0.0 points"]
    assert [megabytes(x) for x in (2_732_345, 412_000_000, 5_640_000_000)] == [
        "2.7 MB",
        "412 MB",
        "5.64 GB",
    ]
    assert [milliseconds(x) for x in (0.912, 24.46, 1234.5, 0)] == [
        "0.912 ms",
        "24.5 ms",
        "1,234 ms",
        "0.00 ms",
    ]
    assert [small(x) for x in (7.94e-5, 4e-7, 0.0035, 0.0, None, float("nan"))] == [
        "7.9 × 10⁻⁵",
        "4.0 × 10⁻⁷",
        "0.0035",
        "0",
        "–",
        "not finite",
    ]
    assert [noise_share(x) for x in (0, 20, 32.5, 40, 50)] == ["100%", "10%", "2.4%", "1%", "0.32%"]
    assert times(30, 10, "smaller", "larger") == "3.0× smaller"
    assert times(10, 20, "faster", "slower") == "2.0× slower"
    assert times(10, 10.2, "faster", "slower") == "the same"
