"""Measures what quantisation costs: two bundles on the same held-out questions.

It knows the order of the work: the reference first, its traces kept on disk, then the tested
bundle, so that only one of them is in memory. What the numbers mean is `agreement`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
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
from hicom_edge.calibration.ranges.chain import DEFAULT_ENGINE, DEFAULT_NEW_TOKENS, Chain, Trace
from hicom_edge.datasets.data_manifest import short_names
from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.engines.base import EngineOptions
from hicom_edge.errors import InputError

REFERENCE, TESTED = "reference", "tested"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Settings:
    """How both bundles are run."""

    engine: str
    max_new_tokens: int
    threads: int | None

    @property
    def that_decide(self) -> dict[str, Any]:
        """What answers may depend on, besides the bundles."""
        return {"engine": self.engine, "max_new_tokens": self.max_new_tokens}


def measure_quality(
    reference: Bundle,
    tested: Bundle,
    samples: Sequence[Sample],
    engine: str = DEFAULT_ENGINE,
    progress: Progress | None = None,
    *,
    directory: Path | None = None,
    max_new_tokens: int = DEFAULT_NEW_TOKENS,
    threads: int | None = None,
) -> Quality:
    """Ask both bundles every question, plain greedy, and compare what they made of it.

    Each bundle watches a video once. With a directory the work is kept there and continued: the
    reference's answers also serve the next tested bundle. They take as much disk as the visual
    tokens and the logits of all questions.

    Args:
        progress: called as progress("reference" or "tested", done, total) after each question.
        directory: where to keep the work; None: in a temporary one.
        max_new_tokens: where answers end that do not end by themselves.
        threads: CPU threads of one graph; None leaves the choice to the engine.

    Raises:
        InputError: no samples, or bundles whose visual tokens or vocabularies differ in size.
        VideoError, PromptError: a video cannot be read, or a question does not fit the context.
    """
    if not samples:
        raise InputError("no question to compare bundles on; pass at least one held-out sample")
    keys = {sample: sample_key(sample) for sample in samples}
    settings = _Settings(engine, max_new_tokens, threads)
    decisive = settings.that_decide
    with ExitStack() as stack:
        place = directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        traces = TraceStore(place / f"reference-{run_key((reference.manifest,), decisive)}")
        both = run_key((reference.manifest, tested.manifest), decisive)
        log = ComparisonLog(place / f"compared-{both}.jsonl")
        open_samples = [s for s in samples if log.get(keys[s]) is None]
        _record_reference(reference, open_samples, keys, traces, settings, progress)
        _compare(tested, open_samples, keys, traces, log, settings, progress)
        return _collected(samples, keys, log)


def _record_reference(
    bundle: Bundle,
    samples: Sequence[Sample],
    keys: dict[Sample, str],
    traces: TraceStore,
    settings: _Settings,
    progress: Progress | None,
) -> None:
    missing = [s for s in samples if keys[s] not in traces]
    done = len(samples) - len(missing)
    for sample, trace in _run(bundle, missing, settings):
        stored = StoredTrace(trace.visual_tokens, trace.logits, trace.token_ids, trace.text)
        traces.put(keys[sample], stored)
        done += 1
        if progress is not None:
            progress(REFERENCE, done, len(samples))


def _compare(
    bundle: Bundle,
    samples: Sequence[Sample],
    keys: dict[Sample, str],
    traces: TraceStore,
    log: ComparisonLog,
    settings: _Settings,
    progress: Progress | None,
) -> None:
    for done, (sample, trace) in enumerate(_run(bundle, samples, settings), start=1):
        before = traces.get(keys[sample])
        if before is None:
            traces.remove(keys[sample])
            raise InputError(
                f"the kept reference answer to {sample.question!r} about {sample.video} is "
                "damaged, and was thrown away; run the same command again, which asks once more"
            )
        log.add(keys[sample], compare_traces(sample, before, trace))
        if progress is not None:
            progress(TESTED, done, len(samples))


def _run(
    bundle: Bundle, samples: Sequence[Sample], settings: _Settings
) -> Iterator[tuple[Sample, Trace]]:
    """Every sample with its trace, grouped by video; one video's maps in memory at a time."""
    if not samples:
        return
    options = EngineOptions(settings.threads)
    with Chain(bundle, engine=settings.engine, options=options) as chain:
        for asked in by_video(samples).values():
            watched = chain.watch(asked[0].video)
            for sample in asked:
                yield (
                    sample,
                    chain.trace(
                        watched.maps,
                        watched.modality,
                        sample.question,
                        max_new_tokens=settings.max_new_tokens,
                    ),
                )


def compare_traces(
    sample: Sample, before: Trace | StoredTrace, after: Trace | StoredTrace
) -> Comparison:
    """Compare what two bundles made of one sample.

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


def _collected(samples: Sequence[Sample], keys: dict[Sample, str], log: ComparisonLog) -> Quality:
    """Rows in the samples' order, with today's labels: the log does not depend on those."""
    names = short_names(dict.fromkeys(s.video.resolve() for s in samples))
    found = [(sample, log.get(keys[sample])) for sample in samples]
    return Quality(
        tuple(
            replace(row, video=names[s.video.resolve()], expected=s.answer, kind=s.kind)
            for s, row in found
            if row is not None
        )
    )
