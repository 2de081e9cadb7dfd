"""The way of one value through the code, as somebody reads it who follows it: which files are entered, which again.

`python -m tests.kits.walk` prints the way of a build's workspace: a line for each stay in a file. The definition:

- What is followed: a value whose class is that of the parameter, `Lake`, or a class of ours with a field of such a one.
- A call is followed where such a value is an argument, or where it is a method of an object that has one in a field.
  What a lake or a workspace does itself is not followed: to ask it is where a way ends. Calls are found by the imports
  of a file and by the classes that annotations state; what is called by way of a variable is not found.
- The order is that of the source, depth first, and a call is followed each time it is met, but for recursions.
"""

import ast
import sys
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from core.paths import ROOT

MAX_CALLS = 1600
ROOMS = [
    "core",
    "ingest",
    "annotate",
    "warehouse",
    "training",
    "eval",
    "explorer",
    "pipeline",
    "assets",
    "cli",
]
THINGS = {"Workspace", "Lake", "LakeConnection"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Definition:
    """A function, class or module of ours; `owner`: the class of a method."""

    file: "File"
    node: ast.AST
    owner: "Definition | None" = None

    @property
    def name(self) -> str:
        return getattr(self.node, "name", self.file.path)

    @property
    def is_class(self) -> bool:
        return isinstance(self.node, ast.ClassDef)

    @property
    def is_module(self) -> bool:
        return isinstance(self.node, ast.Module)


class File:
    """A file of ours, and what its names mean."""

    def __init__(self, root: Path, path: str) -> None:
        self.root = root
        self.path = path
        self.tree = ast.parse((root / path).read_text())

    def __repr__(self) -> str:
        return self.path

    @cached_property
    def imported(self) -> dict[str, tuple[str, str | None]]:
        """By name the module, and the name there; None: it is the module itself."""
        names: dict[str, tuple[str, str | None]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    names[alias.asname or alias.name] = (node.module, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    names[alias.asname or alias.name] = (alias.name, None)
        return names

    @cached_property
    def defined(self) -> dict[str, Definition]:
        return {
            node.name: Definition(self, node)
            for node in self.tree.body
            if isinstance(node, (ast.ClassDef, *FUNCTIONS))
        }

    def lookup(self, name: str) -> Definition | None:
        if name in self.defined:
            return self.defined[name]
        if name not in self.imported:
            return None
        module, inner_name = self.imported[name]
        if inner_name is None:
            return module_of(self.root, module)
        submodule = module_of(self.root, f"{module}.{inner_name}")
        if submodule is not None:
            return submodule
        whole = module_of(self.root, module)
        if whole is None:
            return None
        return whole.file.lookup(inner_name)


@cache
def file_at(root: Path, path: str) -> File:
    return File(root, path)


def module_of(root: Path, name: str) -> Definition | None:
    """The module of a dotted name; None where it is not ours."""
    if name.split(".")[0] not in ROOMS:
        return None
    stem = name.replace(".", "/")
    for path in (f"{stem}.py", f"{stem}/__init__.py"):
        if (root / path).exists():
            file = file_at(root, path)
            return Definition(file, file.tree)
    return None


def members(cls: Definition) -> dict[str, Definition]:
    """Methods of a class, those that it inherits too."""
    methods: dict[str, Definition] = {}
    for base in cls.node.bases:
        inherited = class_of(cls.file, base)
        if inherited is not None:
            methods |= members(inherited)
    for node in cls.node.body:
        if isinstance(node, FUNCTIONS):
            methods[node.name] = Definition(cls.file, node, cls)
    return methods


def class_of(file: File, annotation: ast.expr | None) -> Definition | None:
    """The class of ours that an annotation names, as itself or beside None."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):
        return class_of(file, annotation.left) or class_of(file, annotation.right)
    if isinstance(annotation, ast.Name):
        definition = file.lookup(annotation.id)
        if definition is not None and definition.is_class:
            return definition
    if isinstance(annotation, ast.Attribute) and isinstance(annotation.value, ast.Name):
        module = file.lookup(annotation.value.id)
        if module is not None and module.is_module:
            return module.file.lookup(annotation.attr)
    return None


@cache
def fields(cls: Definition) -> dict[str, Definition]:
    """The fields of a class whose class is ours: stated, or set by its constructor from a parameter."""
    field_classes: dict[str, Definition] = {}
    for base in cls.node.bases:
        inherited = class_of(cls.file, base)
        if inherited is not None:
            field_classes |= fields(inherited)
    for node in cls.node.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            stated = class_of(cls.file, node.annotation)
            if stated is not None:
                field_classes[node.target.id] = stated
        if isinstance(node, FUNCTIONS) and is_property(node):
            stated = class_of(cls.file, node.returns)
            if stated is not None:
                field_classes[node.name] = stated
    constructor = members(cls).get("__init__")
    if constructor is not None and constructor.owner == cls:
        field_classes |= _set_by(constructor)
    return field_classes


def _set_by(constructor: Definition) -> dict[str, Definition]:
    file = constructor.file
    parameter_classes = Scope(constructor).classes
    field_classes = {}
    for node in ast.walk(constructor.node):
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
                if isinstance(node, ast.AnnAssign):
                    stated = class_of(file, node.annotation)
                elif isinstance(node.value, ast.Name):
                    stated = parameter_classes.get(node.value.id)
                elif isinstance(node.value, ast.Call):
                    stated = _made_by_name(file, node.value)
                else:
                    stated = None
                if target.value.id == "self" and stated is not None:
                    field_classes[target.attr] = stated
    return field_classes


def _made_by_name(file: File, call: ast.Call) -> Definition | None:
    if not isinstance(call.func, ast.Name):
        return None
    callee = file.lookup(call.func.id)
    if callee is None or callee.is_class:
        return callee
    return class_of(callee.file, callee.node.returns)


def is_property(function: ast.FunctionDef) -> bool:
    return any("property" in ast.dump(decorator) for decorator in function.decorator_list)


@cache
def is_thing(cls: Definition) -> bool:
    return cls.name in THINGS


@cache
def holds_thing(cls: Definition) -> bool:
    """Has an object of the class one in a field?"""
    return any(
        is_thing(stated) or (stated != cls and holds_thing(stated))
        for stated in fields(cls).values()
    )


def is_followed(cls: Definition | None) -> bool:
    return cls is not None and (is_thing(cls) or holds_thing(cls))


class Scope:
    """What the names of a function are, as far as annotations and constructors say."""

    def __init__(self, function: Definition) -> None:
        self.function = function
        self.file = function.file
        self.classes: dict[str, Definition] = {}
        self.bind_parameters(function.node)
        if function.owner is not None:
            parameters = function.node.args.posonlyargs + function.node.args.args
            decorators = [ast.dump(d) for d in function.node.decorator_list]
            if parameters and not any(
                "staticmethod" in d or "classmethod" in d for d in decorators
            ):
                self.classes[parameters[0].arg] = function.owner

    def bind_parameters(self, node: ast.FunctionDef) -> None:
        for parameter in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            stated = class_of(self.file, parameter.annotation)
            if stated is not None:
                self.classes[parameter.arg] = stated

    def class_of(self, value: ast.expr | None) -> Definition | None:
        """The class of what an expression gives."""
        if isinstance(value, ast.Name):
            return self.classes.get(value.id)
        if isinstance(value, ast.Attribute):
            owner = self.class_of(value.value)
            return None if owner is None else fields(owner).get(value.attr)
        if isinstance(value, ast.Call):
            callee = self.callee(value.func)
            if callee is None or callee.is_class:
                return callee
            return class_of(callee.file, callee.node.returns)
        if isinstance(value, ast.IfExp):
            return self.class_of(value.body) or self.class_of(value.orelse)
        if isinstance(value, ast.BoolOp):
            return next((c for v in value.values if (c := self.class_of(v))), None)
        if isinstance(value, ast.NamedExpr):
            return self.class_of(value.value)
        return None

    def callee(self, function: ast.expr) -> Definition | None:
        """The function or class that an expression names; None where it is not ours, or nothing tells."""
        if isinstance(function, ast.Name):
            definition = self.file.lookup(function.id)
            if definition is None or definition.is_module:
                return None
            return definition
        if not isinstance(function, ast.Attribute):
            return None
        owner = self.class_of(function.value)
        if owner is not None:
            return members(owner).get(function.attr)
        if isinstance(function.value, ast.Name):
            holder = self.file.lookup(function.value.id)
            if holder is not None and holder.is_module:
                definition = holder.file.lookup(function.attr)
                return None if definition is None or definition.is_module else definition
            if holder is not None and holder.is_class:
                return members(holder).get(function.attr)
        return None


@dataclass
class Walk:
    """stays: file and function of each stay in a file, in order."""

    stays: list[tuple[str, str]] = field(default_factory=list)
    calls: int = 0
    path: list[Definition] = field(default_factory=list)
    called: set[int] = field(default_factory=set)

    @property
    def files(self) -> int:
        return len({file for file, _ in self.stays})

    @property
    def returns(self) -> int:
        return len(self.stays) - self.files

    def visit(self, function: Definition) -> None:
        if not self.stays or self.stays[-1][0] != function.file.path:
            self.stays.append((function.file.path, function.name))

    def follow(self, function: Definition) -> None:
        """Read a function, and what it calls with what is followed."""
        self.visit(function)
        self.path.append(function)
        self._read(function.node.body, Scope(function))
        self.path.pop()

    def _read(self, nodes: list[ast.stmt] | ast.AST, scope: Scope) -> None:
        for node in nodes if isinstance(nodes, list) else [nodes]:
            if isinstance(node, FUNCTIONS):
                scope.bind_parameters(node)
            if isinstance(node, ast.Call):
                self.called.add(id(node.func))
            for child in ast.iter_child_nodes(node):
                self._read(child, scope)
            if isinstance(node, ast.Call):
                self._call(node, scope)
            if self._is_handed_over(node, scope):
                self._enter(scope.callee(node))
            self._bind(node, scope)

    def _bind(self, node: ast.AST, scope: Scope) -> None:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.NamedExpr | ast.AnnAssign):
            targets = [node.target]
        if isinstance(node, ast.withitem) and node.optional_vars is not None:
            targets = [node.optional_vars]
            value = node.context_expr
        else:
            value = getattr(node, "value", None)
        for target in targets:
            made = scope.class_of(value)
            if isinstance(target, ast.Name) and made is not None:
                scope.classes[target.id] = made

    def _call(self, call: ast.Call, scope: Scope) -> None:
        callee = scope.callee(call.func)
        if callee is not None and self._passes_on(call, scope):
            self._enter(callee)

    def _enter(self, callee: Definition | None) -> None:
        if self.calls >= MAX_CALLS:
            return
        if callee.is_class:
            callee = members(callee).get("__init__")
        if callee is None or callee in self.path:
            return
        self.calls += 1
        self.follow(callee)
        self.visit(self.path[-1])

    def _is_handed_over(self, node: ast.AST, scope: Scope) -> bool:
        """Is a method of an object that has what is followed named without being called?"""
        if not isinstance(node, ast.Attribute) or id(node) in self.called:
            return False
        owner = scope.class_of(node.value)
        if owner is None or is_thing(owner) or not holds_thing(owner):
            return False
        method = members(owner).get(node.attr)
        return method is not None

    def _passes_on(self, call: ast.Call, scope: Scope) -> bool:
        """Is what is followed an argument, or in a field of the object whose method it is?"""
        values = [*call.args, *(keyword.value for keyword in call.keywords)]
        if any(is_followed(scope.class_of(value)) for value in values):
            return True
        if not isinstance(call.func, ast.Attribute):
            return False
        owner = scope.class_of(call.func.value)
        return owner is not None and not is_thing(owner) and holds_thing(owner)


def walk(path: str = "cli/console.py", function: str = "build_all", root: Path = ROOT) -> Walk:
    """The way of what is followed from a function on."""
    start = file_at(root, path).defined[function]
    way = Walk()
    way.follow(start)
    return way


if __name__ == "__main__":
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    way = walk(root=root)
    for number, (path, name) in enumerate(way.stays):
        print(number, path, name)
    print(f"{way.calls} calls, {len(way.stays)} stays, {way.files} files, {way.returns} returns")
