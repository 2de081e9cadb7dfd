"""Exports: the corpus in formats that other tools open.

    options = EXPORT_KINDS["lerobot"].read_options({"flavour": "subtask"})
    EXPORT_KINDS["lerobot"].export(lake, Selection(release="spring"), folder, options)

A kind's module is imported when it is first used, and has a class that says what the kind takes and writes
(warehouse.exports.export); its options and its line in EXPORT_KINDS are in warehouse.exports.options.
"""

from warehouse.exports.options import EXPORT_KINDS as EXPORT_KINDS
from warehouse.exports.options import ExportKind as ExportKind
from warehouse.exports.options import export_kind as export_kind
