//! More rooms than the default one, made through logic's JSON face.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Server;
use crate::http;

impl Server {
    /// Makes `count` public rooms and answers their ids.
    ///
    /// # Errors
    /// It is not corecast, or refuses one.
    pub fn create_rooms(&self, count: usize) -> Result<Vec<String>> {
        let logic = self.logic.context("only corecast has rooms")?;
        let sid = self.knock.sids.first().context("nobody is signed in")?;
        let user = http::post(logic, "/logic/verify", &json!({ "cookie": sid }))?;
        let user: Value = serde_json::from_str(&user.body).context("verify answers JSON")?;
        let share = count.div_ceil(AT_A_TIME);
        std::thread::scope(|scope| {
            let creators: Vec<_> = (0..count)
                .step_by(share.max(1))
                .map(|first| {
                    let user = &user;
                    scope.spawn(move || {
                        (first..count.min(first + share))
                            .map(|n| create(logic, user, n))
                            .collect::<Result<Vec<_>>>()
                    })
                })
                .collect();
            let mut rooms = Vec::with_capacity(count);
            for creator in creators {
                rooms.extend(creator.join().ok().context("a creator ended")??);
            }
            Ok(rooms)
        })
    }
}

fn create(logic: SocketAddr, user: &Value, number: usize) -> Result<String> {
    let body = json!({
        "type": "clientCreateRoom",
        "payload": {
            "roomName": format!("bench {number}"),
            "creatorId": user["user_id"],
            "creatorUsername": user["username"],
        },
    });
    let answer = http::post(logic, "/logic/room/create", &body)?;
    let frame: Value = serde_json::from_str(&answer.body).context("the answer is JSON")?;
    match frame["payload"]["roomId"].as_str() {
        Some(id) if !id.is_empty() => Ok(id.to_owned()),
        _ => bail!("room {number} was not made: {} {}", answer.status, answer.body),
    }
}

/// Requests under way: they share the commits of the store.
const AT_A_TIME: usize = 16;
