"""Which forward an engine uses: the fastest that the model, its device and its dtype allow and that proves itself.

compiled: small float32 models of known families on a CPU (compiled.py). lean: the same families in any size, dtype and
place (lean.py). module: everything else, through the model's own forward (decoder.py). Whatever is chosen first
generates a few samples whose log-probabilities must equal those of the model's plain forward; a fast path that does not
agree is left, and the reason logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from transformers import PreTrainedModel

from onepolicy.acting.compiled import LARGEST, CompiledRunner
from onepolicy.acting.decoder import ModuleDecoder
from onepolicy.acting.family import decline
from onepolicy.acting.lean import LeanDecoder
from onepolicy.acting.plan import Plan, Runner
from onepolicy.acting.stepping import StepRunner
from onepolicy.errors import ConfigError, ModelError, nearest
from onepolicy.types import Sampling

PATHS = ("auto", "compiled", "lean", "module")
_logger = logging.getLogger(__name__)


def choose_runner(model: PreTrainedModel, path: str, context: int) -> Runner:
    """The runner for a model.

    path: one of PATHS. context: longest sequence.

    Raises ConfigError for an unknown path, ModelError for one the model cannot take and for a model whose forward with
    a cache does not agree with its forward without.
    """
    if path not in PATHS:
        raise ConfigError(f"path is {path!r}. {nearest(path, PATHS)}")
    makers: dict[str, tuple[Callable[[PreTrainedModel], str | None], Callable[[PreTrainedModel], Runner]]] = {
        "compiled": (_not_compiled, CompiledRunner),
        "lean": (decline, lambda model: StepRunner(LeanDecoder(model), model.dtype, model.device)),
        "module": (lambda model: None, lambda model: StepRunner(ModuleDecoder(model), model.dtype, model.device)),
    }
    name = type(model).__name__
    for candidate, (refuse, make) in makers.items():
        if path not in ("auto", candidate):
            continue
        reason = refuse(model)
        if reason is None:
            runner = make(model)
            gap = disagreement(model, runner, context)
            if gap <= tolerance(model):
                return runner
            reason = f"its log-probabilities are {gap:.1e} off the model's plain forward"
            _logger.warning("%s does not take the %s path: %s", name, candidate, reason)
        if candidate in (path, "module"):
            raise ModelError(
                f"{name} cannot take the {candidate} path: {reason}. "
                + ("Use path='auto'." if candidate != "module" else "Generate with vLLM (acting.vllm) instead.")
            )
        _logger.info("%s does not take the %s path: %s", name, candidate, reason)
    raise AssertionError("the module path returns or raises")


def _not_compiled(model: PreTrainedModel) -> str | None:
    """Why a model cannot take the compiled path, or None."""
    if model.device.type != "cpu":
        return f"it is on {model.device.type}"
    dtypes = sorted({str(parameter.dtype) for parameter in model.parameters()})
    if dtypes != ["torch.float32"]:
        return f"its weights are {', '.join(dtypes)}, not torch.float32"
    size = sum(parameter.numel() for parameter in model.parameters())
    if size > LARGEST:
        return f"it has {size:,} parameters, more than the {LARGEST:,} up to which compiling pays"
    return decline(model)


def tolerance(model: PreTrainedModel) -> float:
    """The largest difference in log-probability, nats, that rounding explains in the model's dtype.

    In half precision two right forwards of a model with large logits may be a tenth apart; a wrong one is off by nats.
    """
    return 1e-4 if model.dtype == torch.float32 else 0.5


def disagreement(model: PreTrainedModel, runner: Runner, context: int) -> float:
    """The largest difference in log-probability, nats, between a few samples of a runner and the model's own forward.

    Three prompts of different lengths, two samples each, so that sharing, padding and growing contexts are all in it.
    """
    vocab = int(model.get_input_embeddings().weight.shape[0])
    rng = np.random.default_rng(0)
    lengths = [min(length, context - 1) for length in (1, 18, 5)]
    prompts = [rng.integers(vocab, size=length).tolist() for length in lengths]
    limits = [min(20, context - length) for length in lengths]
    sampling = Sampling(max_tokens=20)
    plan = Plan(prompts, 2, sampling, [0, 1, 2], limits, (), None, vocab, slots=4, cache_tokens=None)
    worst = 0.0
    for prompt, group in zip(prompts, runner.run(plan).completions(2, 0), strict=True):
        for completion in group:
            tokens = torch.tensor([[*prompt, *completion.tokens]], device=model.device)
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits[0, len(prompt) - 1 :].float()
            logp = logits.log_softmax(-1).gather(-1, tokens[0, len(prompt) :, None])[:, 0].cpu()
            worst = max(worst, float((logp - torch.tensor(completion.logp)).abs().nan_to_num(torch.inf).max()))
    runner.release()
    return worst
