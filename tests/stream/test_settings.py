"""Settings: file < environment < flags, and whatever is not a setting is refused with the name that was meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stream.errors import ConfigError
from stream.settings import Settings, load

ROOT = Path(__file__).parents[2]
SHOWN = [
    pytest.param(block, id=f"{page.name}-{n}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for n, block in enumerate(re.findall(r"^```toml\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL))
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "eddyline.toml"


def loaded(file: Path, text: str = "", flags: dict[str, object] | None = None, **environ: str) -> Settings:
    file.write_text(text)
    return load(flags, {"EDDYLINE_CONFIG": str(file), "HOME": "/nowhere", **environ})


def refused(file: Path, text: str = "", flags: dict[str, object] | None = None, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        loaded(file, text, flags, **environ)
    assert raised.value.exit_code == 3 and raised.value.remedy
    return raised.value


def test_flags_win_over_the_environment_and_that_over_the_file(file: Path) -> None:
    text = '[kafka]\nbootstrap_servers = "file:1"\nclient_id = "file"\nlinger_ms = 1\n'
    environ = {"EDDYLINE_KAFKA__BOOTSTRAP_SERVERS": "environment:1", "EDDYLINE_KAFKA__CLIENT_ID": "environment"}
    kafka = loaded(file, text, {"kafka.bootstrap_servers": "flag:1"}, **environ).kafka
    assert (kafka.bootstrap_servers, kafka.client_id, kafka.linger_ms) == ("flag:1", "environment", 1)


def test_a_flag_that_was_not_given_changes_nothing(file: Path) -> None:
    assert loaded(file, '[state]\nname = "v7"\n', {"state.name": None}).state.name == "v7"


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(environ={})
    assert settings.kafka.bootstrap_servers == "127.0.0.1:9092"
    assert settings.group == "eddyline-v1"


def test_the_file_of_the_working_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eddyline.toml").write_text('[state]\nname = "here"\n')
    monkeypatch.chdir(tmp_path)
    assert load(environ={}).group == "eddyline-here"


def test_input_topics_are_nested_in_the_file_and_in_the_environment(file: Path) -> None:
    text = '[input.topics]\nclick = "shop.clicks"\nbuy = "shop.orders"\n[input.weights]\nbuy = 4\n'
    settings = loaded(file, text, EDDYLINE_INPUT__TOPICS__VIEW="shop.views", EDDYLINE_INPUT__TOPICS__BUY="shop.bought")
    assert settings.input.topics == {"click": "shop.clicks", "buy": "shop.bought", "view": "shop.views"}
    assert settings.input.weights == {"buy": 4.0}
    assert settings.input.names == ["shop.clicks", "shop.bought", "shop.views"]


def test_values_from_the_environment_become_what_the_setting_is(file: Path) -> None:
    settings = loaded(
        file,
        EDDYLINE_TOPICS__PARTITIONS="7",
        EDDYLINE_RECOMMEND__SHADOW="true",
        EDDYLINE_RECOMMEND__PROFILE__REFRESH_EVENTS="3",
        EDDYLINE_STATE__COMMIT_INTERVAL_S="0.5",
    )
    assert settings.topics.partitions == 7 and settings.recommend.shadow is True
    assert settings.recommend.profile.refresh_events == 3 and settings.state.commit_interval_s == 0.5


def test_when_to_speak_and_when_a_worker_is_ill_are_set_in_the_file_and_in_the_environment(file: Path) -> None:
    text = '[emit]\non = ["click", "purchase"]\nmax_lag = 1000\n[health]\nstalled_after_s = 30\n'
    settings = loaded(
        file, text, EDDYLINE_EMIT__MIN_INTERVAL_MS="2000", EDDYLINE_EMIT__REASONS="false",
        EDDYLINE_EMIT__ONLY_IF_CHANGED="true", EDDYLINE_HEALTH__STALLED_IS_FATAL="1",
    )  # fmt: skip
    emit, health = settings.emit, settings.health
    assert [emit.speaks_on(action) for action in ("click", "buy", "view")] == [True, True, False]
    assert (emit.min_interval_ms, emit.max_lag, emit.reasons, emit.only_if_changed) == (2000, 1000, False, True)
    assert (health.stalled_after_s, health.stalled_is_fatal) == (30.0, True)
    emit = loaded(file, text, EDDYLINE_EMIT__ON="view, share").emit
    assert [emit.speaks_on(action) for action in ("click", "view", "share")] == [False, True, True]


def test_without_settings_everything_is_answered_at_once_and_a_stall_is_told_only(file: Path) -> None:
    emit, health = loaded(file).emit, loaded(file).health
    assert emit.speaks_on("remove_from_cart") and not emit.min_interval_ms and emit.max_lag is None
    assert emit.reasons and not emit.only_if_changed and not health.stalled_is_fatal


def test_other_variables_are_left_alone(file: Path) -> None:
    loaded(file, EDDYLINE_SCREENSHOTS="/tmp", EDDYLINE_DATA="/tmp", EDDYLINE_CHROMIUM="chrome", PATH="/bin")


@pytest.mark.parametrize(
    ("text", "name", "meant"),
    [
        ("[kafka]\nbootstrap_server = 'a:1'\n", "'kafka.bootstrap_server'", "'kafka.bootstrap_servers'"),
        ("[kafak]\n", "'kafak'", "'kafka'"),
        ("[recommend.profile]\nrefresh_event = 3\n", "'recommend.profile.refresh_event'", "profile.refresh_events'"),
        ("[input]\ntopic = {}\n", "'input.topic'", "'input.topics'"),
        ("[emit]\nmin_interval = 2\n", "'emit.min_interval'", "'emit.min_interval_ms'"),
        ("[health]\nstalled_fatal = true\n", "'health.stalled_fatal'", "'health.stalled_is_fatal'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(file: Path, text: str, name: str, meant: str) -> None:
    error = refused(file, text)
    assert name in error.message and "unknown setting" in error.message
    assert "did you mean" in error.remedy and meant in error.remedy


def test_an_unknown_name_like_no_other_is_told_all_of_them(file: Path) -> None:
    error = refused(file, "[trends]\nzzz = 1\n")
    assert "known in [trends]: enabled, bucket_ms, buckets, refresh_s" in error.remedy


def test_unknown_variables_and_flags_are_refused_too(file: Path) -> None:
    assert "'state.nam'" in refused(file, EDDYLINE_STATE__NAM="v2").message
    assert "'kafkaa'" in refused(file, EDDYLINE_KAFKAA="x").message
    assert "'state.nam'" in refused(file, flags={"state.nam": "v2"}).message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[topics]\npartitions = 'many'\n", "'topics.partitions'"),
        ("[topics]\npartitions = 0\n", "'topics.partitions'"),
        ("[state]\nname = 'has space'\n", "'state.name'"),
        ("[state]\nname = ''\n", "'state.name'"),
        ("[input]\nts_unit = 'h'\n", "'input.ts_unit'"),
        ("[input.topics]\nstare = 't'\n", "'input.topics'"),
        ("[input.shapes.view]\nuser = 'u'\n", "'input.shapes.view.user'"),
        ("[input.shapes.view]\nitem = '@.sku'\n", "@ is a line of a list"),
        ("[input.shapes.view]\nitem = '$.a['\n", "is no JSONPath"),
        ("[input.shapes.view]\nactions = {seen = 'view'}\n", "set action"),
        ("[input.shapes.view]\naction = '$.kind'\nactions = {seen = 'stare'}\n", "unknown action"),
        ("kafka = 'a:1'\n", "'kafka'"),
        ("[recommend]\ndevice = 'tpu'\n", "'recommend.device'"),
        ("[emit]\non = []\n", "'emit.on'"),
        ("[emit]\non = ['stare']\n", "'emit.on'"),
        ("[emit]\nmin_interval_ms = -1\n", "'emit.min_interval_ms'"),
        ("[emit]\nmax_lag = 0\n", "'emit.max_lag'"),
        ("[emit]\nreasons = 'some'\n", "'emit.reasons'"),
        ("[health]\nstalled_after_s = 0\n", "'health.stalled_after_s'"),
        ("[health]\nstalled_is_fatal = 'often'\n", "'health.stalled_is_fatal'"),
        ("[state]\nmax_users = 0\n", "'state.max_users'"),
        ("[state]\nwindow_ttl_ms = 0\n", "'state.window_ttl_ms'"),
        ("[kafka]\nbootstrap_servers = 'localhost'\n", "'kafka.bootstrap_servers'"),
        ("[kafka]\nbootstrap_servers = 'a:1,b:x'\n", "'kafka.bootstrap_servers'"),
    ],
)
def test_a_wrong_value_is_refused_by_the_setting_s_name(file: Path, text: str, expected: str) -> None:
    error = refused(file, text)
    assert expected in error.message and "it was" in error.remedy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[input.topics]\nclick = 't'\nview = 't'\n", "click and view read the same topic, t; say where"),
        ("[input.shapes.t]\nuser = '$.u'\n", "shapes.t: no such topic is read"),
    ],
)
def test_topics_and_shapes_that_do_not_fit_are_told(file: Path, text: str, expected: str) -> None:
    assert expected in refused(file, text).message


def test_missing_credentials_are_told_and_those_there_are_not_shown(file: Path) -> None:
    text = "[kafka]\nsecurity_protocol = 'SASL_SSL'\nsasl_plain_password = 'hunter2'\n"
    error = refused(file, text)
    assert "SASL_SSL needs sasl_plain_username and sasl_plain_password" in error.message
    assert "hunter2" not in str(error)


def test_files_for_tls_that_cannot_be_read_are_told(file: Path) -> None:
    settings = loaded(file, "[kafka]\nsecurity_protocol = 'SSL'\nssl_cafile = '/nowhere.pem'\n")
    with pytest.raises(ConfigError, match="ssl_cafile"):
        settings.kafka.common()


def test_a_section_is_no_value(file: Path) -> None:
    assert "[kafka]" in refused(file, "kafka = 'a:1'\n", EDDYLINE_KAFKA__CLIENT_ID="b").remedy


def test_a_file_that_is_named_must_be_there_and_be_toml(file: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(environ={"EDDYLINE_CONFIG": str(file)})
    assert "TOML" in refused(file, "[kafka\n").remedy
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(environ={"EDDYLINE_CONFIG": str(file)})


def test_a_password_is_not_shown() -> None:
    settings = load({"kafka.sasl_plain_password": "hunter2"}, {})
    assert "hunter2" not in str(settings.model_dump(mode="json")) + repr(settings)
    assert settings.kafka.model_copy(update={"security_protocol": "SASL_PLAINTEXT"}).common()[
        "sasl_plain_password"
    ] == ("hunter2")


def test_a_variants_rank_is_put_over_that_of_all_setting_by_setting(file: Path) -> None:
    text = """
    [rank]
    seen = "allow"
    [rank.exposure]
    popular = 0.3
    [rank.exposure.categories]
    river = 0.1
    [variants.a]
    [variants.b]
    share = 0.2
    model = "challenger"
    mix.online = 0.5
    [variants.b.rank.exposure.categories]
    weir = 0.2
    """
    variants = loaded(file, text, EDDYLINE_VARIANTS__B__RANK__EXPOSURE__POPULAR="0.5").variants
    a, b = variants["a"].rank, variants["b"].rank
    assert (a.seen, a.exposure.popular, a.exposure.categories) == ("allow", 0.3, {"river": 0.1})
    assert (b.seen, b.exposure.popular, b.exposure.categories) == ("allow", 0.5, {"river": 0.1, "weir": 0.2})
    mix = variants["b"].mix
    assert mix is not None and mix.model_fields_set == {"online"} and variants["a"].mix is None


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("[variants.a]\nshare = 0.5\n[variants.b]\nshare = 0.3\n", "take out one of them", "[variants]"),
        ("[variants.a]\nmix.text = 0.5\n", "release one that was made with it", "correct it"),
        ("[variants.b.rank.exposure]\npopula = 1\n", "'variants.b.rank.exposure.popula'", "exposure.popular'?"),
        ("[variants.b]\nshar = 1\n", "'variants.b.shar'", "'variants.b.share'?"),
        ("[variants.b.mix]\nonlin = 1\n", "'variants.b.mix.onlin'", "'variants.b.mix.online'?"),
        ("[variants]\nb = 1\n", "'variants.b'", "correct it"),
        ("[rank]\nsen = 1\n[variants.b]\n", "'rank.sen'", "'rank.seen'"),
    ],
)
def test_variants_that_cannot_be_are_refused_with_the_way_out(file: Path, text: str, message: str, remedy: str) -> None:
    error = refused(file, text)
    assert message in error.message and remedy in error.remedy


@pytest.mark.parametrize("block", SHOWN)
def test_settings_that_are_shown_to_users_are_read(file: Path, block: str) -> None:
    assert loaded(file, block, EDDYLINE_KAFKA__SASL_PLAIN_PASSWORD="secret") != loaded(file)
