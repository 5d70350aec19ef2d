"""The operator's knowledge: a folder of documents, searched by word and, where the engine embeds, by meaning.

`documents` reads the folder's files as passages, `library` indexes and ranks them behind one `retrieve`, `quoting` puts
what was retrieved into a prompt: data, never instructions.
"""

from reason_engine.knowledge.library import Library

__all__ = ["Library"]
