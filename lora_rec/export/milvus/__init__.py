"""Item vectors into Milvus, embedded (a file) or a server or cluster (an address), and lists from there.

Milvus is the one vector database that runs both inside of a process and over many machines with the same
calls (pymilvus, https://milvus.io/docs). Without torch. Extra `milvus`.
"""

from lora_rec.export.milvus.client import INDICES, VECTORS
from lora_rec.export.milvus.search import MilvusItems, open_milvus
from lora_rec.export.milvus.write import MilvusExport, export_to_milvus

__all__ = ["INDICES", "VECTORS", "MilvusExport", "MilvusItems", "export_to_milvus", "open_milvus"]
