"""Files of rows of a team's lake, to a folder or back: copy_files.py WORKSPACE FOLDER backup|restore."""

import sys
import tomllib
from pathlib import Path

from fsspec.core import url_to_fs

workspace, folder, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
data = tomllib.loads((workspace / "workspace.toml").read_text())["data"]
lake, root = url_to_fs(data)
theirs = {
    p.removeprefix(root).lstrip("/"): f["size"] for p, f in lake.find(root, detail=True).items()
}
ours = {
    p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()
}
source, target = (theirs, ours) if what == "backup" else (ours, theirs)
# Files of rows have names of their own and never change: one that is there with its size is the same
missing = [name for name, size in source.items() if target.get(name) != size]
for name in missing:
    here, there = folder / name, f"{root.rstrip('/')}/{name}"
    here.parent.mkdir(parents=True, exist_ok=True)
    lake.get_file(there, str(here)) if what == "backup" else lake.put_file(str(here), there)
if what == "backup":
    for name in ours.keys() - theirs.keys():
        (folder / name).unlink()
print(f"{what}: {len(missing)} files copied, {len(source) - len(missing)} were there")
