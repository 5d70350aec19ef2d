"""The operator's knowledge: a folder of documents, searched by word and, where the engine embeds, by meaning.

documents   walks the folder and reads its files; what cannot be read is skipped with its name and the reason
passages    cuts texts at headings and paragraphs;  triples: subject, relation, object as sentences
index       BM25 and the fusion of ranks;  library: all of it behind one `retrieve`
quoting     retrieved text in a prompt: data, never instructions
"""

from __future__ import annotations

from reason_engine.knowledge.library import Library

__all__ = ["Library"]
