"""Registers Holdfast's finders with presidio's analyzer, so that more recognizers can be added beside them.

Importing presidio imports spaCy, which takes seconds; `personal_data` imports this module on first use only. The engine
without linguistic processing is used because no finder needs tokens: it downloads nothing, and unlike a spaCy
vocabulary it does not grow with every new word a long-lived worker reads.
"""

import logging
from collections.abc import Callable

from presidio_analyzer import AnalyzerEngine, LocalRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts, NoOpNlpEngine

from holdfast.guards.spans import Kind, Span

Finder = Callable[[str], list[Span]]
"""A pure function from a text to the spans of one kind in it."""


class FinderRecognizer(LocalRecognizer):
    """One finder as a presidio recognizer.

    Args:
        kind: The entity it reports.
        find: The finder. Its spans are certain (score 1.0): it has checked digits and context itself.
    """

    def __init__(self, kind: Kind, find: Finder) -> None:
        self._find = find
        super().__init__(supported_entities=[kind], supported_language="en", name=f"Holdfast{kind.title()}")

    def load(self) -> None:
        """Nothing to load."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        """Report what the finder finds.

        Args:
            text: The text.
            entities: Kinds that are asked for; presidio calls only recognizers that have one of them.
            nlp_artifacts: Unused.

        Returns:
            One result for each span.
        """
        del entities, nlp_artifacts
        return [RecognizerResult(span.kind, span.start, span.end, score=1.0) for span in self._find(text)]


def build_analyzer(finders: dict[Kind, Finder]) -> Callable[[str, tuple[Kind, ...]], list[Span]]:
    """Build an analyzer that knows these finders and nothing else, without touching the network.

    presidio's loggers are quietened: some of its messages quote the text they could not parse.

    Args:
        finders: By kind.

    Returns:
        A function of a text and the kinds to look for. It keeps no state, so threads may share it.
    """
    for name in ("presidio-analyzer", "decision_process"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    registry = RecognizerRegistry(
        recognizers=[FinderRecognizer(kind, find) for kind, find in finders.items()], supported_languages=["en"]
    )
    engine = NoOpNlpEngine(models=[{"lang_code": "en", "model_name": ""}])
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])

    def analyze(text: str, kinds: tuple[Kind, ...]) -> list[Span]:
        # "en" names the registry; the finders are not bound to a language.
        results = analyzer.analyze(text, language="en", entities=list(kinds))
        kind_of: dict[str, Kind] = {kind: kind for kind in kinds}
        return [Span(result.start, result.end, kind_of[result.entity_type]) for result in results]

    return analyze
