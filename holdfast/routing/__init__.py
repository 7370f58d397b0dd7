"""Which deployment answers: an ordered chain of small pure policies, each leaving its reason.

Pure: candidates and a demand in, a decision out. What is live (health, room in the limits) comes in with the
candidates; embeddings come from the caller. The one thing read is package data: trained weights.
"""

from holdfast.routing.candidate import (
    HANDLER,
    IN_PROCESS,
    Candidate,
    Complexity,
    Condition,
    Demand,
    IntentMatch,
    Level,
    Tier,
)
from holdfast.routing.chain import HARD, SOFT, decide
from holdfast.routing.complexity import ComplexityClassifier
from holdfast.routing.decision import Decision, Reason, explain
from holdfast.routing.intents import Intent, IntentMatcher, check_intents, texts_of
from holdfast.routing.shortlist import Policy, Shortlist

__all__ = [
    "HANDLER",
    "HARD",
    "IN_PROCESS",
    "SOFT",
    "Candidate",
    "Complexity",
    "ComplexityClassifier",
    "Condition",
    "Decision",
    "Demand",
    "Intent",
    "IntentMatch",
    "IntentMatcher",
    "Level",
    "Policy",
    "Reason",
    "Shortlist",
    "Tier",
    "check_intents",
    "decide",
    "explain",
    "texts_of",
]
