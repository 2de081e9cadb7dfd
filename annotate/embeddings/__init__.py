from annotate.embeddings.config import EmbeddingsConfig
from annotate.embeddings.encoders import Encoder, identity, lack, load_encoder
from annotate.embeddings.passing import EmbeddingPass, Seen, every_nth
from annotate.embeddings.stage import CODE_VERSION, camera_rows, look, wanted_cameras
from annotate.embeddings.weights import EncoderError

__all__ = [
    "CODE_VERSION",
    "EmbeddingPass",
    "EmbeddingsConfig",
    "Encoder",
    "EncoderError",
    "Seen",
    "camera_rows",
    "every_nth",
    "identity",
    "lack",
    "load_encoder",
    "look",
    "wanted_cameras",
]
