"""The recipe's schema, how recipes extend each other, and options read off signatures. Never imports torch."""

from prefloop.config.base import Config, Options, ScaledFit, check_options, is_mapping, options_class
from prefloop.config.gate import CollapseMonitor, GateConfig, LengthMonitor, MonitorsConfig
from prefloop.config.load import LoadedRecipe, load_recipe, shipped_recipes
from prefloop.config.recipe import MachineConfig, ModelConfig, Recipe
from prefloop.config.steps import (
    STEP_CLASSES,
    CloseStep,
    DataStep,
    EvaluateStep,
    JudgeConfig,
    JudgeStep,
    LocalSamplerConfig,
    LoraConfig,
    ObjectiveConfig,
    PairStep,
    PromptsStep,
    SampleStep,
    ShorterJudge,
    StepConfig,
    TrainStep,
    VaderJudge,
)

__all__ = [
    "STEP_CLASSES",
    "CloseStep",
    "CollapseMonitor",
    "Config",
    "DataStep",
    "EvaluateStep",
    "GateConfig",
    "JudgeConfig",
    "JudgeStep",
    "LengthMonitor",
    "LoadedRecipe",
    "LocalSamplerConfig",
    "LoraConfig",
    "MachineConfig",
    "ModelConfig",
    "MonitorsConfig",
    "ObjectiveConfig",
    "Options",
    "PairStep",
    "PromptsStep",
    "Recipe",
    "SampleStep",
    "ScaledFit",
    "ShorterJudge",
    "StepConfig",
    "TrainStep",
    "VaderJudge",
    "check_options",
    "is_mapping",
    "load_recipe",
    "options_class",
    "shipped_recipes",
]
