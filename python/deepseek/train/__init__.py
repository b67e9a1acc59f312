"""Training of :mod:`deepseek.models` on bytes: data, loop, evaluation and checkpoints that resume exactly."""

from deepseek._binding.missing import guard
from deepseek.train.checkpoint import Checkpoint, CheckpointError, find_checkpoint, newest, run_lock, save_checkpoint
from deepseek.train.config import ConfigError, DataConfig, OptimConfig, RunConfig, TrainConfig, load_config
from deepseek.train.data import Corpus, DataError, WindowSampler, load_corpus, standard_library
from deepseek.train.evaluate import bits_per_byte, gzip_bits_per_byte, xz_bits_per_byte
from deepseek.train.trainer import Progress, Trainer, learning_rate_scale, load_model, make_optimizer
from deepseek.train.warm_start import load_weights

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "ConfigError",
    "Corpus",
    "DataConfig",
    "DataError",
    "OptimConfig",
    "Progress",
    "RunConfig",
    "TrainConfig",
    "Trainer",
    "WindowSampler",
    "bits_per_byte",
    "find_checkpoint",
    "gzip_bits_per_byte",
    "learning_rate_scale",
    "load_config",
    "load_corpus",
    "load_model",
    "load_weights",
    "make_optimizer",
    "newest",
    "run_lock",
    "save_checkpoint",
    "standard_library",
    "xz_bits_per_byte",
]

guard(__name__)
