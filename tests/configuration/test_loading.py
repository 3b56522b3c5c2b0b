from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.configuration import Admin, Configuration, Ingress, Server, Store, load_configuration, token_of, tokens_of
from durably.configuration.sections import FILE_KEYS, HIDDEN, SECTIONS, without_credentials, without_password
from durably.errors import ConfigurationError
from durably.storage.connect import path_in_url

FILE = """
[server]
target = "app:runtime"
port = 8000

[ingress]

[store]
url = "sqlite:////shop.db"

[development.store]
url = "sqlite:////dev.db"

[staging.server]
log_level = "debug"
"""


def loaded(folder: Path, text: str | None = None, **environ: str) -> Configuration:
    if text is not None:
        (folder / "durably.toml").write_text(text, "utf-8")
    return load_configuration(environ=environ, folder=folder)


def refused(folder: Path, text: str = "", **environ: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        loaded(folder, text, **environ)
    return str(error.value)


def test_without_a_file_and_variables_nothing_is_configured(tmp_path: Path) -> None:
    assert loaded(tmp_path) == Configuration(
        environment="production", environment_origin="default", path=None, settings=()
    )


def test_what_is_not_configured_is_not_there_and_what_is_has_its_defaults(tmp_path: Path) -> None:
    found = loaded(tmp_path, FILE)
    assert found.server == Server(target="app:runtime", port=8000)
    assert (found.ingress, found.store) == (Ingress(), Store(url="sqlite:////shop.db"))
    assert found.admin is None
    assert not found.names_no_door
    assert loaded(tmp_path, '[store]\nurl = "memory:"').names_no_door


def test_an_environment_says_what_is_different_in_it(tmp_path: Path) -> None:
    assert loaded(tmp_path, FILE, DURABLY_ENV="development").store == Store(url="sqlite:////dev.db")
    staging = loaded(tmp_path, FILE, DURABLY_ENV="staging")
    assert staging.server == Server(target="app:runtime", port=8000, log_level="debug")
    assert staging.store == Store(url="sqlite:////shop.db")
    chosen = load_configuration(environ={}, folder=tmp_path, default_environment="development")
    assert (chosen.environment, chosen.store) == ("development", Store(url="sqlite:////dev.db"))


def test_each_value_says_who_gave_it_and_variables_win(tmp_path: Path) -> None:
    found = loaded(
        tmp_path, FILE, DURABLY_ENV="staging", DURABLY_SERVER_PORT="9000", DURABLY_SERVER_JSON_LOGS="true",
        DURABLY_SERVER_HOST="",
    )  # fmt: skip
    assert found.environment_origin == "the environment variable DURABLY_ENV"
    told = {f"{one.section}.{one.key}": (one.value, one.origin) for one in found.settings}
    assert told["server.target"] == ("app:runtime", "durably.toml [server]")
    assert told["server.port"] == (9000, "the environment variable DURABLY_SERVER_PORT")
    assert told["server.json_logs"] == (True, "the environment variable DURABLY_SERVER_JSON_LOGS")
    assert told["server.log_level"] == ("debug", "durably.toml [staging.server]")
    assert told["server.host"] == ("127.0.0.1", "default")
    assert found.is_given("server", "port")
    assert not found.is_given("server", "host")


def test_a_variable_configures_a_section_of_its_own(tmp_path: Path) -> None:
    found = loaded(tmp_path, DURABLY_ADMIN_PORT="0")
    assert (found.admin, found.server) == (Admin(port=0), None)
    assert found.names_no_door, "no file shuts a door, so calls come in as before"


def test_another_file_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[admin]\nport = 1", "utf-8")
    assert loaded(tmp_path, FILE, DURABLY_CONFIG="other.toml").admin == Admin(port=1)
    assert "DURABLY_CONFIG names" in refused(tmp_path, DURABLY_CONFIG="nowhere.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server", "is not TOML: "),
        ("[servre]\nport = 1", "Did you mean 'server'?"),
        ("[servre]", "Did you mean 'server'?"),
        ("servre = 1", "Did you mean 'server'?"),
        ("server = 1", "[server] is a table"),
        ("[server]\nprot = 1", "durably.toml [server] has a key 'prot', which there is not. Did you mean 'port'?"),
        ("[server]\nzzz = 1", "There are target, host, port,"),
        ("[development.stroe]\nurl = ''", "[development.stroe] is no section. Did you mean 'store'?"),
        ("[other.server]\nprot = 1", "[other.server] has a key 'prot'"),
        ('[server]\nport = "8080"', "[server] port is '8080', which does not fit: expected `int`"),
        ("[server]\nport = 70000", "expected `int` <= 65535"),
        ('[server]\nhttp_server = "gunicorn"', "It is one of uvicorn, granian."),
        ('[tracing]\nprotocol = "udp"', "It is one of grpc, http/protobuf."),
        ('[other.store]\nurl = ""', "[other.store] url is ''"),
    ],
)
def test_what_no_version_reads_is_a_sentence_with_a_place_and_a_way_out(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_so_are_variables(tmp_path: Path) -> None:
    assert "Did you mean 'DURABLY_SERVER_PORT'?" in refused(tmp_path, DURABLY_SERVER_PROT="1")
    assert "DURABLY_SERVER_PORT is 'x', which does not fit" in refused(tmp_path, DURABLY_SERVER_PORT="x")
    assert loaded(tmp_path, "", DURABLY_FAILURES="x", DURABLYSERVER="x", SERVER_PORT="x").settings == ()


def test_a_token_is_shown_nowhere(tmp_path: Path) -> None:
    found = loaded(tmp_path, "[admin]\ntoken = 'hush'", DURABLY_INGRESS_TOKEN="hush")
    assert (tokens_of(found.admin), tokens_of(found.ingress)) == (("hush",), ("hush",))
    assert "hush" not in repr(found)
    assert "hush" not in refused(tmp_path, "[admin]\ntoken = ['hush']")
    with pytest.raises(ConfigurationError, match="printable ASCII") as error:
        tokens_of(Admin(token="hush hush"))
    assert "hush" not in str(error.value)


def test_a_file_holds_a_token_a_line(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# ours\nnew\n\n  old \n#older", "utf-8")
    assert tokens_of(Ingress(token_file=str(file))) == ("new", "old")
    assert token_of(Ingress(token_file=str(file))) == "new"
    file.write_text("\n", "utf-8")
    for name, said in ((str(file), "holds none"), ("/nowhere", "cannot be read: No such file")):
        with pytest.raises(ConfigurationError, match=said):
            tokens_of(Ingress(token_file=name))


def test_files_that_the_file_names_count_from_its_folder_and_those_of_variables_from_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "50% of? it"
    folder.mkdir()
    text = (
        "[server]\ntls_certificate = 'own.pem'\ntls_key = '/etc/own.key'\n[store]\nurl = 'sqlite:///data/shop%20a.db'\n"
        "[ingress]\ntoken_file = 'callers.txt'\n[development.ingress]\ntoken_file = 'some.txt'\n"
        "[admin]\ntoken_file = 'operators.txt'\n"
    )
    (folder / "durably.toml").write_text(text, "utf-8")
    (folder / "callers.txt").write_text("hush", "utf-8")
    monkeypatch.chdir(tmp_path)
    environ = {"DURABLY_CONFIG": "50% of? it/durably.toml", "DURABLY_ADMIN_TOKEN_FILE": "operators.txt"}
    found = load_configuration(environ=environ)
    assert found.server is not None
    assert (found.server.tls_certificate, found.server.tls_key) == (str(folder / "own.pem"), "/etc/own.key")
    assert found.admin == Admin(token_file="operators.txt")
    assert tokens_of(found.ingress) == ("hush",)
    assert found.store is not None
    assert path_in_url(str(found.store.url), windows=False) == str(folder / "data/shop a.db")
    assert load_configuration(environ=environ | {"DURABLY_ENV": "development"}).ingress == Ingress(
        token_file=str(folder / "some.txt")
    )
    monkeypatch.chdir(folder)
    here = load_configuration(environ={})
    assert (here.ingress, here.store) == (Ingress(token_file="callers.txt"), Store(url="sqlite:///data/shop%20a.db"))


@pytest.mark.parametrize("url", ["sqlite:////var/shop.db", "sqlite:///%2Fvar/shop.db", "memory:", "postgresql:///shop"])
def test_a_store_that_is_no_relative_file_is_where_its_url_says(tmp_path: Path, url: str) -> None:
    assert loaded(tmp_path, f"[store]\nurl = '{url}'").store == Store(url=url)


def test_a_token_of_a_variable_wins_over_a_file_of_tokens_that_is_not_there(tmp_path: Path) -> None:
    text = "[admin]\ntoken_file = 'operators.txt'"
    found = loaded(tmp_path, text, DURABLY_ADMIN_TOKEN="hush")
    assert (token_of(found.admin), tokens_of(found.admin)) == ("hush", ("hush",))
    (left_out,) = (one for one in found.settings if one.key == "token_file")
    assert left_out.value is None
    assert left_out.origin == (
        "the environment variable DURABLY_ADMIN_TOKEN, since durably.toml [admin] names a file that is not there: "
        f"{tmp_path / 'operators.txt'}"
    )
    for either in ({}, {"DURABLY_ADMIN_TOKEN": "hush", "DURABLY_ADMIN_TOKEN_FILE": "/nowhere"}):
        with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
            tokens_of(loaded(tmp_path, text, **either).admin)
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        tokens_of(loaded(tmp_path, f"{text}\ntoken = 'hush'").admin)
    (tmp_path / "operators.txt").write_text("loud", "utf-8")
    assert tokens_of(loaded(tmp_path, text, DURABLY_ADMIN_TOKEN="hush").admin) == ("hush", "loud")


def test_a_client_that_has_a_token_reads_no_file_of_tokens() -> None:
    assert token_of(Admin(token="hush", token_file="/root/is for the server alone")) == "hush"
    assert token_of(Admin()) is token_of(None) is None
    with pytest.raises(ConfigurationError, match="printable ASCII"):
        token_of(Admin(token="hush hush"))


KEYS = [(section, key) for section, type in SECTIONS.items() for key in type.__struct_fields__]


@given(st.data())
def test_the_last_one_to_speak_wins_for_every_key(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Of any keys, each from any of the places: the value is that of the strongest place, and its origin names it."""
    folder = tmp_path_factory.mktemp("config", numbered=True)
    places = data.draw(st.dictionaries(st.sampled_from(KEYS), st.sets(st.sampled_from(range(3)), min_size=1)))
    tables: dict[str, list[str]] = {}
    environ = {"DURABLY_ENV": "here"}
    for (section, key), at in places.items():
        for place in at:
            value = _value(section, key, place)
            if place == 2:
                environ[f"DURABLY_{section}_{key}".upper()] = (
                    " ".join(value) if isinstance(value, tuple) else str(value).lower()
                )
            else:
                name = section if place == 0 else f"here.{section}"
                tables.setdefault(name, []).append(f"{key} = {_literal(value)}")
    found = loaded(folder, "\n".join(f"[{name}]\n" + "\n".join(lines) for name, lines in tables.items()), **environ)
    told = {(one.section, one.key): one for one in found.settings if one.origin != "default"}
    assert told.keys() == places.keys()
    for (section, key), at in places.items():
        strongest = max(at)
        one = told[section, key]
        origins = [f"[{section}]", f"[here.{section}]", f"DURABLY_{section}_{key}".upper()]
        if key == "token_file" and strongest < 2 and 2 in places.get((section, "token"), ()):
            assert one.value is None
            assert f"{origins[strongest]} names a file that is not there" in one.origin
        else:
            assert one.value == (HIDDEN if key == "token" else _said(section, key, strongest, folder))
            assert one.origin.endswith(origins[strongest])
    assert {name for name in SECTIONS if found.section(name) is not None} == {section for section, _ in places}


def _said(section: str, key: str, place: int, folder: Path) -> str | int | tuple[str, ...]:
    """What is made of it: a file that `durably.toml` names is beside it."""
    value = _value(section, key, place)
    return str(folder / str(value)) if key in FILE_KEYS and place < 2 else value


def _literal(value: str | int | tuple[str, ...]) -> str:
    if isinstance(value, bool | int):
        return str(value).lower()
    return repr([*value] if isinstance(value, tuple) else value)


def _value(section: str, key: str, place: int) -> str | int | tuple[str, ...]:
    choices: Mapping[str, Sequence[str | int | tuple[str, ...]]] = {
        "http_server": ["uvicorn", "granian", "uvicorn"],
        "log_level": ["debug", "info", "error"],
        "json_logs": [True, False, True],
        "checkpoints": ["own", "external", "own"],
        "sse": [True, False, True],
        "discover": [True, False, True],
        "deploy_on_startup": [True, False, True],
        "nodes": [("http://a",), ("http://a", "http://b"), ("http://b", "http://c")],
        "protocol": ["grpc", "http/protobuf", "grpc"],
    }
    if key in ("port", "retention_seconds", "limit_bytes", "in_flight"):
        return place + 1
    return choices.get(key, [f"{section}{number}" for number in range(3)])[place]


def test_passwords_are_shown_in_no_section(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        "[pubsub]\nnodes = ['http://ann:hush@events-1:8080', 'http://events-2:8080']\n"
        "[tracing]\nendpoint = 'http://ann:hush@localhost:4317/?api_key=hush'\n"
        "[store]\nurl = 'postgresql://host/db?user=ann&password=hush&sslmode=require'\n",
    )
    assert "hush" not in repr(found)
    shown = {f"{one.section}.{one.key}": one.value for one in found.settings}
    assert "hush" not in str(shown)
    assert shown["pubsub.nodes"] == ("http://ann:***@events-1:8080", "http://events-2:8080")
    assert shown["tracing.endpoint"] == "http://ann:***@localhost:4317/?api_key=***"
    assert shown["store.url"] == "postgresql://host/db?user=ann&password=***&sslmode=require"


def test_credentials_of_a_url_become_a_header() -> None:
    assert without_credentials("http://h:1/x") == ("http://h:1/x", None)
    basic = b64encode(b"ann:hu@sh").decode()
    assert without_credentials("http://ann:hu%40sh@[::1]:1/x?y") == ("http://[::1]:1/x?y", f"Basic {basic}")
    assert without_credentials("https://key@h") == ("https://h", f"Basic {b64encode(b'key:').decode()}")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://localhost:4317/v1", "http://localhost:4317/v1"),
        ("http://[::1]:4317", "http://[::1]:4317"),
        ("postgresql://ann@host:5432/db", "postgresql://ann@host:5432/db"),
        ("sqlite:////srv/a:b@c.db", "sqlite:////srv/a:b@c.db"),
        ("postgresql://ann:hu/sh@host/db", "postgresql://ann:***@host/db"),
        ("postgresql://ann:hu@sh@host/db", "postgresql://ann:***@host/db"),
        ("postgresql:/ann:hush@host/db", "postgresql:/ann:***@host/db"),
        (" postgresql://ann:hush@host/db", " postgresql://ann:***@host/db"),
        ("//ann:hush@host", "//ann:***@host"),
        ("postgresql://ann:/hush@host/db", "postgresql://ann:***@host/db"),
        ("ann:hush@host", "ann:***@host"),
        ("postgresql://:hush@[::1/db", "postgresql://:***@[::1/db"),
        ("postgresql://ann:@host/db", "postgresql://ann:***@host/db"),
        ("https://hush@host/path", "https://***@host/path"),
        ("https://hush:@host", "https://***@host"),
        ("https://ann:hush@host", "https://ann:***@host"),
        ("hush@host", "***@host"),
        ("https://hu/sh@host", "https://***@host"),
        ("postgresql://an@n:hush@host/db", "postgresql://an@n:***@host/db"),
        ("postgresql://host/db?application_name=a@b", "postgresql://host/db?application_name=a@b"),
        (
            "postgresql://host/db?%70assword=hush&sslpassword=hu#sh",
            "postgresql://host/db?%70assword=***&sslpassword=***",
        ),
        ("postgresql://host/db?password=hu;sh", "postgresql://host/db?password=***"),
        ("postgresql://ann:hu;token=hush@host/db", "postgresql://ann:***"),
        ("https://host/#access_token=hush", "https://host/#access_token=***"),
        ("sqlite:///app.db?key=hush", "sqlite:///app.db?key=***"),
        ("password=hu\\ sh user=ann", "password=*** user=ann"),
        ("host=h password=hush user=ann", "host=h password=*** user=ann"),
        ("host=h password = 'hu sh\\' hush' user=ann", "host=h password = *** user=ann"),
    ],
)
def test_no_password_is_shown_of_what_is_almost_a_url(tmp_path: Path, url: str, shown: str) -> None:
    assert without_password(url) == shown
    found = loaded(tmp_path, f"[store]\nurl = {json.dumps(url)}\n[tracing]\nendpoint = {json.dumps(url)}\n")
    assert not {"hush", "hu", "sh"} & set(re.findall(r"\w+", repr(found)))


_SECRETS = st.text(st.sampled_from("hs=@:/?#&; %'\\+[]"), min_size=1).map(lambda noise: f"Zq{noise}Zq")
_NAMES = st.sampled_from(
    ["password", "sslpassword", "PassWord", "%70assword", "api_key", "access-token", "sig", "auth"]
)
_HOSTS = st.sampled_from(["host", "host:5432", "[::1]:80", "h1:1,h2:2"])


@given(
    st.sampled_from(["postgresql", "postgres", "https", "http", "amqp"]),
    _HOSTS,
    _SECRETS,
    _SECRETS,
    _NAMES,
    st.booleans(),
)
def test_no_secret_of_any_url_is_shown(
    scheme: str, host: str, password: str, parameter: str, name: str, escape: bool
) -> None:
    """Wherever it stands, whether its special characters are escaped or not."""
    if escape:
        password, parameter = quote(password, safe=""), quote(parameter, safe="")
    else:
        parameter = parameter.replace("&", "")  # Where a parameter ends.
    token = password.replace(":", "")  # What follows a colon is a password.
    urls = [
        f"{scheme}://ann:{password}@{host}/db",
        f"{scheme}://:{password}@{host}",
        f"{scheme}://{host}/db?user=ann&{name}={parameter}&sslmode=require",
        f"{scheme}://ann:{password}@{host}/db?{name}={parameter}",
        f"{scheme}:/ann:{password}@{host}",
        f"ann:{password}@{host}",
        f"//{token}@{host}",
        "host={} {} = '{}' user=ann".format(host, name, parameter.replace("\\", r"\\").replace("'", r"\'")),
        "user=ann password={}".format(re.sub(r"([\\'\s])", r"\\\1", parameter)),
    ]
    if not scheme.startswith("postgres"):  # Where a user alone is a token.
        urls += [f"{scheme}://{token}@{host}/db", f"{scheme}://{token}:@{host}", f"{scheme}:/{token}@{host}"]
    for url in urls:
        assert "Zq" not in without_password(url)


@given(st.sampled_from(["https", "http"]), _SECRETS)
def test_what_stands_for_a_password_without_one_is_a_token(scheme: str, token: str) -> None:
    url = f"{scheme}://{quote(token, safe='')}@host/x"
    shown, header = without_credentials(url)
    assert (shown, header is None) == (f"{scheme}://host/x", False)
    assert without_password(url) == f"{scheme}://***@host/x"
    assert without_password(without_password(url)) == without_password(url)
