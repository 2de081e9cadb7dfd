"""The version of proccorpus: of its package, of a lake that it wrote, of a release's card, and of CHANGELOG.md."""

VERSION = "0.2.0"
