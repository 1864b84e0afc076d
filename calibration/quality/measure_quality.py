"""Ask two bundles the same questions and compare their answers.

The reference answers first and its traces are saved on disk; then the tested bundle answers. Only
one bundle is in memory at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hicom_edge.bundle import Bundle, text_of
from hicom_edge.calibration.quality.comparison import Comparison, kl_divergence, token_cosines
from hicom_edge.calibration.quality.quality import Quality
from hicom_edge.calibration.quality.trace_store import (
    ComparisonLog,
    StoredTrace,
    TraceStore,
    run_key,
    sample_key,
)
from hicom_edge.datasets.data_manifest import short_names
from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.engines.base import EngineOptions
from hicom_edge.errors import InputError
from hicom_edge.progress import Progress, no_progress
from hicom_edge.runtime.stages import Stages
from hicom_edge.runtime.trace import (
    DEFAULT_ENGINE,
    DEFAULT_NEW_TOKENS,
    Trace,
    trace_question,
    watch_once,
)

REFERENCE, TESTED = "reference", "tested"


@dataclass(frozen=True)
class AskSettings:
    """How both bundles are run.

    Attributes:
        max_new_tokens: where answers without a stop token end.
        threads: CPU threads of one graph; None leaves the choice to the engine.
    """

    engine: str = DEFAULT_ENGINE
    max_new_tokens: int = DEFAULT_NEW_TOKENS
    threads: int | None = None

    @property
    def that_change_answers(self) -> dict[str, Any]:
        """Settings on which answers may depend, apart from the bundles."""
        return {"engine": self.engine, "max_new_tokens": self.max_new_tokens}


def measure_quality(
    reference: Bundle,
    tested: Bundle,
    samples: Sequence[Sample],
    settings: AskSettings | None = None,
    progress: Progress = no_progress,
    *,
    directory: Path | None = None,
) -> Quality:
    """Ask both bundles every question with greedy decoding, and compare what they computed.

    Each bundle encodes a video once. The saved traces of the reference also serve later tested
    bundles; they take as much disk as the visual tokens and the logits of all questions.

    Args:
        progress: reports the tasks "reference" and "tested".
        directory: where the work is saved and continued; None: nothing is kept.

    Raises:
        InputError: no samples, or bundles whose visual tokens or vocabularies differ in size.
        VideoError: a video cannot be read.
        PromptError: a question does not fit the context.
    """
    if not samples:
        raise InputError("no question to compare bundles on; pass at least one held-out sample")
    settings = settings or AskSettings()
    keys = {sample: sample_key(sample) for sample in samples}
    with ExitStack() as stack:
        folder = directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        decisive = settings.that_change_answers
        reference_key = run_key((reference.manifest,), decisive)
        both_key = run_key((reference.manifest, tested.manifest), decisive)
        traces = TraceStore(folder / f"reference-{reference_key}")
        log = ComparisonLog(folder / f"compared-{both_key}.jsonl")
        waiting = {sample: key for sample, key in keys.items() if log.get(key) is None}
        _record_reference(reference, waiting, traces, settings, progress)
        _compare(tested, waiting, traces, log, settings, progress)
        return _collected(samples, keys, log)


def compare_traces(
    sample: Sample, before: Trace | StoredTrace, after: Trace | StoredTrace
) -> Comparison:
    """Compare what two bundles computed for one sample.

    Raises:
        InputError: visual tokens or logits of different sizes.
    """
    mean, least = token_cosines(before.visual_tokens, after.visual_tokens)
    return Comparison(
        video=text_of(sample.video.as_posix()),
        question=sample.question,
        expected=sample.answer,
        kind=sample.kind,
        reference=before.text,
        tested=after.text,
        reference_tokens=before.token_ids,
        tested_tokens=after.token_ids,
        cosine_mean=mean,
        cosine_min=least,
        first_token_kl=kl_divergence(before.logits, after.logits),
    )


def _record_reference(
    bundle: Bundle,
    keys: dict[Sample, str],
    traces: TraceStore,
    settings: AskSettings,
    progress: Progress,
) -> None:
    missing = [sample for sample, key in keys.items() if key not in traces]
    known = len(keys) - len(missing)
    for done, (sample, trace) in enumerate(_run(bundle, missing, settings), start=known + 1):
        stored = StoredTrace(trace.visual_tokens, trace.logits, trace.token_ids, trace.text)
        traces.put(keys[sample], stored)
        progress(REFERENCE, done, len(keys), "question")


def _compare(
    bundle: Bundle,
    keys: dict[Sample, str],
    traces: TraceStore,
    log: ComparisonLog,
    settings: AskSettings,
    progress: Progress,
) -> None:
    for done, (sample, trace) in enumerate(_run(bundle, list(keys), settings), start=1):
        before = traces.get(keys[sample])
        if before is None:
            traces.remove(keys[sample])
            raise InputError(
                f"the saved reference answer to {sample.question!r} about {sample.video} is "
                "damaged and was deleted; run the same command again to recompute it"
            )
        log.add(keys[sample], compare_traces(sample, before, trace))
        progress(TESTED, done, len(keys), "question")


def _run(
    bundle: Bundle, samples: Sequence[Sample], settings: AskSettings
) -> Iterator[tuple[Sample, Trace]]:
    """Every sample with its trace, grouped by video; one video's features in memory at a time."""
    if not samples:
        return
    options = EngineOptions(settings.threads)
    with Stages(bundle, settings.engine, options) as stages:
        for asked in by_video(samples).values():
            watched = watch_once(stages, asked[0].video)
            for sample in asked:
                limit = settings.max_new_tokens
                yield sample, trace_question(stages, watched, sample.question, max_new_tokens=limit)


def _collected(samples: Sequence[Sample], keys: dict[Sample, str], log: ComparisonLog) -> Quality:
    """Comparisons in the samples' order, with their current labels, which the log does not keep."""
    names = short_names(dict.fromkeys(s.video.resolve() for s in samples))
    rows = [(sample, log.get(keys[sample])) for sample in samples]
    return Quality(
        tuple(
            replace(row, video=names[s.video.resolve()], expected=s.answer, kind=s.kind)
            for s, row in rows
            if row is not None
        )
    )
