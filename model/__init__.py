"""HICom in PyTorch, and the authors' checkpoint layout."""

from __future__ import annotations

from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.model.compressor import Compressor, build_compressor
from hicom_edge.model.config import HicomConfig
from hicom_edge.model.hicom import IMAGE_TOKEN_ID, VIDEO_TOKEN_ID, HicomModel
from hicom_edge.model.loading import build_model, load_checkpoint, save_checkpoint

__all__ = [
    "IMAGE_TOKEN_ID",
    "VIDEO_TOKEN_ID",
    "Checkpoint",
    "Compressor",
    "HicomConfig",
    "HicomModel",
    "build_compressor",
    "build_model",
    "load_checkpoint",
    "save_checkpoint",
]
