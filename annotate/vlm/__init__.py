from annotate.vlm.annotator import annotate_episode

__all__ = ["annotate_episode"]
