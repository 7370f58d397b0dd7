"""The agent loop as a pure reducer: what to do next, and when to stop.

No clock, no I/O, no engine: `step(state, tick) -> (state, commands)`. Every cap on iterations, on calls of models and
tools, and every way a run can end is here and nowhere else, which is what lets Hypothesis prove that each run ends and
none exceeds a cap. Token and money ceilings are enforced by the ledger inside the attempt's transaction; the loop hears
of a refusal as `BudgetDenied`. Which calls need people is found out before; that none of them is made without people's
agreement is decided here.
"""

from holdfast.loop.asking import MAX_BUDGET_QUESTIONS, MAX_WAITS, SHORT_REST
from holdfast.loop.calling import MAX_LOOKED_AT
from holdfast.loop.carrying import carry, resume
from holdfast.loop.commands import (
    AskAboutCall,
    AskForBudget,
    AskHuman,
    CallModel,
    CallTools,
    Check,
    ChooseDeployment,
    Finish,
    LoopCommand,
    Transcribe,
    Vet,
    Wait,
)
from holdfast.loop.limits import LimitName, limit_reached, on_record
from holdfast.loop.reducer import step
from holdfast.loop.state import LoopState, candidates
from holdfast.loop.ticks import (
    Approved,
    Began,
    BudgetDenied,
    BudgetExtended,
    BudgetKept,
    CallReleased,
    CallsPlanned,
    CallWithheld,
    Checked,
    DeadlinePassed,
    DeploymentChosen,
    LoopTick,
    ModelFailed,
    ModelReplied,
    Refused,
    Rejected,
    StepFailed,
    Told,
    ToolsReturned,
    Waited,
)

__all__ = [
    "MAX_BUDGET_QUESTIONS",
    "MAX_LOOKED_AT",
    "MAX_WAITS",
    "SHORT_REST",
    "Approved",
    "AskAboutCall",
    "AskForBudget",
    "AskHuman",
    "Began",
    "BudgetDenied",
    "BudgetExtended",
    "BudgetKept",
    "CallModel",
    "CallReleased",
    "CallTools",
    "CallWithheld",
    "CallsPlanned",
    "Check",
    "Checked",
    "ChooseDeployment",
    "DeadlinePassed",
    "DeploymentChosen",
    "Finish",
    "LimitName",
    "LoopCommand",
    "LoopState",
    "LoopTick",
    "ModelFailed",
    "ModelReplied",
    "Refused",
    "Rejected",
    "StepFailed",
    "Told",
    "ToolsReturned",
    "Transcribe",
    "Vet",
    "Wait",
    "Waited",
    "candidates",
    "carry",
    "limit_reached",
    "on_record",
    "resume",
    "step",
]
