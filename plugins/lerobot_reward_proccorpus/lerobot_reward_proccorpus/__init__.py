"""proccorpus's reward models for LeRobot: importing this registers the type `proccorpus`."""

from lerobot_reward_proccorpus.configuration_proccorpus import ProccorpusConfig

__all__ = ["ProccorpusConfig"]
