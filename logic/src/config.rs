//! Configuration of the logic tier: the sections `[logic]` and `[rooms]` of the file.
//!
//! A value outside its range stops the start with the key, the value and the range; see
//! [`Config::validate`] and [`Rooms::validate`].

use std::collections::HashSet;

use corecast_backends::store::RoomKind;
use corecast_proto::ids::GLOBAL;
use corecast_proto::limits;
use serde::{Deserialize, Serialize};

/// `[logic]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `host:port` of the JSON face, default `127.0.0.1:8090`; port 0: any free one. The
    /// face trusts its caller, so a bind wider than loopback logs a warning.
    pub http_addr: String,
    /// `host:port` of `corecast.logic.v1.Logic`, default `127.0.0.1:50052`; port 0: any free
    /// one. Trusts its caller like the JSON face.
    pub grpc_addr: String,
    /// `host:port` that the registry tells others; absent (the default): the bound address.
    pub advertise_grpc: Option<String>,
    /// Who owns the outbox rows of this node, 1–64 bytes. It must stay the same over
    /// restarts, or the rows of the last run wait until another node claims them; absent:
    /// the caller of [`Logic::bind`](crate::Logic::bind) puts in the UUID kept in `data_dir`.
    pub id: Option<String>,
    /// Lanes that commit sends, 1–64, or 0 (the default): 1 on SQLite, 4 on a server. A room
    /// always takes the same lane. SQLite has one writer, where a second lane only halves the
    /// batches; on a server one lane works while another waits for the disk. Each takes a
    /// connection of the pool.
    pub lanes: u32,
    /// Requests that may wait for a password hash (about 20 ms of one core each), 1–65,536,
    /// default 256. One more is refused with 503: raising it makes the unlucky wait longer.
    pub password_waiters_max: u32,
    /// `[rooms]`. A section of its own in the file, so this one does not carry it.
    #[serde(skip)]
    pub rooms: Rooms,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http_addr: "127.0.0.1:8090".into(),
            grpc_addr: "127.0.0.1:50052".into(),
            advertise_grpc: None,
            id: None,
            lanes: 0,
            password_waiters_max: 256,
            rooms: Rooms::default(),
        }
    }
}

impl Config {
    /// Checks every value.
    ///
    /// # Errors
    /// Names the key, the value and the allowed range.
    pub fn validate(&self) -> Result<(), String> {
        address("logic.http_addr", &self.http_addr)?;
        address("logic.grpc_addr", &self.grpc_addr)?;
        if let Some(advertised) = &self.advertise_grpc {
            address("logic.advertise_grpc", advertised)?;
        }
        if let Some(id) = &self.id
            && !(1..=64).contains(&id.len())
        {
            return Err(format!("logic.id = {id:?}: must have 1 to 64 bytes"));
        }
        if self.lanes > 64 {
            return Err(format!("logic.lanes = {}: must be 0 to 64", self.lanes));
        }
        if !(1..=65_536).contains(&self.password_waiters_max) {
            return Err(format!(
                "logic.password_waiters_max = {}: must be 1 to 65536",
                self.password_waiters_max
            ));
        }
        self.rooms.validate()
    }
}

/// `[rooms]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rooms {
    /// Rooms that exist from the start and everybody is a member of; at least one. Default:
    /// `room-001` "General". Taking one out of the list does not delete it.
    pub defaults: Vec<DefaultRoom>,
    /// What `clientCreateRoom` makes, default `default`.
    pub create_kind: CreateKind,
    /// Default rooms at most, 1–4,096, default 256; rooms created above it become public.
    /// Each default room is in every hello and costs every gateway a line.
    pub default_max: u32,
}

/// A room of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultRoom {
    /// 1–128 bytes, unique, not `global`.
    pub id: String,
    /// 1–64 characters, unique.
    pub name: String,
}

/// The kind of created rooms, as it is written in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CreateKind {
    /// Everybody is a member.
    #[default]
    Default,
    /// Join by opening it.
    Public,
    /// Members only.
    Private,
}

impl From<CreateKind> for RoomKind {
    fn from(kind: CreateKind) -> Self {
        match kind {
            CreateKind::Default => Self::Default,
            CreateKind::Public => Self::Public,
            CreateKind::Private => Self::Private,
        }
    }
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            defaults: vec![DefaultRoom { id: "room-001".into(), name: "General".into() }],
            create_kind: CreateKind::Default,
            default_max: 256,
        }
    }
}

impl Rooms {
    /// Checks every value.
    ///
    /// # Errors
    /// Names the key, the value and the allowed range.
    pub fn validate(&self) -> Result<(), String> {
        if self.defaults.is_empty() {
            return Err("rooms.defaults = []: must hold at least one room".into());
        }
        let (mut ids, mut names) = (HashSet::new(), HashSet::new());
        for room in &self.defaults {
            let id_fits = (1..=limits::ROOM_ID_BYTES).contains(&room.id.len());
            if !id_fits || room.id == GLOBAL || !ids.insert(&room.id) {
                return Err(format!(
                    "rooms.defaults id = {:?}: must have 1 to {} bytes, be unique and not {GLOBAL:?}",
                    room.id,
                    limits::ROOM_ID_BYTES
                ));
            }
            let name_fits = (1..=limits::ROOM_NAME_CHARS).contains(&room.name.chars().count());
            if !name_fits || !names.insert(&room.name) {
                return Err(format!(
                    "rooms.defaults name = {:?}: must have 1 to {} characters and be unique",
                    room.name,
                    limits::ROOM_NAME_CHARS
                ));
            }
        }
        if !(1..=4096).contains(&self.default_max) {
            return Err(format!("rooms.default_max = {}: must be 1 to 4096", self.default_max));
        }
        if self.defaults.len() > self.default_max as usize {
            return Err(format!(
                "rooms.defaults holds {} rooms: at most rooms.default_max = {}",
                self.defaults.len(),
                self.default_max
            ));
        }
        Ok(())
    }
}

fn address(key: &str, value: &str) -> Result<(), String> {
    let port_is_valid =
        value.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if port_is_valid { Ok(()) } else { Err(format!("{key} = {value:?}: must be host:port, port 0 to 65535")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.validate().expect_err("must be refused")
    }

    #[test]
    fn the_default_is_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn a_bad_value_is_named_with_its_key() {
        assert!(refused(|c| c.http_addr = "8090".into()).contains("logic.http_addr"));
        assert!(refused(|c| c.grpc_addr = "localhost:65536".into()).contains("logic.grpc_addr"));
        assert!(refused(|c| c.advertise_grpc = Some(":1".into())).contains("logic.advertise_grpc"));
        assert!(refused(|c| c.id = Some(String::new())).contains("logic.id"));
        assert!(refused(|c| c.lanes = 65).contains("logic.lanes"));
        assert!(refused(|c| c.password_waiters_max = 0).contains("logic.password_waiters_max"));
        assert!(refused(|c| c.rooms.defaults.clear()).contains("rooms.defaults"));
        assert!(refused(|c| c.rooms.defaults[0].id = GLOBAL.into()).contains("global"));
        assert!(refused(|c| c.rooms.defaults[0].name = "x".repeat(65)).contains("64 characters"));
        assert!(refused(|c| c.rooms.default_max = 0).contains("rooms.default_max"));
    }

    #[test]
    fn two_default_rooms_do_not_share_an_id_or_a_name() {
        let room = |id: &str, name: &str| DefaultRoom { id: id.into(), name: name.into() };
        assert!(refused(|c| c.rooms.defaults.push(room("room-001", "Other"))).contains("unique"));
        assert!(refused(|c| c.rooms.defaults.push(room("room-002", "General"))).contains("unique"));
    }
}
