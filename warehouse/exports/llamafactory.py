"""LLaMA-Factory: conversations in ShareGPT's form, a folder of JSON files per split, with the pictures beside.

`dataset_info.json` at the root names each split as a dataset of its own, so the root is what LLaMA-Factory calls
`dataset_dir`. It reads every file of a folder that an entry names, so a chunk is a file, and nothing is put together in
memory or copied at the end.
"""

import hashlib
import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

from warehouse.exports.samples import SampleExport, SamplePart, shown_pictures
from warehouse.shards import ShardError

INFO = "dataset_info.json"
PREFIX = "proccorpus_"  # of the names of datasets
ROLES = (("user", "question"), ("assistant", "answer"))


class LlamaFactoryExport(SampleExport):
    """In memory: one episode's pictures, and the hashes of a chunk's."""

    def write_part(self, part: SamplePart) -> None:
        """A sample as one turn of question and answer, after its pictures were written. Parts share no episode."""
        written: dict[str, str] = {}  # the hash of each picture
        with self.folder.path(f"{part.split}/part-{part.number:05d}.json").open("w", encoding="utf-8") as f:
            before = "[\n"
            for sample in chain.from_iterable(self.read(part)):
                images = [self._keep(part, picture, written) for picture in shown_pictures(sample)]
                messages = [{"role": role, "content": sample.row[name]} for role, name in ROLES]
                f.write(before + json.dumps({"messages": messages, "images": images}, ensure_ascii=False))
                before = ",\n"
            f.write("\n]\n")

    def _keep(self, part: SamplePart, picture: Mapping[str, Any], written: dict[str, str]) -> str:
        """A picture's path, and its file where it is new."""
        path, sha256 = f"images/{part.split}/{picture['path']}", hashlib.sha256(picture["bytes"]).hexdigest()
        if path not in written:
            self.folder.path(path).write_bytes(picture["bytes"])
        if written.setdefault(path, sha256) != sha256:
            raise ShardError(
                f"the shards of {part.name} hold two different pictures of {path}: build the dataset again"
            )
        return path

    def write_rest(self) -> Mapping[str, Any]:
        """What LLaMA-Factory has to know of each dataset: its folder, and what its columns and roles are called."""
        tags = {"role_tag": "role", "content_tag": "content"}
        tags |= {"user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}
        columns = {"messages": "messages", "images": "images"}
        info = {
            PREFIX + split: {"file_name": split, "formatting": "sharegpt", "columns": columns, "tags": tags}
            for split in self.splits
        }
        self.folder.write(INFO, json.dumps(info, indent=2) + "\n")
        return self.sample_facts
