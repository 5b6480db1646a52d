//! Every setting of the gateway, with unit, default and range.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use corecast_proto::limits;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Settings of the section `[gateway]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// HTTP and WebSocket. Default `0.0.0.0:8080`.
    pub http_addr: SocketAddr,
    /// gRPC: `ChatRoom.Comet.Comet`, the push stream, health, reflection. Default `127.0.0.1:50051`.
    pub grpc_addr: SocketAddr,
    /// Prometheus text at `/metrics`. Default `127.0.0.1:9091`.
    pub metrics_addr: SocketAddr,
    /// Cores that get a shard: a list of cpu numbers, or `"auto"` (all the process may use).
    pub cores: Cores,
    /// Host and driver of a shard: `"auto"`, `"uring"` (an error where it is refused), `"epoll"`.
    pub driver: DriverChoice,
    /// Where `driver` allows io_uring: a batch of sends is one system call. Without it each
    /// send is one. Default true.
    pub uring_sends: bool,
    /// Name in the registry. Default: a UUID kept in `data_dir`.
    pub id: Option<String>,
    /// `host:port` other nodes reach `grpc_addr` by; the host may be a name. Default: the bound
    /// address, which must not be a wildcard where a registry tells it to other machines.
    pub advertise_grpc: Option<String>,
    /// Origins besides the `Host` that may log in and upgrade, as `https://example.org`.
    pub origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` names the client: addresses and networks, as
    /// `10.0.0.0/8`. Matters only to `limits.address_connections`.
    pub trusted_proxies: Vec<Network>,
    /// Limits and time-outs.
    pub limits: Limits,
    /// Not a key of this section: `debug.send_per_room`.
    #[serde(skip)]
    pub send_per_room: bool,
}

/// Limits and time-outs of the section `[gateway.limits]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Payload bytes of a message from a client. 1,024–16 MiB, default 64 KiB. Over it: 1009.
    pub client_frame_bytes: usize,
    /// Milliseconds from accept to the end of the request head. 100–600,000, default 10,000.
    pub handshake_ms: u64,
    /// Milliseconds of a `corecast.v1` client between 101 and its `resume`. 10–60,000, default 2,000.
    pub resume_ms: u64,
    /// Milliseconds between pings. 100–600,000, default 25,000.
    pub ping_ms: u64,
    /// Milliseconds of silence after which a peer without unsent output is dead. Above
    /// `ping_ms`, at most 3,600,000, default 60,000.
    pub dead_ms: u64,
    /// Milliseconds a peer with unsent output may take no byte. 1,000–3,600,000, default
    /// 120,000. Over it: 1013.
    pub stalled_ms: u64,
    /// Bytes queued for a connection above which a room's frames are no longer queued for
    /// it. 4 KiB–1 GiB, default 64 KiB.
    pub push_soft_bytes: usize,
    /// Bytes queued for a connection above which it is closed (1013). At least the soft
    /// limit and a hello, default 256 KiB beside one reply.
    pub push_hard_bytes: usize,
    /// Kernel send buffer of a connection in bytes, 0: the kernel's own choice, which grows to
    /// megabytes for a peer that does not read. Default 64 KiB: such a peer then costs the
    /// kernel at most twice that and a packet, and the user memory of
    /// [`stalled_bytes_max`](crate::core::outbox::stalled_bytes_max).
    pub socket_send_bytes: usize,
    /// Kernel receive buffer of a connection in bytes, 0: the kernel's own choice, which grows
    /// to megabytes for a peer that sends much, and stays so while it is not read. Default
    /// 64 KiB: a client sends at most that in a round trip.
    pub socket_receive_bytes: usize,
    /// Unsettled requests of a connection above which it is not read. 1–1,024, default 16.
    pub requests_in_flight: u32,
    /// Connections of the process, 0: max(nofile / 2, nofile − 1,000).
    pub connections: usize,
    /// Connections of one client address, over which a further one is closed with 4429; 0: any
    /// number. An IPv6 address stands for its /64. Default 0, at most 10,000,000.
    pub address_connections: u32,
    /// Connections of one user, as `address_connections`. Default 0.
    pub user_connections: u32,
    /// Milliseconds a drain may take. 0–600,000, default 5,000.
    pub drain_ms: u64,
    /// Refused frames of a connection in 10 s above which it is closed with 4429. Default 100.
    pub refused_frames: u32,
    /// Commands in a shard's mailbox. 64–1,048,576, default 8,192.
    pub mailbox: usize,
    /// Frames kept per line for joins and catch-up. 16–65,536, default 512.
    pub ring_frames: usize,
    /// Bytes kept per line. 64 KiB–1 GiB, default 1 MiB.
    pub ring_bytes: usize,
    /// Milliseconds between tail checks. 50–60,000, default 2,000.
    pub tail_check_ms: u64,
    /// Rooms with members of which job is told, so that it leaves out the others; with more,
    /// and with 0, it sends everything. 0–1,000,000, default 262,144.
    pub interest_rooms: usize,
    /// Milliseconds a hole may wait for its frame before it is read. 10–60,000, default 500.
    pub hole_ms: u64,
    /// Milliseconds a call to logic may take. 100–60,000, default 5,000.
    pub logic_deadline_ms: u64,
    /// Milliseconds between checks of open sessions against the store. 1,000–3,600,000, default 60,000.
    pub session_check_ms: u64,
}

/// An address or a network of addresses.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

/// Which cores get a shard.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Cores {
    /// These cpu numbers.
    List(Vec<usize>),
    /// `"auto"`.
    Auto(Auto),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// All cores the process may use.
    Auto,
}

/// Host and driver of a shard.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum DriverChoice {
    /// io_uring where the kernel allows it, epoll on a plain thread elsewhere, with one warning.
    Auto,
    /// io_uring, or the start fails.
    Uring,
    /// epoll on a plain pinned thread.
    Epoll,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http_addr: SocketAddr::from(([0, 0, 0, 0], 8080)),
            grpc_addr: SocketAddr::from(([127, 0, 0, 1], 50051)),
            metrics_addr: SocketAddr::from(([127, 0, 0, 1], 9091)),
            cores: Cores::Auto(Auto::Auto),
            driver: DriverChoice::Auto,
            uring_sends: true,
            id: None,
            advertise_grpc: None,
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            limits: Limits::default(),
            send_per_room: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            client_frame_bytes: limits::CLIENT_FRAME_BYTES,
            handshake_ms: 10_000,
            resume_ms: 2_000,
            ping_ms: 25_000,
            dead_ms: 60_000,
            stalled_ms: 120_000,
            push_soft_bytes: 64 << 10,
            push_hard_bytes: 256 << 10,
            socket_send_bytes: 64 << 10,
            socket_receive_bytes: 64 << 10,
            requests_in_flight: 16,
            connections: 0,
            address_connections: 0,
            user_connections: 0,
            drain_ms: 5_000,
            refused_frames: 100,
            mailbox: 8_192,
            ring_frames: 512,
            ring_bytes: 1 << 20,
            tail_check_ms: 2_000,
            interest_rooms: 262_144,
            hole_ms: 500,
            logic_deadline_ms: 5_000,
            session_check_ms: 60_000,
        }
    }
}

impl Config {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// A sentence with the key, the value and the allowed range.
    pub fn validate(&self) -> Result<(), String> {
        let l = &self.limits;
        in_range("client_frame_bytes", l.client_frame_bytes as u64, 1 << 10, 16 << 20)?;
        in_range("handshake_ms", l.handshake_ms, 100, 600_000)?;
        in_range("resume_ms", l.resume_ms, 10, 60_000)?;
        in_range("ping_ms", l.ping_ms, 100, 600_000)?;
        in_range("dead_ms", l.dead_ms, l.ping_ms + 1, 3_600_000)?;
        in_range("stalled_ms", l.stalled_ms, 1_000, 3_600_000)?;
        in_range("push_soft_bytes", l.push_soft_bytes as u64, 4 << 10, 1 << 30)?;
        in_range("push_hard_bytes", l.push_hard_bytes as u64, l.push_soft_bytes as u64, 1 << 30)?;
        in_range("requests_in_flight", u64::from(l.requests_in_flight), 1, 1_024)?;
        in_range("address_connections", u64::from(l.address_connections), 0, 10_000_000)?;
        in_range("user_connections", u64::from(l.user_connections), 0, 10_000_000)?;
        in_range("drain_ms", l.drain_ms, 0, 600_000)?;
        in_range("refused_frames", u64::from(l.refused_frames), 1, 1_000_000)?;
        in_range("mailbox", l.mailbox as u64, 64, 1 << 20)?;
        in_range("ring_frames", l.ring_frames as u64, 16, 65_536)?;
        in_range("ring_bytes", l.ring_bytes as u64, 64 << 10, 1 << 30)?;
        in_range("tail_check_ms", l.tail_check_ms, 50, 60_000)?;
        in_range("interest_rooms", l.interest_rooms as u64, 0, 1_000_000)?;
        in_range("hole_ms", l.hole_ms, 10, 60_000)?;
        in_range("logic_deadline_ms", l.logic_deadline_ms, 100, 60_000)?;
        in_range("session_check_ms", l.session_check_ms, 1_000, 3_600_000)?;
        if let Some(advertised) = &self.advertise_grpc {
            let port = advertised.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            if !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                return Err(format!(
                    "gateway.advertise_grpc = {advertised:?}: must be host:port, port 1 to 65535"
                ));
            }
        }
        if let Cores::List(list) = &self.cores
            && list.is_empty()
        {
            return Err("gateway.cores = [] is not allowed: name at least one core, or \"auto\"".to_owned());
        }
        Ok(())
    }
}

impl Network {
    /// Is this address one of it?
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| format!("{text:?} is neither an address nor a network, as 10.0.0.0/8"))
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.0.to_string()
    }
}

impl Limits {
    /// Time a call to logic may take.
    pub fn logic_deadline(&self) -> Duration {
        Duration::from_millis(self.logic_deadline_ms)
    }
}

fn in_range(key: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(format!("gateway.limits.{key} = {value} is not allowed: it must be {min} to {max}"))
}
