from annotate.samples.stage import CODE_VERSION, samples_stage

__all__ = ["CODE_VERSION", "samples_stage"]
