"""Knowledge: documents in, cited passages out.

Importing this package loads neither torch nor the Qdrant client; see `embedder` and `backends` for when they come.
"""

from holdfast.knowledge.backends import open_store
from holdfast.knowledge.chunking import Chunk, chunk
from holdfast.knowledge.documents import Document, ReadResult, read_documents
from holdfast.knowledge.edge import EdgeStore
from holdfast.knowledge.embedder import DIMENSIONS, Embedder, Encode, MiniLM
from holdfast.knowledge.knowledge import IngestReport, Knowledge
from holdfast.knowledge.store import KnowledgeStore, Point, Vectors

__all__ = [
    "DIMENSIONS",
    "Chunk",
    "Document",
    "EdgeStore",
    "Embedder",
    "Encode",
    "IngestReport",
    "Knowledge",
    "KnowledgeStore",
    "MiniLM",
    "Point",
    "ReadResult",
    "Vectors",
    "chunk",
    "open_store",
    "read_documents",
]
