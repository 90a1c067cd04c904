"""Rules that no single module can hold: who imports whom, what is never used, that the README is true."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {"stream": {"stream", "model", "index"}, "model": {"model"}, "index": {"index"}}
PACKAGES = tuple(MAY_IMPORT)
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"}
SHELL_WORDS = {"sudo", "time", "env"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def trees() -> dict[str, ast.Module]:
    """{dotted name: syntax tree} of every module of the three packages."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(path): ast.parse(path.read_text(), filename=str(path)) for path in paths}


def is_package(name: str) -> bool:
    return (ROOT / name.replace(".", "/")).is_dir()


def imported(node: ast.AST, module: str) -> Iterator[str]:
    """The dotted names that one import statement asks for; of `from a import b`, "a.b"."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = module.split(".") if is_package(module) else module.split(".")[:-1]
        start = base[: len(base) - node.level + 1] if node.level else []
        origin = ".".join([*start, node.module] if node.module else start)
        yield from (f"{origin}.{alias.name}" for alias in node.names)


def at_import_time(node: ast.AST) -> Iterator[ast.AST]:
    """The statements that run when a module is imported: not those in functions, nor under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (part for statement in child.orelse for part in [statement, *at_import_time(statement)])
            continue
        yield child
        yield from at_import_time(child)


def import_graph() -> dict[str, set[str]]:
    """{module: the modules of ours that it imports when it is imported itself}."""
    graph: dict[str, set[str]] = {}
    for module, tree in trees().items():
        names = [name for node in at_import_time(tree) for name in imported(node, module)]
        # `from a import b` is module a.b where there is one, else a name inside a.
        found = {name if name in trees() else name.rpartition(".")[0] for name in names}
        graph[module] = {name for name in found if name in trees() and name != module}
    return graph


def find_cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """One cycle as [a, b, ..., a], or None."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        cycles = (visit(target, [*path, module]) for target in sorted(graph[module]))
        found = next((cycle for cycle in cycles if cycle), None)
        done.add(module)
        return found

    return next((cycle for module in sorted(graph) if (cycle := visit(module, []))), None)


def test_model_and_index_know_neither_kafka_nor_each_other() -> None:
    wrong = []
    for module, tree in trees().items():
        allowed = MAY_IMPORT[module.split(".")[0]]
        for node in ast.walk(tree):
            tops = {name.split(".")[0] for name in imported(node, module)}
            wrong += [f"{module} imports {top}" for top in tops & set(PACKAGES) - allowed]
            if "stream" not in allowed:
                wrong += [f"{module} imports {top}" for top in tops & {"faust", "aiokafka", "confluent_kafka"}]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    cycle = find_cycle(import_graph())
    assert cycle is None, " -> ".join(cycle or [])


def test_a_circle_is_found_where_there_is_one() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_every_module_says_what_it_is() -> None:
    assert [module for module, tree in trees().items() if not ast.get_docstring(tree)] == []


def test_nothing_that_runs_code_from_data_is_used() -> None:
    """No pickle: neither the module, nor Faust's codec, nor the switches of numpy and torch for it."""
    wrong = []
    for module, tree in trees().items():
        for node in ast.walk(tree):
            line = f"{module}:{getattr(node, 'lineno', 0)}"
            if {name.split(".")[0] for name in imported(node, module)} & UNSAFE_MODULES:
                wrong.append(f"{line} imports {ast.unparse(node)}")
            if isinstance(node, ast.Constant) and node.value == "pickle":
                wrong.append(f"{line} names the codec pickle")
            if isinstance(node, ast.keyword) and (node.arg, ast.unparse(node.value)) in {
                ("allow_pickle", "True"),
                ("weights_only", "False"),
            }:
                wrong.append(f"{line} passes {ast.unparse(node)}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"eval", "exec"}:
                wrong.append(f"{line} calls {ast.unparse(node.func)}")
    assert wrong == []


def shell_commands(text: str) -> list[list[str]]:
    """The words of each command in the ```bash blocks of a Markdown text, variables before it gone."""
    commands = []
    for block in re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words: list[str] = []
            for token in [*lexer, ";"]:
                if token and not token.strip("();<>|&"):
                    commands.append(words)
                    words = []
                elif words or not (re.match(r"\w+=", token) or token in SHELL_WORDS):
                    words.append(token)
    return [words for words in commands if words]


def readme_commands(program: str) -> list[list[str]]:
    commands = shell_commands((ROOT / "README.md").read_text())
    return [words[1:] for words in commands if Path(words[0]).name == program]


def test_shell_commands_are_read_out_of_markdown() -> None:
    text = "```bash\n$ A=1 make demo  # try\neddyline tail | head -n 3 && sudo make x\n```\n```\nmake no\n```"
    found = [["make", "demo"], ["eddyline", "tail"], ["head", "-n", "3"], ["make", "x"]]
    assert shell_commands(text) == found


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = [word for words in readme_commands("make") for word in words if not re.match(r"-|\w+=", word)]
    assert named, "the README shows no make command"
    assert [name for name in named if name not in targets] == []


def test_every_eddyline_command_in_the_readme_exists() -> None:
    commands = readme_commands("eddyline")
    assert commands, "the README shows no eddyline command"
    assert [" ".join(words) for words in commands if not exists(words)] == []


def exists(words: list[str]) -> bool:
    """Whether `eddyline WORDS` names a command there is, with options that it has."""
    import typer.main

    from stream.console.cli import app

    command = typer.main.get_command(app)
    options = {"--help"} | {option for parameter in command.params for option in parameter.opts}
    for word in words:
        subcommands = getattr(command, "commands", {})
        if word.startswith("-"):
            if word.partition("=")[0] not in options:
                return False
        elif subcommands:
            if word not in subcommands:
                return False
            command = subcommands[word]
            options |= {option for p in command.params for option in [*p.opts, *p.secondary_opts]}
    return True


def test_files_stay_readable() -> None:
    """A module is one idea: about 400 lines at the most."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert [path.name for path in paths if len(path.read_text().splitlines()) > 450] == []
