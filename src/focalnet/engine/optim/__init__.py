"""Optimizers and learning-rate schedules, as rows of two registers.

    OPTIMIZERS["adamw"]    Optimizer(name, build, options)     a network's parameter groups -> a torch optimizer
    SCHEDULES["cosine"]    Schedule(name, rate, options)       a place in the run -> a learning rate

A row's options are a frozen dataclass of its own, whose values JSON can hold. `TrainConfig` names the rows and carries
what was set of their options (`optimizer_options`, `schedule_options`), and so does the run folder. A row from
outside the package is added with `register`, before the run is trained or resumed:

    register(Optimizer(name="sgd", build=lambda network, groups, lr, options: torch.optim.SGD(groups, lr)))
"""

from focalnet.engine.optim.options import AdamWOptions, MuonOptions, SGDOptions
from focalnet.engine.optim.rows import Optimizer, Place, Schedule, build_options, find
from focalnet.engine.optim.schedules import COSINE, EXPONENTIAL, LINEAR, POLY, RESTARTS, STEP

__all__ = ["OPTIMIZERS", "SCHEDULES", "Optimizer", "Place", "Schedule", "build_options", "find", "register"]

OPTIMIZERS: dict[str, Optimizer] = {}
"""Name -> row."""
SCHEDULES: dict[str, Schedule] = {}
"""Name -> row."""


def register(row: Optimizer | Schedule) -> None:
    """Make an optimizer or a schedule known by its name; a row of the same name is replaced."""
    if isinstance(row, Optimizer):
        OPTIMIZERS[row.name] = row
    else:
        SCHEDULES[row.name] = row


ADAMW = Optimizer(name="adamw", build="focalnet.engine.optim.adamw:build", options=AdamWOptions)
MUON = Optimizer(name="muon", build="focalnet.engine.optim.muon:build", options=MuonOptions, whole=True)

SGD = Optimizer(name="sgd", build="focalnet.engine.optim.sgd:build", options=SGDOptions)

for _row in (ADAMW, MUON, SGD, COSINE, EXPONENTIAL, LINEAR, POLY, RESTARTS, STEP):
    register(_row)
