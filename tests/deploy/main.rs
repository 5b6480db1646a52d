//! `deploy/` holds together: the compose file is YAML, every node starts with a configuration
//! that `corecast check-config` takes, every address in it is a service and a port that this
//! service has, and nginx sends to the nodes that exist. Containers are not started here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use yaml_rust2::{Yaml, YamlLoader};

/// Tiers, and the environment of each node of it.
type Nodes = BTreeMap<String, (String, BTreeMap<String, String>)>;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn compose() -> Yaml {
    let mut documents = YamlLoader::load_from_str(&read(&deploy().join("docker-compose.yml"))).expect("YAML");
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

/// A key of a service, or of what it takes over by `<<`.
fn of<'a>(service: &'a Yaml, key: &str) -> &'a Yaml {
    match &service[key] {
        Yaml::BadValue => &service["<<"][key],
        value => value,
    }
}

fn names(yaml: &Yaml) -> BTreeSet<String> {
    match yaml {
        Yaml::Hash(hash) => hash.keys().filter_map(|key| key.as_str().map(str::to_owned)).collect(),
        Yaml::Array(list) => list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
        _ => BTreeSet::new(),
    }
}

/// The services that run corecast, but `migrate`.
fn nodes(compose: &Yaml) -> Nodes {
    let services = compose["services"].as_hash().expect("services");
    let nodes = services.iter().filter(|(_, service)| of(service, "image").as_str() == Some("corecast"));
    let nodes = nodes.filter(|(name, _)| name.as_str() != Some("migrate")).map(|(name, service)| {
        let command = of(service, "command")[0].as_str().expect("a command").to_owned();
        let environment = of(service, "environment").as_hash().into_iter().flatten();
        let text = |yaml: &Yaml| yaml.as_str().expect("a string").to_owned();
        let environment = environment.map(|(key, value)| (text(key), text(value))).collect();
        (text(name), (command, environment))
    });
    nodes.collect()
}

/// `host:port` of a server line of nginx.
fn upstreams(block: &str) -> BTreeSet<String> {
    let text = read(&deploy().join("upstreams.conf"));
    let start = text.find(&format!("upstream {block} {{")).expect("the block is there");
    let servers = text[start..].lines().take_while(|line| !line.starts_with('}'));
    servers
        .filter_map(|line| line.trim().strip_prefix("server ")?.split([' ', ';']).next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_node_has_a_configuration_that_check_config_takes() {
    let nodes = nodes(&compose());
    let tiers: Vec<_> = nodes.values().map(|(tier, _)| tier.as_str()).collect();
    for tier in ["gateway", "logic", "job"] {
        assert_eq!(tiers.iter().filter(|other| **other == tier).count(), 2, "two of {tier} in {nodes:?}");
    }
    for (name, (tier, environment)) in &nodes {
        let file = deploy().join("corecast.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
        command.arg("check-config").arg(&file).args(["--tier", tier]).envs(environment);
        let output = command.output().expect("the binary starts");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_address_is_a_service_with_that_port() {
    let compose = compose();
    let services = names(&compose["services"]);
    let config: toml::Table = toml::from_str(&read(&deploy().join("corecast.toml"))).expect("TOML");
    let url = |seam: &str| config[seam]["url"].as_str().expect("a URL").to_owned();
    let usual = BTreeMap::from([("mariadb", 3306), ("redis", 6379), ("kafka", 9092), ("etcd", 2379)]);
    for seam in ["store", "hotset", "bus", "log", "registry"] {
        let url = url(seam);
        let place = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).expect("a place");
        let place = place.rsplit('@').next().expect("never empty");
        let (host, port) = place.split_once(':').expect("host:port");
        assert!(services.contains(host), "{seam}.url names {host}, which is no service");
        assert_eq!(usual.get(host), Some(&port.parse::<u16>().expect("a port")), "{seam}.url = {url}");
    }
    let port_of = |tier: &str, face: &str| {
        let address = config[tier][face].as_str().expect("an address");
        address.rsplit_once(':').expect("host:port").1.to_owned()
    };
    let mut expected = BTreeMap::from([("gateway", BTreeSet::new()), ("logic", BTreeSet::new())]);
    for (name, (tier, environment)) in nodes(&compose) {
        let key = |last: &str| format!("CORECAST__{}__{last}", tier.to_uppercase());
        if let Some(expected) = expected.get_mut(&*tier) {
            assert_eq!(environment[&key("ID")], name);
            assert_eq!(
                environment[&key("ADVERTISE_GRPC")],
                format!("{name}:{}", port_of(&tier, "grpc_addr"))
            );
            expected.insert(format!("{name}:{}", port_of(&tier, "http_addr")));
        }
    }
    assert_eq!(upstreams("corecast_gateways"), expected["gateway"]);
    assert_eq!(upstreams("corecast_logic"), expected["logic"]);
}

#[test]
fn the_login_of_the_store_is_the_one_the_database_is_made_with() {
    let compose = compose();
    let login =
        |key: &str| compose["services"]["mariadb"]["environment"][key].as_str().expect("set").to_owned();
    let (user, password, database) =
        (login("MARIADB_USER"), login("MARIADB_PASSWORD"), login("MARIADB_DATABASE"));
    let config = read(&deploy().join("corecast.toml"));
    assert!(config.contains(&format!("mysql://{user}:{password}@mariadb:3306/{database}")), "{config}");
}

#[test]
fn only_nginx_is_published_and_what_is_depended_on_exists() {
    let compose = compose();
    let services = compose["services"].as_hash().expect("services");
    let known = names(&compose["services"]);
    let volumes = names(&compose["volumes"]);
    for (name, service) in services {
        let name = name.as_str().expect("a name");
        assert_eq!(service["ports"].is_badvalue(), name != "nginx", "ports of {name}");
        for other in names(of(service, "depends_on")) {
            assert!(known.contains(&other), "{name} depends on {other}");
        }
        for volume in names(&service["volumes"]) {
            let volume = volume.split(':').next().expect("never empty").to_owned();
            assert!(volumes.contains(&volume), "{name} mounts {volume}");
        }
    }
    assert_eq!(compose["services"]["nginx"]["ports"][0].as_str(), Some("8000:80"));
}

#[test]
fn the_image_is_made_of_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = read(&deploy().join("Dockerfile"));
    let targets: BTreeSet<_> =
        dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")?.split(" AS ").nth(1)).collect();
    let copies = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    for copy in copies {
        let mut words: Vec<_> = copy.split_whitespace().collect();
        words.pop();
        if let Some(stage) = words[0].strip_prefix("--from=") {
            assert!(targets.contains(stage), "no stage {stage}");
            continue;
        }
        for path in words {
            let path = path.strip_suffix("/*.conf").unwrap_or(path);
            assert!(root.join(path).exists(), "COPY {path}");
        }
    }
    let members: toml::Table = toml::from_str(&read(&root.join("Cargo.toml"))).expect("TOML");
    for member in members["workspace"]["members"].as_array().expect("a list") {
        let top = member.as_str().expect("a path").split('/').next().expect("never empty");
        assert!(dockerfile.contains(&format!("COPY {top} {top}\n")), "{top} is part of the workspace");
    }
    for service in ["nginx", "gateway-1", "migrate"] {
        let compose = compose();
        let target =
            of(&compose["services"][service], "build")["target"].as_str().expect("a target").to_owned();
        assert!(targets.contains(&*target), "{target}");
    }
}
