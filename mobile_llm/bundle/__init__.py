"""The bundle: the contract between the exporter, this runtime, and its siblings in Kotlin and Swift."""

from mobile_llm.bundle.manifest import Artifact, EntryPoint, FileEntry, Manifest, TensorBinding
from mobile_llm.bundle.reader import Bundle

__all__ = ["Artifact", "Bundle", "EntryPoint", "FileEntry", "Manifest", "TensorBinding"]
