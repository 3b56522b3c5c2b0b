"""protoc-gen-durably: what it generates can be implemented, served and called, and passes the checkers."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.empty_pb2 import Empty
from hypothesis import given
from hypothesis import strategies as st

from durably import Runtime, TerminalError
from durably.protobuf import options_pb2
from durably.protobuf.contracts import Contract, ContractFile, Method
from durably.protobuf.plugin import PROTO_PATH, main, respond
from durably.protobuf.rendering import render
from durably.testing import Harness
from tests.processes import ROOT, environment_with
from tests.protobuf.compiled import HERE, protoc

PLUGIN = f'#!/bin/sh\nexec {sys.executable} -m durably.protobuf.plugin "$@"\n'
"""The console script, also where durably is not installed."""


def generate(folder: Path, *files: str, options: str = "", source: Path = HERE) -> str:
    """Run protoc with the plugin; its complaints."""
    plugin = folder / "protoc-gen-durably"
    plugin.write_text(PLUGIN)
    plugin.chmod(0o755)
    arguments = [f"-I{source}", f"-I{PROTO_PATH}", "--python_out=.", "--pyi_out=.", f"--durably_out={options}:."]
    return protoc(
        f"--plugin={plugin}", *arguments, *files, cwd=folder, environment=environment_with({"PYTHONPATH": str(ROOT)})
    )


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is generated for theatre.proto."""
    folder = tmp_path_factory.mktemp("generated")
    assert generate(folder, "theatre.proto") == ""
    return folder


@pytest.fixture
def acme(generated: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The implementation, beside what is generated."""
    names = ("theatre_pb2", "theatre_durably", "tests.protobuf.implementation")
    monkeypatch.setattr(sys, "path", [str(generated), *sys.path])
    for name in names[1:]:
        sys.modules.pop(name, None)
    return importlib.import_module(names[-1])


@pytest.mark.parametrize("options", ["", "serde=binary"])
async def test_generated_contracts_are_implemented_served_and_called(
    options: str, tmp_path: Path, generated: Path, acme: ModuleType
) -> None:
    theatre: Any = sys.modules["theatre_durably"]
    if options:
        theatre = reloaded_as_binary(theatre, generated)
        acme = importlib.reload(acme)
    actors = [acme.AcmeHall, acme.AcmeBoxOffice, acme.AcmeSeason]
    seat = acme.Seat(row="F", number=7)
    async with Harness(*actors) as app:
        begun = await theatre.BoxOfficeClient(app).sell_seat.send(seat)
        await app.settle()
        await app.crash()
        assert await begun.result() == acme.Receipt(price=17.5, seat=seat)
        hall = theatre.HallClient(app, "F")
        assert await hall.take.options(idempotency_key="k")(seat) == acme.Seat.State(is_taken=True, times=2)
        assert await hall.get_state(Empty()) == acme.Seat.State(is_taken=True, times=2)
        with pytest.raises(TerminalError, match="LeftOutByThisImplementation is not implemented") as failure:
            await hall.left_out_by_this_implementation(Empty())
        assert failure.value.code == 501
        season = theatre.SeasonClient(app, "2027")
        assert await season.run(seat) == acme.Receipt(price=100, seat=seat)
        assert (await season.key_(Empty())).seat.row == "2027"
    async with Runtime("memory:", actors) as runtime:
        transport = httpx.ASGITransport(runtime.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            binary = bool(options)
            typed = {"content-type": "application/protobuf" if binary else "application/json"}
            body = seat.SerializeToString() if binary else b'{"row": "F", "number": 7}'
            answer = await client.post("/acme.theatre.Hall/F/Take", content=body, headers=typed)
            assert answer.headers["content-type"] == typed["content-type"]
            expected = acme.Seat.State(is_taken=True, times=1).SerializeToString() if binary else None
            assert answer.content == (expected or b'{"isTaken":true,"times":"1"}')
            ran = await client.post("/acme.theatre.Season/2028/run", content=body, headers=typed)
            assert ran.status_code == 200


def reloaded_as_binary(theatre: ModuleType, generated: Path) -> ModuleType:
    text = (generated / "theatre_durably.py").read_text()
    assert text.count("ProtobufJsonSerde") == 4
    exec(compile(text.replace("ProtobufJsonSerde", "ProtobufSerde"), "theatre_durably", "exec"), vars(theatre))
    return theatre


@pytest.mark.slow
def test_serde_binary_changes_the_serde_and_nothing_else(tmp_path: Path, generated: Path) -> None:
    assert generate(tmp_path, "theatre.proto", options="serde=binary") == ""
    text = (generated / "theatre_durably.py").read_text().replace("ProtobufJsonSerde", "ProtobufSerde")
    assert (tmp_path / "theatre_durably.py").read_text() == text


def test_what_is_generated_is_formatted_and_linted(generated: Path) -> None:
    for command in (["format", "--check", "--diff"], ["check", "--select", "E4,E7,E9,F,W,B,PIE,RET,UP"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", "theatre_durably.py"],
            cwd=generated, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


SUPPRESSION = re.compile(r"^# (mypy|pyright): .*$", re.MULTILINE)
"""What keeps a check of the whole project silent, where nothing is generated."""

CHECKERS = {
    "mypy": ["mypy", "--strict", "--config-file=", "--follow-imports=silent", "--no-error-summary"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


@pytest.mark.slow
@pytest.mark.parametrize("checker", [*CHECKERS])
def test_what_is_generated_and_its_implementation_pass_both_checkers(checker: str, generated: Path) -> None:
    program = SUPPRESSION.sub("", (HERE / "implementation.py").read_text())
    (generated / "right.py").write_text(program)
    wrong = program.replace("HallClient(ctx, request.row).take(request)", "HallClient(ctx, request.row).take(5)")
    wrong = wrong.replace("(is_taken=True, times=self.times)", "(is_taken=True, tims=1)")
    (generated / "wrong.py").write_text(wrong)
    files = ["theatre_durably.py", "right.py", "wrong.py"]
    settings = {"include": files, "typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    (generated / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", *CHECKERS[checker], *(files if checker == "mypy" else [])],
        cwd=generated, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.findall(r"([\w.]+):(\d+)\S* ?-? error: ", done.stdout)
    refused = {(name, wrong.splitlines()[int(line) - 1].strip()) for name, line in found if not name.endswith(".pyi")}
    assert refused == {
        ("wrong.py", "taken = await HallClient(ctx, request.row).take(5)"),
        ("wrong.py", "return Seat.State(is_taken=True, tims=1)"),
    }, done.stdout


SAMPLE = """
syntax = "proto3";
package sample;
import "durably/protobuf/options.proto";
message Question {}
message None {}
"""


RUN = "rpc Run(Question) returns (Question)"


@pytest.mark.parametrize(
    ("service", "sentence"),
    [
        ("service S { rpc Ask(stream Question) returns (Question); }", r"sample\.S\.Ask is a streaming method"),
        ("service S { rpc Ask(Question) returns (stream Question); }", r"sample\.S\.Ask is a streaming method"),
        (
            "service S { rpc Ask(Question) returns (Question) { option (durably.shared) = true; } }",
            r"sample\.S\.Ask has the option \(durably\.shared\), and a service has no state",
        ),
        ("service S { option (durably.kind) = WORKFLOW; }", r"sample\.S is a WORKFLOW without a method Run"),
        (
            f"service S {{ option (durably.kind) = WORKFLOW; {RUN} {{ option (durably.shared) = true; }} }}",
            r"sample\.S\.Run has the option \(durably\.shared\), and it is what a workflow executes once",
        ),
        (
            "service S { rpc AskMe(Question) returns (Question); rpc ask_me(Question) returns (Question); }",
            r"sample\.S has the methods AskMe and ask_me, and both would be 'ask_me'",
        ),
        ("service S { rpc __Ask(Question) returns (Question); }", r"sample\.S\.__Ask has a name that cannot stand"),
        ("service S { rpc Ask(None) returns (Question); }", r"sample\.S\.Ask has the message sample\.None, and 'None'"),
        ("service S {} service SClient {}", r"sample\.SClient would be generated as 'SClient'"),
    ],
)
def test_what_cannot_be_generated_is_refused_with_file_and_method(service: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "some-file.proto").write_text(SAMPLE + service)
    protoc(
        f"-I{tmp_path}", f"-I{PROTO_PATH}", "--include_imports", "--descriptor_set_out=set", "some-file.proto",
        cwd=tmp_path,
    )  # fmt: skip
    files = FileDescriptorSet.FromString((tmp_path / "set").read_bytes()).file
    response = respond(CodeGeneratorRequest(file_to_generate=["some-file.proto"], proto_file=files))
    assert not response.file
    assert response.error.startswith("some-file.proto: ")
    assert re.search(sentence, response.error), response.error


def generated_for(file: str, text: str, tmp_path: Path, *others: str) -> CodeGeneratorResponse:
    """What the plugin answers for one of the files that stand in a folder."""
    (tmp_path / file).write_text(SAMPLE + text)
    arguments = [f"-I{tmp_path}", f"-I{PROTO_PATH}", "--include_imports", "--descriptor_set_out=set"]
    protoc(*arguments, file, *others, cwd=tmp_path)
    files = FileDescriptorSet.FromString((tmp_path / "set").read_bytes()).file
    return respond(CodeGeneratorRequest(file_to_generate=[file], proto_file=files))


def test_services_have_classes_that_hide_nothing_the_module_imports(tmp_path: Path) -> None:
    names = ["t_pb2", "durably", "annotations", "class", "t"]
    rpc = "rpc Ask(Question) returns (Question);"
    response = generated_for("t.proto", "".join(f"service {name} {{ {rpc} }}" for name in names), tmp_path)
    assert not response.error
    (file,) = response.file
    defined = [one.name for one in ast.parse(file.content).body if isinstance(one, ast.ClassDef)]
    assert defined[::2] == ["t_pb2_", "durably_", "annotations_", "class_", "t"]
    assert defined[1::2] == [f"{name}Client" for name in names]


def test_a_client_that_would_hide_the_package_of_its_messages_is_refused(tmp_path: Path) -> None:
    (tmp_path / "SeatClient").mkdir()
    (tmp_path / "SeatClient" / "x.proto").write_text('syntax = "proto3"; package x; message N {}')
    text = 'import "SeatClient/x.proto"; service Seat { rpc Ask(x.N) returns (Question); }'
    response = generated_for("t.proto", text, tmp_path, "SeatClient/x.proto")
    assert response.error == (
        "t.proto: the client of sample.Seat would be generated as 'SeatClient', and messages are imported from a "
        "package of that name. Give the service or the folder another name."
    )


@pytest.mark.slow
def test_protoc_prints_the_sentence_and_an_unknown_option(tmp_path: Path) -> None:
    (tmp_path / "chat.proto").write_text(SAMPLE + "service S { rpc Ask(stream Question) returns (Question); }")
    refused = generate(tmp_path, "chat.proto", source=tmp_path)
    assert "--durably_out: chat.proto: sample.S.Ask is a streaming method" in refused
    assert not list(tmp_path.glob("*_durably.py"))
    assert "does not know the option 'serd=json'" in generate(
        tmp_path, "theatre.proto", options="serde=binary,serd=json"
    )


@pytest.mark.slow
def test_files_in_folders_are_imported_by_their_packages(tmp_path: Path) -> None:
    (tmp_path / "acme" / "stock-v1").mkdir(parents=True)
    types = 'syntax = "proto3"; package acme; message Item { string acme = 1; }'
    (tmp_path / "acme" / "stock-v1" / "types.proto").write_text(types)
    (tmp_path / "acme" / "stock.proto").write_text(
        'syntax = "proto3"; package acme; import "acme/stock-v1/types.proto";\n'
        "service acme { rpc Acme(Item) returns (Item); rpc GetURLOf2B(Item) returns (Item); }"
    )
    assert generate(tmp_path, "acme/stock.proto", "acme/stock-v1/types.proto", source=tmp_path) == ""
    program = "import acme.stock_durably as made; print(made.acme_, made.acme_.acme_, made.acme_.get_url_of2_b)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=environment_with({}), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "<class 'acme.stock_durably.acme_'> Handler 'acme_.acme_' Handler 'acme_.get_url_of2_b'\n"
    assert not (tmp_path / "acme" / "stock_v1" / "types_durably.py").exists(), "it has no services"


@given(st.text(st.characters(codec="utf-8") | st.sampled_from('"\\\n ')))
def test_a_comment_is_the_docstring(comment: str) -> None:
    method = Method(name="Ask", attribute="ask", shared=False, request="a.B", response="a.C", comment=comment)
    contract = Contract(name="S", class_name="S", kind="service", methods=[method], comment=comment)
    module = ast.parse(render(ContractFile(source="a.proto", modules=["a"], contracts=[contract]), "json"))
    made = next(node for node in module.body if isinstance(node, ast.ClassDef))
    handler = next(node for node in made.body if isinstance(node, ast.AsyncFunctionDef))
    lines = inspect.cleandoc(re.sub(r"[\0-\x08\x0e-\x1f\x7f]", "?", comment)).splitlines()
    expected = inspect.cleandoc("\n".join(line.rstrip() for line in lines)).strip()
    for node in (made, handler) if comment else ():
        assert (ast.get_docstring(node) or "").strip() == expected


def test_the_options_in_python_are_those_of_the_proto(tmp_path: Path) -> None:
    complaints = protoc(
        f"-I{PROTO_PATH}", f"--descriptor_set_out={tmp_path / 'set'}", "durably/protobuf/options.proto", cwd=tmp_path
    )
    assert complaints == ""
    (expected,) = FileDescriptorSet.FromString((tmp_path / "set").read_bytes()).file
    found = FileDescriptorProto()
    options_pb2.DESCRIPTOR.CopyToProto(found)
    assert found == expected


@pytest.mark.parametrize(("arguments", "status"), [(["--proto-path"], 0), (["--help"], 0), (["shop.proto"], 2)])
def test_the_command_says_how_protoc_runs_it(
    arguments: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["protoc-gen-durably", *arguments])
    found: object = 0
    try:
        main()
    except SystemExit as end:
        found = end.code
    said = capsys.readouterr().out
    assert found == status
    assert "is run by protoc" in said or (Path(said.strip()) / "durably/protobuf/options.proto").is_file()
