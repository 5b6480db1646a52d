use super::layers::{Sources, load};
use super::*;

fn from_sets(sets: &[&str]) -> Result<Config, String> {
    let sources = Sources { sets: sets.iter().map(|set| (*set).to_owned()).collect(), ..Sources::default() };
    load(&sources).map_err(|error| error.to_string())
}

fn from_env(pairs: &[(&str, &str)]) -> Result<Config, String> {
    let env = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(&Sources { env, ..Sources::default() }).map_err(|error| error.to_string())
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("the file is ours");
    file
}

fn from_file(text: &str) -> Result<Config, String> {
    let file = file(text);
    load(&Sources { file: Some(file.path()), ..Sources::default() }).map_err(|error| error.to_string())
}

#[test]
fn a_record_waits_longer_for_others_beside_a_fast_path() {
    let lingers = |bus: &str, given: Option<u32>| {
        let mut config = Config::default();
        config.bus.url = bus.to_owned();
        config.log.linger_ms = given;
        config.urls().expect("no files").log_settings.linger_ms
    };
    assert_eq!((lingers("memory:", None), lingers("none:", None)), (50, 25));
    assert_eq!((lingers("memory:", Some(0)), lingers("none:", Some(7))), (0, 7));
    let mut config = Config::default();
    config.log.linger_ms = Some(1_001);
    assert!(config.validate().unwrap_err().to_string().contains("log.linger_ms = 1001"));
}

#[test]
fn default_config_parses_to_the_defaults_and_shows_every_key() {
    let config = from_file(DEFAULT_TOML).expect("the defaults are a configuration");
    assert_eq!(config.effective(), Config::default().effective());
    let mut section = String::new();
    let mut shown = Vec::new();
    for line in DEFAULT_TOML.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") {
            shown.push(format!("{section}{key}"));
        }
    }
    for known in layers::known_keys() {
        assert!(shown.contains(&known), "{known} is not in default.toml");
    }
}

#[test]
fn wrong_key_in_the_file_names_the_nearest_right_one() {
    let error = from_file("[gateway]\nhtp_addr = \"127.0.0.1:0\"\n").unwrap_err();
    assert!(error.contains("unknown key \"gateway.htp_addr\""), "{error}");
    assert!(error.contains("did you mean \"gateway.http_addr\"?"), "{error}");
}

#[test]
fn wrong_key_in_the_environment_or_a_flag_names_the_nearest_right_one() {
    let error = from_env(&[("CORECAST__LOGIC__HTTP_ADR", "127.0.0.1:0")]).unwrap_err();
    assert!(error.contains("environment variable CORECAST__LOGIC__HTTP_ADR"), "{error}");
    assert!(error.contains("did you mean \"logic.http_addr\"?"), "{error}");
    let error = from_sets(&["consumers=2"]).unwrap_err();
    assert!(error.contains("did you mean \"job.consumers\"?"), "{error}");
    let error = from_sets(&["gateway.limits.pingms=2"]).unwrap_err();
    assert!(error.contains("did you mean \"gateway.limits.ping_ms\"?"), "{error}");
}

#[test]
fn rooms_that_nobody_could_open_are_refused() {
    assert!(from_sets(&["rooms.create_kind=public"]).is_ok());
    let error = from_sets(&["rooms.create_kind=private"]).unwrap_err();
    assert!(error.contains("rooms.create_kind = \"private\""), "{error}");
}

#[test]
fn section_that_does_not_exist_is_refused_an_empty_known_one_is_not() {
    assert!(from_file("[gatewy]\n").unwrap_err().contains("did you mean"));
    assert!(from_file("[gateway]\n[gateway.limits]\n").is_ok());
    assert!(from_file("gateway = 3\n").unwrap_err().contains("is a section"));
    assert!(from_sets(&["gateway.limits=3"]).unwrap_err().contains("is a section"));
    assert!(from_sets(&["gateway=3"]).is_err());
}

#[test]
fn environment_overrides_the_file_and_flags_override_both() {
    let file = file("[job]\nconsumers = 2\nbatch_pushes = 20\nduty_ms = 20000\n");
    let sources = Sources {
        file: Some(file.path()),
        env: vec![
            ("CORECAST__JOB__CONSUMERS".into(), "3".into()),
            ("CORECAST__JOB__BATCH_PUSHES".into(), "30".into()),
            ("CORECAST_JOB_DUTY_MS".into(), "1".into()),
        ],
        sets: vec!["job.consumers=5".into(), "job.consumers=4".into()],
    };
    let job = load(&sources).expect("known keys, values in range").job;
    assert_eq!((job.consumers, job.batch_pushes, job.duty_ms), (4, 30, 20_000));
}

#[test]
fn port_zero_is_an_address() {
    let config = from_sets(&["gateway.http_addr=127.0.0.1:0", "job.http_addr=127.0.0.1:0"])
        .expect("known keys, values in range");
    assert_eq!(config.gateway.http_addr.to_string(), "127.0.0.1:0");
    assert_eq!(config.job.http_addr, "127.0.0.1:0");
}

#[test]
fn bad_value_names_key_value_and_what_is_allowed() {
    let error = from_sets(&["job.consumers=0"]).unwrap_err();
    assert_eq!(error, "job.consumers = 0: must be 1 to 64");
    let error = from_sets(&["job.consumers=many"]).unwrap_err();
    assert!(error.contains("job.consumers = \"many\"") && error.contains("whole number"), "{error}");
    let error = from_sets(&["job.consumers=-1"]).unwrap_err();
    assert!(error.contains("job.consumers = -1") && error.contains("--set job.consumers=-1"), "{error}");
    let error = from_file("[gateway]\ndriver = \"fast\"\n").unwrap_err();
    assert!(error.contains("gateway.driver = \"fast\"") && error.contains("epoll"), "{error}");
    let error = from_env(&[("CORECAST__DEBUG__ECHO", "yes")]).unwrap_err();
    assert!(error.contains("debug.echo") && error.contains("true or false"), "{error}");
    assert!(from_sets(&["telemetry.level=loud=very"]).unwrap_err().contains("telemetry.level"));
    assert!(from_sets(&["job.consumers"]).unwrap_err().contains("expected key=value"));
    assert!(from_file("= 3").unwrap_err().contains("TOML"));
}

#[test]
fn text_takes_the_type_of_its_key() {
    let config = from_env(&[
        ("CORECAST__GATEWAY__ID", "7"),
        ("CORECAST__GATEWAY__CORES", "[0, 1]"),
        ("CORECAST__GATEWAY__ORIGINS", "https://a.example, https://b.example"),
        ("CORECAST__DEBUG__ECHO", "true"),
        ("CORECAST__ROOMS__DEFAULTS", r#"[{ id = "lobby", name = "Lobby" }]"#),
    ])
    .expect("known keys, values in range");
    assert_eq!(config.gateway.id.as_deref(), Some("7"));
    assert_eq!(config.gateway.cores, corecast_gateway::config::Cores::List(vec![0, 1]));
    assert_eq!(config.gateway.origins, ["https://a.example", "https://b.example"]);
    assert!(config.debug.echo);
    assert_eq!(config.rooms.defaults[0].id, "lobby");
}

#[test]
fn url_file_wins_and_secrets_are_not_shown() {
    let secret = file("mysql://me:s3cret@db/corecast\n");
    let config = from_sets(&[
        &format!("store.url_file={}", secret.path().display()),
        "hotset.url=redis://:s3cret@h1:1/0?token=s3cret&db=2",
        "registry.url=static:gateway=a@h:1",
    ])
    .expect("known keys, values in range");
    assert_eq!(config.urls().expect("every URL has its form").store, "mysql://me:s3cret@db/corecast");
    let shown = config.effective();
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("redis://***@h1:1/0?token=***&db=2"), "{shown}");
    assert!(shown.contains("static:gateway=a@h:1"), "{shown}");
    let absent = from_sets(&["store.url_file=/no/such/file"]).expect("known keys, values in range");
    assert!(absent.urls().unwrap_err().to_string().contains("/no/such/file"));
}

#[test]
fn what_lives_inside_a_process_is_refused_where_tiers_run_apart() {
    use super::apart::{Tier, check};
    let apart = |tier, change: fn(&mut Urls)| {
        let mut urls = Urls { registry: "static:gateway=a@h:1;logic=b@h:2".into(), ..Urls::default() };
        change(&mut urls);
        check(&[tier], &urls).map_err(|error| error.to_string())
    };
    assert!(apart(Tier::Gateway, |_| {}).unwrap_err().contains("bus.url = \"memory:\""));
    assert_eq!(apart(Tier::Gateway, |urls| urls.bus = "none:".into()), Ok(()));
    assert!(apart(Tier::Job, |_| {}).unwrap_err().contains("log.url = \"embedded:\""));
    assert!(apart(Tier::Logic, |urls| urls.hotset = "redis://h".into()).unwrap_err().contains("log.url"));
    let real = |urls: &mut Urls| {
        urls.hotset = "redis://h".into();
        urls.log = "kafka://h".into();
        urls.bus = "redis://h".into();
    };
    for tier in [Tier::Gateway, Tier::Logic, Tier::Job] {
        assert_eq!(apart(tier, real), Ok(()));
    }
    let alone = check(&[Tier::Job], &Urls { log: "kafka://h".into(), ..Urls::default() });
    assert!(alone.unwrap_err().to_string().contains("registry.url"));
}

#[test]
fn what_the_registry_tells_others_must_name_a_machine() {
    use super::apart::{Tier, check_addresses};
    let refusal = |tier, sets: &[&str]| {
        let config = from_sets(sets).expect("known keys, values in range");
        let urls = config.urls().expect("every URL has its form");
        check_addresses(&[tier], &config, &urls).err().map(|error| error.to_string())
    };
    let etcd = "registry.url=etcd://h:1";
    let gateway =
        refusal(Tier::Gateway, &[etcd, "gateway.grpc_addr=0.0.0.0:50051"]).expect("a wildcard is refused");
    assert!(gateway.contains("gateway.advertise_grpc is not set"), "{gateway}");
    let logic = refusal(Tier::Logic, &[etcd, "logic.grpc_addr=[::]:50052"]).expect("a wildcard is refused");
    assert!(logic.contains("logic.advertise_grpc is not set"), "{logic}");
    let named = "logic.advertise_grpc=logic.example:50052";
    assert_eq!(refusal(Tier::Logic, &[etcd, "logic.grpc_addr=[::]:50052", named]), None);
    assert_eq!(refusal(Tier::Logic, &[etcd, "logic.grpc_addr=logic.example:50052"]), None);
    assert_eq!(refusal(Tier::Gateway, &[etcd]), None);
    assert_eq!(refusal(Tier::Gateway, &["gateway.grpc_addr=0.0.0.0:50051"]), None, "a list tells nobody");
    assert!(from_sets(&["gateway.advertise_grpc=nowhere"]).unwrap_err().contains("host:port"));
}

#[test]
fn the_lease_time_is_whole_seconds_within_its_range() {
    for good in ["2000", "5000", "60000"] {
        let config =
            from_sets(&[&format!("registry.lease_ttl_ms={good}")]).expect("known keys, values in range");
        assert_eq!(config.urls().expect("every URL has its form").lease_ttl.as_millis().to_string(), good);
    }
    for bad in ["1000", "2500", "61000"] {
        let error = from_sets(&[&format!("registry.lease_ttl_ms={bad}")]).unwrap_err();
        assert!(error.contains("registry.lease_ttl_ms") && error.contains("2000 to 60000"), "{error}");
    }
}

#[test]
fn the_pool_of_the_store_has_a_range() {
    let config =
        from_sets(&["store.pool_max=2", "store.pool_wait_ms=10"]).expect("known keys, values in range");
    let options = config.urls().expect("every URL has its form").store_options;
    assert_eq!((options.pool_max, options.pool_wait.as_millis(), options.replica_url), (2, 10, None));
    for (bad, range) in [("pool_max=1", "2 to 1000"), ("pool_max=1001", "2 to 1000")] {
        assert!(from_sets(&[&format!("store.{bad}")]).unwrap_err().contains(range), "{bad}");
    }
    for bad in ["9", "30001"] {
        let error = from_sets(&[&format!("store.pool_wait_ms={bad}")]).unwrap_err();
        assert!(error.contains("store.pool_wait_ms") && error.contains("10 to 30000"), "{error}");
    }
}

#[test]
fn the_replica_is_named_by_a_url_or_a_file_and_its_password_is_not_shown() {
    let config =
        from_sets(&["store.replica_url=mysql://me:secret@h/db"]).expect("known keys, values in range");
    assert!(!config.effective().contains("secret"));
    assert_eq!(
        config.urls().expect("every URL has its form").store_options.replica_url.expect("it was set"),
        "mysql://me:secret@h/db"
    );
    let file = file("mysql://me@other/db\n");
    let set = format!("store.replica_url_file={}", file.path().display());
    let config =
        from_sets(&["store.replica_url=mysql://me:secret@h/db", &set]).expect("known keys, values in range");
    assert_eq!(
        config.urls().expect("every URL has its form").store_options.replica_url.expect("it was set"),
        "mysql://me@other/db"
    );
}

#[test]
fn a_proxy_that_is_no_address_is_named() {
    let error = from_file("[gateway]\ntrusted_proxies = [\"::1\", \"10.0.0.0/99\"]\n").unwrap_err();
    assert!(error.contains("gateway.trusted_proxies") && error.contains("10.0.0.0/99"), "{error}");
    assert!(from_file("[gateway]\ntrusted_proxies = [\"::1\", \"10.0.0.0/8\"]\n").is_ok());
}
