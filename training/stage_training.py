"""Training of one stage after the towers."""

from __future__ import annotations

from hicom_edge.model.hicom import HicomModel
from hicom_edge.training.answer_loss import answer_loss
from hicom_edge.training.batches import ClipSource
from hicom_edge.training.demo_run import Run
from hicom_edge.training.learning_stages import Stage, learning_modules, parameter_groups
from hicom_edge.training.loop import Loop


def train_stage(run: Run, stage: Stage, model: HicomModel, source: ClipSource) -> None:
    """Run the stage's remaining steps on the model, which is changed in place."""
    options = run.options
    loop = Loop(
        name=stage.name,
        state=run.output / f"{stage.name}.state",
        fingerprint=options.fingerprint,
        modules=learning_modules(model),
        groups=parameter_groups(model, stage),
        steps=stage.steps,
        warmup=options.warmup,
        weight_decay=options.weight_decay,
        save_every=options.save_every,
        progress=run.progress,
    )
    model.train()
    loop.run(lambda step: answer_loss(model, source.batch(step).to(run.device)))
